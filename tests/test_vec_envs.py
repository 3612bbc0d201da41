"""Any vectorised environment and its wrappers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecCheckNan,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_smac import SMAC
from tests.algorithms import is_finite, is_same, make, snapshot


def bare(n_envs: int) -> VecEnv:
    return DummyVecEnv([lambda: gym.make("Pendulum-v1", max_episode_steps=10)] * n_envs)


WRAPPERS: dict[str, Callable[[VecEnv], VecEnv]] = {
    "none": lambda env: env,
    "VecNormalize": VecNormalize,
    "VecFrameStack": partial(VecFrameStack, n_stack=3),
    "VecMonitor": VecMonitor,
    "VecCheckNan": partial(VecCheckNan, raise_exception=True),
    "all": lambda env: VecFrameStack(VecNormalize(VecMonitor(VecCheckNan(env, raise_exception=True))), n_stack=2),
}


@pytest.mark.parametrize(("wrapper", "n_envs"), [("none", 1), *[(wrapper, 3) for wrapper in WRAPPERS]])
def test_wrappers(wrapper: str, n_envs: int) -> None:
    """Episodes that a time limit cuts, in several environments at once; minibatches go across environments."""
    model = make("smac", WRAPPERS[wrapper](bare(n_envs)), n_steps=16, batch_size=7, target_kl=0.01)
    model.learn(32 * n_envs)
    assert (model.num_timesteps, model._n_updates) == (32 * n_envs, 2)
    assert is_finite(model)
    assert model.rollout_buffer.advantages.size == 16 * n_envs
    episodes = len(model.ep_info_buffer or ())
    assert episodes == (3 * n_envs if wrapper in ("VecMonitor", "all") else 0)


def test_processes_change_nothing() -> None:
    """Training in other processes is training in this one, bit for bit."""
    processes = make_vec_env("Pendulum-v1", n_envs=2, vec_env_cls=SubprocVecEnv)
    here = make("smac", make_vec_env("Pendulum-v1", n_envs=2)).learn(128)
    there = make("smac", processes).learn(128)
    processes.close()
    assert is_same(snapshot(here), snapshot(there))
    assert is_same(here.rollout_buffer.observations, there.rollout_buffer.observations)


def test_normalisation_is_saved_beside_the_model(tmp_path: Path) -> None:
    """Model and statistics, loaded together, act as before on raw observations, and only training moves the statistics."""
    env = VecNormalize(make_vec_env("Pendulum-v1"), gamma=0.9)
    model = make("smac", env, gamma=0.9).learn(64)
    model.save(tmp_path / "model")
    env.save(str(tmp_path / "statistics.pkl"))
    loaded_env = VecNormalize.load(str(tmp_path / "statistics.pkl"), make_vec_env("Pendulum-v1"))
    loaded_env.training = False
    loaded = SMAC.load(tmp_path / "model", env=loaded_env)
    raw = np.array([[0.5, 0.5, 3.0]], dtype=np.float32)
    normalised = env.normalize_obs(raw)
    assert not np.allclose(raw, normalised)
    expected, _ = model.predict(normalised, deterministic=True)
    assert is_same(expected, loaded.predict(loaded_env.normalize_obs(raw), deterministic=True)[0])
    count = loaded_env.obs_rms.count
    evaluate_policy(loaded, loaded_env, n_eval_episodes=1)
    assert loaded_env.obs_rms.count == count
    assert loaded.get_vec_normalize_env() is loaded_env
    loaded_env.training = True
    loaded.learn(32)
    assert loaded_env.obs_rms.count > count
