"""Steps sized by the KL divergence that they cause."""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from stable_baselines3.common.distributions import Distribution, kl_divergence

TOLERANCE = 0.1
MAX_PASSES = 3
# A step is only refused when its KL is above twice the target: shrinking must end, 60 halvings are below float32's resolution
MAX_BACKTRACKS = 60


def frozen(distribution: Distribution) -> Distribution:
    """
    A copy of an action distribution that is cut off the graph and that later forward passes do not overwrite.

    (Stable-Baselines3's policies write every new distribution into one object.)

    :param distribution: action distribution of a policy
    :return: the same distribution, without its graph
    """

    def detached(inner: th.distributions.Distribution) -> th.distributions.Distribution:
        clone = copy.copy(inner)
        clone.__dict__ = {
            key: value.detach() if isinstance(value, th.Tensor) else value for key, value in inner.__dict__.items()
        }
        return clone

    clone = copy.copy(distribution)
    inner = distribution.distribution
    clone.distribution = [detached(factor) for factor in inner] if isinstance(inner, list) else detached(inner)
    return clone


def is_invalid_distribution(error: Exception) -> bool:
    """
    :param error: error of a forward pass
    :return: whether torch refuses the parameters of the distribution (NaN or infinite), and not somebody something else
    """
    return isinstance(error, ValueError) and "to satisfy the constraint" in str(error)


def mean_kl(old: Distribution, new: Distribution) -> th.Tensor:
    """
    ``KL(old ‖ new)``, summed over independent action dimensions and averaged over states.

    This is the policy's real KL divergence. (sb3-contrib's TRPO also averages over the dimensions of a Box action: its number
    is smaller by that factor.)

    :param old: distribution of the policy before the step, for N states
    :param new: distribution of the policy after the step, for the same states
    :return: a scalar tensor
    """
    divergence = kl_divergence(old, new)
    return divergence.flatten(start_dim=1).sum(dim=1).mean() if divergence.ndim > 1 else divergence.mean()


class SizedStep(NamedTuple):
    """
    What :func:`size_step` chose.

    :param step_size: α
    :param kl: the KL divergence that was measured at α
    :param passes: how often it was measured
    """

    step_size: float
    kl: float
    passes: int


def size_step(kl_at: Callable[[float], float], target_kl: float, first_guess: float) -> SizedStep:
    """
    Find the step size α at which ``kl_at(α)`` is the target, within 10 %, in at most three measurements.

    For a small step the KL divergence is quadratic in α, so the first correction is ``α √(δ / KL)``; the second follows the
    exponent that the first two measurements show. Should three not be enough, the measured step nearest to the target stands,
    and if all of them overshot to more than twice the target, the step shrinks until one does not.

    :param kl_at: KL divergence at a step size, infinite or NaN where the policy breaks down
    :param target_kl: δ > 0
    :param first_guess: first α tried, > 0
    :return: the step size, its KL divergence and the number of measurements
    """
    best: tuple[float, float] | None = None
    previous: tuple[float, float] | None = None
    step = first_guess
    for passes in range(1, MAX_PASSES + MAX_BACKTRACKS + 1):
        kl = kl_at(step)
        kl = math.inf if math.isnan(kl) else max(kl, 0.0)  # rounding makes a KL of 0 negative
        if kl <= 2 * target_kl and (best is None or abs(kl - target_kl) < abs(best[1] - target_kl)):
            best = (step, kl)
        if best is not None and (passes >= MAX_PASSES or abs(best[1] - target_kl) <= TOLERANCE * target_kl):
            return SizedStep(*best, passes)
        step, previous = _next_step(step, kl, previous, target_kl), (step, kl)
        if passes >= MAX_PASSES:  # everything so far overshot
            step = min(step, previous[0] / 2)
    return SizedStep(0.0, 0.0, passes)


def _next_step(step: float, kl: float, previous: tuple[float, float] | None, target_kl: float) -> float:
    """Extrapolate ``log KL`` against ``log α`` with exponent 2, or with the exponent that the last two measurements show."""
    if not math.isfinite(kl):
        return step / 10
    if kl == 0:
        return step * 100
    log_kl, exponent = math.log(kl), 2.0
    if previous is not None and 0 < previous[1] < math.inf and previous[0] != step:
        exponent = (log_kl - math.log(previous[1])) / (math.log(step) - math.log(previous[0]))
    # An exponent far from 2 comes from rounding or from a cliff: trust it only so far
    log_factor = (math.log(target_kl) - log_kl) / min(max(exponent, 0.5), 8.0)
    return step * min(max(math.exp(min(log_factor, 5.0)), 0.01), 100.0)
