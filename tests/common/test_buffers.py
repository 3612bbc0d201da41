"""The rollout buffer against Stable-Baselines3's, bit for bit."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import buffers as sb3_buffers

from sb3_smac.common.buffers import RolloutBuffer

VECTOR = spaces.Box(-1, 1, (3,), np.float64)


@pytest.mark.parametrize("n_envs", [1, 2])
def test_an_infinite_reward_spoils_what_it_spoils_in_sb3(n_envs: int) -> None:
    """And no more: the advantages before it, in its own environment."""
    advantages = []
    for buffer_class in (RolloutBuffer, sb3_buffers.RolloutBuffer):
        buffer = buffer_class(3, VECTOR, spaces.Discrete(2), device="cpu", n_envs=n_envs)
        for reward in (np.inf, 1.0, 2.0):
            ones = np.ones(n_envs)
            buffer.add(np.zeros((n_envs, 3)), ones, np.full(n_envs, reward), 0 * ones, th.zeros(n_envs, 1), th.zeros(n_envs))
        buffer.compute_returns_and_advantage(th.zeros(n_envs, 1), np.zeros(n_envs, bool))
        advantages.append(buffer.advantages)
    assert np.array_equal(*advantages) and np.isfinite(advantages[0][1:]).all()


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("steps", [1, 2, 50])
@pytest.mark.parametrize("gamma, gae_lambda", [(0.99, 0.95), (1.0, 1.0), (0.9, 0.0), (0.0, 0.5)])
@pytest.mark.parametrize(
    "observation_space, action_space",
    [
        (VECTOR, spaces.Box(-1, 1, (2,), np.float32)),
        (VECTOR, spaces.Discrete(4)),
        (spaces.Discrete(5), spaces.MultiDiscrete([2, 3])),
        (spaces.Box(0, 255, (2, 4, 4), np.uint8), spaces.MultiBinary(3)),
    ],
    ids=["box", "discrete", "discrete_observations", "images"],
)
def test_same_bits(
    observation_space: spaces.Space, action_space: spaces.Space, gamma: float, gae_lambda: float, steps: int, n_envs: int
) -> None:
    """Transitions, advantages and returns, with episodes that end anywhere, in two rollouts, and as they are sampled."""
    generator = np.random.default_rng(0)
    arguments = {"device": "cpu", "gamma": gamma, "gae_lambda": gae_lambda, "n_envs": n_envs}
    ours = RolloutBuffer(steps, observation_space, action_space, **arguments)
    theirs = sb3_buffers.RolloutBuffer(steps, observation_space, action_space, **arguments)
    for _ in range(2):
        ours.reset(), theirs.reset()
        for _ in range(steps):
            transition = (
                np.array([observation_space.sample() for _ in range(n_envs)]),
                np.array([action_space.sample() for _ in range(n_envs)]),
                generator.normal(size=n_envs),
                generator.random(n_envs) < 0.3,
                th.as_tensor(generator.normal(size=(n_envs, 1)), dtype=th.float32),
                th.as_tensor(generator.normal(size=n_envs), dtype=th.float32),
            )
            assert not ours.full and not theirs.full
            ours.add(*transition)
            theirs.add(*transition)
        assert ours.full and theirs.full
        last = th.as_tensor(generator.normal(size=(n_envs, 1)), dtype=th.float32), generator.random(n_envs) < 0.5
        ours.compute_returns_and_advantage(*last)
        theirs.compute_returns_and_advantage(*last)
        names = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
        for name in names:
            mine, reference = getattr(ours, name), getattr(theirs, name)
            assert mine.dtype == reference.dtype and np.array_equal(mine, reference), name
        np.random.seed(0)
        sampled = next(ours.get(None))
        np.random.seed(0)
        assert all(map(th.equal, sampled, next(theirs.get(None))))
