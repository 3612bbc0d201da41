"""The table that says how fast the package is: a few figures of the others, beside what they are to be."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .report import Row, Table
from .simulators import DUMMY, ENVPOOL_1, ENVPOOL_2


class Figure(NamedTuple):
    """
    One ratio of a table.

    :param text: what it is
    :param table: name
    :param where: values of the row's other columns
    :param column: of the ratio
    :param aim: what it is to be; ``None``: nothing is said
    """

    text: str
    table: str
    where: Mapping[str, Any]
    column: str
    aim: float | None = None


FULL, RANK_1 = "SMAC, full", "SMAC"


def _figures() -> list[Figure]:
    figures = []
    aims = {
        ("Hopper-v4", 8, ENVPOOL_1, FULL): 0.70,
        ("Hopper-v4", 8, ENVPOOL_2, FULL): 0.55,
        ("Humanoid-v4", 8, ENVPOOL_2, FULL): 0.80,
    }
    for task in ("Hopper-v4", "Humanoid-v4"):
        for n_envs in (1, 8, 16):
            for simulator in (ENVPOOL_1, ENVPOOL_2):
                for name in (FULL, RANK_1, "A2C", "PPO", "TRPO"):
                    where = {"task": task, "environments": n_envs, "simulator": simulator, "algorithm": name}
                    text = f"frames/s of {name} over random actions: {task}, {n_envs} x {simulator}"
                    aim = aims.get((task, n_envs, simulator, name))
                    figures.append(Figure(text, "learn", where, "/ random actions", aim))
    for name, aim in {RANK_1: 2.0, FULL: 1.6, "PPO": None, "TRPO": None}.items():
        where = {"task": "Hopper-v4", "environments": 8, "simulator": DUMMY, "algorithm": name}
        text = f"frames/s of {name} over A2C: Hopper-v4, 8 x {DUMMY}"
        figures.append(Figure(text, "learn", where, "/ A2C", aim))
    for network, has_aims in {"Hopper, 64x64": True, "Humanoid, 256x256": False}.items():
        for name, aim in {RANK_1: 1.05, FULL: 1.25, "AC-CG": 1.2, "TRPO": None, "PPO": None}.items():
            where = {"network": network, "train()": name}
            figures.append(
                Figure(f"train() of {name} over AC-SGD: {network}", "update", where, "/ AC-SGD", aim if has_aims else None)
            )
        for name, aim in {RANK_1: 1.1, FULL: 3.0, "AC-CG": 3.0, "TRPO": None}.items():
            where = {"network": network, "actor's update": name}
            text = f"the actor's update of {name} over AC-SGD: {network}"
            figures.append(Figure(text, "actor", where, "/ AC-SGD", aim if has_aims else None))
        for peer, aim in {"TRPO": 0.25, "PPO": 0.15}.items():
            where = {"network": network, "train()": FULL}
            figures.append(
                Figure(f"train() of {FULL} over {peer}: {network}", "update", where, f"/ {peer}", aim if has_aims else None)
            )
        for name in (RANK_1, FULL, "AC-CG", "TRPO", "PPO"):
            where = {"network": network, "train()": name}
            text = f"peak memory of train() of {name} over parameters and rollout: {network}"
            figures.append(Figure(text, "memory", where, "/ (parameters + rollout)"))
    return figures


def summary(tables: Mapping[str, Sequence[Row]]) -> Table:
    """
    :param tables: rows by the name of the table
    :return: the figures that are in them
    """
    rows: list[Row] = []
    for figure in _figures():
        for row in tables.get(figure.table, []):
            if figure.where.items() <= row.items():
                aim = "" if figure.aim is None else f"{figure.aim:g}"
                rows.append({"ratio": figure.text, "measured": row[figure.column], "aim": aim})
    return Table("summary", "In short:", rows)
