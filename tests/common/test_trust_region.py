"""Steps sized by their KL divergence: the measure, the frozen reference, and the search on curves of every kind."""

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3.common.distributions import MultiCategoricalDistribution

from sb3_smac.common.trust_region import MAX_BACKTRACKS, MAX_PASSES, SizedStep, frozen, mean_kl, size_step
from tests.dense_reference import actor, behaviour, every_space, kl, make_policy, properties, vector, write

OBSERVATIONS = th.randn(5, 3, generator=th.Generator().manual_seed(0))
LIMIT = MAX_PASSES + MAX_BACKTRACKS


@every_space
def test_mean_kl_is_that_of_the_joint_distribution(space: str) -> None:
    """
    Against the sum over all joint actions, or a Gaussian's closed form; it is not symmetric. SB3 writes each distribution into
    the same object: a frozen one outlives that, and carries no gradient.
    """
    policy = make_policy(space)
    distribution, old_behaviour = policy.get_distribution(OBSERVATIONS), behaviour(policy, OBSERVATIONS)
    old, exact = frozen(distribution), copy.copy(distribution)
    theta = vector(actor(policy))
    write(actor(policy), theta + 0.3 * th.randn(theta.shape, generator=th.Generator().manual_seed(1)))
    new, new_behaviour = policy.get_distribution(OBSERVATIONS), behaviour(policy, OBSERVATIONS)
    there, back = mean_kl(old, new), mean_kl(new, old)
    assert there.shape == () and there.item() != pytest.approx(back.item(), rel=1e-3)
    assert there.item() == pytest.approx(kl(old_behaviour, new_behaviour), rel=1e-9)
    assert back.item() == pytest.approx(kl(new_behaviour, old_behaviour), rel=1e-9)
    assert mean_kl(exact, old).item() == mean_kl(old, old).item() == 0
    assert there.requires_grad and mean_kl(exact, old).requires_grad and not mean_kl(old, old).requires_grad


def test_mean_kl_is_infinite_where_an_action_is_ruled_out() -> None:
    distribution = MultiCategoricalDistribution([2, 2])
    old = frozen(distribution.proba_distribution(th.zeros(1, 4)))
    assert mean_kl(old, distribution.proba_distribution(th.tensor([[0.0, 0.0, 0.0, -1e6]]))).item() == math.inf


targets, guesses = st.floats(1e-4, 1.0), st.floats(1e-3, 1e3)


@properties
@given(target=targets, guess=guesses, coefficient=st.floats(1e-6, 1e6))
def test_quadratic_curves_take_two_measurements(target: float, guess: float, coefficient: float) -> None:
    """Three, where the first guess is off by a factor of more than 100, which is as far as it may jump at once."""
    exact = math.sqrt(target / coefficient)
    result = size_step(lambda step: coefficient * step**2, target, guess)
    jumps = abs(math.log(guess / exact, 100))
    assert result.passes <= max(2, math.ceil(jumps) + 1)
    if jumps < 2:
        assert result.kl == pytest.approx(target, rel=0.1) and result.step_size == pytest.approx(exact, rel=0.06)


@properties
@given(target=targets, off_by=st.floats(0.05, 20), exponent=st.floats(0.6, 6))
def test_curves_of_another_exponent_take_three_measurements(target: float, off_by: float, exponent: float) -> None:
    """The third pass follows the exponent that the first two showed: exactly, on a power."""
    result = size_step(lambda step: target * step**exponent, target, first_guess=off_by ** (2 / max(exponent, 2)))
    assert result.passes <= 3
    assert result.kl == pytest.approx(target, rel=0.1)


bends = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.3))


@properties
@given(target=targets, off_by=st.floats(0.55, 1.8), bend=bends)
def test_smooth_rising_curves_take_three_measurements(target: float, off_by: float, bend: tuple[float, ...]) -> None:
    """Quadratic near zero and bent either way further on, as the KL divergence of a policy is; α = 1 is exact."""
    cubic, quartic, saturation = bend

    def shape(step: float) -> float:
        return step**2 * (1 + cubic * step + quartic * step**2) / (1 + saturation * step**2)

    result = size_step(lambda step: target * shape(step) / shape(1.0), target, off_by)
    assert result.passes <= 3
    assert result.kl == pytest.approx(target, rel=0.1)


