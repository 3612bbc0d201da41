"""
The report of a study: the paper's tables and figures, made of its finished runs.

The same runs give the same files, byte for byte.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sb3_smac.benchmark import figures, statistics
from sb3_smac.benchmark.document import INTERVALS, Document, bold, differences, pairs_table, with_interval
from sb3_smac.benchmark.evaluations import evaluations
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Study
from sb3_smac.benchmark.tables import WHOLE_ROLLOUT, Curves, Results, number, ratio, timesteps

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
PAPER_ALGORITHM = "smac"
PAPER_SOURCE = (
    "The paper's values are those that public summaries of it (arXiv 2601.18626) report, a secondary source; "
    "Humanoid's and the baselines' are not known."
)
WAY = (0.5, 0.75, 0.9)
"""Parts of the way to the best final return, whose timesteps are reported."""

OTHER_RETURNS = {
    "last_100_episodes": ("Last 100 episodes", "Mean return of the last 100 training episodes"),
    "mean_training_return": (
        "Area under the curve",
        "Mean training return over all timesteps: the area under the learning curve, divided by its length",
    ),
    "evaluation": ("Last evaluation", "Mean return of the last evaluation, with deterministic actions"),
    "mean_evaluation": (
        "Area under the evaluations",
        "Mean return of all evaluations: the area under their curve, divided by its length",
    ),
}
"""Columns of the table of runs, each with the heading of its section and its definition."""


def write_report(study: Study, runs: Sequence[Run], folder: Path | str) -> Path:
    """
    Write the report of what is finished: Markdown, every table as CSV, every figure as PNG and SVG.

    :param study: the study: names and order of its entries and tasks, number of its seeds
    :param runs: runs of the study; failed ones do not count
    :param folder: where to; made if need be
    :return: the Markdown file
    :raises ValueError: if no run is finished, or one is not of the study
    """
    for run in runs:
        if run.label not in study.algorithms or run.task not in study.tasks:
            raise ValueError(f"Run {run.key!r} is not of study {study.name!r}: {[*study.algorithms]} on {[*study.tasks]}")
    results = Results(study, runs)
    if not results.cells:
        raise ValueError(f"Study {study.name!r} has no finished run to report")
    report = Document(results)
    sections = (
        _introduction,
        _returns,
        evaluations,
        _learning,
        _aggregates,
        _batch_sizes,
        _step_sizes,
        _times,
        _log_probabilities,
    )
    for section in sections:
        section(report, results)
    return report.write(Path(folder))


def _task_by_task(texts: list[pd.DataFrame], results: Results) -> pd.DataFrame:
    """The rows of all tables, those of a task together."""
    return pd.concat(texts).sort_values("task", key=lambda names: names.map(results.tasks.index), kind="stable")


def _introduction(report: Document, results: Results) -> None:
    study = results.study
    complete = len(study.algorithms) * len(study.tasks) * len(study.seeds)
    budgets = ", ".join(f"{task} {timesteps(results.budgets[task])}" for task in results.tasks)
    report.text.append(
        f"{len(results.table)} of {complete} runs ({report.table('runs', results.table)}): "
        f"{len(study.algorithms)} algorithms, {len(study.tasks)} tasks, {len(study.seeds)} seeds. Timesteps of a run: "
        f"{budgets}. Returns are undiscounted training returns, unless said otherwise; ± is the standard deviation over "
        "seeds; (k/n) after a number: only k of n seeds are finished.\n"
    )


def _returns(report: Document, results: Results) -> None:
    def text(summary: pd.DataFrame) -> pd.DataFrame:
        """The layout of the paper's Table 1."""
        best = summary.groupby("task")["mean"].max()
        return results.across(summary, lambda cell: bold(results.mean_std(cell), cell["mean"] == best[cell["task"]]))

    finals = results.summary("final_return")
    final_text, source, study = text(finals), [], results.study
    smac = next((label for label in results.labels if study.algorithm(label) == PAPER_ALGORITHM), None)
    papers = [PAPER_FINALS.get(task.split("-")[0]) for task in results.tasks]
    if smac is not None and any(papers):
        final_text.insert(final_text.columns.get_loc(smac) + 1, f"{smac}, paper", [number(value) for value in papers])
        source = [PAPER_SOURCE]
    report.section(
        "Final return",
        "Mean return of the training episodes that end in the last tenth of the budget, the best in bold "
        f"({report.table('final_return', finals)}).",
        final_text,
        *source,
    )
    differences(report, results, "final_return", "final return")
    for column, (heading, definition) in OTHER_RETURNS.items():
        if results.table[column].notna().any():
            table = results.summary(column)
            shown = text(table)
            if column == "evaluation" and study.published:
                shown.insert(1, "best published", [number(study.published.get(task)) for task in shown["task"]])
            report.section(heading, f"{definition} ({report.table(column, table)}).", shown)


