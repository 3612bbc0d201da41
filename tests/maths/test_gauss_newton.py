"""Gauss–Newton steps in sample space against dense algebra in float64, and their safeguard."""

import copy
from collections.abc import Callable

import pytest
import torch as th
from torch import nn

from sb3_smac.maths import LayerRecorder, Scores, assign, flatten, gauss_newton_step
from tests.dense_reference import assert_close, jacobian

N, DAMPING = 9, 0.3


def problem(seed: int = 0) -> tuple[nn.Sequential, th.Tensor, th.Tensor]:
    """A small network in float64, inputs, and targets."""
    with th.random.fork_rng():
        th.manual_seed(seed)
        network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        return network, th.randn(N, 3).double(), th.randn(N).double()


def step(
    network: nn.Sequential,
    inputs: th.Tensor,
    targets: th.Tensor,
    damping: float = DAMPING,
    loss: Callable | None = None,
    samplewise: bool = True,
) -> tuple[float, float]:
    """One step, in place: loss and damping."""
    parameters = list(network.parameters())
    start = flatten(parameters)

    def linearize() -> Scores:
        with LayerRecorder(network.modules()) as recorder:
            outputs = network(inputs).flatten()
        return Scores(outputs, parameters, recorder.calls, samplewise)

    squared = lambda: (targets - network(inputs).flatten()).square().mean().item()  # noqa: E731
    return gauss_newton_step(
        linearize,
        targets,
        damping,
        lambda displacement: assign(parameters, start, displacement, 1.0),
        loss or squared,
    )


def test_step_is_that_of_the_dense_algebra() -> None:
    """``φ + (JᵀJ/N + λI)⁻¹ Jᵀr/N`` by an explicit p×p matrix."""
    network, inputs, targets = problem()
    parameters = list(network.parameters())
    outputs = network(inputs).flatten()
    dense, start = jacobian(outputs, parameters), flatten(parameters)
    matrix = dense.T @ dense / N + DAMPING * th.eye(dense.shape[1]).double()
    expected = th.linalg.solve(matrix, dense.T @ (targets - outputs).detach() / N)
    loss, damping = step(network, inputs, targets)
    assert_close(flatten(parameters) - start, expected, relative=1e-10)
    assert damping == DAMPING
    assert loss == pytest.approx((targets - network(inputs).flatten()).square().mean().item(), rel=1e-12)


@pytest.mark.parametrize("samplewise", [True, False])
def test_a_step_that_raises_the_loss_is_damped(samplewise: bool) -> None:
    """
    With next to no damping the first try overshoots; what is taken is the step of a larger damping, also where sums of scores
    are backward passes.
    """
    raised = 0
    for seed in range(20):
        network, inputs, targets = problem(seed)
        targets = 30 * targets
        before = (targets - network(inputs).flatten()).square().mean().item()
        start = copy.deepcopy(network)
        loss, damping = step(network, inputs, targets, damping=1e-6, samplewise=samplewise)
        raised += damping > 2e-6
        assert loss <= before
        assert loss == pytest.approx((targets - network(inputs).flatten()).square().mean().item(), rel=1e-12)
        if damping < float("inf"):
            assert step(start, inputs, targets, damping=damping)[0] == pytest.approx(loss, rel=1e-9)
    assert raised > 3


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_nothing_moves_if_nothing_helps(value: float) -> None:
    """A loss that is worse wherever it looks, or not a number."""
    network, inputs, targets = problem()
    before = flatten(network.parameters())
    loss, damping = step(network, inputs, targets, loss=lambda: value)
    assert th.equal(flatten(network.parameters()), before)
    assert damping == float("inf") and loss == pytest.approx((targets - network(inputs).flatten()).square().mean().item())
