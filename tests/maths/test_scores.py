"""The score matrix as an operator against the matrix itself."""

from collections.abc import Callable

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_smac.common.parameters import split_parameters
from sb3_smac.fast.plain_policy import scale_calls
from sb3_smac.maths import LayerRecorder, ScaleCall, Scores
from sb3_smac.maths import scores as scores_module
from tests.dense_reference import CASES, DoublePolicy, assert_close, jacobian, make_policy

N = 6


def log_probability(network: nn.Module) -> th.Tensor:
    """Log-probabilities of random actions of a categorical policy, (N,)."""
    th.manual_seed(1)
    logits = network(th.randn(N, 3, dtype=th.float64))
    return logits.log_softmax(dim=1)[th.arange(N), th.randint(5, (N,))]


def dense_scores(scores: Scores) -> th.Tensor:
    """S (N, d), with zeros for what is frozen."""
    columns = [
        jacobian(scores.log_prob, [each]) if each.requires_grad else th.zeros(len(scores), each.numel())
        for each in scores.parameters
    ]
    return th.cat(columns, dim=1).double()


def assert_is_dense(scores: Scores, relative: float = 1e-12) -> None:
    """Every product of the operator, twice: the graph lasts, and nothing that is kept is changed."""
    dense = dense_scores(scores)
    weights, direction = th.randn(len(dense)).double(), th.randn(dense.shape[1]).double()
    for _ in range(2):
        assert_close(scores.mean(), dense.mean(dim=0), relative)
        assert_close(scores.weighted_sum(weights), dense.T @ weights, relative)
        assert_close(scores.product(direction), dense @ direction, relative)
        if scores.samplewise:  # else nobody asks for it
            gram = scores.gram()
            assert_close(gram, dense @ dense.T, relative)
            assert_close(gram, gram.T, relative=1e-14)


def test_parameters_without_a_score_keep_their_place() -> None:
    """One that the policy does not use and one that is frozen give columns of zeros."""
    first, unused, frozen = nn.Linear(3, 5).double(), nn.Parameter(th.ones(2).double()), nn.Parameter(th.ones(3).double())
    frozen.requires_grad_(False)
    assert_is_dense(Scores(log_probability(first), [unused, first.weight, frozen, first.bias], samplewise=False))
    columns = Scores(log_probability(first), [unused, first.weight])
    assert_is_dense(columns)  # its Gram matrix, too
    assert Scores(log_probability(first), [unused]).product(th.ones(2).double()).tolist() == [0.0] * N


def test_linear_policy() -> None:
    """Where log π is linear in θ the scores do not depend on θ at all, and S v must still be found."""
    theta, features = nn.Parameter(th.zeros(3).double()), th.randn(N, 3).double()
    assert_is_dense(Scores(features @ theta, [theta]))


def test_weights_of_another_precision() -> None:
    """Advantages come out of the rollout buffer in float32, whatever the policy computes in."""
    network = nn.Linear(3, 5).double()
    scores = Scores(log_probability(network), list(network.parameters()))
    weighted = scores.weighted_sum(th.ones(N, dtype=th.float32))
    assert weighted.dtype == th.float64
    assert_close(weighted, dense_scores(scores).sum(dim=0), relative=1e-13)


@pytest.mark.parametrize("shape", [(N, 1), ()])
def test_refuses_log_probabilities_that_are_no_vector(shape: tuple) -> None:
    with pytest.raises(ValueError, match="log_prob must be one-dimensional"):
        Scores(th.zeros(shape, requires_grad=True), [])


def frozen_log_std() -> DoublePolicy:
    policy = make_policy("box")
    policy.log_std.requires_grad_(False)
    return policy


POLICIES: dict[str, Callable[[], ActorCriticPolicy]] = {
    **{space: lambda space=space: make_policy(space, net_arch=[3, 4]) for space in CASES},  # type: ignore[misc]
    "linear": lambda: make_policy("box", net_arch=[]),
    "relu": lambda: make_policy("discrete", net_arch=[4], activation_fn=nn.ReLU),
    "frozen_log_std": frozen_log_std,
}


def on_batch(policy: ActorCriticPolicy, size: int = 5, samplewise: bool = True) -> Scores:
    """Scores of random transitions, with all that the factored form may use."""
    th.manual_seed(0)
    parameters, _ = split_parameters(policy)
    policy.observation_space.seed(0)
    observations = th.cat([policy.obs_to_tensor(policy.observation_space.sample())[0] for _ in range(size)])
    if hasattr(policy, "log_std"):
        policy.log_std.data.uniform_(-1, 0.5)  # at 0, σ and its logarithm move alike
    if policy.use_sde:
        policy.reset_noise()  # in float64
    with LayerRecorder(policy.modules()) as recorder:
        distribution = policy.get_distribution(observations)
    calls = [*recorder.calls, *scale_calls(policy, distribution)]
    return Scores(distribution.log_prob(distribution.sample().detach()), parameters, calls, samplewise)


@pytest.mark.parametrize("samplewise", [True, False])
@pytest.mark.parametrize("name", POLICIES)
def test_scores_of_policies(name: str, samplewise: bool) -> None:
    """For every action space. (Of layers: ``test_layers.py``.)"""
    assert_is_dense(on_batch(POLICIES[name](), samplewise=samplewise))


@pytest.mark.parametrize("size", [1, 4, 5, 11])
def test_the_blocks_of_the_gram_matrix_meet(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the batch is no multiple of a block."""
    monkeypatch.setattr(scores_module, "BLOCK", 4)
    assert_is_dense(on_batch(make_policy("box"), size))


@pytest.mark.parametrize("name", ["box", "discrete"])
def test_plain_scores_take_one_backward_pass_in_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is asked of them, and however often."""
    scores, calls, grad = on_batch(make_policy(name)), [], th.autograd.grad
    monkeypatch.setattr(th.autograd, "grad", lambda *args, **kwargs: (calls.append(args), grad(*args, **kwargs))[1])
    for _ in range(2):
        scores.mean(), scores.product(scores.weighted_sum(th.ones(5))), scores.gram()
    assert len(calls) == 1


def test_a_standard_deviation_that_is_not_the_actors() -> None:
    """One that was frozen when the actor's parameters were found, and is not any more."""
    policy = make_policy("box")
    scores = on_batch(policy)
    scores.parameters = [each for each in scores.parameters if each is not policy.log_std]
    assert any(isinstance(call, ScaleCall) for call in scores.calls)
    assert_is_dense(scores)


class BatchNormExtractor(FlattenExtractor):
    """With batch statistics a sample's log-probability depends on the other samples' observations."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(super().forward(observations).double())


def test_samples_that_depend_on_each_other() -> None:
    """Sums and products by backward passes are right; the factored ones are not, which is what ``samplewise`` is for."""
    policy = make_policy("box", features_extractor_class=BatchNormExtractor)
    policy.set_training_mode(True)
    scores = on_batch(policy, samplewise=False)
    assert_is_dense(scores, relative=1e-11)
    scores.samplewise = True
    with pytest.raises(AssertionError, match="off by"):
        assert_is_dense(scores, relative=0.01)
