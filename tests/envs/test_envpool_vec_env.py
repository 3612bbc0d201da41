"""EnvPool under Stable-Baselines3, step by step against Gymnasium's environments."""

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_smac import SMAC
from sb3_smac.envs import EnvPoolVecEnv
from tests.algorithms import is_finite, is_same, make, snapshot

pytest.importorskip("envpool")

# one of each kind: discrete actions, and continuous ones that EnvPool takes in another precision
both_kinds = pytest.mark.parametrize("task", ["CartPole-v1", "Hopper-v4"])


def set_cart(env: Any, observation: np.ndarray) -> None:
    env.state = tuple(observation)


def set_pendulum(env: Any, observation: np.ndarray) -> None:
    cosine, sine, velocity = observation
    env.state = np.array([np.arctan2(sine, cosine), velocity])


def set_walker(env: Any, observation: np.ndarray) -> None:
    """Positions without those of the root in the plane, which no observation depends on, then velocities, then the rest."""
    n_positions, n_velocities = env.model.nq, env.model.nv
    hidden = 2 if env.spec.id.startswith(("Swimmer", "Humanoid")) else 1
    positions = np.concatenate((np.zeros(hidden), observation[: n_positions - hidden]))
    env.set_state(positions, observation[n_positions - hidden :][:n_velocities])


def set_pusher(env: Any, observation: np.ndarray) -> None:
    """Seven joints, then the slides in y and x of the object and of the goal, seen in their places."""
    velocities = np.concatenate((observation[7:14], np.zeros(4)))
    env.set_state(np.concatenate((observation[:7], np.zeros(4))), velocities)
    moved = observation - env._get_obs()
    env.set_state(np.concatenate((observation[:7], moved[[18, 17, 21, 20]])), velocities)


# How far observations and rewards may be from Gymnasium's in episodes of 40 steps, as |difference| / (1 + |value|). Classic
# control: EnvPool's states can only be read in float32. MuJoCo: the two come with different releases of it, and contacts
# amplify rounding; most so the Humanoid's, whose forces are observed.
TASKS: dict[str, tuple[Callable[[Any, np.ndarray], None], float]] = {
    "CartPole-v1": (set_cart, 1e-6),
    "Pendulum-v1": (set_pendulum, 1e-4),
    "HalfCheetah-v4": (set_walker, 1e-6),
    "Hopper-v4": (set_walker, 1e-6),
    "Swimmer-v4": (set_walker, 1e-6),
    "Walker2d-v4": (set_walker, 1e-6),
    "Humanoid-v4": (set_walker, 2e-2),
    "Pusher-v5": (set_pusher, 5e-6),
}


def random_actions(env: EnvPoolVecEnv, n_steps: int) -> np.ndarray:
    env.action_space.seed(0)
    return np.array([[env.action_space.sample() for _ in range(env.num_envs)] for _ in range(n_steps)])


def play(env: EnvPoolVecEnv, n_steps: int = 60) -> np.ndarray:
    """Observations from a reset on, under always the same actions; later steps leave in place what a step has returned."""
    returned = [env.reset()]
    copies = returned[0].copy()[None]
    for actions in random_actions(env, n_steps):
        returned.append(env.step(actions)[0])
        copies = np.concatenate((copies, returned[-1][None]))
    assert is_same(np.array(returned), copies)
    return copies


@pytest.mark.parametrize("task", TASKS)
def test_step_by_step(task: str) -> None:
    """Episodes of two environments, ended by falls or the time limit, each beside one of Gymnasium's from the same state."""
    set_state, tolerance = TASKS[task]
    ours = EnvPoolVecEnv(task, n_envs=2, seed=3, max_episode_steps=40)
    theirs = [gym.make(task, max_episode_steps=40) for _ in range(2)]
    assert (ours.observation_space, ours.action_space) == (theirs[0].observation_space, theirs[0].action_space)
    first = ours.reset()
    assert first.dtype == ours.observation_space.dtype
    for env, observation in zip(theirs, first, strict=True):
        env.reset(seed=0)
        set_state(env.unwrapped, observation)
    returns, n_episodes = np.zeros(2), 0

    def assert_close(actual: Any, expected: Any) -> None:
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)

    for actions in random_actions(ours, 120):
        observations, rewards, dones, infos = ours.step(actions)
        for i, env in enumerate(theirs):
            expected, reward, terminated, truncated, info = env.step(actions[i])
            assert_close(infos[i]["terminal_observation"] if dones[i] else observations[i], expected)
            assert_close(rewards[i], float(reward))
            assert dones[i] == (terminated or truncated)
            assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
            assert ("terminal_observation" in infos[i]) == ("episode" in infos[i]) == dones[i]
            for name in {"x_velocity", "reward_ctrl", "reward_near"} & info.keys() & infos[i].keys():
                assert_close(infos[i][name], info[name])
            returns[i] += float(reward)
            if dones[i]:
                assert infos[i]["episode"]["r"] == pytest.approx(returns[i], rel=tolerance, abs=40 * tolerance)
                n_episodes += 1
                returns[i] = 0
                env.reset()
                set_state(env.unwrapped, observations[i])
    assert n_episodes >= 6


