"""The Fisher of group means, inverted in sample space, against the explicit matrix."""

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_smac.maths import random_groups, ridge_weights, woodbury_weights
from sb3_smac.maths.woodbury import cholesky_solve
from tests.dense_reference import assert_close, properties

D = 9
sizes, dampings, seeds = st.integers(1, 14), st.floats(1e-3, 1e2), st.integers(0, 2**31)


@properties
@given(sizes, st.data(), dampings, seeds)
def test_every_rank_is_the_dense_inverse(n_samples: int, data: st.DataObject, damping: float, seed: int) -> None:
    """``x = (g − Sᵀw) / λ``, also where the rank does not divide the batch, with fewer or more groups than parameters."""
    rank = data.draw(st.integers(1, n_samples))
    th.manual_seed(seed)
    scores, gradient, groups = th.randn(n_samples, D).double(), th.randn(D).double(), random_groups(n_samples, rank)
    weights, used = woodbury_weights(scores @ scores.T, scores @ gradient, groups, damping)
    assert used == pytest.approx(damping)
    means = th.stack([scores[groups == group].mean(dim=0) for group in range(rank)])
    dense = damping * th.eye(D).double() + means.T @ means / rank
    assert_close((gradient - scores.T @ weights) / used, th.linalg.solve(dense, gradient), relative=1e-9)


@properties
@given(sizes, dampings, seeds)
def test_ridge_weights_solve_the_whole_batch(n_samples: int, damping: float, seed: int) -> None:
    """(λI + SᵀS / N) x = Sᵀc, densely; with more parameters than samples, and with fewer; arguments are left alone."""
    th.manual_seed(seed)
    scores, weights = th.randn(n_samples, D).double(), th.randn(n_samples).double()
    gram, given_weights = scores @ scores.T, weights.clone()
    solution, used = ridge_weights(gram, given_weights, damping)
    assert used == pytest.approx(damping)
    assert th.equal(gram, scores @ scores.T) and th.equal(given_weights, weights)
    dense = damping * th.eye(D).double() + scores.T @ scores / n_samples
    assert_close(scores.T @ solution, th.linalg.solve(dense, scores.T @ weights), relative=1e-9)
    small = scores @ scores.T / n_samples + damping * th.eye(n_samples).double()
    assert_close(solution, th.linalg.solve(small, weights), relative=1e-9)


@pytest.mark.parametrize("n_samples, rank", [(10, 1), (10, 3), (10, 10), (1000, 7)])
def test_groups_are_random_and_as_equal_as_can_be(n_samples: int, rank: int) -> None:
    groups = random_groups(n_samples, rank)
    assert len(groups.bincount()) == rank and groups.bincount().max() - groups.bincount().min() <= 1
    assert len(groups) == n_samples and (rank == 1 or not th.equal(groups, random_groups(n_samples, rank)))


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


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e20])
def test_damping_of_next_to_nothing(scale: float) -> None:
    """It is raised to the matrix's own rounding at once, whatever the scale."""
    matrix, vector = scale * th.diag(th.tensor([1.0, -1e-13])).double(), th.ones(2).double()
    solution, used = cholesky_solve(matrix, vector, 1e-300)
    assert 1e-13 * scale < used < 1e-11 * scale
    assert_close(solution, vector / (matrix.diagonal() + used), relative=1e-12)


def test_a_matrix_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        cholesky_solve(th.full((2, 2), th.nan), th.ones(2), 0.1)


@pytest.mark.parametrize("factor, dtype", [(2.0, th.float32), (0.5, th.float64)])
def test_where_float64_begins(factor: float, dtype: th.dtype) -> None:
    """At σ = 10⁴ ε ‖M‖."""
    matrix = th.diag(th.tensor([3.0, 4.0]))  # of norm 5
    shift = factor * 1e4 * th.finfo(th.float32).eps * 5
    solution, used = cholesky_solve(matrix, th.ones(2), shift)
    assert solution.dtype == dtype and used == shift
    assert_close(solution.double(), 1 / (th.tensor([3.0, 4.0]).double() + shift), relative=1e-6)


def test_a_singular_float32_gram_matrix() -> None:
    """Of rank 1, with damping below float32's resolution: the solution is still the dense one's."""
    score = th.randn(1, D).double()
    scores, weights = score.expand(50, D).float(), th.linspace(-1, 2, 50)
    solution, used = ridge_weights(scores @ scores.T, weights, 1e-8)
    expected = score[0] * weights.double().sum() / (1e-8 + score.square().sum())  # along the one direction
    assert_close(scores.double().T @ solution, expected, relative=1e-4)
    assert used <= 1e-6
