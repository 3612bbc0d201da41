"""NaN and infinity stop the update with an error that says what and when, and leave the policy as it was."""

import math
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_smac import NaturalActorCritic, NonFiniteError
from tests.algorithms import ACTION_SPACES, VECTOR, every_algorithm, is_finite, is_same, make, snapshot
from tests.own_policies import BatchNorm

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")

NAN, INF = math.nan, math.inf

OBSERVATION_SPACES: dict[str, spaces.Space] = {
    "box": VECTOR,
    "dict": spaces.Dict({"good": spaces.Box(-1, 1, (2,)), "other": VECTOR}),
}


class FaultyEnv(gym.Env):
    """
    Returns one bad number, once; episodes of ten steps that a time limit cuts.

    :param fault: ``"reward"``, ``"observation"`` or ``"terminal observation"``
    :param at: the step that returns it, counted from 1
    :param value: the bad number
    """

    def __init__(
        self, fault: str, at: int, value: float, observation_space: str = "box", action_space: str = "Discrete"
    ) -> None:
        self.observation_space, self.action_space = (OBSERVATION_SPACES[observation_space], ACTION_SPACES[action_space])
        self.fault, self.at, self.value = fault, at, value
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self.observation_space.seed(seed)
        return self._observation("observation"), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        ended = self.steps % 10 == 0
        reward = self.value if self.fault == "reward" and self.steps == self.at else 0.5
        return (self._observation("terminal observation" if ended else "observation"), reward, False, ended, {})

    def _observation(self, kind: str) -> Any:
        observation = self.observation_space.sample()
        if self.fault == kind and self.steps == self.at:
            (observation["other"] if isinstance(observation, dict) else observation)[1] = self.value
        return observation


def check_stops(model: NaturalActorCritic, message: str) -> str:
    """Train, good rollouts first, until the error comes: then everything is bit for bit as after the last good update."""
    states = [snapshot(model)]
    train = model.train

    def train_and_keep() -> None:
        train()
        states.append(snapshot(model))

    model.train = train_and_keep  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=message) as error:
        model.learn(160 * model.n_envs)
    assert len(states) == 2 == model._n_updates + 1  # one good update, and no other
    assert is_finite(model)
    assert is_same(states[-1], snapshot(model))
    assert isinstance(error.value, ValueError)  # the RL Zoo prunes a trial on this one
    return str(error.value)


def timestep(message: str) -> int:
    (found,) = re.findall(r"timestep (\d+)", message)
    return int(found)


@pytest.mark.parametrize(("space", "value"), zip(ACTION_SPACES, (NAN, INF, -INF, NAN), strict=True))
def test_rewards(space: str, value: float) -> None:
    assert timestep(check_stops(make("smac", FaultyEnv("reward", 45, value, action_space=space)), "rewards")) == 45


@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize("value", [NAN, INF])
def test_observations(space: str, value: float) -> None:
    """
    Also where the policy itself would choke on them, in the middle of a rollout, with a message about a distribution. The
    timestep is that of the step that returned it, whether the policy that acts on it finds it or the check of the rollout.
    """
    assert timestep(check_stops(make("smac", FaultyEnv("observation", 45, value, action_space=space)), "observations")) == 45


def test_observations_that_only_float64_holds() -> None:
    """Networks are given float32, in which 1e39 is infinite."""
    env = FaultyEnv("observation", 45, 1e39)
    env.observation_space = spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float64)
    assert timestep(check_stops(make("smac", env), "observations")) == 45


def test_the_last_observation_of_a_rollout() -> None:
    """It is in no buffer yet: the critic bootstraps from it."""
    assert timestep(check_stops(make("smac", FaultyEnv("observation", 64, NAN)), "observations")) == 64


def test_terminal_observations() -> None:
    """They reach the update through the value that a time limit adds to the last reward."""
    assert timestep(check_stops(make("smac", FaultyEnv("terminal observation", 50, NAN)), "rewards|terminal")) == 50


@pytest.mark.parametrize("value", [NAN, INF])
def test_entries_of_a_dict_are_named(value: float) -> None:
    model = make("smac", FaultyEnv("observation", 45, value, observation_space="dict"), "MultiInputPolicy")
    message = check_stops(model, "observations")
    assert "other" in message and "good" not in message


@pytest.mark.parametrize("fault", ["reward", "observation"])
def test_the_environment_is_named(fault: str) -> None:
    """Of three, the second; a timestep counts the steps of all of them."""
    environments = [FaultyEnv("nothing", 0, 0), FaultyEnv(fault, 45, INF), FaultyEnv("nothing", 0, 0)]
    message = check_stops(make("smac", DummyVecEnv([lambda env=env: env for env in environments])), f"{fault}s")
    assert "environment 1" in message
    assert timestep(message) in (44 * 3, 45 * 3, 46 * 3) if fault == "observation" else timestep(message) == 45 * 3


