"""
One table of all algorithms, which drives the generic tests: a new algorithm, or a variant of one, is tested by adding a row.

A test that is marked ``@every_algorithm`` receives the name of each row as ``algo`` and builds its model by :func:`make`. What
no algorithm has code of its own for is tested with one of them.
"""

import copy
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import GymEnv

from sb3_smac import ACCG, ACSGD, SMAC, ACAdam, NaturalActorCritic


@dataclass(frozen=True)
class Row:
    """
    What the generic tests need to know of one algorithm.

    :param cls: its class
    :param tiny: arguments that make it cheap, or that make it the variant that the row is for
    :param learning: step size with which it solves the identity environments
    :param options: its own arguments, each with a value that changes what it does
    :param log_keys: what it logs that the others do not
    """

    cls: type[NaturalActorCritic]
    learning: dict[str, Any]
    tiny: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    log_keys: Sequence[str] = ()


TABLE: dict[str, Row] = {
    "smac": Row(
        SMAC,
        learning={"target_kl": "lin_0.1"},
        options={"damping": 0.01, "fisher_rank": 4},
    ),
    "smac_full": Row(
        SMAC,
        learning={"target_kl": "lin_0.1"},
        tiny={"fisher_rank": "full"},
        options={"damping": 0.01, "fisher_rank": 5},
        log_keys=("train/fisher_damping", "train/line_search_halvings"),
    ),
    "accg": Row(
        ACCG,
        learning={"target_kl": "lin_0.1"},
        tiny={"cg_max_steps": 4},
        options={"damping": 0.01, "cg_max_steps": 1, "cg_tolerance": 0.5},
        log_keys=("train/cg_residual", "train/cg_iterations"),
    ),
    "acsgd": Row(ACSGD, learning={"learning_rate": 1.0, "max_grad_norm": 0.1}),
    "acadam": Row(ACAdam, learning={"learning_rate": 0.03}),
}

TINY: dict[str, Any] = {
    "n_steps": 32,
    "n_critic_updates": 2,
    "critic_batch_size": 16,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 0,
    "device": "cpu",
}

every_algorithm = pytest.mark.parametrize("algo", TABLE)

VECTOR = spaces.Box(-1, 1, (3,))
ACTION_SPACES: dict[str, spaces.Space] = {
    "Discrete": spaces.Discrete(3),
    "Box": spaces.Box(-1, 1, (2,)),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
}


def make(algo: str, env: GymEnv | str = "Pendulum-v1", policy: Any = "MlpPolicy", **arguments: Any) -> NaturalActorCritic:
    """
    A cheap model of an algorithm.

    :param algo: its name in the table
    :param env: environment
    :param policy: policy
    :param arguments: on top of the cheap ones
    :return: the model
    """
    return TABLE[algo].cls(policy, env, **{**TINY, **TABLE[algo].tiny, **arguments})


def reloaded(model: NaturalActorCritic, **arguments: Any) -> NaturalActorCritic:
    """The model after a way through a file, with other arguments."""
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return type(model).load(file, device="cpu", **arguments)


def snapshot(model: NaturalActorCritic) -> dict[str, Any]:
    """A copy of all parameters and buffers of the policy and of the state of every optimizer."""
    return copy.deepcopy(model.get_parameters())


def is_same(first: Any, second: Any) -> bool:
    """Whether two nested states agree bit for bit."""
    if isinstance(first, th.Tensor):
        return first.dtype == second.dtype and th.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(is_same(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(is_same, first, second))
    return bool(first == second)


def is_finite(model: NaturalActorCritic) -> bool:
    """Whether all parameters are."""
    return all(bool(th.isfinite(parameter).all()) for parameter in model.policy.parameters())


class SampleEnv(gym.Env):
    """Random observations of a space and random rewards; episodes of ten steps, every other one cut by a time limit."""

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space, length: int = 10) -> None:
        self.observation_space = copy.deepcopy(observation_space)
        self.action_space = copy.deepcopy(action_space)
        self.length = length
        self.steps, self.episodes = 0, 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        self.episodes += 1
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.steps += 1
        ended, by_time = self.steps >= self.length, self.episodes % 2 == 0
        return (self.observation_space.sample(), float(self.np_random.random()), ended and not by_time, ended and by_time, {})


class NormalEnv(gym.Env):
    """
    Observations of three normal numbers; every fifth step ends an episode, by termination and by truncation in turn.

    :param action_space: action space
    :param reward: of an action; ``None``: random numbers around one half
    :param offset: of the observations; the test may change it, and the scale
    :param scale: of the observations
    """

    def __init__(
        self, action_space: spaces.Space, reward: Callable[[Any], float] | None = None, offset: Any = 0.0, scale: Any = 1.0
    ) -> None:
        self.observation_space, self.action_space = spaces.Box(-np.inf, np.inf, (3,)), action_space
        self.reward, self.offset, self.scale = reward, offset, scale
        self.steps = 0

    def observation(self) -> np.ndarray:
        return (self.offset + self.scale * self.np_random.normal(size=3)).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.observation(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        reward = float(self.np_random.normal(loc=0.5)) if self.reward is None else self.reward(action)
        return self.observation(), reward, self.steps % 10 == 0, self.steps % 10 == 5, {}


def first_entry(action: Any) -> float:
    """A reward: the first number of the action."""
    return float(np.ravel(action)[0])
