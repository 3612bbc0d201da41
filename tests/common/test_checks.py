"""Errors for bad input: what is accepted, and what the message says."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer

from sb3_smac.common import checks

STEPS, ENVS = 4, 3
OBSERVATION = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def test_what_is_accepted() -> None:
    for value, arguments in (
        (0.0, {"minimum": 0}),
        (1, {"minimum": 0, "maximum": 1}),
        (1e-300, {"minimum": 0, "exclusive": True}),
        (np.float32(0.5), {}),
        (Fraction(1, 3), {}),
        (-1e300, {}),
        (None, {"optional": True}),
    ):
        checks.number("x", value, **arguments)  # type: ignore[arg-type]
    for accepted in (1, np.int64(7), None):
        checks.integer("x", accepted, minimum=1, besides=(None,))
    checks.choice("x", "a", ("a", "b"))


@pytest.mark.parametrize(
    ("value", "arguments", "message"),
    [
        (-0.1, {"minimum": 0}, "x must be a finite number >= 0, got -0.1"),
        (0, {"minimum": 0, "exclusive": True}, "x must be a finite number > 0, got 0"),
        (1.5, {"minimum": 0, "maximum": 1}, "x must be a finite number >= 0 and <= 1, got 1.5"),
        (math.nan, {"minimum": 0}, "got nan"),
        (math.inf, {"minimum": 0}, "got inf"),
        (10**400, {"minimum": 0}, "got 1000"),
        ("0.5", {"minimum": 0}, "got '0.5'"),
        (True, {"minimum": 0}, "got True"),
        (None, {"minimum": 0}, "x must be a finite number >= 0, got None"),
        (-1, {"minimum": 0, "optional": True}, "x must be None or a finite number >= 0, got -1"),
    ],
)
def test_number_refuses(value: Any, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checks.number("x", value, **arguments)


@pytest.mark.parametrize(
    ("value", "besides", "message"),
    [
        (0, (), "x must be an integer >= 1, got 0"),
        (2.0, (), "x must be an integer >= 1, got 2.0"),
        (True, (), "x must be an integer >= 1, got True"),
        ("2", (), "x must be an integer >= 1, got '2'"),
        (None, (), "x must be an integer >= 1, got None"),
        ("half", ("full",), "x must be 'full' or an integer >= 1, got 'half'"),
        (0, (None,), "x must be None or an integer >= 1, got 0"),
    ],
)
def test_integer_refuses(value: Any, besides: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checks.integer("x", value, minimum=1, besides=besides)


@pytest.mark.parametrize("value", ["c", None, 1])
def test_choice_refuses(value: Any) -> None:
    with pytest.raises(ValueError, match=f"x must be one of 'a', 'b', got {value!r}"):
        checks.choice("x", value, ("a", "b"))


def full_buffer(observation_space: spaces.Space = OBSERVATION, action_space: spaces.Space = OBSERVATION) -> RolloutBuffer:
    buffer_class = DictRolloutBuffer if isinstance(observation_space, spaces.Dict) else RolloutBuffer
    return buffer_class(STEPS, observation_space, action_space, device="cpu", n_envs=ENVS)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["observations", "actions", "rewards", "values", "log_probs", "advantages"])
def test_rollout_names_quantity_and_timestep(name: str, value: float) -> None:
    """
    Timesteps count all environments, three for each step here: at 120 the rollout of four steps began after 108.

    An observation was returned by the step before the one that it is stored with. Advantages are named last: a reward that is
    not finite spoils every earlier one.
    """
    timestep = 114 if name == "observations" else 117
    buffer = full_buffer()
    checks.rollout_is_finite(buffer, None, 120)
    getattr(buffer, name)[2, 1] = value
    getattr(buffer, name)[3, 0] = value  # the first one is named
    buffer.advantages[: 2 if name == "advantages" else 4, 2] = 0.0 if name == "advantages" else math.nan
    with pytest.raises(checks.NonFiniteError, match=rf"The {name} .* at step 2 of environment 1 \(timestep {timestep}\)"):
        checks.rollout_is_finite(buffer, None, 120)


def test_rollout_of_dict_observations_names_the_key() -> None:
    buffer = full_buffer(spaces.Dict({"arm": OBSERVATION, "count": spaces.Discrete(3)}))
    checks.rollout_is_finite(buffer, {"arm": np.zeros((ENVS, 2)), "count": np.zeros(ENVS, dtype=np.int64)}, 12)
    buffer.observations["arm"][1, 0, 1] = math.nan
    with pytest.raises(checks.NonFiniteError, match=r"observations\['arm'\] .* at step 1 of environment 0 \(timestep 3\)"):
        checks.rollout_is_finite(buffer, None, 12)


def test_last_observations_are_part_of_the_rollout() -> None:
    """They are bootstrapped from, though no transition starts there. Integers are finite."""
    checks.rollout_is_finite(full_buffer(spaces.Discrete(5), spaces.MultiBinary(2)), np.zeros(ENVS, dtype=np.int64), 12)
    last = np.zeros((ENVS, 2))
    last[2, 0] = math.inf
    with pytest.raises(checks.NonFiniteError, match=r"observations of environment 2 .* timestep 12"):
        checks.rollout_is_finite(full_buffer(), last, 12)
