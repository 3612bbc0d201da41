"""``FailsAtFirst-v0``: CartPole on which the first two trials of a study fail, each in its own way."""

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.classic_control import CartPoleEnv

numbers = itertools.count()
# The Zoo makes environment 0 to look at it, then two for each trial: to train and to evaluate
OF_FIRST_TRIAL, OF_SECOND_TRIAL = 1, 3


class FailsAtFirst(CartPoleEnv):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.number = next(numbers)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, *rest = super().step(action)
        if self.number == OF_FIRST_TRIAL:
            reward = np.nan
        if self.number == OF_SECOND_TRIAL:
            th.linalg.cholesky(th.zeros(2, 2))  # raises LinAlgError, which is no ValueError
        return observation, reward, *rest


gym.register("FailsAtFirst-v0", FailsAtFirst, max_episode_steps=100)
