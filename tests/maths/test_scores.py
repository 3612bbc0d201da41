"""The score matrix as an operator against the matrix itself."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from torch import nn

from sb3_smac.common.parameters import split_parameters
from sb3_smac.common.policies import CnnPolicy, MultiInputPolicy
from sb3_smac.fast.plain_policy import scale_calls
from sb3_smac.maths import LayerRecorder, ScaleCall, Scores
from sb3_smac.maths import scores as scores_module
from tests.dense_reference import BOX, CASES, DoublePolicy, assert_close, jacobian, make_policy

N = 6


@pytest.fixture
def network() -> nn.Sequential:
    th.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).double()


@pytest.fixture
def log_prob(network: nn.Sequential) -> th.Tensor:
    """Log-probabilities of random actions of a categorical policy, (N,)."""
    logits = network(th.randn(N, 3, dtype=th.float64))
    return logits.log_softmax(dim=1)[th.arange(N), th.randint(5, (N,))]


def test_products_are_those_of_the_dense_matrix(network: nn.Sequential, log_prob: th.Tensor) -> None:
    parameters = list(network.parameters())
    dense = jacobian(log_prob, parameters)  # (N, d)
    scores = Scores(log_prob, parameters)
    weights, direction = th.randn(N, dtype=th.float64), th.randn(dense.shape[1], dtype=th.float64)
    for _ in range(2):  # the graph lasts, and the mean that is kept is not changed by other products
        assert_close(scores.mean(), dense.mean(dim=0), relative=1e-13)
        assert_close(scores.weighted_sum(weights), dense.T @ weights, relative=1e-13)
        assert_close(scores.product(direction), dense @ direction, relative=1e-13)
    assert len(scores) == N


def test_parameters_without_a_score_keep_their_place(network: nn.Sequential, log_prob: th.Tensor) -> None:
    """One that the policy does not use and one that is frozen give columns of zeros."""
    unused, frozen = nn.Parameter(th.ones(2).double()), nn.Parameter(th.ones(3).double(), requires_grad=False)
    used = list(network.parameters())
    dense = jacobian(log_prob, used)
    count = used[0].numel()
    padded = th.cat([th.zeros(N, 2), dense[:, :count], th.zeros(N, 3), dense[:, count:]], dim=1)
    scores = Scores(log_prob, [unused, used[0], frozen, *used[1:]])
    weights, direction = th.randn(N, dtype=th.float64), th.randn(padded.shape[1], dtype=th.float64)
    assert_close(scores.mean(), padded.mean(dim=0), relative=1e-13)
    assert_close(scores.weighted_sum(weights), padded.T @ weights, relative=1e-13)
    assert_close(scores.product(direction), padded @ direction, relative=1e-13)


def test_product_with_a_direction_that_no_score_has(log_prob: th.Tensor) -> None:
    scores = Scores(log_prob, [nn.Parameter(th.ones(2).double())])
    assert scores.product(th.ones(2).double()).tolist() == [0.0] * N


def test_linear_policy(network: nn.Sequential) -> None:
    """Where log π is linear in θ the scores do not depend on θ at all, and S v must still be found."""
    theta, features = nn.Parameter(th.zeros(3).double()), th.randn(N, 3, dtype=th.float64)
    assert_close(Scores(features @ theta, [theta]).product(th.ones(3).double()), features.sum(dim=1), relative=1e-13)


def test_weights_of_another_precision(network: nn.Sequential, log_prob: th.Tensor) -> None:
    """Advantages come out of the rollout buffer in float32, whatever the policy computes in."""
    parameters = list(network.parameters())
    weighted = Scores(log_prob, parameters).weighted_sum(th.ones(N, dtype=th.float32))
    assert weighted.dtype == th.float64
    assert_close(weighted, jacobian(log_prob, parameters).sum(dim=0), relative=1e-13)


@pytest.mark.parametrize("shape", [(N, 1), ()])
def test_refuses_log_probabilities_that_are_no_vector(shape: tuple) -> None:
    with pytest.raises(ValueError, match="log_prob must be one-dimensional"):
        Scores(th.zeros(shape, requires_grad=True), [])


class DoubleCnn(NatureCNN):
    """Stable-Baselines3 casts images to float32: cast them back before the first layer."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations.double())


class DoubleCombined(CombinedExtractor):
    """The same for Dict observations."""

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        return super().forward({key: value.double() for key, value in observations.items()})


IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)


def cnn(share: bool) -> ActorCriticPolicy:
    extractor = {"features_extractor_class": DoubleCnn, "features_extractor_kwargs": {"features_dim": 4}}
    return CnnPolicy(IMAGE, BOX, lambda _: 0.0, net_arch=[3], share_features_extractor=share, **extractor).double()


def dict_observations() -> ActorCriticPolicy:
    space = spaces.Dict({"image": IMAGE, "one": spaces.Box(-1, 1, (2,)), "two": spaces.Discrete(3)})
    extractor = {"features_extractor_class": DoubleCombined, "features_extractor_kwargs": {"cnn_output_dim": 4}}
    return MultiInputPolicy(space, spaces.Discrete(3), lambda _: 0.0, net_arch=[3], **extractor).double()


def frozen(*names: str) -> DoublePolicy:
    """Frozen after the actor's parameters have been found: they keep their places."""
    policy = make_policy("box", net_arch=[3, 4])
    for name in names:
        policy.get_parameter(name).requires_grad_(False)
    return policy


