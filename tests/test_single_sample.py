"""The paper's single-sample variant: its steps, written out for plain policies, are those of autograd, one after the other."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from torch import nn

from sb3_smac import SMAC, NonFiniteError
from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.policies import MlpPolicy
from sb3_smac.maths import flatten
from sb3_smac.smac import smac
from tests.algorithms import VECTOR, SampleEnv, is_same, make, snapshot
from tests.dense_reference import assert_close
from tests.own_policies import LearnedTemperature

SPACES: dict[str, spaces.Space] = {
    "box": spaces.Box(-1.0, 1.0, (2,)),
    "matrix": spaces.Box(-1.0, 1.0, (2, 2)),
    "discrete": spaces.Discrete(4),
}
PAPERS: dict[str, Any] = {"batch_size": 1, "target_kl": None, "learning_rate": 0.05}


@contextlib.contextmanager
def by_autograd() -> Any:
    """The steps as for a policy that is not plain."""
    with mock.patch.object(SMAC, "_plain_single_sample", lambda model, evaluator: None):
        yield


@contextlib.contextmanager
def counted() -> Any:
    """How often the written-out steps are taken."""
    with mock.patch.object(smac, "single_sample_steps", side_effect=smac.single_sample_steps) as steps:
        yield steps


def sample_model(space: str = "box", n_envs: int = 1, **arguments: Any) -> Any:
    env = make_vec_env(lambda: SampleEnv(VECTOR, SPACES[space]), n_envs=n_envs)
    return make("smac", env, **{**PAPERS, **arguments})


class WithoutBiases(MlpPolicy):
    """Linear layers without bias, among others with one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mlp_extractor.policy_net[0] = nn.Linear(3, 8, bias=False)
        self.action_net = nn.Linear(8, self.action_net.out_features, bias=False)


NETWORKS: dict[str, dict[str, Any]] = {
    "tanh": {"policy_kwargs": {"net_arch": [8, 6], "ortho_init": False}},
    "relu": {"policy_kwargs": {"net_arch": [8, 6], "activation_fn": nn.ReLU, "log_std_init": -1.0}},
    "linear": {"policy_kwargs": {"net_arch": []}, "normalize_observations": False, "normalize_advantage": False},
    "without_biases": {"policy": WithoutBiases},
}


def metrics(model: SMAC) -> dict[str, float]:
    """What the update logs."""
    values = model.logger.name_to_value
    return {key.removeprefix("train/"): value for key, value in values.items() if key.startswith("train/")}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("space", SPACES)
def test_steps_are_those_of_autograd(space: str, network: str) -> None:
    """Parameters and metrics of two updates, the second at normalised observations; the critic's path is the same."""
    results = []
    for context in (by_autograd(), counted()):
        model = sample_model(space, n_envs=2, **NETWORKS[network])
        start = flatten(model.actor_parameters)
        with context as steps:
            model.learn(128)
        assert steps is None or steps.call_count == 2
        results.append((flatten(model.actor_parameters) - start, flatten(model.critic_parameters), metrics(model)))
    generic, written = results
    assert generic[0].norm() > 0.05
    assert_close(written[0], generic[0], relative=5e-4)
    assert_close(written[1], generic[1], relative=1e-4)
    assert written[2].keys() == generic[2].keys() >= {"policy_loss", "entropy_loss", "score_norm", "approx_kl", "step_size"}
    assert written[2] == pytest.approx(generic[2], rel=1e-3, abs=1e-6)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize(("space", "step_size"), [("box", 1e4), ("box", 1e38), ("discrete", 1e38)])
def test_steps_that_are_far_too_large(space: str, step_size: float) -> None:
    """The error is that of the generic steps, word for word, and the policy is as it was, to the last bit."""
    messages = []
    for context in (by_autograd(), counted()):
        model = sample_model(space, learning_rate=1e-3).learn(32)
        model.learning_rate = step_size
        before, message = snapshot(model), "none"
        with context as steps:
            try:
                model.learn(32, reset_num_timesteps=False)
            except NonFiniteError as error:
                message = str(error)
                assert is_same(snapshot(model), before)
        assert steps is None or steps.call_count == 1
        assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())
        messages.append(message)
        model.learning_rate = 1e-3
        model.learn(32, reset_num_timesteps=False)
    assert messages[0] == messages[1]
    assert ("none" in messages) is (space == "discrete")  # logits may be as large as they like


class OwnDirection(SMAC):
    """A subclass with another step."""

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        return -super().actor_direction(batch)


def test_subclasses_with_another_direction_make_it() -> None:
    """Here the opposite one, to first order."""
    moves = []
    for cls in (SMAC, OwnDirection):
        env = SampleEnv(VECTOR, SPACES["box"])
        model = cls("MlpPolicy", env, n_steps=8, seed=0, device="cpu", **{**PAPERS, "learning_rate": 1e-6})
        start = flatten(model.actor_parameters)
        with counted() as steps:
            model.learn(8)
        assert steps.call_count == (cls is SMAC)
        moves.append(flatten(model.actor_parameters) - start)
    assert_close(moves[1], -moves[0], relative=0.05)


OTHERS: dict[str, dict[str, Any]] = {
    "pairs": {"batch_size": 2},
    "whole": {"batch_size": None},
    "sized": {"target_kl": 0.01},
    "line_search": {"line_search": True},
    "entropy_bonus": {"ent_coef": 0.01},
    "clipping": {"max_grad_norm": 0.5},
    "full_rank": {"fisher_rank": "full", "line_search": False},
    "gsde": {"use_sde": True},
    "elu": {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.ELU}},
    "acts_otherwise": {"policy": LearnedTemperature},
}
CHANGES: dict[str, Callable[[Any], Any]] = {
    "frozen_log_std": lambda policy: policy.log_std.requires_grad_(False),
    "frozen_weight": lambda policy: policy.action_net.weight.requires_grad_(False),
    "hook": lambda policy: policy.action_net.register_forward_hook(lambda *_: None),
    "parameter_hook": lambda policy: policy.log_std.register_hook(lambda gradient: gradient),
}


@pytest.mark.parametrize("name", [*OTHERS, *CHANGES])
def test_everything_else_takes_the_generic_steps(name: str) -> None:
    """And logs what they log; what is frozen stays."""
    model = sample_model(**OTHERS.get(name, {}))
    CHANGES.get(name, lambda policy: None)(model.policy)
    before = [parameter.clone() for parameter in model.actor_parameters]
    with counted() as steps:
        model.learn(32)
    assert steps.call_count == 0
    for old, new in zip(before, model.actor_parameters, strict=True):
        assert th.equal(old, new) == (not new.requires_grad)
