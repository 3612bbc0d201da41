"""The figures of a report, drawn without pyplot; the same data gives the same files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from sb3_smac.benchmark.tables import Curves, timesteps

BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
SKY, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#000000"
"""Okabe and Ito's colours, which the colour-blind tell apart; without yellow, which is faint on white."""

Style = dict[str, Any]
SOLID, DASHED, DOTTED, DASH_DOTTED = "-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2))
STYLES: dict[str, Style] = {
    "smac": {"color": VERMILION, "linestyle": SOLID, "linewidth": 1.8},
    "accg": {"color": BLUE, "linestyle": DASHED},
    "acsgd": {"color": BLACK, "linestyle": DOTTED},
    "acadam": {"color": GREEN, "linestyle": DASH_DOTTED},
}
"""Of the first entry of an algorithm."""
LINES = (SOLID, DASHED, DOTTED, DASH_DOTTED)
MORE_STYLES: list[Style] = [
    {"color": color, "linestyle": LINES[(turn + index) % len(LINES)]}
    for turn in range(len(LINES))
    for index, color in enumerate((ORANGE, SKY, PURPLE))
]
"""Of all others."""

COLUMNS = 3
PANEL = (3.3, 2.4)
"""Inches."""
SETTINGS: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.4,
    "svg.fonttype": "none",
    # Ids would be random, and files differ
    "svg.hashsalt": "sb3_smac",
}


def styles(algorithms: Mapping[str, str]) -> dict[str, Style]:
    """
    :param algorithms: the algorithm of each label, in the study's order
    :return: the line of each label: the same in all figures, and of the paper's four algorithms in all studies
    """
    own, more = dict(STYLES), iter(MORE_STYLES * (1 + len(algorithms) // len(MORE_STYLES)))
    return {label: own.pop(algorithm) if algorithm in own else next(more) for label, algorithm in algorithms.items()}


def curves_figure(
    curves: Curves, styles: Mapping[str, Style], ylabel: str, xlabel: str = "timesteps", log: bool = False
) -> Figure:
    """
    One panel per task: for each label the mean over seeds in a band of ± one standard deviation.

    :param curves: for each task and label, x and the runs' y
    :param styles: of :func:`styles`
    :param ylabel: what the curves are
    :param xlabel: over what; timesteps are written in thousands and millions
    :param log: whether x is logarithmic, with a mark at every point
    :return: the figure
    """
    with matplotlib.rc_context(SETTINGS):
        columns = min(len(curves), COLUMNS)
        rows = -(-len(curves) // columns)
        figure = Figure(figsize=(max(columns * PANEL[0], 4.5), rows * PANEL[1] + 0.6), layout="constrained")
        panels = [figure.add_subplot(rows, columns, index + 1) for index in range(len(curves))]
        for axes, (task, labels) in zip(panels, curves.items(), strict=True):
            for label, (x, values) in labels.items():
                # Other libraries' algorithms may not log it
                if np.isfinite(values).any():
                    mean, std = values.mean(axis=0), values.std(axis=0)
                    _band(axes, x, mean, mean - std, mean + std, label, {**styles[label], **({"marker": "."} if log else {})})
            axes.set_title(task)
            if log:
                axes.set_xscale("log")
                continue
            axes.set_xlim(0, max(x[-1] for x, _ in labels.values()))
            axes.xaxis.set_major_locator(MaxNLocator(4))
            if xlabel == "timesteps":
                axes.xaxis.set_major_formatter(FuncFormatter(lambda count, _: timesteps(count)))
        figure.supxlabel(xlabel, fontsize="medium")
        figure.supylabel(ylabel, fontsize="medium")
        _legend(figure, panels, styles)
    return figure


def profiles_figure(profiles: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """
    :param profiles: columns ``label``, ``score``, ``fraction``, ``low``, ``high``
    :param styles: of :func:`styles`
    :return: the fraction of runs above each score, in a band of its interval
    """
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(5.0, 3.4), layout="constrained")
        axes = figure.add_subplot()
        for label, rows in profiles.groupby("label", sort=False):
            _band(axes, rows["score"], rows["fraction"], rows["low"], rows["high"], str(label), styles[str(label)])
        axes.set(xlabel="score (0: worst mean of a task, 1: best)", ylabel="fraction of runs above it", ylim=(-0.02, 1.02))
        _legend(figure, [axes], styles)
    return figure


def save(figure: Figure, folder: Path, name: str) -> None:
    """
    Write ``name.png`` and ``name.svg``.

    :param figure: the figure
    :param folder: an existing folder
    :param name: without suffix
    """
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(folder / f"{name}.png", dpi=120, metadata={"Software": None})
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})


def _band(axes: Axes, x: Any, middle: Any, low: Any, high: Any, label: str, style: Style) -> None:
    axes.plot(x, middle, label=label, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _legend(figure: Figure, panels: Sequence[Axes], styles: Mapping[str, Style]) -> None:
    """One legend for all panels, in the study's order: of a partly finished study, no panel may have every line."""
    lines = {line.get_label(): line for axes in panels for line in axes.get_lines()}
    labels = [label for label in styles if label in lines]
    handles = [lines[label] for label in labels]
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 4), frameon=False, handlelength=3)
