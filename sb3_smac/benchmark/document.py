"""A report as it is written: tables and figures with their files, and the Markdown around them."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sb3_smac.benchmark import figures, statistics
from sb3_smac.benchmark.tables import MISSING, Curves, Results, number

LEVEL = f"{statistics.BOOTSTRAP['confidence_interval_size']:.0%}"
INTERVALS = (
    f"In brackets: {LEVEL} intervals by rliable's bootstrap, stratified by "
    f"task ({statistics.BOOTSTRAP['reps']} resamples of the runs; the scale stays)."
)
NAMES = ("task", "algorithm", "final return of", "of the way", "X", "Y")
"""Columns of text, to the left."""


class Document:
    """
    Files and text of a report, kept until all of it is there.

    :param results: of the study
    """

    def __init__(self, results: Results) -> None:
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
        path = folder / "report.md"
        path.write_text("\n".join(self.text), encoding="utf-8")
        return path

    def section(self, heading: str, *paragraphs: str | pd.DataFrame) -> None:
        """Add a section of Markdown and of tables with text in every cell."""
        texts = [paragraph if isinstance(paragraph, str) else _markdown(paragraph) for paragraph in paragraphs]
        self.text += [f"## {heading}\n", *(f"{text}\n" for text in texts)]

    def table(self, name: str, table: pd.DataFrame) -> str:
        """Add a CSV file; the link to it."""
        self.tables[name] = table
        return f"[{name}.csv]({name}.csv)"

    def figure(self, name: str, figure: Figure) -> str:
        """Add a figure; its Markdown."""
        self.figures[name] = figure
        return f"[![{name.replace('_', ' ')}]({name}.png)]({name}.svg)"

    def curves(self, name: str, curves: Curves, ylabel: str, xlabel: str = "timesteps") -> str:
        """Add a figure of learning curves; its Markdown."""
        return self.figure(name, figures.curves_figure(curves, self.styles, ylabel, xlabel))


def _markdown(table: pd.DataFrame) -> str:
    sides = ["left" if column in NAMES else "right" for column in table.columns]
    return table.to_markdown(index=False, disable_numparse=True, colalign=sides)


def bold(text: str, if_so: bool) -> str:
    """
    :param text: of a cell
    :param if_so: whether it is to be bold
    :return: the cell
    """
    return f"**{text}**" if if_so else text


def with_interval(table: pd.DataFrame, column: str) -> pd.Series:
    """
    :param table: estimates, with the ends ``low`` and ``high`` of their intervals
    :param column: which has the estimates
    :return: cells
    """
    return table.apply(lambda row: f"{row[column]:.2f} [{row['low']:.2f}, {row['high']:.2f}]", axis=1)


def pairs_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """
    :param pairs: probabilities of improvement
    :return: a table of cells
    """
    return pd.DataFrame({"X": pairs["x"], "Y": pairs["y"], "P(X > Y)": with_interval(pairs, "probability")})


def differences(report: Document, results: Results, column: str, name: str) -> None:
    """
    Add a section on what is between two algorithms on one task.

    :param report: where to
    :param results: of the study
    :param column: a column of the table of runs
    :param name: what it is called
    """
    cells = results.table.dropna(subset=column).groupby(["task", "label"])[column].agg(list)
    rows = [
        (task, x, y, *statistics.difference(*(np.array(cells[task, label]) for label in (x, y))))
        for x, y in combinations(results.labels, 2)
        for task in results.tasks
        if (task, x) in cells.index and (task, y) in cells.index
    ]
    if not rows:
        return
    table = pd.DataFrame(rows, columns=["task", "x", "y", "difference", "low", "high"])

    def text(row: pd.Series) -> str:
        if np.isnan(row["low"]):
            return number(row["difference"])
        interval = f"{number(row['difference'])} [{number(row['low'])}, {number(row['high'])}]"
        return bold(interval, row["low"] > 0 or row["high"] < 0)

    texts = table.assign(text=table.apply(text, axis=1)).set_index(["x", "y", "task"])["text"].unstack("task")
    pairs = [pair for pair in combinations(results.labels, 2) if pair in texts.index]
    texts = texts.reindex(index=pairs, columns=[task for task in results.tasks if task in texts.columns]).fillna(MISSING)
    report.section(
        f"Differences of the {name}",
        f"Mean {name} of X less that of Y, with the {LEVEL} interval of Welch's t-test; in bold where it leaves out 0. No "
        f"correction is made for the number of pairs ({report.table(f'{column}_difference', table)}).",
        texts.rename_axis(index=["X", "Y"], columns=None).reset_index(),
    )
