"""The Fisher of group means, inverted in sample space, against the explicit matrix."""

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_smac.maths import random_groups, sherman_morrison_solve, woodbury_weights
from sb3_smac.maths.woodbury import cholesky_solve
from tests.dense_reference import assert_close, properties

D = 9


def solve(scores: th.Tensor, gradient: th.Tensor, groups: th.Tensor, damping: float) -> th.Tensor:
    """x = (g − Sᵀw) / λ."""
    weights, used = woodbury_weights(scores @ scores.T, scores @ gradient, groups, damping)
    assert used == pytest.approx(damping)
    return (gradient - scores.T @ weights) / used


@properties
@given(st.integers(1, 14), st.data(), st.floats(1e-3, 1e2), st.integers(0, 2**31))
def test_every_rank_is_the_dense_inverse(n_samples: int, data: st.DataObject, damping: float, seed: int) -> None:
    """Also where the rank does not divide the batch, and with fewer or more groups than parameters."""
    rank = data.draw(st.integers(1, n_samples))
    th.manual_seed(seed)
    scores, gradient = th.randn(n_samples, D).double(), th.randn(D).double()
    groups = random_groups(n_samples, rank)
    means = th.stack([scores[groups == group].mean(dim=0) for group in range(rank)])
    dense = damping * th.eye(D).double() + means.T @ means / rank
    assert_close(solve(scores, gradient, groups, damping), th.linalg.solve(dense, gradient), relative=1e-9)


def test_one_group_is_the_sherman_morrison_formula() -> None:
    scores, gradient = th.randn(7, D).double(), th.randn(D).double()
    expected = sherman_morrison_solve(gradient, scores.mean(dim=0), 0.3)
    assert_close(solve(scores, gradient, random_groups(7, 1), 0.3), expected, relative=1e-12)


def test_every_score_on_its_own_is_the_whole_batch_formula() -> None:
    """x = Sᵀ (S Sᵀ + λNI)⁻¹ A where g = SᵀA / N."""
    scores, advantages = th.randn(7, D).double(), th.randn(7).double()
    expected = scores.T @ th.linalg.solve(scores @ scores.T + 0.3 * 7 * th.eye(7).double(), advantages)
    assert_close(solve(scores, scores.T @ advantages / 7, random_groups(7, 7), 0.3), expected, relative=1e-10)


@pytest.mark.parametrize("n_samples, rank", [(10, 1), (10, 3), (10, 10), (1000, 7)])
def test_groups_are_random_and_as_equal_as_can_be(n_samples: int, rank: int) -> None:
    sizes = random_groups(n_samples, rank).bincount()
    assert len(sizes) == rank and sizes.max() - sizes.min() <= 1 and sizes.sum() == n_samples
    if 1 < rank:
        assert not th.equal(random_groups(n_samples, rank), random_groups(n_samples, rank))


@pytest.mark.parametrize("rank", [0, 5])
def test_refuses_more_groups_than_samples(rank: int) -> None:
    with pytest.raises(ValueError, match="rank must be between 1 and the number of samples, 4"):
        random_groups(4, rank)


def test_an_indefinite_matrix_gets_more_damping() -> None:
    """Rounding makes a singular Gram matrix indefinite: of σ = 0.01, 0.1, 1, 10 the last is the first above 4."""
    matrix, vector = th.diag(th.tensor([1.0, -4.0])).double(), th.ones(2).double()
    solution, shift = cholesky_solve(matrix, vector, 0.01)
    assert shift == pytest.approx(10)
    assert_close(solution, vector / th.tensor([11.0, 6.0]), relative=1e-12)


def test_a_matrix_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        cholesky_solve(th.full((2, 2), th.nan), th.ones(2), 0.1)
