"""Conjugate gradient against ``torch.linalg.solve``, and what it does where that has no answer."""

import pytest
import torch as th
from hypothesis import assume, given
from hypothesis import strategies as st

from sb3_smac.maths import conjugate_gradient
from tests.dense_reference import assert_close, properties

System = tuple[th.Tensor, th.Tensor]


class Matrix:
    """A matrix that counts how often it is multiplied."""

    def __init__(self, dense: th.Tensor) -> None:
        self.dense = dense
        self.products = 0

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        self.products += 1
        return self.dense @ vector


@st.composite
def symmetric_systems(draw: st.DrawFn, eigenvalues: st.SearchStrategy) -> System:
    """M = Q diag(eigenvalues) Qᵀ with a random rotation Q, and b."""
    spectrum = th.tensor(draw(st.lists(eigenvalues, min_size=1, max_size=8)), dtype=th.float64)
    th.manual_seed(draw(st.integers(0, 2**31)))
    rotation, _ = th.linalg.qr(th.randn(len(spectrum), len(spectrum), dtype=th.float64))
    return rotation @ th.diag(spectrum) @ rotation.T, th.randn(len(spectrum), dtype=th.float64)


positive_definite = symmetric_systems(st.floats(0.1, 10))
indefinite = symmetric_systems(st.floats(-10, 10).map(lambda eigenvalue: round(eigenvalue, 2)))  # zeros among them


@properties
@given(positive_definite, st.sampled_from([1e-20, 1.0, 1e20]))
def test_solves_the_explicit_system(system: System, length: float) -> None:
    """After as many steps as there are unknowns at the latest, where the steepest descent would only have come closer."""
    matrix, rhs = system
    result = conjugate_gradient(Matrix(matrix), length * rhs, max_steps=len(rhs), tolerance=1e-12)
    assert_close(result.solution, th.linalg.solve(matrix, length * rhs), relative=1e-6)
    assert not result.negative_curvature


@properties
@given(positive_definite, st.integers(1, 12), st.sampled_from([0.0, 1e-8, 1e-3, 0.5]))
def test_stops_on_the_true_residual_or_after_max_steps(system: System, max_steps: int, tolerance: float) -> None:
    """The residual reported is that of the solution returned, and one product fewer would have been too few."""
    dense, rhs = system
    matrix = Matrix(dense)
    result = conjugate_gradient(matrix, rhs, max_steps, tolerance)
    true_residual = ((rhs - dense @ result.solution).norm() / rhs.norm()).item()
    assert result.residual == pytest.approx(true_residual, rel=1e-6, abs=1e-13)
    assert matrix.products == result.iterations <= max_steps
    assert result.iterations == max_steps or result.residual <= tolerance
    if result.iterations > 1:
        assert conjugate_gradient(matrix, rhs, result.iterations - 1, tolerance=0).residual > tolerance


def test_starts_from_zero() -> None:
    """b = 0 needs no product; otherwise the first iterate is along b, by the length that minimises along it."""
    matrix, rhs = Matrix(th.diag(th.tensor([1.0, 3.0]))), th.ones(2)
    assert conjugate_gradient(matrix, th.zeros(2))[1:] == (0.0, 0, False)
    assert matrix.products == 0
    assert th.equal(conjugate_gradient(matrix, rhs, max_steps=1).solution, rhs * 0.5)  # bᵀb / bᵀMb = 2 / 4
    assert th.equal(rhs, th.ones(2))


@properties
@given(indefinite)
def test_indefinite_matrices_give_an_ascent_direction(system: System) -> None:
    """Whatever the matrix, the step must not descend; and the flag must mean what it says."""
    matrix, rhs = system
    result = conjugate_gradient(Matrix(matrix), rhs, max_steps=50, tolerance=1e-10)
    assert rhs @ result.solution > 0
    if result.negative_curvature:
        assert th.linalg.eigvalsh(matrix).min() < 1e-9
    elif result.residual <= 1e-10:
        assume(th.linalg.cond(matrix) < 1e6)
        assert_close(result.solution, th.linalg.solve(matrix, rhs), relative=1e-3)


@pytest.mark.parametrize(
    ("diagonal", "rhs", "solution", "iterations", "negative"),
    [
        # p₀ = b has negative, or no, curvature: b itself
        ([-1.0, 1.0], [2.0, 0.0], [2.0, 0.0], 1, True),
        ([0.0, 0.0], [1.0, 1.0], [1.0, 1.0], 1, True),
        # x₁ = b bᵀb / bᵀMb = b 5/3, then p₁ has negative curvature: x₁ stands
        ([1.0, -1.0], [2.0, 1.0], [10 / 3, 5 / 3], 2, True),
        # x₁ = b · 2 / 1, then p₁ is in the null space
        ([1.0, 0.0], [1.0, 1.0], [2.0, 2.0], 2, True),
        # a Fisher matrix is singular wherever two parameters do the same; its own range poses no problem
        ([2.0, 0.0], [4.0, 0.0], [2.0, 0.0], 1, False),
    ],
)
def test_negative_or_zero_curvature(diagonal: list, rhs: list, solution: list, iterations: int, negative: bool) -> None:
    d, b, x = (th.tensor(values, dtype=th.float64) for values in (diagonal, rhs, solution))
    result = conjugate_gradient(Matrix(th.diag(d)), b)
    assert (result.negative_curvature, result.iterations) == (negative, iterations)
    assert_close(result.solution, x, relative=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": 0}, "max_steps must be at least 1, got 0"),
        ({"tolerance": -1e-3}, "tolerance must be at least 0, got -0.001"),
        ({"tolerance": float("nan")}, "tolerance must be at least 0, got nan"),
    ],
)
def test_refuses_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conjugate_gradient(th.clone, th.ones(2), **arguments)
