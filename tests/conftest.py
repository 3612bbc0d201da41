"""What holds for every test."""

from collections.abc import Iterator

import gymnasium as gym
import pytest
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


@pytest.fixture(autouse=True)
def checked_distributions() -> Iterator[None]:
    """``torch.compile`` turns the checks of distributions off in the whole process: no later test shall see that."""
    yield
    th.distributions.Distribution.set_default_validate_args(True)
