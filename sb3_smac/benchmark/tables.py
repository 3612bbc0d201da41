"""The tables of a report: each as a table of numbers, one row per fact, and as text."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from sb3_smac import ALGORITHMS
from sb3_smac.benchmark import statistics
from sb3_smac.benchmark.store import Run

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
"""Whose times the others' are divided by: its update is one backward pass."""

WHOLE_ROLLOUT = "whole rollout"
MISSING, TIMES = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}"

Curves = dict[str, dict[str, np.ndarray]]
"""For each task and label, the curves of its runs, shape (seeds, bins)."""


@dataclass(frozen=True)
class Results:
    """
    The finished runs of a study.

    :param runs: the runs
    :param labels: names of the study's entries that have runs, in its order
    :param tasks: ids of its environments that have runs, in its order
    :param seeds: how many runs a complete cell has
    """

    runs: Sequence[Run]
    labels: Sequence[str]
    tasks: Sequence[str]
    seeds: int

    def cell(self, label: str, task: str) -> list[Run]:
        """
        :param label: name of an entry
        :param task: id of an environment
        :return: its runs, by seed
        """
        return sorted((run for run in self.runs if (run.label, run.task) == (label, task)), key=lambda run: run.seed)

    def label_of(self, algorithm: str) -> str | None:
        """
        :param algorithm: key of an algorithm
        :return: its first entry
        """
        found = {run.label for run in self.runs if run.algorithm == algorithm}
        return next((label for label in self.labels if label in found), None)

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
        :return: the curves of all cells that have runs
        """
        curves: Curves = {}
        for task in self.tasks:
            for label in self.labels:
                if runs := self.cell(label, task):
                    rows = [statistics.curve(getattr(run, table), column, run.info["budget"]) for run in runs]
                    curves.setdefault(task, {})[label] = np.stack(rows)
        return curves


def runs_table(results: Results) -> pd.DataFrame:
    """
    What every other table is made of.

    :param results: the runs
    :return: one row per run, in the study's order
    """
    rows = [_row(run) for task in results.tasks for label in results.labels for run in results.cell(label, task)]
    return pd.DataFrame(rows)


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
        "wall_clock": duration["total"] - duration["evaluation"],
        "update_time": run.updates["update_time"].sum(),
    }


def summary(runs: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    :param runs: of :func:`runs_table`
    :param column: one of its columns
    :return: columns ``task``, ``label``, ``mean``, ``std`` (over seeds, divided by their number) and ``seeds``
    """
    cells = runs.groupby(["task", "label"], sort=False)[column]
    return cells.agg(mean="mean", std=lambda values: values.std(ddof=0), seeds="count").reset_index()


def returns_table(results: Results, summary: pd.DataFrame) -> pd.DataFrame:
    """
    The layout of the paper's Table 1: tasks down, algorithms across, the best mean in bold.

    :param results: the runs
    :param summary: of :func:`summary`
    :return: the table as text
    """
    best = summary.groupby("task")["mean"].max()
    return _across(results, summary, lambda cell: _bold(_mean_std(cell, results.seeds), cell["mean"] == best[cell["task"]]))


def with_paper(results: Results, table: pd.DataFrame) -> pd.DataFrame:
    """
    :param results: the runs
    :param table: of :func:`returns_table`, of the final returns
    :return: the table with the paper's values beside SMAC's, if any is known
    """
    smac = results.label_of(PAPER_ALGORITHM)
    values = [PAPER_FINALS.get(task.split("-")[0]) for task in results.tasks]
    if smac is not None and any(values):
        table = table.copy()
        table.insert(list(table.columns).index(smac) + 1, f"{smac}, paper", [_number(value) for value in values])
    return table


def convergence(results: Results, curves: Curves, summary: pd.DataFrame) -> pd.DataFrame:
    """
    Timesteps until the mean curve passes the final return of each algorithm.

    :param results: the runs
    :param curves: of the returns
    :param summary: of the final returns
    :return: columns ``task``, ``label``, ``baseline``, ``threshold`` (the baseline's final return), ``timesteps`` (NaN: never)
        and ``relative`` (to the timesteps that the baseline needs for it)
    """
    rows = []
    for task in results.tasks:
        budget = results.budget(task)
        means = {label: values.mean(axis=0) for label, values in curves[task].items()}
        finals = summary[summary["task"] == task].set_index("label")["mean"]
        for baseline, threshold in finals.items():
            needed = statistics.first_passages(means, budget, threshold)
            for label, timesteps in needed.items():
                rows.append((task, label, baseline, threshold, timesteps, timesteps / needed[baseline]))
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


def times(results: Results, runs: pd.DataFrame) -> pd.DataFrame:
    """
    Wall-clock and update times, medians over seeds, and their ratios to the reference's.

    :param results: the runs
    :param runs: of :func:`runs_table`
    :return: columns ``task``, ``label``, ``wall_clock`` and ``update_time`` (seconds), ``update_share``, ``steps_per_second``,
        ``wall_clock_ratio`` and ``update_time_ratio`` (NaN where the reference has no run), ``seeds``
    """
    table = runs.groupby(["task", "label"], sort=False)[["wall_clock", "update_time", "budget"]].median()
    table["update_share"] = table["update_time"] / table["wall_clock"]
    table["steps_per_second"] = table.pop("budget") / table["wall_clock"]
    reference = table.xs(reference_label(results), level="label")
    for column in ("wall_clock", "update_time"):
        table[f"{column}_ratio"] = table[column] / reference[column].reindex(table.index.get_level_values("task")).to_numpy()
    table["seeds"] = runs.groupby(["task", "label"], sort=False).size()
    return table.reset_index()


