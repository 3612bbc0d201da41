"""
The report of a study: the paper's tables and figures, made of its finished runs.

The same runs give the same files, byte for byte.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sb3_smac.benchmark import figures, statistics, tables
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Study
from sb3_smac.benchmark.tables import Results, markdown

REPORT = "report.md"

PAPER_SOURCE = (
    "The paper's values are those that public summaries of it (arXiv 2601.18626) report, a secondary source; "
    "Humanoid's and the baselines' are not known."
)
INTERVALS = (
    f"In brackets: {statistics.CONFIDENCE:.0%} intervals by rliable's bootstrap, stratified by task ({statistics.RESAMPLES} "
    "resamples of the runs; the scale stays)."
)
OTHER_RETURNS = (
    ("last_100_episodes", "Last 100 episodes", "Mean return of the last 100 training episodes"),
    (
        "mean_training_return",
        "Area under the curve",
        "Mean training return over all timesteps: the area under the learning curve, divided by its length",
    ),
    ("evaluation", "Last evaluation", "Mean return of the last evaluation, with deterministic actions"),
    (
        "mean_evaluation",
        "Area under the evaluations",
        "Mean return of all evaluations: the area under their curve, divided by its length",
    ),
)
"""Columns of the table of runs, each with the heading of its section and its definition."""


class Report:
    """
    Files and text of a report, kept until all of it is there.

    :param results: a study's finished runs
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        study = results.study
        # Of all entries: a line keeps its look while the study grows
        self.styles = figures.styles({label: study.algorithm(label) for label in study.algorithms})
        self.text = [f"# Study `{study.name}`\n"]
        self.tables: dict[str, pd.DataFrame] = {}
        self.figures: dict[str, Figure] = {}

    def write(self, folder: Path) -> Path:
        """
        :param folder: where to; made if need be
        :return: the Markdown file
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in self.tables.items():
            table.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g", lineterminator="\n")
        for name, figure in self.figures.items():
            figures.save(figure, folder, name)
        path = folder / REPORT
        path.write_text("\n".join(self.text), encoding="utf-8")
        return path

    def section(self, heading: str, *paragraphs: str) -> None:
        """
        :param heading: of the section
        :param paragraphs: text and tables in Markdown
        """
        self.text += [f"## {heading}\n", *(f"{paragraph.rstrip()}\n" for paragraph in paragraphs)]

    def table(self, name: str, table: pd.DataFrame) -> str:
        """
        :param name: of its CSV file
        :param table: the numbers
        :return: link to the file
        """
        self.tables[name] = table
        return f"[{name}.csv]({name}.csv)"

    def figure(self, name: str, figure: Figure) -> str:
        """
        :param name: of its PNG and SVG files
        :param figure: the figure
        :return: the figure in Markdown
        """
        self.figures[name] = figure
        return f"[![{name.replace('_', ' ')}]({name}.png)]({name}.svg)"


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
    report = Report(Results(study, runs))
    if not report.results.cells:
        raise ValueError(f"Study {study.name!r} has no finished run to report")
    for section in (
        _introduction,
        _returns,
        _evaluations,
        _learning_curves,
        _aggregates,
        _batch_sizes,
        _times,
        _log_probabilities,
    ):
        section(report)
    return report.write(Path(folder))


def _introduction(report: Report) -> None:
    study, results = report.results.study, report.results
    complete = len(study.algorithms) * len(study.tasks) * len(study.seeds)
    budgets = ", ".join(f"{task} {tables.timesteps(results.budget(task))}" for task in results.tasks)
    report.text.append(
        f"{len(results.table)} of {complete} runs ({report.table('runs', results.table)}): "
        f"{len(study.algorithms)} algorithms, {len(study.tasks)} tasks, {len(study.seeds)} seeds. Timesteps of a run: "
        f"{budgets}. Returns are undiscounted training returns, unless said otherwise; ± is the standard deviation over "
        "seeds; (k/n) after a number: only k of n seeds are finished.\n"
    )


def _returns(report: Report) -> None:
    results = report.results
    finals = tables.summary(results.table, "final_return")
    text = tables.returns_text(results, finals, paper=True)
    report.section(
        "Final return",
        "Mean return of the training episodes that end in the last tenth of the budget, the best in bold "
        f"({report.table('final_return', finals)}).",
        markdown(text),
        *([PAPER_SOURCE] if len(text.columns) > 1 + len(results.labels) else []),
    )
    for column, heading, definition in OTHER_RETURNS:
        if results.table[column].notna().any():
            numbers = tables.summary(results.table, column)
            link = report.table(column, numbers)
            report.section(heading, f"{definition} ({link}).", markdown(tables.returns_text(results, numbers)))


def _evaluations(report: Report) -> None:
    results = report.results
    over_timesteps, over_time = results.evaluation_curves("timestep"), results.evaluation_curves("wall_time")
    if not over_timesteps:
        return
    in_minutes = {task: {label: (x / 60, y) for label, (x, y) in cells.items()} for task, cells in over_time.items()}
    report.section(
        "Evaluation curves",
        "Mean return of each evaluation, with deterministic actions: the mean over seeds in a band of ± one standard "
        "deviation; over timesteps, and over wall-clock time without evaluations.",
        _curves(report, "evaluations", over_timesteps, "return"),
        _curves(report, "evaluations_wall_clock", in_minutes, "return", "minutes"),
    )
    returns = {column: tables.returns(results, column) for column in ("evaluation", "mean_evaluation")}
    scores = {
        column: statistics.relative_scores(values, results.reference)
        for column, values in returns.items()
        if results.reference in values
    }
    if not scores or not scores["evaluation"][results.reference].size:
        return
    last, area = (statistics.interquartile_means(values) for values in scores.values())
    pairs = statistics.probabilities_of_improvement(returns["evaluation"])
    links = report.table("evaluation_iqm", last), report.table("mean_evaluation_iqm", area)
    report.section(
        "Evaluations over all tasks",
        f"Interquartile mean over tasks and runs of the return over {results.reference}'s mean return on the task, of the "
        f"last evaluation and of the area under the evaluations ({links[0]}, {links[1]}). {INTERVALS} Tasks: {_tasks(last)}, "
        f"those in which every algorithm has runs and {results.reference}'s mean is positive.",
        markdown(
            pd.DataFrame(
                {
                    "algorithm": last["label"],
                    "last evaluation": tables.with_interval(last, "iqm"),
                    "area": tables.with_interval(area, "iqm"),
                }
            )
        ),
        f"Probability that X's last evaluation is above Y's ({report.table('evaluation_improvement', pairs)}):",
        _pairs(pairs),
    )


def _learning_curves(report: Report) -> None:
    results = report.results
    report.section(
        "Learning curves",
        f"Mean return in each of {statistics.BINS} bins of timesteps, exponentially weighted over the bins (newest bin: "
        f"{statistics.SMOOTHING}); the mean over seeds in a band of ± one standard deviation.",
        _curves(report, "learning_curves", results.curves("episodes", "return"), "return"),
    )
    table = tables.convergence(results, tables.summary(results.table, "final_return"))
    report.section(
        "Convergence speed",
        "Timesteps until the mean learning curve reaches the final return of each algorithm (less "
        f"{statistics.TOLERANCE:.0%} of the range of the task's curves), and the multiple of what that one needs itself; "
        f"the fewest in bold ({report.table('convergence', table)}). One bin is the resolution, and the smoothing delays a "
        "jump by up to seven.",
        markdown(tables.convergence_text(results, table)),
    )


def _aggregates(report: Report) -> None:
    returns = tables.returns(report.results, "final_return")
    scores: Mapping[str, np.ndarray] = statistics.min_max_scores(returns) if returns else {}
    if not any(values.size for values in scores.values()):
        report.section("Over all tasks", "Takes a task that two algorithms have finished with different returns.")
        return
    means, pairs = statistics.interquartile_means(scores), statistics.probabilities_of_improvement(scores)
    profiles = statistics.performance_profiles(scores)
    counts = ", ".join(f"{label} {count}" for label, count in zip(means["label"], means["runs"], strict=True))
    report.section(
        "Over all tasks",
        "Final returns, scaled in each task so that the worst algorithm's mean is 0 and the best algorithm's is 1. "
        f"{INTERVALS} Tasks: {_tasks(means)}, those in which every algorithm has runs and two differ; "
        f"runs per task: {counts}.",
        f"Interquartile mean: the mean of the middle half of all runs ({report.table('interquartile_mean', means)}).",
        markdown(pd.DataFrame({"algorithm": means["label"], "interquartile mean": tables.with_interval(means, "iqm")})),
        "Probability of improvement: that a run of X ends above a run of Y, mean over tasks "
        f"({report.table('probability_of_improvement', pairs)}).",
        _pairs(pairs),
        f"Performance profiles: the higher, the better ({report.table('performance_profiles', profiles)}).",
        report.figure("performance_profiles", figures.profiles_figure(profiles, report.styles)),
    )


def _tasks(means: pd.DataFrame) -> int:
    return means["tasks"].iloc[0]


def _pairs(pairs: pd.DataFrame) -> str:
    return markdown(pd.DataFrame({"X": pairs["x"], "Y": pairs["y"], "P(X > Y)": tables.with_interval(pairs, "probability")}))


def _times(report: Report) -> None:
    table = tables.times(report.results)
    report.section(
        "Time",
        f"Median over seeds, and ratio to {report.results.reference} ({report.table('time', table)}). Runs side "
        "by side slow each other down: compare what ran alike.",
        "Wall-clock without evaluations, in seconds:",
        markdown(tables.times_text(report.results, table, "wall_clock")),
        "Updates of actor and critic, in seconds:",
        markdown(tables.times_text(report.results, table, "update_time")),
    )


def _batch_sizes(report: Report) -> None:
    table = tables.batch_sizes(report.results.table)
    if not table.empty:
        report.section(
            "Batch size",
            "Final return and time of the updates, actor and critic, of an algorithm with several actor batch sizes; ratios "
            f"to the smallest ({report.table('batch_size', table)}).",
            markdown(tables.batch_sizes_text(report.results, table)),
        )


def _log_probabilities(report: Report) -> None:
    curves = report.results.curves("updates", "log_prob")
    report.section(
        "Log-probability",
        "Mean log-probability of the actions taken, drawn as the learning curves.",
        _curves(report, "log_probability", curves, "mean log-probability"),
    )


def _curves(report: Report, name: str, curves: tables.Curves, ylabel: str, xlabel: str = "timesteps") -> str:
    return report.figure(name, figures.curves_figure(curves, report.styles, ylabel, xlabel))
