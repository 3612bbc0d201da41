"""Tables: Markdown and CSV."""

import os
import platform
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch as th

Row = dict[str, Any]

PACKAGES = ("torch", "stable_baselines3", "sb3_contrib", "gymnasium", "mujoco", "envpool", "numpy")


class Table(NamedTuple):
    """
    What a section found.

    :param name: of its CSV file
    :param caption: what was measured
    :param rows: column names to values
    """

    name: str
    caption: str
    rows: Sequence[Row]


def markdown(table: Table) -> str:
    """
    :param table: with rows or without
    :return: its caption, and the rows as a Markdown table
    """
    if not table.rows:
        return table.caption + "\n"
    frame = pd.DataFrame(table.rows)
    sides = ["left" if isinstance(value, str) else "right" for value in table.rows[0].values()]
    cells = frame.astype(object).map(shown)
    return f"{table.caption}\n\n{cells.to_markdown(index=False, colalign=sides, disable_numparse=True)}\n"


def shown(value: object) -> str:
    """
    :param value: of a cell
    :return: as it is printed: floats with three digits
    """
    if value != value:  # not measured
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def write_csv(table: Table, folder: Path) -> None:
    """
    :param table: with rows
    :param folder: where its file goes; floats have six digits
    """
    pd.DataFrame(table.rows).to_csv(folder / f"{table.name}.csv", index=False, float_format="%.6g")


def machine() -> str:
    """
    :return: processor, cores, versions, threads and load, on one line
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    gpu = f"; {th.cuda.get_device_name()}" if th.cuda.is_available() else ""
    return (
        f"{processor}, {os.cpu_count()} cores{gpu}; {platform.system()}, Python {platform.python_version()}, {_versions()}; "
        f"{th.get_num_threads()} torch thread; load before the start {os.getloadavg()[0]:.1f}; {date.today()}"
    )


def _versions() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:  # EnvPool is optional
            continue
    return ", ".join(found)
