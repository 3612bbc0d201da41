"""What a report says about evaluations with deterministic actions: side by side, beside published ones, over all tasks."""

from itertools import combinations

import numpy as np
import pandas as pd

from sb3_smac.benchmark import statistics
from sb3_smac.benchmark.document import INTERVALS, Document, differences, pairs_table, with_interval
from sb3_smac.benchmark.tables import Results


def evaluations(report: Document, results: Results) -> None:
    """
    Add the sections on evaluations, if there are any.

    :param report: where to
    :param results: of the study
    """
    if not results.evaluation_curves("timestep"):
        return
    report.section(
        "Evaluation curves",
        "Mean return of each evaluation, with deterministic actions: the mean over seeds in a band of ± one standard "
        "deviation; over timesteps, and over wall-clock time without evaluations.",
        report.curves("evaluations", results.evaluation_curves("timestep"), "return"),
        report.curves("evaluations_wall_clock", results.evaluation_curves("wall_time", 60), "return", "minutes"),
    )
    differences(report, results, "evaluation", "last evaluation")
    _published(report, results)
    _over_the_reference(report, results)
    _improvement(report, results)


def _over_the_reference(report: Document, results: Results) -> None:
    """On the tasks that all have, in units of what the reference reaches."""
    reference = results.reference
    returns = [results.returns(column) for column in ("evaluation", "mean_evaluation")]
    if not all(reference in values for values in returns):
        return
    means = [values[reference].mean(axis=0) for values in returns]
    scores = [statistics.scaled(values, np.zeros_like(mean), mean) for values, mean in zip(returns, means, strict=True)]
    if all(values[reference].size for values in scores):
        last, area = map(statistics.interquartile_means, scores)
        links = report.table("evaluation_iqm", last), report.table("mean_evaluation_iqm", area)
        estimates = {"last evaluation": with_interval(last, "iqm"), "area": with_interval(area, "iqm")}
        report.section(
            "Evaluations over all tasks",
            f"Interquartile mean over tasks and runs of the return over {reference}'s mean return on the task, of the last "
            f"evaluation and of the area under the evaluations ({links[0]}, {links[1]}). {INTERVALS} Tasks: "
            f"{last['tasks'][0]}, those in which every algorithm has runs and {reference}'s mean is positive.",
            pd.DataFrame({"algorithm": last["label"], **estimates}),
        )


def _improvement(report: Document, results: Results) -> None:
    """Of two algorithms on all tasks that the two have, whatever the others have."""
    pairs = []
    for pair in combinations(results.labels, 2):
        if returns := results.returns("evaluation", pair):
            tasks = next(iter(returns.values())).shape[1]
            pairs.append(statistics.probabilities_of_improvement(returns).assign(tasks=tasks))
    if pairs:
        table = pd.concat(pairs)
        report.section(
            "Improvement in evaluations",
            "Probability that X's last evaluation is above Y's, mean over the tasks in which both have runs "
            f"({report.table('evaluation_improvement', table)}).",
            pairs_table(table).assign(tasks=table["tasks"].map(str)),
        )


def _published(report: Document, results: Results) -> None:
    published, scores = results.study.published, {}
    table = results.table[results.table["task"].isin(published)].dropna(subset="evaluation")
    for label in results.labels:
        values = table[table["label"] == label].groupby("task")["evaluation"].agg(list)
        if len(values):
            values = values[values.map(len) == values.map(len).max()]
            scores[label] = np.array([*values]).T / [published[task] for task in values.index]
    if not scores:
        return
    means = statistics.interquartile_means(scores)
    counts = {"tasks": means["tasks"].map(str), "runs a task": means["runs"].map(str)}
    report.section(
        "Against what is published",
        "Interquartile mean over tasks and runs of the last evaluation over the best that others have published on the task, "
        f"each algorithm over the tasks in which it has most runs ({report.table('published_iqm', means)}). {INTERVALS}",
        pd.DataFrame({"algorithm": means["label"], **counts, "of the best": with_interval(means, "iqm")}),
    )