def reference_label(results: Results) -> str:
    """
    :param results: the runs
    :return: AC-SGD's entry, or the first one
    """
    return results.label_of(REFERENCE_ALGORITHM) or results.labels[0]


def times_text(results: Results, table: pd.DataFrame, column: str) -> pd.DataFrame:
    """
    :param results: the runs
    :param table: of :func:`times`
    :param column: ``"wall_clock"`` or ``"update_time"``
    :return: tasks down, algorithms across, the ratio in brackets
    """
    return _across(results, table, lambda cell: f"{_number(cell[column])} ({_ratio(cell[f'{column}_ratio'])})")


def scores(results: Results, runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """
    Final returns as rliable takes them: only tasks in which every label has runs, and of each label as many runs, in the order
    of the seeds, as the task with the fewest has.

    :param results: the runs
    :param runs: of :func:`runs_table`
    :return: for each label, min–max scores, shape (runs, tasks); nothing if no task tells two labels apart
    """
    finals = runs.dropna(subset="final_return").groupby(["label", "task"])["final_return"].agg(list)
    labels = [label for label in results.labels if label in finals.index]
    tasks = [task for task in results.tasks if all((label, task) in finals.index for label in labels)]
    if len(labels) < 2 or not tasks:
        return {}
    returns = {}
    for label in labels:
        count = min(len(finals[label, task]) for task in tasks)
        returns[label] = np.array([finals[label, task][:count] for task in tasks]).T
    scaled = statistics.min_max_scores(returns)
    return scaled if scaled[labels[0]].size else {}


def aggregates(scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """
    :param scores: of :func:`scores`
    :return: columns ``label``, ``iqm``, ``low``, ``high``, ``runs``, ``tasks``
    """
    estimates, intervals = statistics.interquartile_means(scores)
    rows = [(label, estimates[label][0], *intervals[label][:, 0], *scores[label].shape) for label in scores]
    return pd.DataFrame(rows, columns=["label", "iqm", "low", "high", "runs", "tasks"])


def improvements(scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """
    :param scores: of :func:`scores`
    :return: for each pair of labels, columns ``x``, ``y``, ``probability`` (that X beats Y), ``low``, ``high``
    """
    pairs = list(combinations(scores, 2))
    named = {str(index): (scores[x], scores[y]) for index, (x, y) in enumerate(pairs)}
    estimates, intervals = statistics.probabilities_of_improvement(named)
    rows = [(*pair, estimates[name][0], *intervals[name][:, 0]) for name, pair in zip(named, pairs, strict=True)]
    return pd.DataFrame(rows, columns=["x", "y", "probability", "low", "high"])


def profiles(scores: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """
    :param scores: of :func:`scores`
    :return: columns ``label``, ``score``, ``fraction`` (of runs above it), ``low``, ``high``
    """
    everything = np.concatenate([values.ravel() for values in scores.values()])
    thresholds = np.linspace(min(0.0, everything.min()), max(1.0, everything.max()), 101)
    fractions, intervals = statistics.performance_profiles(scores, thresholds)
    frames = []
    for label in scores:
        low, high = intervals[label]
        columns = {"label": label, "score": thresholds, "fraction": fractions[label], "low": low, "high": high}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


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

    :param runs: of :func:`runs_table`
    :return: per task, algorithm and batch size, smallest first: final return (``mean``, ``std``, ``seeds``), ``update_time``
        (seconds, mean over seeds), and ``return_ratio`` and ``update_time_ratio`` to the smallest batch (NaN for returns that
        are not both positive)
    """
    frames = []
    for _, group in runs.groupby(["task", "algorithm"], sort=False):
        if group["batch_size"].nunique() < 2:
            continue
        order = group.sort_values("batch_size", key=lambda sizes: sizes.map(_size), kind="stable")
        table = summary(order, "final_return").merge(order[["label", "algorithm", "batch_size"]].drop_duplicates(), on="label")
        table["update_time"] = summary(order, "update_time")["mean"]
        table["return_ratio"] = (table["mean"] / table["mean"][0]).where((table["mean"] > 0) & (table["mean"][0] > 0))
        table["update_time_ratio"] = table["update_time"] / table["update_time"][0]
        frames.append(table)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _size(batch_size: int | str) -> float:
    return float("inf") if batch_size == WHOLE_ROLLOUT else float(batch_size)


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
            "final return": table.apply(lambda row: _mean_std(row, results.seeds), axis=1),
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
    sides = [":--" if column in ("task", "algorithm", "final return of") else "--:" for column in table.columns]
    rows: list[Iterable[object]] = [table.columns, sides, *table.itertuples(index=False, name=None)]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows) + "\n"


def timesteps(count: float) -> str:
    """
    :param count: a number of timesteps
    :return: the number in thousands or millions
    """
    if count >= 1e6:
        return f"{count / 1e6:.4g}M"
    return f"{count / 1e3:.4g}k" if count >= 1e3 else f"{count:.4g}"


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
