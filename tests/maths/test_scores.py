"""The score matrix as an operator against the matrix itself."""

import pytest
import torch as th
from torch import nn

from sb3_smac.maths import Scores
from tests.dense_reference import assert_close, jacobian

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
