"""Arguments out of range raise a ValueError that names the argument, its value and what is accepted."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import Logger

from sb3_smac import SMAC
from tests.algorithms import NOT_A_COUNT, NOT_POSITIVE, TABLE, every_algorithm, is_finite, make

NAN, INF = float("nan"), float("inf")
NOT_A_RATE = (-0.1, NAN, INF, -INF, "0.001", "lin_", "lin_x", "lin_-1", "lin_nan", "linear", None, True, [0.1], lambda _: -1.0)

OUT_OF_RANGE: dict[str, Sequence[Any]] = {
    "learning_rate": NOT_A_RATE,
    "critic_learning_rate": NOT_A_RATE,
    # None is the fixed step
    "target_kl": (*(value for value in NOT_A_RATE if value is not None), 0, 0.0, "lin_0", lambda _: 0.0, lambda _: NAN),
    "n_steps": (*NOT_A_COUNT, True),
    "batch_size": (0, -1, 2.5, "8", True, NAN),
    "gamma": (-0.01, 1.01, NAN, INF, "0.9", None, True),
    "gae_lambda": (-0.01, 1.01, NAN, INF, "0.9", None, True),
    "critic_optimizer": ("Adam", "sgd", "", None, 1),
    "critic_damping": NOT_POSITIVE,
    "n_critic_updates": NOT_A_COUNT,
    "critic_batch_size": (0, -1, 2.5, "8", NAN),
    "critic_target": ("td", "GAE", "", None, 1),
    "ent_coef": (-0.01, NAN, INF, "auto", None),
    "max_grad_norm": (0, -1, NAN, INF, "1"),
    "line_search": ("yes", 2, NAN),
    "normalize_advantage": ("yes", None, 2, NAN),
    "normalize_observations": ("yes", 2, NAN),
    "normalize_returns": ("yes", 2, NAN),
    "stats_window_size": (-1, 2.5, "3"),
}

WHAT_IS_ACCEPTED = re.compile(r"must be .*(>=|>|one of|between)", re.DOTALL)


def check_refused(algo: str, name: str, value: Any) -> None:
    """When the model is built, before any step in the environment."""
    with pytest.raises(ValueError) as error:
        make(algo, **{name: value})
    message = str(error.value)
    assert message.startswith(f"{name} must be "), message
    assert repr(value) in message, message
    assert WHAT_IS_ACCEPTED.search(message), message


@every_algorithm
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OUT_OF_RANGE.items() for value in values])
def test_out_of_range(algo: str, name: str, value: Any) -> None:
    check_refused(algo, name, value)


@pytest.mark.parametrize(
    ("algo", "name", "value"),
    [(algo, name, value) for algo, row in TABLE.items() for name, values in row.out_of_range.items() for value in values],
)
def test_out_of_range_of_its_own(algo: str, name: str, value: Any) -> None:
    check_refused(algo, name, value)


AT_THE_LIMIT: dict[str, Sequence[Any]] = {
    "learning_rate": (0, 0.0, 1, np.float32(0.1), "lin_0.1", "lin_1e-3", lambda progress: 0.0),
    "critic_learning_rate": (0, 0.0, np.float64(0.1), "lin_0.1"),
    "target_kl": (None, 1e-6, np.float32(0.01), "lin_0.01"),
    "n_steps": (2, np.int64(4)),
    "batch_size": (None, 1, 32, np.int32(8)),
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


@every_algorithm
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in AT_THE_LIMIT.items() for value in values])
def test_at_the_limit(algo: str, name: str, value: Any) -> None:
    """The smallest and the largest values accepted, and NumPy's numbers, train."""
    assert is_finite(make(algo, **{"learning_rate": 1e-3, "target_kl": 0.01, name: value}).learn(32))


@every_algorithm
@pytest.mark.parametrize("n_envs", [1, 2])
def test_batches_larger_than_the_rollout(algo: str, n_envs: int) -> None:
    """Before the first step: the size of the rollout is known then, and is in the message."""
    rollout = 32 * n_envs
    env = make_vec_env("Pendulum-v1", n_envs=n_envs)
    with pytest.raises(ValueError, match=rf"batch_size must be .*1 and .*{rollout}.*got {rollout + 1}"):
        make(algo, env, batch_size=rollout + 1).learn(rollout)
    make(algo, env, batch_size=rollout, target_kl=0.01).learn(rollout)


@every_algorithm
def test_advantages_of_one_transition_have_no_spread(algo: str) -> None:
    """Normalising them would divide by it; two environments are enough."""
    with pytest.raises(ValueError, match=r"normalize_advantage=True needs .*at least 2, got n_steps=1 and n_envs=1"):
        make(algo, n_steps=1).learn(1)
    assert is_finite(make(algo, make_vec_env("Pendulum-v1", n_envs=2), n_steps=1, target_kl=0.01).learn(4))
    assert is_finite(make(algo, n_steps=1, normalize_advantage=False, target_kl=0.01).learn(2))


