"""Hyperparameters that change during training."""

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]
"""Maps the progress remaining (1 at the start of training, 0 at its end) to a value."""

ScheduleLike = float | str | Schedule
"""A constant, a schedule, or the RL Zoo's ``"lin_x"``: from x linearly to 0."""

LINEAR_PREFIX = "lin_"


@dataclass(frozen=True)
class ConstantSchedule:
    """The same value at any time."""

    value: float

    def __call__(self, progress_remaining: float) -> float:
        return self.value


@dataclass(frozen=True)
class LinearSchedule:
    """From ``initial_value`` linearly to 0."""

    initial_value: float

    def __call__(self, progress_remaining: float) -> float:
        return progress_remaining * self.initial_value


@dataclass(frozen=True)
class CallableSchedule:
    """A schedule of the user's, with its output made a Python float."""

    schedule: Schedule

    def __call__(self, progress_remaining: float) -> float:
        return float(self.schedule(progress_remaining))


def to_schedule(value: ScheduleLike, name: str, minimum: float = 0.0, exclusive: bool = False) -> Schedule:
    """
    Turn a number, a schedule or the RL Zoo's ``"lin_x"`` into a schedule.

    :param value: number, callable or string
    :param name: the parameter's name, for the error
    :param minimum: smallest value accepted at the start of training
    :param exclusive: whether the minimum itself is refused
    :return: a schedule whose output is a Python float
    :raises ValueError: if ``value`` is none of these or starts below the minimum
    """
    accepted = (
        f"a finite number {'>' if exclusive else '>='} {minimum:g}, a schedule (callable) or a string such as 'lin_0.001'"
    )
    error = ValueError(f"{name} must be {accepted}, got {value!r}")
    schedule: Schedule
    try:
        if callable(value):
            schedule = CallableSchedule(value)
        elif isinstance(value, str):
            if not value.startswith(LINEAR_PREFIX):
                raise error
            schedule = LinearSchedule(float(value[len(LINEAR_PREFIX) :]))
        elif isinstance(value, bool | bytes):
            raise error
        else:
            schedule = ConstantSchedule(float(value))
        start = schedule(1.0)
    except (OverflowError, TypeError, ValueError):
        raise error from None
    if not math.isfinite(start) or start < minimum or (exclusive and start == minimum):
        raise ValueError(f"{error}, which starts at {start:g}") if callable(value) else error
    return schedule


def value_at(name: str, value: ScheduleLike, progress_remaining: float) -> float:
    """
    :param name: the parameter's name, for the error
    :param value: number, schedule or string
    :param progress_remaining: from 1 to 0
    :return: what it is there
    :raises ValueError: if that is not a finite number of at least 0
    """
    now = to_schedule(value, name)(progress_remaining)
    if not 0 <= now < math.inf:
        raise ValueError(
            f"{name} must be a finite number >= 0 at any time, got {now!r} at a progress remaining of {progress_remaining:.4g}"
        )
    return now
