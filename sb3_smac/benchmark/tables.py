"""The tables of a report: each as a table of numbers, one row per fact, and as text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from sb3_smac import ALGORITHMS
from sb3_smac.benchmark import statistics
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Study

PAPER_FINALS = {
    "Acrobot": -94.1,
    "CartPole": 973.4,
    "Pendulum": -2230.0,
    "HalfCheetah": 2940.0,
    "Hopper": 331.2,
    "Swimmer": 28.5,
    "Walker2d": 204.1,
    "Pusher": -408.2,
}
"""SMAC's final returns as public summaries of the paper (arXiv 2601.18626) report them. They disagree about Humanoid's, and
give no baseline's."""
PAPER_ALGORITHM = "smac"
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
    The finished runs of a study.

    :param study: the study: names and order of its entries and tasks, number of its seeds
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

    def evaluation_curves(self, x: str) -> Curves:
        """
        :param x: ``"timestep"`` or ``"wall_time"``
        :return: the evaluations over the mean of that over seeds
        """
        curves: Curves = {}
        for (task, label), runs in self.cells.items():
            if points := min(len(run.evaluations) for run in runs):
                rows = [run.evaluations.head(points) for run in runs]
                values = np.stack([row["mean"] for row in rows])
                curves.setdefault(task, {})[label] = np.mean([row[x] for row in rows], axis=0), values
        return curves


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
        "last_100_episodes": statistics.last_episodes_return(run.episodes),
        "mean_training_return": statistics.mean_training_return(run.episodes),
        "evaluation": run.evaluations["mean"].iloc[-1] if len(run.evaluations) else float("nan"),
        "mean_evaluation": run.evaluations["mean"].mean(),
        "wall_clock": duration["total"] - duration["evaluation"],
        "update_time": run.updates["update_time"].sum(),
    }


