"""The tables of a report: as numbers, one row per fact, and as text, tasks down and algorithms across."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

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
LEFT = ("task", "algorithm", "final return of", "X", "Y")

Curves = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
"""For each task and label, x, shape (points,), and y of its runs, shape (seeds, points)."""


@dataclass(frozen=True)
class Results:
    """
    The finished runs of a study, and the tables of numbers that are made of them.

    :param study: names and order of its entries and tasks, number of its seeds
    :param runs: runs of the study; failed ones do not count
    """

    study: Study
    runs: Sequence[Run]

    @cached_property
    def labels(self) -> list[str]:
        """Names of the entries that have runs, in the study's order."""
        return [label for label in self.study.algorithms if any(run.label == label for run in self.runs if run.finished)]

    @cached_property
    def tasks(self) -> list[str]:
        """Ids of the environments that have runs, in the study's order."""
        return [task for task in self.study.tasks if any(run.task == task for run in self.runs if run.finished)]

    @cached_property
    def cells(self) -> dict[tuple[str, str], list[Run]]:
        """Runs of each task and label that has any, by seed; tasks and labels in the study's order."""
        runs = sorted((run for run in self.runs if run.finished), key=lambda run: run.seed)
        keys = [(task, label) for task in self.tasks for label in self.labels]
        cells = {key: [run for run in runs if (run.task, run.label) == key] for key in keys}
        return {key: cell for key, cell in cells.items() if cell}

    @cached_property
    def table(self) -> pd.DataFrame:
        """What every other table is made of: one row per run, in the study's order."""
        return pd.DataFrame([_row(run) for cell in self.cells.values() for run in cell])

    @property
    def reference(self) -> str:
        """The study's reference, or AC-SGD's entry, or the first one."""
        first = [label for label in self.labels if self.study.algorithm(label) == REFERENCE_ALGORITHM]
        return next(label for label in (self.study.reference, *first, *self.labels) if label in self.labels)

    def budget(self, task: str) -> int:
        """
        :param task: id of an environment
        :return: timesteps of a run
        """
        return next(run.info["budget"] for run in self.runs if run.task == task)

    def curves(self, table: str, column: str) -> Curves:
        """
        :param table: ``"episodes"`` or ``"updates"``
        :param column: what to draw
        :return: its curves, smoothed, over timesteps
        """
        curves: Curves = {}
        for (task, label), runs in self.cells.items():
            budget = self.budget(task)
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
        :param column: a column of :attr:`table`
        :return: columns ``task``, ``label``, ``mean``, ``std`` (over seeds, divided by their number) and ``seeds``
        """
        return _summary(self.table, column)

    def returns(self, column: str) -> dict[str, np.ndarray]:
        """
        Returns as rliable takes them: only tasks in which every label has runs, and of each label as many runs, in the order
        of the seeds, as the task with the fewest has.

        :param column: a column of :attr:`table`
        :return: for each label, shape (runs, tasks); nothing if there are fewer than two labels, or no such task
        """
        values = self.table.dropna(subset=column).groupby(["label", "task"])[column].agg(list)
        labels = [label for label in self.labels if label in values.index]
        tasks = [task for task in self.tasks if all((label, task) in values.index for label in labels)]
        if len(labels) < 2 or not tasks:
            return {}
        counts = {label: min(len(values[label, task]) for task in tasks) for label in labels}
        return {label: np.array([values[label, task][:count] for task in tasks]).T for label, count in counts.items()}

    def convergence(self) -> pd.DataFrame:
        """
        Timesteps until the mean curve passes the final return of each algorithm.

        :return: columns ``task``, ``label``, ``baseline``, ``threshold`` (the baseline's final return), ``timesteps`` (NaN:
            never) and ``relative`` (to the timesteps that the baseline needs for it)
        """
        rows, finals = [], self.summary("final_return").set_index(["task", "label"])["mean"]
        for task, curves in self.curves("episodes", "return").items():
            means = {label: values.mean(axis=0) for label, (_, values) in curves.items()}
            for baseline, threshold in finals[task].items():
                needed = statistics.first_passages(means, self.budget(task), threshold)
                for label, count in needed.items():
                    rows.append((task, label, baseline, threshold, count, count / needed[baseline]))
        return pd.DataFrame(rows, columns=["task", "label", "baseline", "threshold", "timesteps", "relative"])

    def times(self) -> pd.DataFrame:
        """
        Wall-clock and update times, medians over seeds, and their ratios to the reference's.

        :return: columns ``task``, ``label``, ``wall_clock`` and ``update_time`` (seconds), ``update_share``,
            ``steps_per_second``, ``wall_clock_ratio`` and ``update_time_ratio`` (to the reference; or NaN), ``seeds``
        """
        cells = self.table.groupby(["task", "label"], sort=False)
        table = cells[["wall_clock", "update_time", "budget"]].median()
        table["update_share"] = table["update_time"] / table["wall_clock"]
        table["steps_per_second"] = table.pop("budget") / table["wall_clock"]
        reference = table.xs(self.reference, level="label").reindex(table.index.get_level_values("task"))
        for column in ("wall_clock", "update_time"):
            table[f"{column}_ratio"] = table[column] / reference[column].to_numpy()
        table["seeds"] = cells.size()
        return table.reset_index()

    def batch_sizes(self) -> pd.DataFrame:
        """
        The batch-size study: algorithms that a task was trained on at several batch sizes.

        :return: per task, algorithm and batch size, smallest first: final return (``mean``, ``std``, ``seeds``),
            ``update_time`` (seconds, mean over seeds), and ``return_ratio`` and ``update_time_ratio`` to the smallest batch
            (NaN for returns that are not both positive)
        """
        frames = []
        for _, group in self.table.groupby(["task", "algorithm"], sort=False):
            if group["batch_size"].nunique() < 2:
                continue
            sizes = group["batch_size"].map(lambda size: np.inf if size == WHOLE_ROLLOUT else float(size))
            order = group.loc[sizes.sort_values(kind="stable").index]
            names = order[["label", "algorithm", "batch_size"]].drop_duplicates()
            table = _summary(order, "final_return").merge(names, on="label")
            table["update_time"] = _summary(order, "update_time")["mean"]
            table["return_ratio"] = (table["mean"] / table["mean"][0]).where((table["mean"] > 0) & (table["mean"][0] > 0))
            table["update_time_ratio"] = table["update_time"] / table["update_time"][0]
            frames.append(table)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def across(self, table: pd.DataFrame, text: Callable[[pd.Series], str]) -> pd.DataFrame:
        """
        :param table: columns ``task`` and ``label``
        :param text: of a row
        :return: tasks down, labels across: the text of each row in the cell of its task and label
        """
        cells = table.assign(text=table.apply(text, axis=1)).pivot(index="task", columns="label", values="text")
        tasks = [task for task in self.tasks if task in cells.index]
        cells = cells.reindex(index=tasks, columns=self.labels).fillna(MISSING)
        return cells.rename_axis(columns=None).reset_index()

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
        "budget": budget,
        "final_return": statistics.final_return(run.episodes, budget),
        "last_100_episodes": run.episodes["return"].tail(100).mean(),
        "mean_training_return": statistics.mean_training_return(run.episodes),
        "evaluation": run.evaluations["mean"].iloc[-1] if len(run.evaluations) else float("nan"),
        "mean_evaluation": run.evaluations["mean"].mean(),
        "wall_clock": duration["total"] - duration["evaluation"],
        "update_time": run.updates["update_time"].sum(),
    }


def _summary(table: pd.DataFrame, column: str) -> pd.DataFrame:
    cells = table.groupby(["task", "label"], sort=False)[column]
    return cells.agg(mean="mean", std=lambda values: values.std(ddof=0), seeds="count").reset_index()


def markdown(table: pd.DataFrame) -> str:
    """
    :param table: text in every cell
    :return: a Markdown table; numbers to the right
    """
    sides = ["left" if column in LEFT else "right" for column in table.columns]
    return table.to_markdown(index=False, disable_numparse=True, colalign=sides)


def with_interval(table: pd.DataFrame, column: str) -> pd.Series:
    """
    :param table: columns ``column``, ``low`` and ``high``
    :param column: the estimate
    :return: the estimate and its interval as text
    """
    return table.apply(lambda row: f"{row[column]:.2f} [{row['low']:.2f}, {row['high']:.2f}]", axis=1)


def timesteps(count: float) -> str:
    """
    :param count: a number of timesteps
    :return: the number in thousands or millions
    """
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


def bold(text: str, if_so: bool) -> str:
    """:return: the text, in bold if so"""
    return f"**{text}**" if if_so else text
