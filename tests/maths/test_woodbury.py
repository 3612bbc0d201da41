"""The Fisher of group means, inverted in sample space, against the explicit matrix."""

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_smac.maths import random_groups, ridge_weights, sherman_morrison_solve, woodbury_weights
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


@pytest.mark.parametrize("shift", [1e-300, 1e-30])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e20])
def test_damping_of_next_to_nothing(shift: float, scale: float) -> None:
    """It is raised to the matrix's own rounding at once, whatever the scale."""
    matrix, vector = scale * th.diag(th.tensor([1.0, -1e-13])).double(), th.ones(2).double()
    solution, used = cholesky_solve(matrix, vector, shift)
    assert 1e-13 * scale < used < 1e-11 * scale
    assert_close(solution, vector / (matrix.diagonal() + used), relative=1e-12)


def test_a_matrix_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(FloatingPointError, match="not finite"):
        cholesky_solve(th.full((2, 2), th.nan), th.ones(2), 0.1)


def random_problem(n_samples: int, n_parameters: int = D) -> tuple[th.Tensor, th.Tensor]:
    """Scores (N, d) and weights (N,) of a gradient."""
    return th.randn(n_samples, n_parameters).double(), th.randn(n_samples).double()


@properties
@given(st.integers(1, 14), st.floats(1e-3, 1e2), st.integers(0, 2**31))
def test_ridge_weights_solve_the_whole_batch(n_samples: int, damping: float, seed: int) -> None:
    """(λI + SᵀS / N) x = Sᵀc, densely; with more parameters than samples, and with fewer."""
    th.manual_seed(seed)
    scores, weights = random_problem(n_samples)
    solution, used = ridge_weights(scores @ scores.T, weights, damping)
    assert used == pytest.approx(damping)
    dense = damping * th.eye(D).double() + scores.T @ scores / n_samples
    assert_close(scores.T @ solution, th.linalg.solve(dense, scores.T @ weights), relative=1e-9)
    small = scores @ scores.T / n_samples + damping * th.eye(n_samples).double()
    assert_close(solution, th.linalg.solve(small, weights), relative=1e-9)


@pytest.mark.parametrize("n_samples", [1, 7, 30])
@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_ridge_weights_are_those_of_a_group_for_every_sample(n_samples: int, damping: float) -> None:
    th.manual_seed(0)
    scores, weights = random_problem(n_samples)
    expected = solve(scores, scores.T @ weights, random_groups(n_samples, n_samples), damping)
    solution, _ = ridge_weights(scores @ scores.T, weights, damping)
    assert_close(scores.T @ solution, expected, relative=1e-8)


def test_the_precision_follows_the_condition_number() -> None:
    """A float32 Gram matrix is solved in float32 where that is enough, and in float64 where digits would be lost."""
    th.manual_seed(0)
    scores, weights = random_problem(40)
    gram, weights = (scores @ scores.T).float(), weights.float()
    for damping, dtype in ((10.0, th.float32), (1e-6, th.float64)):
        solution, used = ridge_weights(gram, weights, damping)
        assert solution.dtype == dtype and used == pytest.approx(damping)
        # the same matrix, as it was rounded: what the solver itself loses
        dense = gram.double() / 40 + damping * th.eye(40).double()
        if dtype is th.float32:
            assert_close(solution.double(), th.linalg.solve(dense, weights.double()), relative=1e-4)
        else:
            assert_close(dense @ solution, weights.double(), relative=1e-6)
    assert gram.dtype == th.float32


@pytest.mark.parametrize("factor, dtype", [(2.0, th.float32), (0.5, th.float64)])
def test_where_float64_begins(factor: float, dtype: th.dtype) -> None:
    """At σ = 10⁴ ε ‖M‖."""
    matrix = th.diag(th.tensor([3.0, 4.0]))  # of norm 5
    shift = factor * 1e4 * th.finfo(th.float32).eps * 5
    solution, used = cholesky_solve(matrix, th.ones(2), shift)
    assert solution.dtype == dtype and used == shift
    assert_close(solution.double(), 1 / (th.tensor([3.0, 4.0]).double() + shift), relative=1e-6)


def test_the_gram_matrix_is_left_alone() -> None:
    scores, weights = random_problem(7)
    gram = scores @ scores.T
    before = gram.clone(), weights.clone()
    ridge_weights(gram, weights, 0.1)
    assert th.equal(gram, before[0]) and th.equal(weights, before[1])


def test_a_singular_float32_gram_matrix() -> None:
    """Of rank 1, with damping below float32's resolution: the solution is still the dense one's."""
    score = th.randn(1, D).double()
    scores, weights = score.expand(50, D).float(), th.linspace(-1, 2, 50)
    solution, used = ridge_weights(scores @ scores.T, weights, 1e-8)
    expected = score[0] * weights.double().sum() / (1e-8 + score.square().sum())  # along the one direction
    assert_close(scores.double().T @ solution, expected, relative=1e-4)
    assert used <= 1e-6
