"""NumPy's matrix products on as many threads as PyTorch's."""

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch as th
from threadpoolctl import ThreadpoolController


@cache
def _numpys_threads() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")  # takes milliseconds: it looks through all that is loaded


def threads_of_torch() -> AbstractContextManager[Any]:
    """Within the block, ``torch.set_num_threads`` holds for NumPy, too, whose threads would wait for each other otherwise."""
    return _numpys_threads().limit(limits=th.get_num_threads())
