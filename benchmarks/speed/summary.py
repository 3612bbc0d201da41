"""The table that says how fast the package is: the ratios of the others side by side, and what they are to be."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .report import Row, Table
from .simulators import DUMMY, ENVPOOL_1, ENVPOOL_2

ALGORITHMS = ("SMAC", "SMAC, full", "AC-CG", "A2C", "TRPO", "PPO")


class Ratio(NamedTuple):
    """
    A column of a table, of which each algorithm has one number per setting.

    :param text: what it is
    :param table: name
    :param settings: columns that tell the settings apart
    :param algorithm: column of the algorithms
    :param column: of the ratio
    :param aims: by setting and algorithm, what the ratio is to be
    """

    text: str
    table: str
    settings: Sequence[str]
    algorithm: str
    column: str
    aims: Mapping[tuple[str, ...], Mapping[str, float]]


LEARN = ("task", "environments", "simulator")
SMALL = ("Hopper, 64x64",)
RATIOS = (
    Ratio(
        *("frames/s over random actions", "learn", LEARN, "algorithm", "/ random actions"),
        {
            ("Hopper-v4", "8", ENVPOOL_1): {"SMAC, full": 0.7},
            ("Hopper-v4", "8", ENVPOOL_2): {"SMAC, full": 0.55},
            ("Humanoid-v4", "8", ENVPOOL_2): {"SMAC, full": 0.8},
        },
    ),
    Ratio(
        *("frames/s over A2C's", "learn", LEARN, "algorithm", "/ A2C"),
        {("Hopper-v4", "8", DUMMY): {"SMAC": 2.0, "SMAC, full": 1.6}},
    ),
    Ratio(
        *("train() over AC-SGD's", "update", ("network",), "train()", "/ AC-SGD"),
        {SMALL: {"SMAC": 1.05, "SMAC, full": 1.25, "AC-CG": 1.2}},
    ),
    Ratio(
        *("the actor's update over AC-SGD's", "actor", ("network",), "actor's update", "/ AC-SGD"),
        {SMALL: {"SMAC": 1.1, "SMAC, full": 3.0, "AC-CG": 3.0}},
    ),
    Ratio("train() over TRPO's", "update", ("network",), "train()", "/ TRPO", {SMALL: {"SMAC, full": 0.25}}),
    Ratio("train() over PPO's", "update", ("network",), "train()", "/ PPO", {SMALL: {"SMAC, full": 0.15}}),
    Ratio(
        "peak memory of train() over parameters and rollout", "memory", ("network",), "train()", "/ (parameters + rollout)", {}
    ),
)


def summary(tables: Mapping[str, Sequence[Row]]) -> Table:
    """
    :param tables: rows by the name of the table
    :return: a row per ratio and setting, a column per algorithm
    """
    rows: list[Row] = []
    for ratio in RATIOS:
        found: defaultdict[tuple[str, ...], dict[str, float]] = defaultdict(dict)
        for row in tables.get(ratio.table, []):
            found[tuple(str(row[column]) for column in ratio.settings)][row[ratio.algorithm]] = row[ratio.column]
        for setting, numbers in found.items():
            aims = "; ".join(f"{name}: {aim:g}" for name, aim in ratio.aims.get(setting, {}).items())
            of_algorithms = {name: numbers.get(name, math.nan) for name in ALGORITHMS}
            rows.append({"ratio": ratio.text, "of": ", ".join(setting), **of_algorithms, "aim": aims})
    return Table("summary", "All ratios in short.", rows)
