"""Values that arguments accept, and schedules."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.logger import Logger

from sb3_smac import SMAC
from tests.algorithms import is_finite, make

AT_THE_LIMIT: dict[str, Sequence[Any]] = {
    "learning_rate": (0, 0.0, 1, np.float32(0.1), "lin_0.1", "lin_1e-3", lambda progress: 0.0),
    "critic_learning_rate": (0, 0.0, np.float64(0.1), "lin_0.1"),
    "target_kl": (None, 1e-6, np.float32(0.01), "lin_0.01"),
    "n_steps": (2, np.int64(4)),
    "batch_size": (None, 1, 16, np.int32(8)),
    "gamma": (0, 1, 0.0, 1.0, np.float32(0.5)),
    "gae_lambda": (0, 1),
    "critic_optimizer": ("adam", "gauss_newton"),
    "critic_damping": (1e-6, 1, np.float32(0.5)),
    "n_critic_updates": (1,),
    "critic_batch_size": (None, 1, 10**6),
    "critic_target": ("gae", "monte_carlo"),
    "ent_coef": (0, 0.0),
    "max_grad_norm": (None, 1e-6, 1e6),
    "line_search": (False, True),
    "normalize_advantage": (False, True, np.bool_(True)),
    "normalize_observations": (None, False, True, np.bool_(True)),
    "normalize_returns": (None, False, True, np.bool_(True)),
}


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_at_the_limit(name: str) -> None:
    """The smallest and the largest values accepted, and NumPy's numbers, train."""
    for value in AT_THE_LIMIT[name]:
        assert is_finite(make("smac", **{"n_steps": 16, "learning_rate": 1e-3, "target_kl": 0.01, name: value}).learn(16))


@pytest.mark.parametrize("name", ["learning_rate", "critic_learning_rate", "target_kl"])
@pytest.mark.parametrize(
    ("value", "at_start", "at_half"),
    [(0.5, 0.5, 0.5), ("lin_0.5", 0.5, 0.25), (lambda progress: 0.1 + progress, 1.1, 0.6), (np.float32(0.5), 0.5, 0.5)],
    ids=["number", "string", "function", "numpy"],
)
def test_schedules(name: str, value: Any, at_start: float, at_half: float) -> None:
    """All of one kind, and Python's floats come out: an optimizer must not be given anything else."""
    model = make("smac", **{name: value})
    assert getattr(model, name) is value
    model.set_logger(Logger(None, []))
    for progress, expected in ((1.0, at_start), (0.5, at_half)):
        model._current_progress_remaining = progress
        model._update_learning_rates()
        now = {
            "learning_rate": model._step_size,
            "critic_learning_rate": model.policy.optimizer.param_groups[0]["lr"],
            "target_kl": model._current_target_kl,
        }[name]
        assert now == expected and type(now) is float


def test_rollouts_are_checked_when_a_model_is_built_and_when_it_learns() -> None:
    """Not hours later: a script that builds its model and then prepares its data should fail at once."""
    with pytest.raises(ValueError, match=r"normalize_advantage=True needs .* at least 2, got n_steps=1"):
        make("smac", n_steps=1)
    model = make("smac")
    model.batch_size = 64
    with pytest.raises(ValueError, match=r"batch_size.*64"):
        model.learn(32)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("arguments", [{"n_steps": 8}, {"n_steps": 64, "batch_size": 8}])
def test_a_rank_above_the_actor_batch(arguments: dict[str, int]) -> None:
    """There are no more groups than transitions."""
    SMAC("MlpPolicy", "CartPole-v1", fisher_rank=8, **arguments)
    with pytest.raises(ValueError, match="fisher_rank must be 'full' or at most the actor batch's 8 transitions, got 9"):
        SMAC("MlpPolicy", "CartPole-v1", fisher_rank=9, **arguments)
