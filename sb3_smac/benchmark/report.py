"""
The report of a study: the paper's tables and figures, made of its finished runs.

The same runs give the same files, byte for byte.
"""

from collections.abc import Sequence
from pathlib import Path

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
OTHER_RETURNS = (
    ("last_100_episodes", "Last 100 episodes", "Mean return of the last 100 training episodes"),
    (
        "mean_training_return",
        "Area under the curve",
        "Mean training return over all timesteps: the area under the learning curve, divided by its length",
    ),
    ("evaluation", "Last evaluation", "Mean return of the last evaluation, with deterministic actions"),
)
"""Columns of the table of runs, each with the heading of its section and its definition."""


class Report:
    """
    Files and text of a report, kept until all of it is there.

    :param study: the study
    :param results: its finished runs
    """

    def __init__(self, study: Study, results: Results) -> None:
        self.study = study
        self.results = results
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
    :raises ImportError: if rliable is missing; nothing has been written then
    """
    results = _results(study, runs)
    report = Report(study, results)
    table = tables.runs_table(results)
    for section in (_introduction, _returns, _learning_curves, _aggregates, _batch_sizes, _times):
        section(report, table)
    _log_probabilities(report)
    return report.write(Path(folder))


def _results(study: Study, runs: Sequence[Run]) -> Results:
    finished = [run for run in runs if run.finished]
    if not finished:
        raise ValueError(f"Study {study.name!r} has no finished run to report")
    for run in finished:
        if run.label not in study.algorithms or run.task not in study.tasks:
            raise ValueError(f"Run {run.key!r} is not of study {study.name!r}: {[*study.algorithms]} on {[*study.tasks]}")
    labels, tasks = {run.label for run in finished}, {run.task for run in finished}
    return Results(
        finished,
        [label for label in study.algorithms if label in labels],
        [task for task in study.tasks if task in tasks],
        len(study.seeds),
    )


def _introduction(report: Report, runs: pd.DataFrame) -> None:
    study, results = report.study, report.results
    complete = len(study.algorithms) * len(study.tasks) * len(study.seeds)
    budgets = ", ".join(f"{task} {tables.timesteps(results.budget(task))}" for task in results.tasks)
    report.text.append(
        f"{len(runs)} of {complete} runs ({report.table('runs', runs)}): {len(study.algorithms)} algorithms, "
        f"{len(study.tasks)} tasks, {len(study.seeds)} seeds. Timesteps of a run: {budgets}. Returns are undiscounted "
        "training returns; ± is the standard deviation over seeds; (k/n) after a number: only k of n seeds are finished.\n"
    )


def _returns(report: Report, runs: pd.DataFrame) -> None:
    results = report.results
    finals = tables.summary(runs, "final_return")
    text = tables.with_paper(results, tables.returns_table(results, finals))
    report.section(
        "Final return",
        "Mean return of the training episodes that end in the last tenth of the budget, the best in bold "
        f"({report.table('final_return', finals)}).",
        markdown(text),
        *([PAPER_SOURCE] if len(text.columns) > 1 + len(results.labels) else []),
    )
    for column, heading, definition in OTHER_RETURNS:
        if runs[column].notna().any():
            numbers = tables.summary(runs, column)
            link = report.table(column, numbers)
            report.section(heading, f"{definition} ({link}).", markdown(tables.returns_table(results, numbers)))


def _learning_curves(report: Report, runs: pd.DataFrame) -> None:
    results = report.results
    curves = results.curves("episodes", "return")
    report.section(
        "Learning curves",
        f"Mean return in each of {statistics.BINS} bins of timesteps, exponentially weighted over the bins (newest bin: "
        f"{statistics.SMOOTHING}); the mean over seeds in a band of ± one standard deviation.",
        _curves(report, "learning_curves", curves, "return"),
    )
    table = tables.convergence(results, curves, tables.summary(runs, "final_return"))
    report.section(
        "Convergence speed",
        "Timesteps until the mean learning curve reaches the final return of each algorithm (less "
        f"{statistics.TOLERANCE:.0%} of the range of the task's curves), and the multiple of what that one needs itself; "
        f"the fewest in bold ({report.table('convergence', table)}). One bin is the resolution, and the smoothing delays a "
        "jump by up to seven.",
        markdown(tables.convergence_text(results, table)),
    )


def _aggregates(report: Report, runs: pd.DataFrame) -> None:
    scores = tables.scores(report.results, runs)
    if not scores:
        report.section("Over all tasks", "Takes a task that two algorithms have finished with different returns.")
        return
    means, pairs, profiles = tables.aggregates(scores), tables.improvements(scores), tables.profiles(scores)
    counts = ", ".join(f"{label} {count}" for label, count in zip(means["label"], means["runs"], strict=True))
    report.section(
        "Over all tasks",
        "Final returns, scaled in each task so that the worst algorithm's mean is 0 and the best algorithm's is 1. In "
        f"brackets: {statistics.CONFIDENCE:.0%} intervals by rliable's bootstrap, stratified by task ({statistics.RESAMPLES} "
        f"resamples of the runs; the scale stays). Tasks: {means['tasks'][0]}, those in which every algorithm has runs and "
        f"two differ; runs per task: {counts}.",
        f"Interquartile mean: the mean of the middle half of all runs ({report.table('interquartile_mean', means)}).",
        markdown(pd.DataFrame({"algorithm": means["label"], "interquartile mean": tables.with_interval(means, "iqm")})),
        "Probability of improvement: that a run of X ends above a run of Y, mean over tasks "
        f"({report.table('probability_of_improvement', pairs)}).",
        markdown(pd.DataFrame({"X": pairs["x"], "Y": pairs["y"], "P(X > Y)": tables.with_interval(pairs, "probability")})),
        f"Performance profiles: the higher, the better ({report.table('performance_profiles', profiles)}).",
        report.figure("performance_profiles", figures.profiles_figure(profiles, report.styles)),
    )


def _times(report: Report, runs: pd.DataFrame) -> None:
    table = tables.times(report.results, runs)
    report.section(
        "Time",
        f"Median over seeds, and ratio to {tables.reference_label(report.results)} ({report.table('time', table)}). Runs side "
        "by side slow each other down: compare what ran alike.",
        "Wall-clock without evaluations, in seconds:",
        markdown(tables.times_text(report.results, table, "wall_clock")),
        "Updates of actor and critic, in seconds:",
        markdown(tables.times_text(report.results, table, "update_time")),
    )


def _batch_sizes(report: Report, runs: pd.DataFrame) -> None:
    table = tables.batch_sizes(runs)
    if not table.empty:
        report.section(
            "Batch size",
            "Final return and time of the updates, actor and critic, of an algorithm with several actor batch sizes; ratios "
            f"to the smallest ({report.table('batch_size', table)}).",
            markdown(tables.batch_sizes_text(report.results, table)),
        )


def _log_probabilities(report: Report) -> None:
    report.section(
        "Log-probability",
        "Mean log-probability of the actions taken, drawn as the learning curves.",
        _curves(report, "log_probability", report.results.curves("updates", "log_prob"), "mean log-probability"),
    )


def _curves(report: Report, name: str, curves: tables.Curves, ylabel: str) -> str:
    budgets = {task: report.results.budget(task) for task in curves}
    return report.figure(name, figures.curves_figure(curves, budgets, report.styles, ylabel))