def test_pusher_v4() -> None:
    """The paper's, which Gymnasium no longer makes; its spaces are those of v5."""
    ours, theirs = EnvPoolVecEnv("Pusher-v4", n_envs=2, seed=0), gym.make("Pusher-v5")
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    assert np.isfinite(play(ours, 120)).all()


def test_time_limits() -> None:
    """The task's own; and falling at the last step is no truncation, which EnvPool itself does not tell apart."""
    env = EnvPoolVecEnv("Pendulum-v1")
    env.reset()
    ends = [env.step(np.zeros((1, 1), np.float32))[2][0] for _ in range(400)]
    assert np.flatnonzero(ends).tolist() == [199, 399]

    def end(max_episode_steps: int | None) -> tuple[int, bool]:
        env = EnvPoolVecEnv("CartPole-v1", seed=0, max_episode_steps=max_episode_steps)
        env.reset()
        while True:
            _, _, dones, infos = env.step(np.array([0]))
            if dones[0]:
                return infos[0]["episode"]["l"], infos[0]["TimeLimit.truncated"]

    length, _ = end(None)
    assert end(length) == (length, False) and end(length - 1) == (length - 1, True)


@both_kinds
def test_seeds(task: str) -> None:
    """
    As in ``make_vec_env``: environment i of seed s is the one of seed s + i, whatever is beside it. Seeds go up to 2**32, as
    Stable-Baselines3 draws them (EnvPool's are signed), and on from there at 0; without one starts differ.
    """
    env = EnvPoolVecEnv(task, n_envs=3, seed=7)
    played = play(env)
    assert is_same(played, play(EnvPoolVecEnv(task, n_envs=3, seed=7)))
    assert not np.array_equal(play(env)[0], played[0])  # a reset without a seed goes on
    assert env.seed(7) == [7, 8, 9]
    assert is_same(play(env), played)
    starts = [EnvPoolVecEnv(task, n_envs=2, seed=seed).reset() for seed in (9, 0, 2**31 - 1, 2**32 - 1, None, None)]
    assert is_same(starts[0][:1], played[0, 2:])
    assert len(np.unique(np.concatenate((played[0], *starts)), axis=0)) == 3 + 12 - 2


def test_episodes_are_logged_as_by_sb3_s_monitor(tmp_path: Path) -> None:
    """In the infos, and in a file of its format."""
    env = EnvPoolVecEnv("CartPole-v1", n_envs=3, seed=0, monitor_dir=str(tmp_path / "log"))
    assert env.env_is_wrapped(Monitor, indices=[0, 2]) == [True, True]
    episodes = []
    env.reset()
    env.step(np.zeros(3, int))
    env.reset()  # nothing remains of the episodes before
    for actions in random_actions(env, 100):
        episodes += [info["episode"] for info in env.step(actions)[3] if "episode" in info]
    env.close()
    header, *rows = (tmp_path / "log" / "monitor.csv").read_text().splitlines()
    assert json.loads(header.removeprefix("#"))["env_id"] == "CartPole-v1"
    assert len(episodes) > 5 and all(episode["r"] == episode["l"] for episode in episodes)  # a reward of 1 for each step
    assert [dict(zip("rlt", map(float, row.values()), strict=True)) for row in csv.DictReader(rows)] == episodes


@both_kinds
def test_training(task: str, tmp_path: Path) -> None:
    """Deterministic under ``VecNormalize``; the model is then loaded with Gymnasium's environment, and back."""

    def train() -> Any:
        return make("smac", VecNormalize(EnvPoolVecEnv(task, n_envs=4, max_episode_steps=50)), seed=1).learn(256)

    model = train()
    assert is_finite(model) and len(model.ep_info_buffer) >= 4
    assert is_same(snapshot(model), snapshot(train()))
    model.save(tmp_path / "model")
    loaded = SMAC.load(tmp_path / "model", env=gym.make(task))
    loaded.set_env(EnvPoolVecEnv(task))
    assert loaded.learn(64).num_timesteps == 64


@pytest.mark.filterwarnings("error::UserWarning")
def test_evaluation() -> None:
    """Of raw returns, and by ``EvalCallback`` in Gymnasium's environment with the statistics of the training."""
    env = VecNormalize(EnvPoolVecEnv("CartPole-v1", n_envs=4, seed=0))
    evaluation = VecNormalize(make_vec_env("CartPole-v1", seed=0), training=False, norm_reward=False)
    model = make("smac", env).learn(128, callback=EvalCallback(evaluation, eval_freq=32, n_eval_episodes=2, verbose=0))
    np.testing.assert_array_equal(evaluation.obs_rms.mean, env.obs_rms.mean)
    returns, lengths = evaluate_policy(model, env, n_eval_episodes=8, return_episode_rewards=True)
    assert returns == lengths and len(lengths) == 8


