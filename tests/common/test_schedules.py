"""Numbers, callables and the RL Zoo's strings as schedules."""

import pickle
from typing import Any

import numpy as np
import pytest

from sb3_smac.common.schedules import to_schedule


def square_root(progress_remaining: float) -> np.float32:
    return np.float32(progress_remaining**0.5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, [1.0, 1.0, 1.0]),
        (np.float32(0.5), [0.5, 0.5, 0.5]),
        ("lin_0.4", [0.4, 0.1, 0.0]),
        ("lin_1e-3", [1e-3, 2.5e-4, 0.0]),
        (square_root, [1.0, 0.5, 0.0]),
    ],
)
def test_values_over_training(value: Any, expected: list[float]) -> None:
    """The argument is the progress that remains: 1 at the start. Schedules are saved with a model, so they pickle."""
    schedule = pickle.loads(pickle.dumps(to_schedule(value, "x")))
    values = [schedule(remaining) for remaining in (1.0, 0.25, 0.0)]
    assert values == pytest.approx(expected) and {*map(type, values)} == {float}


strings = ["0.5", "lin_", "lin_x", "exp_0.5", "lin_nan", "lin_-1"]
callables = [lambda _: None, lambda _: float("nan"), lambda remaining: -remaining]


@pytest.mark.parametrize("value", [*strings, *callables, -0.1, float("nan"), float("inf"), None, True, []])
def test_refuses_what_is_no_schedule(value: Any) -> None:
    with pytest.raises(ValueError, match=r"damping must be a finite number >= 0, a schedule .* or a string .*, got"):
        to_schedule(value, "damping")


@pytest.mark.parametrize("value", [0.0, "lin_0", lambda _: 0.0])
def test_zero_may_be_refused(value: Any) -> None:
    to_schedule(value, "target_kl")
    with pytest.raises(ValueError, match=r"target_kl must be a finite number > 0, .*, got"):
        to_schedule(value, "target_kl", exclusive=True)


def test_errors_of_the_schedule_itself_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        to_schedule(lambda remaining: remaining / 0, "x")
