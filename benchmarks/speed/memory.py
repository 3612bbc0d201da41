"""Peak memory of ``train()``, by allocations."""

import argparse

from .models import NETWORKS
from .report import Row, Table
from .timing import peak_memory, peak_numpy_memory
from .update import NAMES, SIZE, Update, updates

ARRAYS = ("observations", "actions", "rewards", "returns", "episode_starts", "values", "log_probs", "advantages")


def parameter_bytes(update: Update) -> int:
    """
    :param update: of a model
    :return: bytes of all its networks
    """
    return sum(parameter.nbytes for parameter in update.model.policy.parameters())


def rollout_bytes(update: Update) -> int:
    """
    :param update: of a model
    :return: bytes of the arrays of its rollout buffer
    """
    return sum(getattr(update.model.rollout_buffer, array).nbytes for array in ARRAYS)


def peak_of(update: Update) -> int:
    """
    :param update: of a model
    :return: bytes that it needs beside the parameters, the optimizer's state and the rollout: the most of all tensors at once,
        and the most of all NumPy arrays at once
    """
    for _ in range(2):  # imports and caches are not the update's
        update.restore()
        update()
    update.restore()
    tensors = peak_memory(update, update.model.device)
    update.restore()
    return tensors + peak_numpy_memory(update)


def measure_memory(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: peak memory of ``train()``
    """
    size = 128 if options.quick else SIZE
    rows: list[Row] = []
    for label, network in list(NETWORKS.items())[: 1 if options.quick else None]:
        for name, update in updates(network, size, NAMES[:2] if options.quick else NAMES).items():
            peak, parameters, rollout = peak_of(update), parameter_bytes(update), rollout_bytes(update)
            sizes = {"parameters, MB": parameters / 1e6, "rollout, MB": rollout / 1e6, "peak, MB": peak / 1e6}
            over = {"/ (parameters + rollout)": peak / (parameters + rollout)}
            rows.append({"network": label, "train()": name, **sizes, **over})
    caption = (
        f"Peak memory of `train()` (N = {size}): the most bytes of tensors and of NumPy arrays at once, beside parameters, "
        "optimizer's state and rollout, which are there before; and that over the bytes of parameters and rollout."
    )
    return [Table("memory", caption, rows)]
