"""NumPy's matrix products on as many threads as PyTorch's."""

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch as th


@cache
def _numpys_threads() -> Any:
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")  # takes milliseconds: it looks through all that is loaded


def threads_of_torch() -> AbstractContextManager[Any]:
    """
    Within the block, ``torch.set_num_threads`` holds for NumPy, too, whose threads would wait for each other otherwise.

    That takes threadpoolctl, which comes with the extra ``extra``; without it NumPy keeps its own number of threads.
    """
    threads = _numpys_threads()
    return nullcontext() if threads is None else threads.limit(limits=th.get_num_threads())
