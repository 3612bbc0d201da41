"""What is measured: algorithms, networks, environments."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_smac import ACCG, ACSGD, SMAC, ACAdam

Algorithm = tuple[type[BaseAlgorithm], dict[str, Any]]

ALGORITHMS: dict[str, Algorithm] = {
    "AC-SGD": (ACSGD, {}),
    "SMAC": (SMAC, {}),
    "SMAC, rank 128": (SMAC, {"fisher_rank": 128}),
    "SMAC, full": (SMAC, {"fisher_rank": "full"}),
    "AC-CG": (ACCG, {}),
    "AC-Adam": (ACAdam, {}),
    "A2C": (A2C, {}),
    "PPO": (PPO, {}),
    "TRPO": (TRPO, {}),
}
PEERS = ("A2C", "PPO", "TRPO")


class Network(NamedTuple):
    """
    A policy's sizes.

    :param task: with such observations and actions
    :param observation_size: of a vector
    :param action_size: of a vector
    :param hidden: widths of the hidden layers
    """

    task: str
    observation_size: int
    action_size: int
    hidden: tuple[int, ...]


NETWORKS = {
    "Hopper, 64x64": Network("Hopper-v4", 11, 3, (64, 64)),
    "Humanoid, 256x256": Network("Humanoid-v4", 376, 17, (256, 256)),
}


class RandomTask(gym.Env):
    """
    Spaces without a simulator: observations and rewards are random, and episodes do not end.

    :param observation_size: of a vector
    :param action_size: of a vector
    """

    def __init__(self, observation_size: int, action_size: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_size,))
        self.action_space = spaces.Box(-1, 1, (action_size,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        return self._observation(), float(self.np_random.standard_normal()), False, False, {}

    def _observation(self) -> np.ndarray:
        return self.np_random.standard_normal(self.observation_space.shape, dtype=np.float32)


class Data(NamedTuple):
    """
    A random rollout.

    :param observations: shape (N, observation size)
    :param actions: shape (N, action size)
    :param advantages: shape (N,)
    """

    observations: th.Tensor
    actions: th.Tensor
    advantages: th.Tensor

    @classmethod
    def random(cls, size: int, observation_size: int, action_size: int, device: th.device | str = "cpu") -> "Data":
        """N transitions of normally distributed numbers."""
        th.manual_seed(0)
        shapes = (size, observation_size), (size, action_size), (size,)
        return cls(*(th.randn(shape).to(device) for shape in shapes))


def build_step(
    name: str, env: gym.Env, size: int, hidden: Sequence[int], device: th.device | str = "cpu", **arguments: Any
) -> Any:
    """
    A model whose actor's step is α x with a fixed α, without normalisers, which not all have; AC-CG makes ten iterations.

    :param name: of one of our algorithms
    :param env: for its spaces
    :param size: N
    :param hidden: widths of the actor's layers
    :param device: of the model
    :param arguments: further arguments
    :return: the model
    """
    cls, of_algorithm = ALGORITHMS[name]
    of_cg = {"cg_max_steps": 10, "cg_tolerance": 0} if name == "AC-CG" else {}
    return cls(
        "MlpPolicy",
        env,
        n_steps=size,
        target_kl=None,
        line_search=False,
        normalize_observations=False,
        normalize_returns=False,
        policy_kwargs={"net_arch": {"pi": list(hidden), "vf": [8]}, "ortho_init": False},  # slow for wide layers
        seed=0,
        device=device,
        **of_algorithm,
        **of_cg,
        **arguments,
    )
