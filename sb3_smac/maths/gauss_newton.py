"""Damped Gauss–Newton for least squares, in sample space: the empirical Fisher's algebra with residuals for advantages."""

from collections.abc import Callable
from typing import NamedTuple

import torch as th

from sb3_smac.maths.scores import Scores
from sb3_smac.maths.woodbury import ridge_weights

# A step that raises the loss is tried again with this much more damping, so often
DAMPING_FACTOR = 10.0
MAX_TRIES = 5


class GaussNewtonStep(NamedTuple):
    """
    What :func:`gauss_newton_step` did.

    :param loss: mean squared residual after the step, at most what it was before
    :param damping: the damping of the step that was taken; infinite if none was
    """

    loss: float
    damping: float


def gauss_newton_step(
    linearize: Callable[[], Scores],
    targets: th.Tensor,
    damping: float,
    move: Callable[[th.Tensor | None], None],
    loss: Callable[[], float],
) -> GaussNewtonStep:
    r"""
    One step of ``min (1/N) Σ (t_i − f_i(φ))²`` with Jacobian J of f and residuals r = t − f:

    .. math::

        \Delta = (J^\top J / N + \lambda I)^{-1} J^\top r / N = J^\top (J J^\top + \lambda N I)^{-1} r

    the same solve as that of the whole-batch Fisher, with J in the place of the scores. A step that raises the loss is not
    taken: λ is multiplied by 10 until it does not (Levenberg, 1944; Marquardt, 1963), five times at most.

    :param linearize: J (N, p) of the outputs at the parameters as they are, as a linear operator; it is asked again after a
        step that was not taken, because a graph does not survive that its parameters were written to
    :param targets: t, shape (N,)
    :param damping: λ > 0
    :param move: sets the parameters to where they were plus a displacement of shape (p,); ``None``: where they were
    :param loss: mean squared residual at the parameters as they are
    :return: the loss after the step, and its damping
    """
    jacobian = linearize()
    residuals = targets - jacobian.log_prob.detach()
    gram, before = jacobian.gram(only_lower=True), residuals.square().mean().item()
    for attempt in range(MAX_TRIES):
        if attempt > 0:
            move(None)
            jacobian, damping = linearize(), damping * DAMPING_FACTOR
        weights, damping = ridge_weights(gram, residuals / len(residuals), damping)
        move(jacobian.weighted_sum(weights))
        after = loss()
        if after <= before:
            return GaussNewtonStep(after, damping)
    move(None)
    return GaussNewtonStep(before, float("inf"))
