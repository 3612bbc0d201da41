"""Gauss–Newton steps in sample space against dense algebra in float64, and their safeguard."""

import copy
from collections.abc import Callable

import pytest
import torch as th
from torch import nn

from sb3_smac.maths import GaussNewtonStep, LayerRecorder, Scores, assign, flatten, gauss_newton_step
from tests.dense_reference import assert_close, jacobian

N, DAMPING = 9, 0.3


class Problem:
    """A small network in float64, inputs, and targets."""

    def __init__(self, seed: int = 0, scale: float = 1.0) -> None:
        th.manual_seed(seed)
        self.network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        self.parameters = list(self.network.parameters())
        self.inputs, self.targets = th.randn(N, 3).double(), scale * th.randn(N).double()

    def outputs(self) -> th.Tensor:
        return self.network(self.inputs).flatten()

    def loss(self) -> float:
        return (self.targets - self.outputs()).square().mean().item()

    def step(
        self, damping: float = DAMPING, loss: Callable[[], float] | None = None, samplewise: bool = True
    ) -> GaussNewtonStep:
        start = flatten(self.parameters)

        def linearize() -> Scores:
            with LayerRecorder(self.network.modules()) as recorder:
                outputs = self.outputs()
            return Scores(outputs, self.parameters, recorder.calls, samplewise)

        def move(displacement: th.Tensor | None) -> None:
            assign(self.parameters, start, displacement, 1.0)

        return gauss_newton_step(linearize, self.targets, damping, move, loss or self.loss)


def test_step_is_that_of_the_dense_algebra() -> None:
    """``φ + (JᵀJ/N + λI)⁻¹ Jᵀr/N`` by an explicit p×p matrix."""
    problem = Problem()
    outputs, start = problem.outputs(), flatten(problem.parameters)
    dense = jacobian(outputs, problem.parameters)
    matrix = dense.T @ dense / N + DAMPING * th.eye(dense.shape[1]).double()
    expected = th.linalg.solve(matrix, dense.T @ (problem.targets - outputs).detach() / N)
    loss, damping = problem.step()
    assert_close(flatten(problem.parameters) - start, expected, relative=1e-10)
    assert damping == DAMPING and loss == pytest.approx(problem.loss(), rel=1e-12)


@pytest.mark.parametrize("samplewise", [True, False])
def test_a_step_that_raises_the_loss_is_damped(samplewise: bool) -> None:
    """
    With next to no damping the first try overshoots; what is taken is the step of a larger damping, also where sums of scores
    are backward passes.
    """
    raised = 0
    for seed in range(20):
        problem = Problem(seed, scale=30.0)
        before, start = problem.loss(), copy.deepcopy(problem)
        loss, damping = problem.step(damping=1e-6, samplewise=samplewise)
        raised += damping > 2e-6
        assert loss <= before and loss == pytest.approx(problem.loss(), rel=1e-12)
        if damping < float("inf"):
            assert start.step(damping=damping).loss == pytest.approx(loss, rel=1e-9)
    assert raised > 3


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_nothing_moves_if_nothing_helps(value: float) -> None:
    """A loss that is worse wherever it looks, or not a number."""
    problem = Problem()
    before = flatten(problem.parameters)
    loss, damping = problem.step(loss=lambda: value)
    assert th.equal(flatten(problem.parameters), before)
    assert damping == float("inf") and loss == pytest.approx(problem.loss())
