"""What a model, trained or loaded, does with observations."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from tests.algorithms import ACTION_SPACES as SUPPORTED
from tests.algorithms import TABLE, VECTOR, SampleEnv, every_algorithm, is_finite, is_same, make


class SubclassedBox(spaces.Box):
    """A user's own space."""


ACTION_SPACES: dict[str, spaces.Space] = {
    **SUPPORTED,
    "BoxOfFloat64": spaces.Box(-1, 1, (2,), dtype=np.float64),
    "BoxOfTwoDimensions": spaces.Box(-1, 1, (2, 2)),
    "BoxWithOtherBounds": spaces.Box(np.array([-1, 5], dtype=np.float32), np.array([0, 7], dtype=np.float32)),
    "SubclassedBox": SubclassedBox(-1, 1, (2,)),
}


@pytest.mark.parametrize("space", ACTION_SPACES)
def test_shapes(space: str) -> None:
    """One observation gives one action of the space, a batch of them a batch, with the space's type."""
    action_space = ACTION_SPACES[space]
    env = SampleEnv(VECTOR, action_space)
    model = make("smac", env).learn(32)
    observation, _ = env.reset(seed=0)
    for deterministic in (True, False):
        action, state = model.predict(observation, deterministic=deterministic)
        assert action_space.contains(action if action.ndim else int(action)) and state is None
        actions, _ = model.predict(np.stack([observation] * 5), deterministic=deterministic)
        assert actions.shape == (5, *action_space.shape)
        assert actions.dtype == action.dtype
        assert not isinstance(action_space, spaces.Box) or action.dtype == action_space.dtype


def test_deterministic_means_the_mode() -> None:
    """Deterministic actions repeat and are the mean of the stochastic ones, which differ."""
    model = make("smac").learn(32)
    observation = np.array([[0.5, 0.5, 0.1]], dtype=np.float32)
    once, again = (model.predict(observation, deterministic=True)[0] for _ in range(2))
    assert is_same(once, again)
    with th.no_grad():
        mode = model.policy.get_distribution(th.as_tensor(observation)).mode().numpy()
    np.testing.assert_allclose(once, np.clip(mode, -2, 2), rtol=1e-6)
    th.manual_seed(0)
    sampled = np.array([model.predict(observation)[0].item() for _ in range(20)])
    assert len(set(sampled.tolist())) > 10


def test_does_not_change_the_model() -> None:
    """Neither the policy's mode nor the random numbers that training uses next."""
    model = make("smac").learn(32)
    state = th.get_rng_state()
    model.predict(np.zeros(3, dtype=np.float32), deterministic=True)
    assert not model.policy.training
    assert th.equal(state, th.get_rng_state())


def test_evaluation() -> None:
    """The model and its policy are both accepted by ``evaluate_policy``, and agree."""
    env = make_vec_env("CartPole-v1", n_envs=3, seed=0)
    model = make("smac", env).learn(32 * 3)
    returns = []
    for predictor in (model, model.policy):
        env.seed(0)
        returns.append(evaluate_policy(predictor, env, n_eval_episodes=3, return_episode_rewards=True))
    assert returns[0] == returns[1] and len(returns[0][0]) == 3


@pytest.mark.parametrize("device", ["cpu", "auto", th.device("cpu")])
def test_device(device: Any) -> None:
    model = make("smac", device=device)
    expected = "cuda" if device == "auto" and th.cuda.is_available() else "cpu"
    assert model.device.type == expected
    assert {parameter.device.type for parameter in model.policy.parameters()} == {expected}
    assert model.learn(32).predict(np.zeros((2, 3), dtype=np.float32))[0].shape == (2, 1)


@pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")
@every_algorithm
def test_trains_on_a_gpu(algo: str, tmp_path: Path) -> None:
    """The whole update stays on the device, and a model saved there loads on the CPU."""
    model = make(algo, device="cuda", batch_size=8, target_kl=0.01).learn(64)
    assert {parameter.device.type for parameter in [*model.actor_parameters, *model.critic_parameters]} == {"cuda"}
    assert is_finite(model)
    model.save(tmp_path / "model")
    loaded = TABLE[algo].cls.load(tmp_path / "model", device="cpu", env=make_vec_env("Pendulum-v1")).learn(32)
    assert {parameter.device.type for parameter in loaded.policy.parameters()} == {"cpu"}