def poison(model: NaturalActorCritic, which: str) -> None:
    """Make the gradient NaN from the second update on."""
    parameter = {"actor": model.actor_parameters, "critic": model.critic_parameters}[which][0]
    parameter.register_hook(lambda gradient: gradient * NAN if model._n_updates else gradient)


@every_algorithm
@pytest.mark.parametrize(
    "arguments", [{}, {"target_kl": 0.01, "batch_size": 8, "max_grad_norm": 0.5}], ids=["default", "minibatches"]
)
@pytest.mark.parametrize("which", ["actor", "critic"])
def test_gradients(algo: str, arguments: dict[str, Any], which: str) -> None:
    """Whose, and where; the actor's step that went before the critic's is taken back."""
    model = make(algo, **arguments)
    poison(model, which)
    message = check_stops(model, "log-probability|actor" if which == "actor" else "critic")
    assert 33 <= timestep(message) <= 64


class BadGradient(nn.Module):
    """Finite, with a gradient that is not where the input is negative: the usual mistake with ``torch.where``."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.where(x > 0, x.sqrt(), 0.0)


def test_a_network_without_a_gradient() -> None:
    """A real one rather than a hook. Training never starts, and the error comes in the first update."""
    model = make("smac", policy_kwargs={"net_arch": [8], "activation_fn": BadGradient})
    before = snapshot(model)
    with pytest.raises(NonFiniteError, match=r"gradient of the log-probability .*timestep 1"):
        model.learn(32)
    assert is_same(before, snapshot(model))


@every_algorithm
@pytest.mark.parametrize("batch_size", [None, 8])
def test_steps_that_are_far_too_large(algo: str, batch_size: int | None) -> None:
    """The policy breaks down within its own update: the error says why, and the policy from before is back."""
    learning_rate = lambda progress: 1e-3 if progress > 0.5 else 1e38  # noqa: E731
    model = make(algo, target_kl=None, learning_rate=learning_rate, batch_size=batch_size, line_search=False)
    states = []
    train = model.train
    model.train = lambda: (train(), states.append(snapshot(model)))  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="step was too large"):
        model.learn(96)
    assert states and is_same(states[-1], snapshot(model))


def test_batch_norm_is_restored() -> None:
    """Buffers as well as parameters: the critic fails after the actor's pass has moved the running statistics."""
    model = make("smac", policy_kwargs={"net_arch": [8], "features_extractor_class": BatchNorm}, target_kl=0.01)
    assert any("running_mean" in name for name, _ in model.policy.named_buffers())
    poison(model, "critic")
    check_stops(model, "critic")


def test_learning_rates_of_the_optimizers_are_restored() -> None:
    """Under a schedule, an update that did not happen has not lowered them either."""
    check_stops(make("acadam", FaultyEnv("reward", 45, NAN), critic_learning_rate="lin_0.01"), "rewards")


@every_algorithm
def test_training_goes_on_after_the_error(algo: str) -> None:
    """As if the bad rollout had not been: neither its metrics nor what a sized step remembers of it are left over."""

    def after(fails: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        model = make(algo, target_kl=0.01).learn(32)
        if fails:
            hook = model.critic_parameters[0].register_hook(lambda gradient: gradient * NAN)
            generators = np.random.get_state(), th.get_rng_state()
            refill(model)
            with pytest.raises(NonFiniteError):
                model.train()
            hook.remove()
            np.random.set_state(generators[0])
            th.set_rng_state(generators[1])
        refill(model)
        model.train()
        return snapshot(model), {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}

    assert is_same(after(False), after(True))


def refill(model: NaturalActorCritic) -> None:
    """The same rollout again, made up."""
    generator = np.random.default_rng(0)
    buffer = model.rollout_buffer
    buffer.reset()
    model.policy.set_training_mode(False)
    for step in range(buffer.buffer_size):
        observations = generator.uniform(-1, 1, (1, 3)).astype(np.float32)
        actions = generator.uniform(-1, 1, (1, 1)).astype(np.float32)
        with th.no_grad():
            values, log_probs, _ = model.policy.evaluate_actions(th.as_tensor(observations), th.as_tensor(actions))
        buffer.add(observations, actions, generator.uniform(size=1), np.array([step == 0]), values, log_probs)
    buffer.compute_returns_and_advantage(th.zeros(1), np.array([False]))


@every_algorithm
def test_interrupting_an_update_restores_it_too(algo: str) -> None:
    """Ctrl-C in the middle of the critic's regression: a model that is saved then is a whole one."""
    model = make(algo, target_kl=0.01).learn(32)
    before = snapshot(model)

    def interrupt(gradient: th.Tensor) -> th.Tensor:
        raise KeyboardInterrupt

    model.critic_parameters[0].register_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.learn(32, reset_num_timesteps=False)
    assert is_same(before, snapshot(model))
