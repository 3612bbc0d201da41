"""What holds for every test."""

import pytest
import torch as th


def pytest_configure(config: pytest.Config) -> None:
    # The paper's tasks are Gymnasium's v4 ones, which warn that v5 exists
    config.addinivalue_line("filterwarnings", "ignore:.*is out of date.*:DeprecationWarning")
    th.set_num_threads(1)  # the networks are tiny: threads only get into each other's way