def _learning(report: Document, results: Results) -> None:
    curves = results.curves("episodes", "return")
    report.section(
        "Learning curves",
        f"Mean return in each of {statistics.BINS} bins of timesteps, exponentially weighted over the bins (newest bin: "
        f"{statistics.SMOOTHING}); the mean over seeds in a band of ± one standard deviation.",
        report.curves("learning_curves", curves, "return"),
    )
    rows, finals = [], results.summary("final_return").set_index(["task", "label"])["mean"]
    every = {task: {label: values.mean(axis=0) for label, (_, values) in lines.items()} for task, lines in curves.items()}
    for task, means in every.items():
        for baseline, threshold in finals[task].items():
            needed = statistics.first_passages(means, results.budgets[task], threshold)
            rows += [(task, label, baseline, threshold, count, count / needed[baseline]) for label, count in needed.items()]
    table = pd.DataFrame(rows, columns=["task", "label", "baseline", "threshold", "timesteps", "relative"])
    fewest = table.groupby(["task", "baseline"])["timesteps"].transform("min")

    def text(row: pd.Series) -> str:
        if pd.isna(row["timesteps"]):
            return "never"
        relative = "" if pd.isna(row["relative"]) else f" ({ratio(row['relative'])})"
        return bold(timesteps(row["timesteps"]) + relative, row["timesteps"] == fewest[row.name])

    texts = []
    for baseline in results.labels:
        passages = table[table["baseline"] == baseline]
        across = results.across(passages, text)
        across.insert(1, "final return of", baseline)
        across.insert(2, "threshold", across["task"].map(passages.groupby("task")["threshold"].first()).map(number))
        texts.append(across)
    report.section(
        "Convergence speed",
        "Timesteps until the mean learning curve reaches the final return of each algorithm (less "
        f"{statistics.TOLERANCE:.0%} of the range of the task's curves), and the multiple of what that one needs itself; "
        f"the fewest in bold ({report.table('convergence', table)}). One bin is the resolution, and the smoothing delays a "
        "jump by up to seven.",
        _task_by_task(texts, results),
    )
    _way(report, results, every)


def _way(report: Document, results: Results, every: dict[str, dict[str, np.ndarray]]) -> None:
    """How soon each algorithm is near the best end, a return that need be no algorithm's own."""
    rows, best = [], results.summary("final_return").groupby("task")["mean"].max()
    for task, means in every.items():
        lowest = float(np.nanmin([*means.values()]))
        for part in WAY:
            threshold = lowest + part * (best[task] - lowest)
            needed = statistics.first_passages(means, results.budgets[task], threshold)
            rows += [(task, label, part, threshold, count) for label, count in needed.items()]
    table = pd.DataFrame(rows, columns=["task", "label", "part", "threshold", "timesteps"])
    fewest = table.groupby(["task", "part"])["timesteps"].transform("min")

    def text(row: pd.Series) -> str:
        needed = row["timesteps"]
        return "never" if pd.isna(needed) else bold(timesteps(needed), needed == fewest[row.name])

    texts = []
    for part in WAY:
        across = results.across(table[table["part"] == part], text)
        across.insert(1, "of the way", f"{part:.0%}")
        texts.append(across)
    report.section(
        "On the way to the best end",
        "Timesteps until the mean learning curve has made a part of the way from the lowest point of the task's curves to the "
        f"best final return of any algorithm; the fewest in bold ({report.table('way', table)}).",
        _task_by_task(texts, results),
    )


