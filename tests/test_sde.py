"""Generalised state-dependent exploration."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from tests.algorithms import VECTOR, SampleEnv, is_finite, is_same, make, snapshot

POLICIES: dict[str, dict[str, Any]] = {
    "default": {},
    "expln": {"use_expln": True},
    "squashed": {"squash_output": True},
    "one_noise": {"full_std": False},
}


class Recorder(gym.Wrapper):
    """Keeps the actions that the environment gets."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.actions: list[np.ndarray] = []

    def step(self, action: np.ndarray) -> Any:
        self.actions.append(action)
        return super().step(action)


@pytest.mark.parametrize(
    ("algo", "policy"),
    [*[("smac", policy) for policy in POLICIES], *[(algo, "squashed") for algo in ("smac_full", "accg", "acadam")]],
)
def test_learns(algo: str, policy: str) -> None:
    """The noise is learned too, and squashed actions are scaled to the environment's bounds."""
    env = Recorder(gym.make("Pendulum-v1"))  # actions in [-2, 2]
    model = make(algo, env, use_sde=True, policy_kwargs={"net_arch": [8], **POLICIES[policy]})
    log_std = model.policy.log_std.detach().clone()
    model.learn(64)
    assert is_finite(model)
    assert not th.equal(log_std, model.policy.log_std)
    assert model.logger.name_to_value["train/std"] > 0
    stored, sent = model.rollout_buffer.actions.reshape(32, 1), np.stack(env.actions[-32:])
    if policy == "squashed":
        assert np.abs(stored).max() <= 1
        np.testing.assert_allclose(sent, 2 * stored, rtol=1e-5)
    else:
        np.testing.assert_allclose(sent, stored.clip(-2, 2), rtol=1e-5)


@pytest.mark.parametrize(("frequency", "drawn"), [(-1, 2), (4, 18)])
def test_how_often_noise_is_drawn(frequency: int, drawn: int) -> None:
    """Once a rollout, and every ``sde_sample_freq`` steps: the update itself draws none."""
    model = make("smac", make_vec_env("Pendulum-v1", n_envs=2), use_sde=True, sde_sample_freq=frequency)
    calls = []
    reset_noise = model.policy.reset_noise
    model.policy.reset_noise = lambda n_envs=1: (calls.append(n_envs), reset_noise(n_envs))  # type: ignore[method-assign]
    model.learn(2 * 64)
    assert calls == [2] * drawn


def test_actions_of_two_dimensions() -> None:
    env = SampleEnv(VECTOR, spaces.Box(-1, 1, (2, 2)))
    assert is_finite(make("smac", env, use_sde=True, batch_size=12, target_kl=0.01).learn(64))


def test_minibatches_keep_the_exploration_noise() -> None:
    """Computing distributions and KL divergences in the update leaves the noise of the rollout as it was."""
    model = make("smac", use_sde=True, batch_size=8, target_kl=0.01).learn(32)
    before = model.policy.action_dist.exploration_mat.clone()
    state = snapshot(model)
    model.train()
    assert not is_same(state, snapshot(model))
    assert th.equal(before, model.policy.action_dist.exploration_mat)
