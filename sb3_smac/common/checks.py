"""Errors for bad input that name what is wrong, where, and what is accepted."""

import difflib
import math
from collections.abc import Collection, Iterable
from numbers import Integral, Number, Real
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import RolloutBuffer

ADVICE = "The policy was left as it was. stable_baselines3.common.vec_env.VecCheckNan finds the step that this comes from."
TOO_LARGE = f"The policy's output is not finite after an actor's step: the step was too large. {ADVICE}"
# λ and 1 / λ have to stay within float32
SMALLEST_DAMPING, LARGEST_DAMPING = 1e-30, 1e30


class NonFiniteError(ValueError):
    """A rollout, a gradient or an update is NaN or infinite. The policy was left as it was before the update."""


def number(
    name: str,
    value: Any,
    minimum: float = -math.inf,
    maximum: float = math.inf,
    exclusive: bool = False,
    optional: bool = False,
) -> None:
    """
    :param name: the parameter's name
    :param value: its value
    :param minimum: smallest value accepted
    :param maximum: largest value accepted
    :param exclusive: whether the minimum itself is refused
    :param optional: whether ``None`` is accepted
    :raises ValueError: if the value is not a finite number in that range
    """
    if optional and value is None:
        return
    is_number = isinstance(value, Real) and not isinstance(value, bool) and _is_finite(value)
    if not is_number or not minimum <= value <= maximum or (exclusive and value == minimum):
        limits = f"{'>' if exclusive else '>='} {minimum:g}" + (f" and <= {maximum:g}" if maximum < math.inf else "")
        raise ValueError(f"{name} must be {'None or ' if optional else ''}a finite number {limits}, got {value!r}")


def damping(name: str, value: Any, optional: bool = False) -> None:
    """
    :param name: the parameter's name
    :param value: its value
    :param optional: whether ``None`` is accepted
    :raises ValueError: if the value is not a positive number that, as its inverse, stays well within float32
    """
    number(name, value, minimum=0, exclusive=True, optional=optional)
    if value is not None and not SMALLEST_DAMPING <= value <= LARGEST_DAMPING:
        raise ValueError(f"{name} must be between {SMALLEST_DAMPING:g} and {LARGEST_DAMPING:g}, got {value!r}")


def integer(name: str, value: Any, minimum: int, besides: Collection[Any] = (), maximum: int | None = None) -> None:
    """
    :param name: the parameter's name
    :param value: its value
    :param minimum: smallest value accepted
    :param besides: values accepted besides integers
    :param maximum: largest value accepted; ``None``: any
    :raises ValueError: if the value is neither an integer in that range nor one of these
    """
    if _is_one_of(value, besides):
        return
    is_integer = isinstance(value, Integral) and not isinstance(value, bool)
    if not is_integer or value < minimum or (maximum is not None and value > maximum):
        others = "".join(f"{other!r} or " for other in besides)
        limits = f">= {minimum}" + ("" if maximum is None else f" and <= {maximum}")
        raise ValueError(f"{name} must be {others}an integer {limits}, got {value!r}")


def choice(name: str, value: Any, accepted: Collection[Any]) -> None:
    """
    :param name: the parameter's name
    :param value: its value
    :param accepted: the values accepted
    :raises ValueError: if the value is not one of these
    """
    if not _is_one_of(value, accepted):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, accepted))}, got {value!r}")


def _is_finite(value: Any) -> bool:
    """Whether a number is, as a float."""
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond floats
        return False


def _is_one_of(value: Any, accepted: Collection[Any]) -> bool:
    """Whether a value is equal to one of these. (An array is not, though it says so by an error.)"""
    return isinstance(value, str | Number | np.generic | None) and value in accepted


def most_similar(name: object, accepted: Iterable[str]) -> str | None:
    """
    :param name: an unknown name
    :param accepted: the names that there are
    :return: the one that may have been meant, if there is one
    """
    return next(iter(difflib.get_close_matches(str(name), list(accepted), n=1)), None)


def rollout_is_finite(buffer: RolloutBuffer, last_observations: Any, num_timesteps: int) -> None:
    """
    Check a rollout before it is used (and before its arrays are flattened).

    :param buffer: a full rollout buffer, with arrays of shape (n_steps, n_envs, ...)
    :param last_observations: the observations after the last step
    :param num_timesteps: timesteps of training at the end of the rollout
    :raises NonFiniteError: naming the first quantity that is not finite, the step, the environment and the timestep
    """
    for label, array in _labelled("observations", buffer.observations):
        # each was returned by the step before the one that it is stored with
        _buffer_is_finite(label, array, buffer, num_timesteps - buffer.n_envs)
    for name in ("actions", "rewards", "values", "log_probs"):
        _buffer_is_finite(name, getattr(buffer, name), buffer, num_timesteps)
    observations_are_finite(last_observations, num_timesteps)
    _buffer_is_finite("advantages", buffer.advantages, buffer, num_timesteps)  # last: it is made of the others


def _buffer_is_finite(label: str, array: np.ndarray, buffer: RolloutBuffer, num_timesteps: int) -> None:
    bad = _first_non_finite(array)
    if bad is not None:
        raise NonFiniteError(f"The {label} of the rollout are not finite {location(buffer, *bad, num_timesteps)}. {ADVICE}")


def observations_are_finite(observations: Any, num_timesteps: int) -> None:
    """
    :param observations: observations of all environments, shape (n_envs, ...), or a dict of such
    :param num_timesteps: timesteps of training at which they were observed
    :raises NonFiniteError: naming the environment and the timestep
    """
    if observations is None:  # no rollout was collected
        return
    for label, array in _labelled("observations", observations):
        bad = _first_non_finite(np.asarray(array)[None])
        if bad is not None:
            raise NonFiniteError(f"The {label} of environment {bad[1]} are not finite at timestep {num_timesteps}. {ADVICE}")


def location(buffer: RolloutBuffer, step: int, env: int, num_timesteps: int) -> str:
    """
    Where a transition of a rollout stands.

    :param buffer: rollout buffer
    :param step: step of the rollout, from 0
    :param env: index of the environment
    :param num_timesteps: timesteps of training at the end of the rollout
    :return: in words
    """
    timestep = num_timesteps - (buffer.buffer_size - 1 - step) * buffer.n_envs
    return f"at step {step} of environment {env} (timestep {timestep})"


def _labelled(name: str, arrays: Any) -> list[tuple[str, Any]]:
    """The arrays of a Dict space under their keys, or the one array under its name."""
    return [(f"{name}[{key!r}]", array) for key, array in arrays.items()] if isinstance(arrays, dict) else [(name, arrays)]


def _first_non_finite(array: np.ndarray) -> tuple[int, int] | None:
    """First (step, environment) of an array of shape (n_steps, n_envs, ...) that holds a NaN or an infinity, in float32."""
    if not np.issubdtype(array.dtype, np.floating):
        return None
    with np.errstate(over="ignore"):
        finite = np.isfinite(array.astype(np.float32, copy=False))  # what networks are given
    if finite.all():
        return None
    step, env = np.argwhere(~finite)[0][:2]
    return int(step), int(env)