def _scores(results: Results) -> dict[str, np.ndarray]:
    """Final returns, scaled so that the worst label's mean on a task is 0 and the best label's is 1."""
    returns = results.returns("final_return")
    if not returns:
        return {}
    means = np.stack([values.mean(axis=0) for values in returns.values()])  # (labels, tasks)
    return statistics.scaled(returns, means.min(axis=0), means.max(axis=0))


def _aggregates(report: Document, results: Results) -> None:
    scores = _scores(results)
    if not any(values.size for values in scores.values()):
        report.section("Over all tasks", "Takes a task that two algorithms have finished with different returns.")
        return
    means, pairs = statistics.interquartile_means(scores), statistics.probabilities_of_improvement(scores)
    profiles = statistics.performance_profiles(scores)
    counts = ", ".join(f"{label} {count}" for label, count in zip(means["label"], means["runs"], strict=True))
    report.section(
        "Over all tasks",
        "Final returns, scaled in each task so that the worst algorithm's mean is 0 and the best algorithm's is 1. "
        f"{INTERVALS} Tasks: {means['tasks'][0]}, those in which every algorithm has runs and two differ; "
        f"runs per task: {counts}.",
        f"Interquartile mean: the mean of the middle half of all runs ({report.table('interquartile_mean', means)}).",
        pd.DataFrame({"algorithm": means["label"], "interquartile mean": with_interval(means, "iqm")}),
        "Probability of improvement: that a run of X ends above a run of Y, mean over tasks "
        f"({report.table('probability_of_improvement', pairs)}).",
        pairs_table(pairs),
        f"Performance profiles: the higher, the better ({report.table('performance_profiles', profiles)}).",
        report.figure("performance_profiles", figures.profiles_figure(profiles, report.styles)),
    )


def _batch_sizes(report: Document, results: Results) -> None:
    """Algorithms that a task was trained on at several batch sizes, the smallest first; no ratio to a negative return."""
    runs = results.table
    runs = runs.assign(
        group=runs.groupby(["task", "algorithm"], sort=False).ngroup(), size=runs["batch_size"].replace(WHOLE_ROLLOUT, np.inf)
    )
    names = runs[["task", "label", "algorithm", "batch_size", "group", "size"]].drop_duplicates()
    table = results.summary("final_return").merge(names, on=["task", "label"])
    table["update_time"] = results.summary("update_time")["mean"]
    table = table[table.groupby("group")["size"].transform("nunique") > 1].sort_values(["group", "size"], ignore_index=True)
    if table.empty:
        return
    smallest = table.groupby("group")[["mean", "update_time"]].transform("first")
    table = table.drop(columns=["group", "size"])
    table["return_ratio"] = (table["mean"] / smallest["mean"]).where((table["mean"] > 0) & (smallest["mean"] > 0))
    table["update_time_ratio"] = table["update_time"] / smallest["update_time"]
    columns = {
        "task": table["task"],
        "algorithm": table["label"],
        "batch": table["batch_size"],
        "final return": table.apply(results.mean_std, axis=1),
        "ratio": table["return_ratio"].map(ratio),
        "updates [s]": table["update_time"].map(number),
        "ratio of updates": table["update_time_ratio"].map(ratio),
    }
    report.section(
        "Batch size",
        "Final return and time of the updates, actor and critic, of an algorithm with several actor batch sizes; ratios "
        f"to the smallest ({report.table('batch_size', table)}).",
        pd.DataFrame(columns),
    )


