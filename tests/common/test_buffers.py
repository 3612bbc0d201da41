"""The rollout buffer against Stable-Baselines3's, bit for bit."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import buffers as sb3_buffers

from sb3_smac.common.buffers import RolloutBuffer

VECTOR = spaces.Box(-1, 1, (3,), np.float64)
NAMES = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")


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
    """
    Transitions, advantages and returns, with episodes that end anywhere, in two rollouts; in the second the last rewards are
    infinite, which spoils what it spoils in Stable-Baselines3.
    """
    generator = np.random.default_rng(0)
    arguments = {"device": "cpu", "gamma": gamma, "gae_lambda": gae_lambda, "n_envs": n_envs}
    ours, theirs = buffers = [
        buffer_class(steps, observation_space, action_space, **arguments)
        for buffer_class in (RolloutBuffer, sb3_buffers.RolloutBuffer)
    ]

    for last_reward in (0.0, np.inf):
        for buffer in buffers:
            buffer.reset()
        for step in range(steps):
            transition = (
                np.array([observation_space.sample() for _ in range(n_envs)]),
                np.array([action_space.sample() for _ in range(n_envs)]),
                generator.normal(size=n_envs) + (last_reward if step == steps - 1 else 0.0),
                generator.random(n_envs) < 0.3,
                th.as_tensor(generator.normal(size=(n_envs, 1)), dtype=th.float32),
                th.as_tensor(generator.normal(size=n_envs), dtype=th.float32),
            )
            assert not ours.full and not theirs.full
            for buffer in buffers:
                buffer.add(*transition)
        assert ours.full and theirs.full
        last = th.as_tensor(generator.normal(size=(n_envs, 1)), dtype=th.float32), generator.random(n_envs) < 0.5
        for buffer in buffers:
            buffer.compute_returns_and_advantage(*last)
        for name in NAMES:
            mine, reference = getattr(ours, name), getattr(theirs, name)
            assert mine.dtype == reference.dtype and np.array_equal(mine, reference, equal_nan=True), name
