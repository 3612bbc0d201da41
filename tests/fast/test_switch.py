"""Everything is the same with the fast paths and without them (``sb3_smac.fast.enabled``)."""

import importlib
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_smac import NaturalActorCritic, fast
from sb3_smac.fast.plain_policy import PlainPolicy
from sb3_smac.maths import flatten
from tests.algorithms import TABLE, every_algorithm, is_same, make
from tests.dense_reference import assert_close, collect

every_env = pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])


@pytest.fixture(params=[True, False], ids=["fast", "slow"])
def switch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(fast, "enabled", request.param)
    return bool(request.param)


def rollout(algo: str, env: str, monkeypatch: pytest.MonkeyPatch, enabled: bool) -> Any:
    """All that is collected, and the random numbers that it takes."""
    monkeypatch.setattr(fast, "enabled", enabled)
    model = make(algo, make_vec_env(env, n_envs=2, seed=0))
    collect(model)
    buffer = model.rollout_buffer
    names = ("observations", "actions", "rewards", "episode_starts", "values", "log_probs", "advantages", "returns")
    return [getattr(buffer, name) for name in names], th.get_rng_state()


@every_algorithm
@every_env
def test_rollouts_are_equal_bit_for_bit(algo: str, env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_same(*(rollout(algo, env, monkeypatch, enabled) for enabled in (True, False)))


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "fixed": {"target_kl": None},
    # fixed: a search that stops within 10 % of the target may stop elsewhere after a few steps' rounding
    "minibatches": {"batch_size": 12, "target_kl": None},
    "gauss_newton": {"critic_optimizer": "gauss_newton"},
}
CASES = [(algo, variant) for algo in TABLE for variant in VARIANTS] + [("smac", "single_sample")]
SCHEDULED = [(algo, "Pendulum-v1", {"final_log_std": -1.0, "target_kl": None}) for algo in TABLE]
VARIANTS["single_sample"] = {"batch_size": 1, "target_kl": None}


def trained(algo: str, env: str, arguments: dict[str, Any], enabled: bool, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How far three updates move actor and critic."""
    monkeypatch.setattr(fast, "enabled", enabled)
    # Adam's first steps are signs of gradients, which rounding may turn where they are zero: not where it is SGD
    policy_kwargs = {"net_arch": [8], "optimizer_class": th.optim.SGD}
    model: NaturalActorCritic = make(
        algo, make_vec_env(env, n_envs=2, seed=0), **{"learning_rate": 0.01, "policy_kwargs": policy_kwargs, **arguments}
    )
    start = flatten(model.actor_parameters), flatten(model.critic_parameters)
    model.learn(3 * 64)
    return flatten(model.actor_parameters) - start[0], flatten(model.critic_parameters) - start[1]


@pytest.mark.parametrize(
    ("algo", "env", "arguments"),
    [(algo, env, VARIANTS[variant]) for algo, variant in CASES for env in ("Pendulum-v1", "CartPole-v1")] + SCHEDULED,
)
def test_trainings_are_equal_to_rounding(
    algo: str, env: str, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32's: within an update, sums are taken in another order."""
    with_fast, without = (trained(algo, env, arguments, enabled, monkeypatch) for enabled in (True, False))
    for ours, theirs in zip(with_fast, without, strict=True):
        assert theirs.norm() > 1e-4
        assert_close(ours, theirs, relative=1e-2)  # three updates have multiplied it


def test_the_switch_is_one(switch: bool) -> None:
    """Read at use: a model that is there already takes it up."""
    model = make("smac")
    assert (PlainPolicy.of(model.policy) is not None) is switch


@pytest.mark.parametrize(("value", "enabled"), [(None, True), ("1", True), ("0", False)])
def test_environment_variable(value: str | None, enabled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "enabled", fast.enabled)  # what it is afterwards
    if value is None:
        monkeypatch.delenv("SB3_SMAC_FAST", raising=False)
    else:
        monkeypatch.setenv("SB3_SMAC_FAST", value)
    assert importlib.reload(fast).enabled is enabled
