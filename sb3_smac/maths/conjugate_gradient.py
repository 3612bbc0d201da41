"""Conjugate gradient for symmetric positive definite systems given by a matrix-vector product."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

# Lengths of a right-hand side whose squares stay well within float32
ORDINARY = (1e-10, 1e10)


class ConjugateGradientResult(NamedTuple):
    """
    What :func:`conjugate_gradient` found.

    :param solution: x, shape (d,)
    :param residual: relative residual ``‖b − M x‖ / ‖b‖`` (as the recurrence carries it)
    :param iterations: matrix-vector products used
    :param negative_curvature: a direction p with ``pᵀ M p ≤ 0`` ended the iteration
    """

    solution: th.Tensor
    residual: float
    iterations: int
    negative_curvature: bool


def conjugate_gradient(
    matrix_vector_product: Callable[[th.Tensor], th.Tensor],
    rhs: th.Tensor,
    max_steps: int = 10,
    tolerance: float = 1e-5,
) -> ConjugateGradientResult:
    """
    Solve ``M x = b`` by the method of Hestenes and Stiefel (1952), starting from ``x = 0``.

    It ends when the residual is at most ``tolerance · ‖b‖``, after ``max_steps`` products, or at a direction p of zero or
    negative curvature, ``pᵀ M p ≤ 0``, where M is not positive definite: then x is what had been found until there, or b
    itself (the steepest ascent direction) if it is the first direction.

    :param matrix_vector_product: ``v ↦ M v``
    :param rhs: right-hand side b, shape (d,)
    :param max_steps: largest number of matrix-vector products, at least 1
    :param tolerance: relative residual at which to stop, at least 0
    :return: solution, residual, iterations, and whether negative curvature ended it
    :raises ValueError: if ``max_steps`` < 1 or ``tolerance`` < 0
    """
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps!r}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be at least 0, got {tolerance!r}")
    # M is linear: with b of length 1, no square overflows that need not
    length = th.linalg.vector_norm(rhs, dtype=th.float64).item()
    if length > 0 and not ORDINARY[0] < length < ORDINARY[1]:
        result = conjugate_gradient(matrix_vector_product, (rhs.double() / length).to(rhs), max_steps, tolerance)
        return result._replace(solution=(result.solution.double() * length).to(rhs))
    solution = th.zeros_like(rhs)
    residual = rhs.clone()  # r₀ = b − M x₀ = b
    direction = rhs.clone()  # p₀ = r₀
    squared_residual = residual.dot(residual)
    squared_rhs = squared_residual.item()
    iterations, negative_curvature = 0, False
    while iterations < max_steps and squared_residual.item() > tolerance**2 * squared_rhs:
        product = matrix_vector_product(direction)
        curvature = direction.dot(product)  # pᵀ M p
        iterations += 1
        if curvature.item() <= 0:
            negative_curvature = True
            if iterations == 1:
                solution, residual = rhs.clone(), rhs - product
                squared_residual = residual.dot(residual)
            break
        step = squared_residual / curvature  # α_k = r_kᵀ r_k / p_kᵀ M p_k
        solution += step * direction  # x_{k+1} = x_k + α_k p_k
        residual -= step * product  # r_{k+1} = r_k − α_k M p_k
        new_squared_residual = residual.dot(residual)
        direction = residual + (new_squared_residual / squared_residual) * direction  # p_{k+1} = r_{k+1} + β_k p_k
        squared_residual = new_squared_residual
    relative_residual = (squared_residual.item() / squared_rhs) ** 0.5 if squared_rhs > 0 else 0.0
    return ConjugateGradientResult(solution, relative_residual, iterations, negative_curvature)