def record(curve: Callable[[float], float]) -> tuple[Callable[[float], float], list[tuple[float, float]]]:
    """The curve, asked once for each step size, and a list of what was measured on it."""
    measured: list[tuple[float, float]] = []

    def kl_at(step_size: float) -> float:
        known = dict(measured)
        measured.append((step_size, known[step_size] if step_size in known else curve(step_size)))
        return measured[-1][1]

    return kl_at, measured


anything = st.one_of(
    st.floats(-1e-6, 1e3), st.floats(0, 0.1), st.sampled_from([0.0, math.inf, math.nan, 1e-300, 5e-324, 1e308, -1e-12])
)


@properties
@given(data=st.data(), target=targets, guess=guesses)
def test_whatever_is_measured_never_above_twice_the_target(data: st.DataObject, target: float, guess: float) -> None:
    """On a curve that answers at random: it ends, and of the steps that do not overshoot, the nearest one stands."""
    kl_at, measured = record(lambda _: data.draw(anything))
    result = size_step(kl_at, target, guess)
    allowed = {step: max(value, 0.0) for step, value in measured if value <= 2 * target}  # rounding makes 0 negative
    assert result.passes == len(measured) <= LIMIT
    assert all(0 < step < math.inf for step, _ in measured)
    if not allowed:
        assert result == SizedStep(0.0, 0.0, LIMIT)
        return
    assert allowed[result.step_size] == result.kl
    assert all(abs(result.kl - target) <= abs(value - target) for value in allowed.values())
    if any(step in allowed for step, _ in measured[:3]):
        assert result.passes <= 3


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e9])
def test_curves_that_only_overshoot_end_in_no_step(value: float) -> None:
    kl_at, measured = record(lambda _: value)
    assert size_step(kl_at, 0.01, 1.0) == SizedStep(0.0, 0.0, LIMIT)
    assert all(after < before for (before, _), (after, _) in pairwise(measured))


@pytest.mark.parametrize(
    ("answers", "chosen"),
    [
        ([1.09], 0),  # within the tolerance: that costs no further forward pass
        ([1.11, 1.0], 1),
        ([0.6, 0.2, 0.1], 0),  # the nearest stands, not the last
        ([0.2, 1.7, 0.5], 2),
        ([0.2, 1.3, 1.8], 1),
        ([3.0, 2.1, 1.9], 2),
        ([3.0, 2.5, 2.1, 2.01, 1.9], 4),  # more measurements only until one is not above twice the target
        ([1e6, 1e4, 2.1, 1.9], 3),  # and each at half the step, though two thirds looked like enough
        ([0.0, 0.0, 0.0], 0),  # a policy that does not notice the step at all: no endless search
        ([-1e-10, -1e-10, -1e-10], 0),  # to which the KL divergence of equal policies may round
    ],
)
def test_which_of_the_measured_steps_stands(answers: list[float], chosen: int) -> None:
    """Answers in units of the target."""
    remaining = iter(answers)
    kl_at, measured = record(lambda _: 0.01 * next(remaining))
    result = size_step(kl_at, 0.01, 1.0)
    assert (result.step_size, result.kl) == (measured[chosen][0], max(measured[chosen][1], 0.0))
    assert result.passes == len(answers)
    assert all(after <= before / 2 for (before, _), (after, _) in pairwise(measured[MAX_PASSES - 1 :]))


@pytest.mark.parametrize("beyond", [math.inf, math.nan, 50.0])
@pytest.mark.parametrize("first_guess", [0.3, 1.0, 3.0, 1e4])
def test_a_cliff_below_the_target_is_not_jumped(beyond: float, first_guess: float) -> None:
    """Quadratic until KL = δ/4, and broken from there on: a step before the cliff stands."""
    target = 0.01
    result = size_step(lambda step: target * step**2 if step < 0.5 else beyond, target, first_guess)
    assert 0 < result.step_size < 0.5 and 0 < result.kl <= target / 4
