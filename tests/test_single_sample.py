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
from tests.algorithms import SampleEnv, is_same, make, snapshot
from tests.dense_reference import assert_close

VECTOR = spaces.Box(-1.0, 1.0, (3,))
ACTION_SPACES: dict[str, spaces.Space] = {
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
    env = make_vec_env(lambda: SampleEnv(VECTOR, ACTION_SPACES[space]), n_envs=n_envs)
    return make("smac", env, **{**PAPERS, **arguments})


class WithoutBiases(MlpPolicy):
    """Linear layers without bias, among others with one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mlp_extractor.policy_net[0] = nn.Linear(3, 8, bias=False)
        self.action_net = nn.Linear(8, self.action_net.out_features, bias=False)


NETWORKS: dict[str, dict[str, Any]] = {
    "tanh": {"policy_kwargs": {"net_arch": [8, 6], "ortho_init": False}},
    "relu": {"policy_kwargs": {"net_arch": [8, 6], "activation_fn": nn.ReLU, "ortho_init": False}},
    "linear": {"policy_kwargs": {"net_arch": []}},
    "narrow": {"policy_kwargs": {"net_arch": [8], "log_std_init": -1.5}},
    "without_biases": {"policy": WithoutBiases},
    "not_normalized": {"normalize_observations": False, "normalize_advantage": False},
}


def metrics(model: SMAC) -> dict[str, float]:
    """What the update logs."""
    values = model.logger.name_to_value
    return {key.removeprefix("train/"): value for key, value in values.items() if key.startswith("train/")}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("space", ACTION_SPACES)
def test_steps_are_those_of_autograd(space: str, network: str) -> None:
    """Parameters and metrics of two updates, the second at normalised observations; the critic's path is the same."""
    results = []
    for context in (by_autograd(), counted()):
        model = sample_model(space, n_envs=2, **NETWORKS[network])
        start = flatten(model.actor_parameters)
        with context as steps:
            model.learn(128)
        assert steps is None or steps.call_count == 2
        results.append((flatten(model.actor_parameters) - start, metrics(model), flatten(model.critic_parameters)))
    assert results[0][0].norm() > 0.05
    assert_close(results[1][0], results[0][0], relative=5e-4)
    assert_close(results[1][2], results[0][2], relative=1e-4)
    assert (
        results[1][1].keys() == results[0][1].keys() >= {"policy_loss", "entropy_loss", "score_norm", "approx_kl", "step_size"}
    )
    assert results[1][1] == pytest.approx(results[0][1], rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_against_the_formula_in_float64(space: str, damping: float) -> None:
    """``θ ← θ + α A s / (λ + ‖s‖²)``, each score at the parameters that the previous step left."""
    model = sample_model(space, damping=damping, learning_rate=0.01, n_steps=16, normalize_observations=False)
    taken: list[tuple[th.Tensor, ...]] = []
    steps = smac.single_sample_steps

    def keep(plain: Any, observations: th.Tensor, actions: th.Tensor, advantages: th.Tensor, *rest: Any) -> Any:
        assert rest == (0.01, damping)
        taken.append((observations.clone(), actions.clone(), advantages.clone(), flatten(model.actor_parameters)))
        return steps(plain, observations, actions, advantages, *rest)

    with mock.patch.object(smac, "single_sample_steps", keep):
        model.learn(16)
    ((observations, actions, advantages, start),) = taken
    # the last layer of Stable-Baselines3's casts observations to float32: a network of our own, then
    network = nn.Sequential(*model.policy.mlp_extractor.policy_net, model.policy.action_net)
    end = flatten(model.actor_parameters)
    theta = [parameter.detach().double().requires_grad_() for parameter in network.parameters()]
    gaussian = space != "discrete"
    log_std = th.zeros(theta[-1].shape, dtype=th.float64, requires_grad=True)
    pieces = [log_std, *theta] if gaussian else theta
    with th.no_grad():
        for piece, value in zip(pieces, start.double().split([piece.numel() for piece in pieces]), strict=True):
            piece.copy_(value.view_as(piece))
    for observation, action, advantage in zip(observations.double(), actions, advantages.double(), strict=True):
        output = th.tanh(observation @ theta[0].T + theta[1]) @ theta[2].T + theta[3]
        distribution: Any = (
            th.distributions.Normal(output, log_std.exp()) if gaussian else th.distributions.Categorical(logits=output)
        )
        score = th.autograd.grad(distribution.log_prob(action).sum(), pieces)
        squared_norm = sum(each.square().sum() for each in score)
        with th.no_grad():
            for piece, each in zip(pieces, score, strict=True):
                piece += 0.01 * advantage * each / (damping + squared_norm)
    assert [parameter.shape for parameter in model.actor_parameters] == [piece.shape for piece in pieces]
    assert (end - start).norm() > 1e-3
    assert_close((end - start).double(), flatten(pieces) - start.double(), relative=1e-4)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")
@pytest.mark.parametrize("step_size", [1e4, 1e38])
@pytest.mark.parametrize("space", ACTION_SPACES)
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
        model = cls(
            "MlpPolicy",
            SampleEnv(VECTOR, ACTION_SPACES["box"]),
            n_steps=8,
            seed=0,
            device="cpu",
            **{**PAPERS, "learning_rate": 1e-6}
        )
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
}
FREEZE: dict[str, Callable[[Any], None]] = {
    "frozen_log_std": lambda policy: policy.log_std.requires_grad_(False),
    "frozen_weight": lambda policy: policy.action_net.weight.requires_grad_(False),
    "hook": lambda policy: policy.action_net.register_forward_hook(lambda *_: None),
    "parameter_hook": lambda policy: policy.log_std.register_hook(lambda gradient: gradient),
}


@pytest.mark.parametrize("name", [*OTHERS, *FREEZE])
def test_everything_else_takes_the_generic_steps(name: str) -> None:
    """And logs what they log."""
    results = []
    for context in (by_autograd(), counted()):
        model = sample_model(**OTHERS.get(name, {}))
        FREEZE.get(name, lambda policy: None)(model.policy)
        start = flatten(model.actor_parameters)
        with context as steps:
            model.learn(32)
        assert steps is None or steps.call_count == 0
        assert not th.equal(flatten(model.actor_parameters), start)
        results.append((snapshot(model), metrics(model)))
    assert is_same(*results)


def test_frozen_parameters_stay() -> None:
    model = sample_model()
    weight = model.policy.action_net.weight.requires_grad_(False)
    before = weight.clone()
    model.learn(32)
    assert th.equal(weight, before)


def test_memory_is_the_policys_own() -> None:
    """Parameters are changed where they are: whoever holds them sees it, and the rollout stays what it was."""
    model = sample_model()
    held = [parameter for parameter in model.actor_parameters]
    pointers = [parameter.data_ptr() for parameter in held]
    model.learn(32)
    assert [
        parameter.data_ptr() for parameter in model.policy.parameters() if any(parameter is each for each in held)
    ] == pointers