POLICIES: dict[str, Callable[[], ActorCriticPolicy]] = {
    **{space: lambda space=space: make_policy(space, net_arch=[3, 4]) for space in CASES},  # type: ignore[misc]
    "linear": lambda: make_policy("box", net_arch=[]),
    "relu": lambda: make_policy("discrete", net_arch=[4], activation_fn=nn.ReLU),
    "cnn": lambda: cnn(share=False),
    "shared_cnn": lambda: cnn(share=True),
    "dict": dict_observations,
    "frozen_log_std": lambda: frozen("log_std"),
    "frozen_weight": lambda: frozen("mlp_extractor.policy_net.2.weight"),
    "frozen_layer": lambda: frozen("action_net.weight", "action_net.bias"),
}


def on_batch(policy: ActorCriticPolicy, size: int, samplewise: bool = True) -> Scores:
    """Scores of random transitions, with all that the factored form may use."""
    parameters = [each for each in policy.parameters() if each in _own(policy)]
    space = policy.observation_space
    space.seed(0)
    batches = [policy.obs_to_tensor(space.sample())[0] for _ in range(size)]
    observations: Any = (
        {key: th.cat([each[key] for each in batches]) for key in batches[0]}
        if isinstance(space, spaces.Dict)
        else th.cat(batches)
    )
    if hasattr(policy, "log_std"):
        policy.log_std.data.uniform_(-1, 0.5)  # at 0, σ and its logarithm move alike
    if policy.use_sde:
        policy.reset_noise()  # in float64
    with LayerRecorder(policy.modules()) as recorder:
        distribution = policy.get_distribution(observations)
    calls = [*recorder.calls, *scale_calls(policy, distribution)]
    return Scores(distribution.log_prob(distribution.sample().detach()), parameters, calls, samplewise)


def _own(policy: ActorCriticPolicy) -> set[nn.Parameter]:
    """The actor's parameters, also those that are frozen."""
    frozen = [parameter for parameter in policy.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    actor, _ = split_parameters(policy)
    for parameter in frozen:
        parameter.requires_grad_(False)
    return set(actor)


def dense_scores(scores: Scores) -> th.Tensor:
    """S (N, d), with zeros for what is frozen."""
    size = len(scores)
    columns = [
        jacobian(scores.log_prob, [each]) if each.requires_grad else th.zeros(size, each.numel()) for each in scores.parameters
    ]
    return th.cat(columns, dim=1).double()


@pytest.mark.parametrize("samplewise", [True, False])
@pytest.mark.parametrize("name", POLICIES)
def test_scores_of_policies(name: str, samplewise: bool) -> None:
    """Every product of the operator, for every action space, extractor and frozen part."""
    th.manual_seed(0)
    scores = on_batch(POLICIES[name](), size=5, samplewise=samplewise)
    dense = dense_scores(scores)
    weights, direction = th.randn(len(dense)).double(), th.randn(dense.shape[1]).double()
    assert dense.norm() > 0.1
    assert_close(scores.mean(), dense.mean(dim=0), relative=1e-12)
    assert_close(scores.weighted_sum(weights), dense.T @ weights, relative=1e-12)
    assert_close(scores.product(direction), dense @ direction, relative=1e-12)
    assert_close(scores.gram(), dense @ dense.T, relative=1e-12)


@pytest.mark.parametrize("size", [1, 4, 5, 11])
def test_the_blocks_of_the_gram_matrix_meet(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Symmetric, also where the batch is no multiple of a block."""
    monkeypatch.setattr(scores_module, "BLOCK", 4)
    th.manual_seed(0)
    scores = on_batch(make_policy("box"), size)
    dense, gram = dense_scores(scores), scores.gram()
    assert_close(gram, dense @ dense.T, relative=1e-12)
    assert (gram - dense @ dense.T).abs().max() < 1e-10 * gram.abs().max()
    assert_close(gram, gram.T, relative=1e-14)


@pytest.mark.parametrize("name", ["box", "discrete"])
def test_plain_scores_take_one_backward_pass_in_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of them, and however often."""
    scores = on_batch(make_policy(name), size=5)
    calls = []
    grad = th.autograd.grad
    monkeypatch.setattr(th.autograd, "grad", lambda *args, **kwargs: (calls.append(args), grad(*args, **kwargs))[1])
    for _ in range(2):
        scores.mean(), scores.product(scores.weighted_sum(th.ones(5))), scores.gram()
    assert len(calls) == 1


def test_a_standard_deviation_that_is_not_the_actors() -> None:
    """One that was frozen when the actor's parameters were found, and is not any more."""
    policy = make_policy("box")
    scores = on_batch(policy, size=5)
    scores.parameters = [each for each in scores.parameters if each is not policy.log_std]
    dense, weights = dense_scores(scores), th.randn(5).double()
    assert any(isinstance(call, ScaleCall) for call in scores.calls)
    assert_close(scores.weighted_sum(weights), dense.T @ weights, relative=1e-12)
    assert_close(scores.gram(), dense @ dense.T, relative=1e-12)


class BatchNormExtractor(FlattenExtractor):
    """With batch statistics a sample's log-probability depends on the other samples' observations."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(super().forward(observations).double())


def test_samples_that_depend_on_each_other() -> None:
    """Sums and products by backward passes are right; the factored ones are not, which is what ``samplewise`` is for."""
    th.manual_seed(0)
    policy = make_policy("box", features_extractor_class=BatchNormExtractor)
    policy.set_training_mode(True)
    scores = on_batch(policy, size=5, samplewise=False)
    dense = dense_scores(scores)
    weights, direction = th.randn(5).double(), th.randn(dense.shape[1]).double()
    assert_close(scores.mean(), dense.mean(dim=0), relative=1e-11)
    assert_close(scores.weighted_sum(weights), dense.T @ weights, relative=1e-11)
    assert_close(scores.product(direction), dense @ direction, relative=1e-11)
    factored = Scores(scores.log_prob, scores.parameters, scores.calls, samplewise=True)
    assert (factored.weighted_sum(weights) - dense.T @ weights).norm() > 0.01 * (dense.T @ weights).norm()
