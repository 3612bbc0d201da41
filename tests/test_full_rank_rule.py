"""The rule of the whole batch's Fisher: KL and damping per dimension of the action, the first deviation, the average."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox, IdentityEnvMultiBinary, IdentityEnvMultiDiscrete
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_smac import SMAC
from sb3_smac.common.policies import MlpPolicy

FULL: dict[str, Any] = {"fisher_rank": "full", "n_steps": 16, "n_critic_updates": 1, "device": "cpu"}


def plane() -> IdentityEnvBox:
    """Three dimensions of the action."""
    env = IdentityEnvBox()
    env.action_space = env.observation_space = spaces.Box(-1, 1, (3,))
    env._get_reward = lambda action: -float(abs(action - env.state).sum())
    return env


@pytest.mark.parametrize(
    ("env", "dimensions"),
    [
        (plane, 3),
        (lambda: IdentityEnv(4), 1),
        (lambda: IdentityEnvMultiDiscrete(3), 2),
        (lambda: IdentityEnvMultiBinary(5), 5),
    ],
)
def test_units_of_the_actions_dimensions(env: Any, dimensions: int) -> None:
    model = SMAC("MlpPolicy", env(), **FULL)
    is_gaussian = dimensions == 3
    assert model._current_target_kl == pytest.approx(0.01 * dimensions)
    assert model._damping_of(16, 16) == pytest.approx(0.1 * dimensions * (math.e if is_gaussian else 1))
    assert model._share_averaged == 0.05
    assert not is_gaussian or th.equal(model.policy.log_std, th.full((3,), -0.5))


def test_an_own_deviation_sets_the_damping() -> None:
    model = SMAC("MlpPolicy", plane(), policy_kwargs={"log_std_init": -1.0}, **FULL)
    assert th.equal(model.policy.log_std, th.full((3,), -1.0))
    assert model._damping_of(16, 16) == pytest.approx(0.3 * math.exp(2))
    assert model.policy_kwargs == {"log_std_init": -1.0}


def test_what_is_set_is_not_derived() -> None:
    model = SMAC("MlpPolicy", plane(), damping=2.0, target_kl=None, averaging=0, **FULL)
    assert model._damping_of(16, 16) == 2.0 and model._current_target_kl is None
    assert model._share_averaged == 0


class OwnDeviation(MlpPolicy):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, log_std_init=0.0, **kwargs)


@pytest.mark.parametrize(
    "arguments",
    [{"fisher_rank": 1}, {"use_sde": True}, {"policy": ActorCriticPolicy}, {"policy": OwnDeviation}],
    ids=["rank 1", "gSDE", "a policy of SB3's", "a policy with a deviation of its own"],
)
def test_other_policies_start_as_they_do(arguments: dict[str, Any]) -> None:
    model = SMAC(**{"policy": "MlpPolicy", "env": plane(), **FULL, **arguments})
    assert model.policy.log_std_init == 0.0 and not model.policy.log_std.any()


def test_a_saved_model_has_its_rule(tmp_path: Path) -> None:
    model = SMAC("MlpPolicy", plane(), **FULL).learn(16)
    model.save(tmp_path / "model")
    loaded = SMAC.load(tmp_path / "model", env=plane())
    assert th.equal(loaded.policy.log_std, model.policy.log_std)
    assert loaded._damping_of(16, 16) == model._damping_of(16, 16)
    assert loaded.policy_kwargs == model.policy_kwargs == {}


def test_damping_goes_with_the_deviation_that_the_model_began_with(tmp_path: Path) -> None:
    """Whatever its rank when it is saved and loaded."""
    for built, then in ((1, "full"), ("full", 1)):
        model = SMAC("MlpPolicy", plane(), **{**FULL, "fisher_rank": built})
        model.fisher_rank = then
        model.save(tmp_path / "model")
        loaded = SMAC.load(tmp_path / "model", fisher_rank="full")
        assert loaded._damping_of(16, 16) == pytest.approx(0.3 * (math.e if built == "full" else 1))
