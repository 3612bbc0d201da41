"""How time and memory of the actor's step grow with the parameters d and the transitions N."""

import argparse
import math
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import matplotlib
import numpy as np
import torch as th
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .actor import actor_step
from .models import NETWORKS, Data, RandomTask, build_step
from .report import Row, Table
from .timing import free_memory, interleaved, peak_memory

NAMES = ("SMAC", "SMAC, rank 128", "SMAC, full", "AC-CG", "AC-SGD")
PARAMETERS = (1e3, 1e4, 1e5, 1e6, 1e7)
TRANSITIONS = (250, 500, 1000, 2048, 4096, 8192, 16384)
# The fastest that time and memory are expected to grow: what would take longer or more than there is, is left out
TIME_EXPONENT = {"d": 1, "N": 3}
MEMORY_EXPONENT = {"d": 1, "N": 2}
LONGEST = 20.0
"""Seconds of one step."""
SLOW = 1.0
"""Seconds from which a step is measured once."""
# Okabe and Ito's colours, which the colour-blind tell apart
STYLES = {
    "SMAC": {"color": "#D55E00", "marker": "o"},
    "SMAC, rank 128": {"color": "#E69F00", "marker": "s"},
    "SMAC, full": {"color": "#CC79A7", "marker": "^"},
    "AC-CG": {"color": "#0072B2", "marker": "D", "linestyle": "--"},
    "AC-SGD": {"color": "#000000", "marker": "v", "linestyle": ":"},
}


def hidden_width(n_parameters: float, observation_size: int, action_size: int) -> int:
    """
    :param n_parameters: d
    :param observation_size: of a vector
    :param action_size: of a vector
    :return: the width of two equal hidden layers with which a Gaussian actor has about as many parameters
    """
    linear = observation_size + action_size + 2
    return round((math.sqrt(linear**2 + 4 * n_parameters) - linear) / 2)


def measure_step(name: str, size: int, width: int, device: str, seconds: float = 0.2) -> Row:
    """
    :param name: algorithm
    :param size: N
    :param width: of the two hidden layers
    :param device: where
    :param seconds: of repeats
    :return: milliseconds and bytes of its actor's step
    """
    network = NETWORKS["Hopper, 64x64"]
    sizes = network.observation_size, network.action_size
    model = build_step(name, RandomTask(*sizes), size, (width, width), device)
    data = Data.random(size, *sizes, device)
    step = partial(actor_step, model, data)
    if th.device(device).type == "cuda":
        step()  # libraries are loaded
    start = time.perf_counter()
    peak = peak_memory(step, device)
    once = time.perf_counter() - start
    if once < SLOW:
        once = median(interleaved({name: step}, seconds)[name])
    n_parameters = sum(parameter.numel() for parameter in model.actor_parameters)
    itemsize = th.float32.itemsize
    return {
        "algorithm": name,
        "d": n_parameters,
        "N": size,
        "ms": 1e3 * once,
        "peak, MB": peak / 1e6,
        "in vectors of size d": peak / itemsize / n_parameters,
        "in matrices N x d": peak / itemsize / n_parameters / size,
    }


def grow(
    axis: str, sizes: Sequence[tuple[int, int]], device: str, names: Sequence[str] = NAMES, seconds: float = 0.2
) -> tuple[list[Row], list[str]]:
    """
    :param axis: "d" or "N"
    :param sizes: N and the width of the hidden layers, growing
    :param device: where
    :param names: algorithms
    :param seconds: of repeats of one step
    :return: a row per algorithm and size, and what was left out
    """
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    last: dict[str, tuple[Row, int]] = {}
    for size, width in sizes:
        for name in names:
            if name in last:
                row, last_width = last[name]
                larger = size / row["N"] if axis == "N" else (width / last_width) ** 2
                longest = row["ms"] / 1e3 * larger ** TIME_EXPONENT[axis]
                memory = row["peak, MB"] * 1e6 * larger ** MEMORY_EXPONENT[axis]
                if name not in left_out and (longest > LONGEST or memory > free_memory(device) / 2):
                    expected = f"{longest:.0f} s, {memory / 1e9:.1f} GB expected"
                    left_out[name] = f"{name} from N = {size}, width {width} on ({expected})"
            if name not in left_out:
                last[name] = {"grows": axis, **measure_step(name, size, width, device, seconds)}, width
                rows.append(last[name][0])
    return rows, list(left_out.values())