def _step_sizes(report: Document, results: Results) -> None:
    """Algorithms that a task was trained on with several fixed step sizes, and which of them to take."""
    keys = ["task", "algorithm", "step_size"]
    runs = results.table.dropna(subset=keys)
    runs = runs.assign(kept=runs["final_return"] - runs["lost_return"])
    runs = runs[runs.groupby(["task", "algorithm"])["step_size"].transform("nunique") > 1]
    if runs.empty:
        return
    table = runs.groupby(keys, sort=False).agg(
        label=("label", "first"),
        mean=("final_return", "mean"),
        std=("final_return", lambda values: values.std(ddof=0)),
        seeds=("seed", "count"),
        lost=("lost_return", "mean"),
        kept=("kept", "mean"),
        error=("kept", "sem"),
    )
    table = table.reset_index().sort_values(
        keys, key=lambda cells: cells.map(results.tasks.index) if cells.name == "task" else cells
    )
    table["chosen"] = False
    for _, sizes in table.groupby(["task", "algorithm"], sort=False):
        best = sizes.loc[sizes["kept"].idxmax()]
        enough = sizes["kept"] >= best["kept"] - (0 if np.isnan(best["error"]) else best["error"])
        table.loc[enough.idxmax(), "chosen"] = True
    curves: Curves = {}
    for (task, algorithm), cell in runs.groupby(["task", "algorithm"], sort=False):
        values = cell.pivot_table(index="seed", columns="step_size", values="final_return").dropna()
        if len(values):
            curves.setdefault(task, {})[algorithm] = values.columns.to_numpy(), values.to_numpy()
    styles = figures.styles({algorithm: algorithm for algorithm in runs["algorithm"].unique()})
    figure = figures.curves_figure(curves, styles, "final return", "step size \N{GREEK SMALL LETTER ALPHA}", log=True)
    columns = {
        "task": table["task"],
        "algorithm": table["algorithm"],
        "step size": table["step_size"].map("{:g}".format),
        "final return": table.apply(results.mean_std, axis=1),
        "lost": table["lost"].map(number),
        "kept": table.apply(lambda row: bold(number(row["kept"]), row["chosen"]), axis=1),
    }
    report.section(
        "Step sizes",
        "Final return; what was lost, the mean of the best tenth of the budget less that of the last; and what is kept, the "
        "final return less what was lost. In bold the step to take: the smallest within a standard error (of the best) of "
        f"the best ({report.table('step_sizes', table)}).",
        pd.DataFrame(columns),
        report.figure("step_sizes", figure),
    )


def _times(report: Document, results: Results) -> None:
    cells = results.table.groupby(["task", "label"], sort=False)
    table = cells[["wall_clock", "update_time", "budget"]].median()
    table["update_share"] = table["update_time"] / table["wall_clock"]
    table["steps_per_second"] = table.pop("budget") / table["wall_clock"]
    reference = table.xs(results.reference, level="label").reindex(table.index.get_level_values("task"))
    for column in ("wall_clock", "update_time"):
        table[f"{column}_ratio"] = table[column] / reference[column].to_numpy()
    table = table.assign(seeds=cells.size()).reset_index()

    def text(column: str) -> pd.DataFrame:
        return results.across(table, lambda cell: f"{number(cell[column])} ({ratio(cell[f'{column}_ratio'])})")

    report.section(
        "Time",
        f"Median over seeds, and ratio to {results.reference} ({report.table('time', table)}). Runs side "
        "by side slow each other down: compare what ran alike.",
        "Wall-clock without evaluations, in seconds:",
        text("wall_clock"),
        "Updates of actor and critic, in seconds:",
        text("update_time"),
    )


def _log_probabilities(report: Document, results: Results) -> None:
    report.section(
        "Log-probability",
        "Mean log-probability of the actions taken, drawn as the learning curves.",
        report.curves("log_probability", results.curves("updates", "log_prob"), "mean log-probability"),
    )
