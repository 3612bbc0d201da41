"""Finished runs as rows of a CSV file, added one by one."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, str]]:
    """
    :param path: CSV file; it need not exist
    :return: its rows
    """
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def append(path: Path, row: Mapping[str, Any]) -> None:
    """
    :param path: CSV file; if it does not exist, it is begun with a line of names
    :param row: a value for each name, in the order of the file
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
