"""Every algorithm learns to repeat its observation, in each kind of action space."""

from collections.abc import Callable

import gymnasium as gym
import pytest
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox, IdentityEnvMultiBinary, IdentityEnvMultiDiscrete
from stable_baselines3.common.evaluation import evaluate_policy

from tests.algorithms import TABLE, every_algorithm, make

ENVIRONMENTS: dict[str, Callable[[], gym.Env]] = {
    "Discrete": lambda: IdentityEnv(4),
    "Box": lambda: IdentityEnvBox(eps=0.5),
    "MultiDiscrete": lambda: IdentityEnvMultiDiscrete(4),
    "MultiBinary": lambda: IdentityEnvMultiBinary(4),
}


def mean_return(algo: str, space: str, timesteps: int) -> float:
    """Of at most 100, after training with a fixed seed."""
    model = make(
        algo,
        ENVIRONMENTS[space](),
        gamma=0.4,
        n_steps=128,
        n_critic_updates=4,
        critic_batch_size=64,
        policy_kwargs={"net_arch": [32]},
        **TABLE[algo].learning,
    )
    untrained, _ = evaluate_policy(model, ENVIRONMENTS[space](), n_eval_episodes=1, warn=False)
    assert untrained < 60  # the task is not solved by doing nothing
    model.learn(timesteps)
    result, _ = evaluate_policy(model, ENVIRONMENTS[space](), n_eval_episodes=10, warn=False)
    return float(result)


def test_smac_learns_one_in_seconds() -> None:
    assert mean_return("smac", "Discrete", timesteps=1280) >= 90


@pytest.mark.slow
@every_algorithm
@pytest.mark.parametrize("space", ENVIRONMENTS)
def test_learns(algo: str, space: str) -> None:
    assert mean_return(algo, space, timesteps=6400) >= 90
