"""
Results on disk: one folder per run, written whole or not at all.

``<root>/<label>/<task>/seed<seed>-<hash>/`` holds ``run.json`` (everything but the curves) and the curves of a finished run as
``episodes.csv.gz``, ``updates.csv.gz`` and ``evaluations.csv.gz``; a curve without rows has no file. The hash is of the run's
configuration.
"""

import gzip
import json
import os
import shutil
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

RECORD = "run.json"
CURVES = {
    "episodes": ("timestep", "return", "length", "wall_time"),
    "updates": ("timestep", "log_prob", "update_time", "approx_kl"),
    "evaluations": ("timestep", "mean", "std", "episodes"),
}
"""Columns of each curve. Times are in seconds, the wall time since the run's start; returns are undiscounted."""

REPRODUCIBLE = {"episodes": ["timestep", "return", "length"], "evaluations": ["timestep", "mean", "std"]}
"""What two runs of one configuration must agree on."""

PARTIAL = ".partial-"


@dataclass(eq=False)
class Run:
    """
    A run: its configuration, what it was made with, and its curves.

    :param key: ``<label>/<task>/seed<seed>-<hash>``
    :param info: ``label``, ``algorithm``, ``task``, ``seed``, ``horizon``, ``budget``, ``hyperparameters``, ``evaluation``,
        ``status`` (``"finished"`` or ``"failed"``), ``traceback`` (of a failed run), ``versions``, ``machine``, ``revision``,
        ``duration`` (seconds: ``total``, ``update``, ``evaluation``)
    :param episodes: training episodes; columns ``timestep`` (at its end), ``return``, ``length``, ``wall_time``
    :param updates: one row per update; columns ``timestep``, ``log_prob`` (mean over the actions taken), ``update_time``,
        ``approx_kl`` (NaN if the algorithm logs none)
    :param evaluations: deterministic evaluations; columns ``timestep``, ``mean``, ``std``, ``episodes``; no rows if off
    """

    key: str
    info: dict[str, Any]
    episodes: pd.DataFrame
    updates: pd.DataFrame
    evaluations: pd.DataFrame

    @property
    def label(self) -> str:
        """Name of the study's entry."""
        return self.info["label"]

    @property
    def algorithm(self) -> str:
        """Key of the algorithm."""
        return self.info["algorithm"]

    @property
    def task(self) -> str:
        """Id of the environment."""
        return self.info["task"]

    @property
    def seed(self) -> int:
        """Random seed."""
        return self.info["seed"]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """As the Zoo writes them, with the study's changes."""
        return self.info["hyperparameters"]

    @property
    def finished(self) -> bool:
        """Whether the run reached its budget."""
        return self.info["status"] == "finished"

    def agrees_with(self, other: "Run") -> bool:
        """
        :param other: a run of the same configuration
        :return: whether both have the same learning curves
        """
        return all(
            getattr(self, name)[columns].equals(getattr(other, name)[columns]) for name, columns in REPRODUCIBLE.items()
        )


def empty_curve(name: str) -> pd.DataFrame:
    """
    :param name: name of the curve
    :return: its table, without rows
    """
    return pd.DataFrame({column: np.empty(0) for column in CURVES[name]})


class Store:
    """
    The runs in a folder.

    :param root: the folder; it need not exist
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def finished(self) -> list[str]:
        """
        :return: keys of the finished runs
        """
        return self._keys("finished")

    def failed(self) -> list[str]:
        """
        :return: keys of the failed runs
        """
        return self._keys("failed")

    def _keys(self, status: str) -> list[str]:
        return [key for key in self._all_keys() if self.info(key)["status"] == status]

    def _all_keys(self) -> list[str]:
        # Not the folders that are being written
        paths = (path.parent for path in self.root.glob(f"*/*/[!.]*/{RECORD}"))
        return sorted(path.relative_to(self.root).as_posix() for path in paths)

    def info(self, key: str) -> dict[str, Any]:
        """
        :param key: key of a run
        :return: all that is known of it, but the curves
        """
        return json.loads((self.root / key / RECORD).read_text(encoding="utf-8"))

    def load(self, key: str) -> Run:
        """
        :param key: key of a run
        :return: the run
        """
        folder = self.root / key
        curves = {}
        for name in CURVES:
            path = folder / f"{name}.csv.gz"
            curves[name] = pd.read_csv(path) if path.exists() else empty_curve(name)
        return Run(key, self.info(key), **curves)

    def runs(self, keys: Iterable[str] | None = None) -> list[Run]:
        """
        :param keys: keys of runs; ``None``: of all that are finished
        :return: the runs
        """
        return [self.load(key) for key in (self.finished() if keys is None else keys)]

    def write(self, run: Run) -> None:
        """
        Keep a run: its folder appears whole. A run that is there already stays, unless it failed.

        :param run: the run
        """
        folder = self.root / run.key
        if (folder / RECORD).exists() and self.info(run.key)["status"] == "finished":
            return
        partial = folder.parent / f"{PARTIAL}{_OWNER}-{folder.name}"
        partial.mkdir(parents=True)
        for name in CURVES if run.finished else ():
            curve = getattr(run, name)
            if not curve.empty:  # on disk even an empty file costs a block
                _write_curve(partial / f"{name}.csv.gz", curve)
        (partial / RECORD).write_text(json.dumps(run.info, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)

    def merge(self, other: "Store") -> tuple[list[str], list[str]]:
        """
        Take the finished runs of another store. A run that is finished here, too, stays.

        :param other: the other store
        :return: keys of the runs that were taken, and of those that are here with another learning curve
        """
        finished = set(self.finished())
        taken, conflicting = [], []
        for run in map(other.load, other.finished()):
            if run.key not in finished:
                self.write(run)
                taken.append(run.key)
            elif not run.agrees_with(self.load(run.key)):
                conflicting.append(run.key)
        return taken, conflicting

    def clean(self) -> None:
        """Remove what processes of this machine that are no longer alive left half written."""
        for partial in self.root.glob(f"*/*/{PARTIAL}*"):
            host, _, process = partial.name.removeprefix(PARTIAL).partition("+")
            if host == socket.gethostname() and not _is_alive(int(process.partition("-")[0])):
                shutil.rmtree(partial)


_OWNER = f"{socket.gethostname()}+{os.getpid()}"


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _write_curve(path: Path, curve: pd.DataFrame) -> None:
    # Neither time nor name in the header: the same curve is the same file
    with path.open("wb") as file, gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as archive:
        archive.write(curve.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode())


__all__ = ["CURVES", "Run", "Store", "empty_curve"]