def exponent(rows: Sequence[Row], axis: str, quantity: str) -> float:
    """
    :param rows: of one algorithm, growing
    :param axis: "d" or "N"
    :param quantity: a column
    :return: slope of log(quantity) against log(axis), over the larger half of the sizes
    """
    upper = rows[len(rows) // 2 :]
    return float(np.polyfit(np.log([row[axis] for row in upper]), np.log([row[quantity] for row in upper]), 1)[0])


def growth(name: str, quick: bool, device: str) -> tuple[list[Table], list[Row]]:
    """
    :param name: of the tables
    :param quick: small sizes
    :param device: where
    :return: fitted exponents and the table of all measurements, and the rows of the latter
    """
    network = NETWORKS["Hopper, 64x64"]
    numbers = PARAMETERS[:3] if quick else PARAMETERS
    widths = [hidden_width(number, network.observation_size, network.action_size) for number in numbers]
    size, sizes = (256, (128, 256, 512)) if quick else (1000, TRANSITIONS)
    names, seconds = (NAMES[::2], 0.0) if quick else (NAMES, 0.2)
    against_d, left_out_d = grow("d", [(size, width) for width in widths], device, names, seconds)
    against_n, left_out_n = grow("N", [(transitions, 64) for transitions in sizes], device, names, seconds)
    exponents = []
    for algorithm in names:
        of_d, of_n = ([row for row in rows if row["algorithm"] == algorithm] for rows in (against_d, against_n))
        few = measure_step(algorithm, 128, widths[-1], device, seconds)
        exponents.append(
            {
                "algorithm": algorithm,
                "time ~ d^": exponent(of_d, "d", "ms"),
                "time ~ N^": exponent(of_n, "N", "ms"),
                "memory ~ d^": exponent(of_d, "d", "peak, MB"),
                "memory ~ N^": exponent(of_n, "N", "peak, MB"),
                "vectors of size d": few["in vectors of size d"],
                "matrices N x d": of_d[-1]["in matrices N x d"],
            }
        )
    left_out = "; ".join(left_out_d + left_out_n) or "nothing"
    caption = (
        f"Growth of the actor's step on {device} with the width of two hidden layers (N = {size}) and with N (64x64): "
        "exponents fitted to the larger half of the sizes; peak memory of its tensors in parameter-sized "
        "vectors (largest d, N = 128, so that activations are few) and in matrices of N x d (largest d, "
        f"N = {size}). Left out: {left_out}."
    )
    all_rows = against_d + against_n
    return [Table(f"{name}_exponents", caption, exponents), Table(name, f"Every measurement on {device}.", all_rows)], all_rows


def measure_growth(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: growth on the CPU, and on a GPU if there is one
    """
    tables, rows = growth("growth", options.quick, "cpu")
    plot_growth(rows, options.out / "growth")
    if th.cuda.is_available():
        of_gpu, rows = growth("growth_gpu", options.quick, options.device)
        plot_growth(rows, options.out / "growth_gpu")
        tables += of_gpu
    return tables


def plot_growth(rows: Sequence[Row], path: Path) -> None:
    """
    :param rows: of :func:`growth`
    :param path: of the figure, without its ending
    """
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    for line, quantity in zip(panels, ("ms", "peak, MB"), strict=True):
        for axes, axis in zip(line, ("d", "N"), strict=True):
            plot_panel(axes, [row for row in rows if row["grows"] == axis], axis, quantity)
    panels[0, 0].set_ylabel("time of an actor's step, ms")
    panels[1, 0].set_ylabel("peak memory of its tensors, MB")
    panels[1, 0].set_xlabel("actor parameters d (N = 1000)")
    panels[1, 1].set_xlabel("transitions N (64x64)")
    panels[0, 0].legend(frameon=False, fontsize=8)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sb3_smac"}):  # the same data give the same file
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=150)


def plot_panel(axes: Axes, rows: Sequence[Row], axis: str, quantity: str) -> None:
    """
    :param axes: of the panel
    :param rows: of all algorithms
    :param axis: "d" or "N"
    :param quantity: a column
    """
    for name in NAMES:
        line = [row for row in rows if row["algorithm"] == name]
        axes.loglog([row[axis] for row in line], [row[quantity] for row in line], label=name, markersize=4, **STYLES[name])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