@every_algorithm
def test_the_rollout_is_checked_when_a_model_is_built(algo: str) -> None:
    """Not hours later: a script that builds its model and then prepares its data should fail at once."""
    with pytest.raises(ValueError, match="batch_size"):
        make(algo, batch_size=33)
    with pytest.raises(ValueError, match="normalize_advantage"):
        make(algo, n_steps=1)


@every_algorithm
def test_attributes_set_between_two_runs_are_used(algo: str) -> None:
    """The attribute is the argument: a rollout that became too small for the batch is noticed."""
    model = make(algo, target_kl=0.01).learn(32)
    model.batch_size = 64
    with pytest.raises(ValueError, match=r"batch_size.*64"):
        model.learn(32)
    model.batch_size = 8
    counted: list[float] = []
    record = model.record_actor
    model.record_actor = lambda name, value: (counted.append(value) if name == "step_size" else None, record(name, value))
    model.learn(32)
    assert len(counted) == 4


@every_algorithm
@pytest.mark.parametrize("name", ["learning_rate", "critic_learning_rate", "target_kl"])
@pytest.mark.parametrize(
    ("value", "at_start", "at_half"),
    [(0.5, 0.5, 0.5), ("lin_0.5", 0.5, 0.25), (lambda progress: 0.1 + progress, 1.1, 0.6), (np.float32(0.5), 0.5, 0.5)],
    ids=["number", "string", "function", "numpy"],
)
def test_schedules(algo: str, name: str, value: Any, at_start: float, at_half: float) -> None:
    """All of one kind, and Python's floats come out: an optimizer must not be given anything else."""
    model = make(algo, **{name: value})
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


@every_algorithm
def test_the_critics_schedule_is_its_own(algo: str) -> None:
    """The critic's optimizer follows ``critic_learning_rate`` and not ``learning_rate``."""
    model = make(algo, target_kl=None, learning_rate=0.02, critic_learning_rate="lin_0.1")
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.1
    model.learn(64)
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0  # the training is over
    assert model.logger.name_to_value["train/step_size"] == 0.02


@every_algorithm
def test_a_target_that_falls_to_zero_stops_the_policy(algo: str) -> None:
    """The last update of ``"lin_x"`` has no KL divergence left to spend: the policy stays, finite."""
    model = make(algo, target_kl="lin_0.02").learn(64)
    assert model.logger.name_to_value["train/step_size"] == 0
    assert model.logger.name_to_value["train/approx_kl"] == 0
    assert is_finite(model)


@every_algorithm
def test_unknown_arguments(algo: str) -> None:
    """Those of A2C and PPO that mean nothing here are refused rather than ignored."""
    for name in ("vf_coef", "clip_range", "n_epochs", "use_rms_prop"):
        with pytest.raises(TypeError, match=name):
            make(algo, **{name: 1})
    with pytest.raises(ValueError, match="NoSuchPolicy"):
        make(algo, policy="NoSuchPolicy")


@pytest.mark.parametrize("arguments", [{"n_steps": 8}, {"n_steps": 64, "batch_size": 8}])
def test_a_rank_above_the_actor_batch(arguments: dict[str, int]) -> None:
    """There are no more groups than transitions."""
    SMAC("MlpPolicy", "CartPole-v1", fisher_rank=8, **arguments)
    with pytest.raises(ValueError, match="fisher_rank must be 'full' or at most the actor batch's 8 transitions, got 9"):
        SMAC("MlpPolicy", "CartPole-v1", fisher_rank=9, **arguments)


@pytest.mark.parametrize(
    ("arguments", "damping"),
    [
        ({}, 0.1),
        ({"fisher_rank": "full"}, 0.1),
        ({"fisher_rank": 16}, 0.25),
        ({"fisher_rank": 16, "batch_size": 32}, 0.5),
        ({"fisher_rank": "full", "damping": 0.3}, 0.3),
    ],
)
def test_damping_that_fits_the_rank(arguments: dict[str, Any], damping: float, tmp_path: Path) -> None:
    """λ for N = 64 transitions; the argument stays unset, also in a file, and λ fits the batches of whoever loads it."""
    dampings = []

    class Noting(SMAC):
        def _damping_of(self, rank: int, size: int) -> float:
            dampings.append(super()._damping_of(rank, size))
            return dampings[-1]

    model = Noting("MlpPolicy", "CartPole-v1", n_steps=64, device="cpu", **arguments).learn(64)
    assert set(dampings) == {damping}
    assert model.damping == arguments.get("damping")
    model.save(tmp_path / "model")
    dampings.clear()
    loaded = Noting.load(tmp_path / "model", env=make_vec_env("CartPole-v1", n_envs=2)).learn(128)
    assert loaded.damping == model.damping
    is_of_size = isinstance(model.fisher_rank, int) and model.fisher_rank > 1 and model.batch_size is None
    assert set(dampings) == {damping / 2 if is_of_size else damping}