def summary(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    :param runs: rows of :attr:`Results.table`
    :param column: one of its columns
    :return: columns ``task``, ``label``, ``mean``, ``std`` (over seeds, divided by their number) and ``seeds``
    """
    cells = runs.groupby(["task", "label"], sort=False)[column]
    return cells.agg(mean="mean", std=lambda values: values.std(ddof=0), seeds="count").reset_index()


def returns_text(results: Results, summary: pd.DataFrame, paper: bool = False) -> pd.DataFrame:
    """
    The layout of the paper's Table 1: tasks down, algorithms across, the best mean in bold.

    :param results: the runs
    :param summary: of :func:`summary`
    :param paper: whether the paper's values go beside SMAC's, if any is known
    :return: the table as text
    """
    best, seeds = summary.groupby("task")["mean"].max(), len(results.study.seeds)
    table = _across(results, summary, lambda cell: _bold(_mean_std(cell, seeds), cell["mean"] == best[cell["task"]]))
    smac = next((label for label in results.labels if results.study.algorithm(label) == PAPER_ALGORITHM), None)
    values = [PAPER_FINALS.get(task.split("-")[0]) for task in results.tasks]
    if paper and smac is not None and any(values):
        table.insert(list(table.columns).index(smac) + 1, f"{smac}, paper", [_number(value) for value in values])
    return table


def convergence(results: Results, summary: pd.DataFrame) -> pd.DataFrame:
    """
    Timesteps until the mean curve passes the final return of each algorithm.

    :param results: the runs
    :param summary: of the final returns
    :return: columns ``task``, ``label``, ``baseline``, ``threshold`` (the baseline's final return), ``timesteps`` (NaN: never)
        and ``relative`` (to the timesteps that the baseline needs for it)
    """
    rows = []
    for task, curves in results.curves("episodes", "return").items():
        means = {label: values.mean(axis=0) for label, (_, values) in curves.items()}
        finals = summary[summary["task"] == task].set_index("label")["mean"]
        for baseline, threshold in finals.items():
            needed = statistics.first_passages(means, results.budget(task), threshold)
            for label, count in needed.items():
                rows.append((task, label, baseline, threshold, count, count / needed[baseline]))
    return pd.DataFrame(rows, columns=["task", "label", "baseline", "threshold", "timesteps", "relative"])


def convergence_text(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """
    :param results: the runs
    :param table: of :func:`convergence`
    :return: thresholds down, algorithms across, the fewest timesteps in bold
    """
    fewest = table.groupby(["task", "baseline"])["timesteps"].min()
    texts = []
    for baseline in results.labels:
        rows = table[table["baseline"] == baseline]
        text = _across(
            results, rows, lambda cell: _bold(_passage(cell), cell["timesteps"] == fewest[cell["task"], cell["baseline"]])
        )
        thresholds = rows.groupby("task")["threshold"].first().reindex(text["task"])
        text.insert(1, "final return of", baseline)
        text.insert(2, "threshold", thresholds.map(_number).to_numpy())
        texts.append(text)
    order = {task: index for index, task in enumerate(results.tasks)}
    return pd.concat(texts).sort_values("task", key=lambda names: names.map(order), kind="stable")


def times(results: Results) -> pd.DataFrame:
    """
    Wall-clock and update times, medians over seeds, and their ratios to the reference's.

    :param results: the runs
    :return: columns ``task``, ``label``, ``wall_clock`` and ``update_time`` (seconds), ``update_share``, ``steps_per_second``,
        ``wall_clock_ratio`` and ``update_time_ratio`` (NaN where the reference has no run), ``seeds``
    """
    cells = results.table.groupby(["task", "label"], sort=False)
    table = cells[["wall_clock", "update_time", "budget"]].median()
    table["update_share"] = table["update_time"] / table["wall_clock"]
    table["steps_per_second"] = table.pop("budget") / table["wall_clock"]
    reference = table.xs(results.reference, level="label")
    for column in ("wall_clock", "update_time"):
        table[f"{column}_ratio"] = table[column] / reference[column].reindex(table.index.get_level_values("task")).to_numpy()
    table["seeds"] = cells.size()
    return table.reset_index()


def times_text(results: Results, table: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    :param results: the runs
    :param table: of :func:`times`
    :param column: ``"wall_clock"`` or ``"update_time"``
    :return: tasks down, algorithms across, the ratio in brackets
    """
    return _across(results, table, lambda cell: f"{_number(cell[column])} ({_ratio(cell[f'{column}_ratio'])})")


def returns(results: Results, column: str) -> dict[str, np.ndarray]:
    """
    Returns as rliable takes them: only tasks in which every label has runs, and of each label as many runs, in the order of
    the seeds, as the task with the fewest has.

    :param results: the runs
    :param column: a column of :attr:`Results.table`
    :return: for each label, shape (runs, tasks); nothing if there are fewer than two labels, or no such task
    """
    values = results.table.dropna(subset=column).groupby(["label", "task"])[column].agg(list)
    labels = [label for label in results.labels if label in values.index]
    tasks = [task for task in results.tasks if all((label, task) in values.index for label in labels)]
    if len(labels) < 2 or not tasks:
        return {}
    counts = {label: min(len(values[label, task]) for task in tasks) for label in labels}
    return {label: np.array([values[label, task][:count] for task in tasks]).T for label, count in counts.items()}


def with_interval(table: pd.DataFrame, column: str) -> pd.Series:
    """
    :param table: columns ``column``, ``low`` and ``high``
    :param column: the estimate
    :return: the estimate and its interval as text
    """
    return table.apply(lambda row: f"{row[column]:.2f} [{row['low']:.2f}, {row['high']:.2f}]", axis=1)


def batch_sizes(runs: pd.DataFrame) -> pd.DataFrame:
    """
    The batch-size study: algorithms that a task was trained on at several batch sizes.

    :param runs: rows of :attr:`Results.table`
    :return: per task, algorithm and batch size, smallest first: final return (``mean``, ``std``, ``seeds``), ``update_time``
        (seconds, mean over seeds), and ``return_ratio`` and ``update_time_ratio`` to the smallest batch (NaN for returns that
        are not both positive)
    """
    frames = []
    for _, group in runs.groupby(["task", "algorithm"], sort=False):
        if group["batch_size"].nunique() < 2:
            continue
        sizes = group["batch_size"].map(lambda size: np.inf if size == WHOLE_ROLLOUT else float(size))
        order = group.loc[sizes.sort_values(kind="stable").index]
        table = summary(order, "final_return").merge(order[["label", "algorithm", "batch_size"]].drop_duplicates(), on="label")
        table["update_time"] = summary(order, "update_time")["mean"]
        table["return_ratio"] = (table["mean"] / table["mean"][0]).where((table["mean"] > 0) & (table["mean"][0] > 0))
        table["update_time_ratio"] = table["update_time"] / table["update_time"][0]
        frames.append(table)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def batch_sizes_text(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """
    :param results: the runs
    :param table: of :func:`batch_sizes`
    :return: the table as text
    """
    return pd.DataFrame(
        {
            "task": table["task"],
            "algorithm": table["label"],
            "batch": table["batch_size"],
            "final return": table.apply(lambda row: _mean_std(row, len(results.study.seeds)), axis=1),
            "ratio": table["return_ratio"].map(_ratio),
            "updates [s]": table["update_time"].map(_number),
            "ratio of updates": table["update_time_ratio"].map(_ratio),
        }
    )


def markdown(table: pd.DataFrame) -> str:
    """
    :param table: text in every cell
    :return: a Markdown table; numbers to the right
    """
    sides = ["left" if column in LEFT else "right" for column in table.columns]
    return table.to_markdown(index=False, disable_numparse=True, colalign=sides) + "\n"


def timesteps(count: float) -> str:
    """
    :param count: a number of timesteps
    :return: the number in thousands or millions
    """
    if count >= 1e6:
        return f"{count / 1e6:.4g}M"
    return f"{count / 1e3:.4g}k" if count >= 1e3 else f"{count:.4g}"


def _across(results: Results, table: pd.DataFrame, text: Callable[[pd.Series], str]) -> pd.DataFrame:
    """Tasks down, labels across: the text of each row of the table, in the cell of its task and label."""
    cells = table.assign(text=table.apply(text, axis=1)).pivot(index="task", columns="label", values="text")
    tasks = [task for task in results.tasks if task in cells.index]
    cells = cells.reindex(index=tasks, columns=results.labels).fillna(MISSING)
    return cells.rename_axis(columns=None).reset_index()


def _passage(cell: pd.Series) -> str:
    if np.isnan(cell["timesteps"]):
        return "never"
    relative = "" if np.isnan(cell["relative"]) else f" ({cell['relative']:.2f}{TIMES})"
    return timesteps(cell["timesteps"]) + relative


def _mean_std(cell: pd.Series, seeds: int) -> str:
    if not cell["seeds"]:
        return MISSING
    spread = f" ± {_number(cell['std'])}" if cell["seeds"] > 1 else ""
    incomplete = f" ({cell['seeds']}/{seeds})" if cell["seeds"] < seeds else ""
    return _number(cell["mean"]) + spread + incomplete


def _number(value: float | None) -> str:
    if value is None or np.isnan(value):
        return MISSING
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def _ratio(value: float) -> str:
    return MISSING if np.isnan(value) else f"{value:.2f}{TIMES}"


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text
