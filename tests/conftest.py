"""What holds for every test."""

import gymnasium as gym
import torch as th

th.set_num_threads(1)  # the networks are tiny: threads only get into each other's way

# Importing the Zoo replaces gymnasium's TimeLimit in the whole process: no test shall see that
TIME_LIMIT = gym.wrappers.TimeLimit
try:
    import rl_zoo3  # noqa: F401
except ImportError:
    pass
else:
    gym.wrappers.TimeLimit = gym.wrappers.common.TimeLimit = TIME_LIMIT
