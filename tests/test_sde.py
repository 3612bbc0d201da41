"""Generalised state-dependent exploration."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from tests.algorithms import SampleEnv, every_algorithm, is_finite, is_same, make, snapshot

POLICIES: dict[str, dict[str, Any]] = {
    "default": {},
    "expln": {"use_expln": True},
    "squashed": {"squash_output": True},
    "one_noise": {"full_std": False},
    "low_noise": {"log_std_init": -2.0},
}


class Recorder(gym.Wrapper):
    """Keeps the actions that the environment gets."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.actions: list[np.ndarray] = []

    def step(self, action: np.ndarray) -> Any:
        self.actions.append(action)
        return super().step(action)


@every_algorithm
@pytest.mark.parametrize("policy", POLICIES)
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


@every_algorithm
@pytest.mark.parametrize(("frequency", "drawn"), [(-1, 2), (4, 18)])
def test_how_often_noise_is_drawn(algo: str, frequency: int, drawn: int) -> None:
    """Once a rollout, and every ``sde_sample_freq`` steps: the update itself draws none."""
    model = make(algo, make_vec_env("Pendulum-v1", n_envs=2), use_sde=True, sde_sample_freq=frequency)
    calls = []
    reset_noise = model.policy.reset_noise
    model.policy.reset_noise = lambda n_envs=1: (calls.append(n_envs), reset_noise(n_envs))  # type: ignore[method-assign]
    model.learn(2 * 64)
    assert calls == [2] * drawn


@every_algorithm
def test_actions_of_two_dimensions(algo: str) -> None:
    env = SampleEnv(spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2, 2)))
    assert is_finite(make(algo, env, use_sde=True, batch_size=12, target_kl=0.01).learn(64))


@every_algorithm
def test_noise_is_constant_until_it_is_drawn_again(algo: str) -> None:
    """Stochastic actions repeat for the same observation, unlike Gaussian ones."""
    model = make(algo, use_sde=True).learn(32)
    observation = np.array([0.1, 0.9, 0.5], dtype=np.float32)
    first, second = model.predict(observation)[0], model.predict(observation)[0]
    assert is_same(first, second)
    model.policy.reset_noise()
    assert not is_same(first, model.predict(observation)[0])


@every_algorithm
def test_refused_where_it_makes_no_sense(algo: str) -> None:
    with pytest.raises(ValueError, match="only be used with continuous actions"):
        make(algo, "CartPole-v1", use_sde=True)
    with pytest.raises(AssertionError, match="use_sde=True"):
        make(algo, policy_kwargs={"squash_output": True})


@every_algorithm
def test_minibatches_keep_the_exploration_noise(algo: str) -> None:
    """Computing distributions and KL divergences in the update leaves the noise of the rollout as it was."""
    model = make(algo, use_sde=True, batch_size=8, target_kl=0.01).learn(32)
    before = model.policy.action_dist.exploration_mat.clone()
    state = snapshot(model)
    model.train()
    assert not is_same(state, snapshot(model))
    assert th.equal(before, model.policy.action_dist.exploration_mat)
