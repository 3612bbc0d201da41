"""The tables of a report: as numbers, one row per fact, and as text, tasks down and algorithms across."""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from sb3_smac import ALGORITHMS
from sb3_smac.benchmark import statistics
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Study

REFERENCE_ALGORITHM = "acsgd"
"""What the others are divided by, unless the study says another: its update is one backward pass."""

WHOLE_ROLLOUT = "whole rollout"
MISSING, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"

Curves = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""For each task and label, x, shape (points,), and y of its runs, shape (seeds, points)."""


class Results:
    """
    The finished runs of a study, and the tables of numbers that are made of them: ``tasks`` and ``labels`` that have runs, and
    the ``cells`` of both, each with its runs by seed, all in the study's order; ``budgets``, the timesteps of each task; and
    ``table``, one row per run, of which every other table is made.

    :param study: names and order of its entries and tasks, number of its seeds
    :param runs: runs of the study; failed ones do not count
    """

    def __init__(self, study: Study, runs: Sequence[Run]) -> None:
        self.study = study
        runs = sorted((run for run in runs if run.finished), key=lambda run: run.seed)
        self.tasks = [task for task in study.tasks if any(run.task == task for run in runs)]
        self.labels = [label for label in study.algorithms if any(run.label == label for run in runs)]
        self.budgets = {run.task: run.info["budget"] for run in runs}
        keys = [(task, label) for task in self.tasks for label in self.labels]
        cells = {key: [run for run in runs if (run.task, run.label) == key] for key in keys}
        self.cells = {key: cell for key, cell in cells.items() if cell}
        self.table = pd.DataFrame([_row(run) for cell in self.cells.values() for run in cell])

    @property
    def reference(self) -> str:
        """The study's reference, or AC-SGD's entry, or the first one."""
        first = [label for label in self.labels if self.study.algorithm(label) == REFERENCE_ALGORITHM]
        return next(label for label in (self.study.reference, *first, *self.labels) if label in self.labels)

    def curves(self, table: str, column: str) -> Curves:
        """
        :param table: ``"episodes"`` or ``"updates"``
        :param column: what to draw
        :return: its curves, smoothed, over timesteps
        """
        curves: Curves = {}
        for (task, label), runs in self.cells.items():
            budget = self.budgets[task]
            rows = [statistics.curve(getattr(run, table), column, budget) for run in runs]
            curves.setdefault(task, {})[label] = statistics.bin_ends(budget), np.stack(rows)
        return curves

    def evaluation_curves(self, x: str, unit: float = 1) -> Curves:
        """
        :param x: ``"timestep"`` or ``"wall_time"``
        :param unit: of x
        :return: the evaluations over the mean of x over seeds
        """
        curves: Curves = {}
        for (task, label), runs in self.cells.items():
            if points := min(len(run.evaluations) for run in runs):
                rows = [run.evaluations.head(points) for run in runs]
                values = np.stack([row["mean"] for row in rows])
                curves.setdefault(task, {})[label] = np.mean([row[x] for row in rows], axis=0) / unit, values
        return curves

    def summary(self, column: str) -> pd.DataFrame:
        """
        :param column: a column of ``table``
        :return: columns ``task``, ``label``, ``mean``, ``std`` (over seeds, divided by their number) and ``seeds``
        """
        cells = self.table.groupby(["task", "label"], sort=False)[column]
        return cells.agg(mean="mean", std=lambda values: values.std(ddof=0), seeds="count").reset_index()

    def returns(self, column: str, labels: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """
        Returns as rliable takes them: only tasks in which every label has runs, and of each label as many runs, in the order
        of the seeds, as the task with the fewest has.

        :param column: a column of ``table``
        :param labels: labels of the entries; ``None``: all
        :return: for each label, shape (runs, tasks); nothing if there are fewer than two labels, or no such task
        """
        values = self.table.dropna(subset=column).groupby(["label", "task"])[column].agg(list)
        labels = [label for label in labels or self.labels if label in values.index]
        tasks = [task for task in self.tasks if all((label, task) in values.index for label in labels)]
        if len(labels) < 2 or not tasks:
            return {}
        counts = {label: min(len(values[label, task]) for task in tasks) for label in labels}
        return {label: np.array([values[label, task][:count] for task in tasks]).T for label, count in counts.items()}

    def across(self, table: pd.DataFrame, text: Callable[[pd.Series], str]) -> pd.DataFrame:
        """
        :param table: columns ``task`` and ``label``
        :param text: of a row
        :return: tasks down, labels across: the text of each row in the cell of its task and label
        """
        cells = table.assign(text=table.apply(text, axis=1)).pivot(index="task", columns="label", values="text")
        cells = cells.reindex(index=[task for task in self.tasks if task in cells.index], columns=self.labels)
        return cells.fillna(MISSING).rename_axis(columns=None).reset_index()

    def mean_std(self, cell: pd.Series) -> str:
        """
        :param cell: a row of :meth:`summary`
        :return: its mean and standard deviation as text, and how many seeds there are if any is missing
        """
        seeds = len(self.study.seeds)
        if not cell["seeds"]:
            return MISSING
        spread = f" ± {number(cell['std'])}" if cell["seeds"] > 1 else ""
        return number(cell["mean"]) + spread + (f" ({cell['seeds']}/{seeds})" if cell["seeds"] < seeds else "")


def _row(run: Run) -> dict[str, object]:
    budget, duration = run.info["budget"], run.info["duration"]
    return {
        "task": run.task,
        "label": run.label,
        "algorithm": run.algorithm,
        "seed": run.seed,
        "batch_size": (run.hyperparameters.get("batch_size") or WHOLE_ROLLOUT) if run.algorithm in ALGORITHMS else None,
        "step_size": _step_size(run),
        "budget": budget,
        "final_return": statistics.final_return(run.episodes, budget),
        "lost_return": statistics.lost_return(run.episodes, budget),
        "last_100_episodes": run.episodes["return"].tail(100).mean(),
        "mean_training_return": statistics.mean_training_return(run.episodes),
        "evaluation": run.evaluations["mean"].iloc[-1] if len(run.evaluations) else float("nan"),
        "mean_evaluation": run.evaluations["mean"].mean(),
        "wall_clock": duration["total"] - duration["evaluation"],
        "update_time": run.updates["update_time"].sum(),
    }


def _step_size(run: Run) -> float | None:
    """α, where it is a fixed number and no KL target takes its place."""
    chosen = {**run.info.get("defaults", {}), **run.hyperparameters}
    alpha = chosen.get("learning_rate")
    is_fixed = run.algorithm in ALGORITHMS and chosen.get("target_kl") is None
    return float(alpha) if is_fixed and isinstance(alpha, int | float) else None


def timesteps(count: float) -> str:
    """:return: a number of timesteps, in thousands or millions"""
    if count >= 1e6:
        return f"{count / 1e6:.4g}M"
    return f"{count / 1e3:.4g}k" if count >= 1e3 else f"{count:.4g}"


def number(value: float | None) -> str:
    """:return: a number, or a dash for none"""
    if value is None or np.isnan(value):
        return MISSING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def ratio(value: float) -> str:
    """:return: a multiple, or a dash for none"""
    return MISSING if np.isnan(value) else f"{value:.2f}{TIMES}"
