"""``train()`` on a GPU beside the CPU."""

import argparse
from collections.abc import Sequence
from statistics import median

import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from .models import NETWORKS, RandomTask
from .report import Row, Table
from .timing import interleaved, ratio
from .update import N_ENVS, Update

NAMES = ("SMAC", "SMAC, full", "AC-CG", "PPO")
WIDTHS, SIZES = (64, 256, 1024), (1024, 4096)


def measure_gpu(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: seconds on both, and from which sizes on the GPU pays
    """
    if not th.cuda.is_available():
        return [Table("gpu", "No GPU: its measurements left out.", [])]
    widths, sizes = (WIDTHS[:1], (128,)) if options.quick else (WIDTHS, SIZES)
    seconds = 0 if options.quick else 3
    rows = [compare(name, size, width, options.device, seconds) for width in widths for size in sizes for name in NAMES]
    caption = (
        "`train()` on a GPU and on the CPU by turns, with Humanoid's sizes and random observations; d: "
        f"parameters of actor and critic. The GPU pays from here on: {pays_from(rows)}."
    )
    return [Table("gpu", caption, rows)]


def compare(name: str, size: int, width: int, device: str, seconds: float) -> Row:
    """
    :param name: of the algorithm
    :param size: N
    :param width: of the two hidden layers
    :param device: beside the CPU
    :param seconds: for both together
    :return: milliseconds of each
    """
    network = NETWORKS["Humanoid, 256x256"]
    updates = {}
    for label, place in (("CPU", "cpu"), ("GPU", device)):
        env = DummyVecEnv([lambda: RandomTask(network.observation_size, network.action_size)] * N_ENVS)
        updates[label] = Update(name, env, size, (width, width), place)
    prepare = {label: update.restore for label, update in updates.items()}
    times = interleaved(updates, seconds, turn=0, prepare=prepare)
    n_parameters = sum(parameter.numel() for parameter in updates["CPU"].model.policy.parameters())
    ms = {f"{label}, ms": 1e3 * median(of_device) for label, of_device in times.items()}
    return {
        "train()": name,
        "width": width,
        "d": n_parameters,
        "N": size,
        **ms,
        "GPU / CPU": ratio(times["GPU"], times["CPU"]),
    }


def pays_from(rows: Sequence[Row]) -> str:
    """
    :param rows: of :func:`compare`
    :return: of each algorithm, the smallest d N with which the GPU was faster
    """
    smallest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["d"] * row["N"]):
        if row["GPU / CPU"] < 1:
            smallest.setdefault(row["train()"], row)
    found = [f"{name}, d = {row['d']:,} and N = {row['N']:,}" for name, row in smallest.items()]
    return "; ".join(found) or "none of these sizes"