def test_what_is_no_gymnasium_environment() -> None:
    """Clear errors where C++ objects have nothing to offer."""
    env = EnvPoolVecEnv("Hopper-v4", n_envs=2)
    assert (env.render_mode, env.get_attr("render_mode"), env.has_attr("model")) == (None, [None, None], False)
    assert env.env_is_wrapped(gym.wrappers.TimeLimit) == [False, False]
    env.set_options()
    calls: list[tuple[Callable[[], object], type[Exception], str]] = [
        (lambda: env.get_attr("model"), AttributeError, "C++ objects: attribute 'model' cannot be read"),
        (lambda: env.set_attr("mass", 1), AttributeError, "C++ objects: attribute 'mass' cannot be set"),
        (lambda: env.env_method("set_state", 0), AttributeError, "C++ objects: method 'set_state' cannot be called"),
        (env.render, NotImplementedError, "no images: show the agent in gymnasium.make('Hopper-v4')"),
        (lambda: env.set_options({"low": 0}), ValueError, "options must be empty, EnvPool's reset takes none; got {'low': 0}"),
    ]
    for call, error, message in calls:
        with pytest.raises(error, match=re.escape(message)):
            call()


def test_steps_out_of_order() -> None:
    """Errors, not EnvPool's: it aborts the process, or waits for ever. A reset drops the step that nobody waited for."""
    env, actions = EnvPoolVecEnv("Hopper-v4", n_envs=2, seed=0), np.zeros((2, 3))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(actions)
    first = env.reset()
    with pytest.raises(ValueError, match=re.escape("actions must have the shape (2, 3), got (1, 3)")):
        env.step(np.zeros((1, 3)))
    with pytest.raises(gym.error.NoAsyncCallError):
        env.step_wait()
    env.step_async(actions)
    with pytest.raises(gym.error.AlreadyPendingCallError):
        env.step_async(actions)
    observations = env.reset()
    assert np.abs(observations - [1.25, *np.zeros(10)]).max() <= 5e-3  # where Hopper starts
    assert not np.array_equal(env.step(actions)[0], observations)
    env.close()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(actions)
    env.seed(0)
    assert is_same(env.reset(), first)


def test_closing_ends_the_threads() -> None:
    def n_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    if not Path("/proc/self/task").exists():
        pytest.skip("counts threads as Linux shows them")
    before = n_threads()
    env = EnvPoolVecEnv("CartPole-v1", n_envs=3, num_threads=3)
    env.reset()
    assert n_threads() >= before + 3
    env.close()
    assert n_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_id": "Hoper-v4"}, "'Hoper-v4' is no task of EnvPool; did you mean 'Hopper-v4'?"),
        ({"task_id": 4}, "4 is no task of EnvPool"),
        ({"n_envs": 0}, "n_envs must be an integer >= 1, got 0"),
        ({"num_threads": -3}, "num_threads must be between 0 (as many as there are) and n_envs, got -3"),
        ({"num_threads": 10**5}, "num_threads must be between 0 (as many as there are) and n_envs, got 100000"),
        ({"seed": -1}, "seed must be None or an integer >= 0, got -1"),
        ({"max_episode_steps": 0}, "max_episode_steps must be None or an integer >= 1, got 0"),
        ({"frame_skp": 2}, "'frame_skp' is no option of EnvPool's Hopper-v4; did you mean 'frame_skip'?"),
        ({"batch_size": 2}, "'batch_size' is no option of EnvPool's Hopper-v4"),
        ({"render_mode": "human"}, "'render_mode' is no option of EnvPool's Hopper-v4"),
        ({"task_id": "IntersectionMultiAgent-v0"}, "task_id must be a task of one player, got 'IntersectionMultiAgent-v0'"),
        ({"task_id": "WalkerWalk-v1"}, "task_id must be a task with Box or Discrete spaces, got 'WalkerWalk-v1' with Dict("),
    ],
)
def test_bad_input(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        EnvPoolVecEnv(**{"task_id": "Hopper-v4", **arguments})


def test_options_reach_the_simulator() -> None:
    """Twice the reward for moving, minus its cost, in an otherwise equal step."""
    rewards = []
    for ctrl_cost_weight in (0.0, 0.5):
        env = EnvPoolVecEnv("Hopper-v4", seed=0, ctrl_cost_weight=ctrl_cost_weight)
        env.reset()
        rewards.append(env.step(np.ones((1, 3), np.float32))[1][0])
    assert rewards[0] - rewards[1] == pytest.approx(1.5)


def test_without_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"sb3_smac\[envpool\]: pip install '.\[envpool\]'"):
        EnvPoolVecEnv("Hopper-v4")
