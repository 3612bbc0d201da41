"""Everything is the same with the fast paths and without them (``sb3_smac.fast.enabled``)."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_smac import NaturalActorCritic, fast
from sb3_smac.fast.plain_policy import PlainPolicy
from sb3_smac.maths import flatten
from tests.algorithms import every_algorithm, is_same, make
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
    "single_sample": {"batch_size": 1, "target_kl": None, "fisher_rank": 1},
    "gauss_newton": {"critic_optimizer": "gauss_newton"},
}


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


@every_algorithm
@every_env
@pytest.mark.parametrize("variant", VARIANTS)
def test_trainings_are_equal_to_rounding(algo: str, env: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Float32's: within an update, sums are taken in another order."""
    arguments = dict(VARIANTS[variant])
    if not algo.startswith("smac"):
        arguments.pop("fisher_rank", None)
    with_fast, without = (trained(algo, env, arguments, enabled, monkeypatch) for enabled in (True, False))
    for ours, theirs in zip(with_fast, without, strict=True):
        assert theirs.norm() > 1e-4
        assert_close(ours, theirs, relative=2e-3)


def test_the_switch_is_one(switch: bool) -> None:
    """Read at use: a model that is there already takes it up."""
    model = make("smac")
    assert (PlainPolicy.of(model.policy) is not None) is switch


@pytest.mark.parametrize(("value", "enabled"), [(None, True), ("1", True), ("0", False)])
def test_environment_variable(value: str | None, enabled: bool) -> None:
    environment = {key: content for key, content in os.environ.items() if key != "SB3_SMAC_FAST"}
    environment.update({} if value is None else {"SB3_SMAC_FAST": value})
    code = "import sb3_smac.fast; print(sb3_smac.fast.enabled)"
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(enabled)
