"""
Results on disk.

``<root>/`` is a *pack* of all runs of a study, made to be kept: ``runs.jsonl`` (a line per run: settings, seed, versions,
summary) and ``episodes.parquet``, ``evaluations.parquet`` and ``updates.parquet`` (the curves of all runs, a row's run in the
column ``key``). The same runs give the same bytes.

``<root>/.runs/`` is scratch: each run that has ended since, as a pack of its own. :meth:`Store.pack` moves them into the pack.
"""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from sb3_smac.benchmark import statistics

RUNS, SCRATCH, PARTIAL = "runs.jsonl", ".runs", ".partial-"
CURVES = {
    "episodes": {"timestep": "int64", "return": "float64", "length": "int64", "wall_time": "float64"},
    "updates": {"timestep": "int64", "log_prob": "float64", "update_time": "float64", "approx_kl": "float64"},
    "evaluations": {"timestep": "int64", "mean": "float64", "std": "float64", "episodes": "int64", "wall_time": "float64"},
}
"""Columns of each curve. Times are in seconds; returns are undiscounted."""

REPRODUCIBLE = {"episodes": ["timestep", "return", "length"], "evaluations": ["timestep", "mean", "std"]}
"""What two runs of one configuration must agree on."""

ABANDONED = 24 * 3600
"""Age in seconds at which a half-written folder counts as nobody's: a write takes seconds."""


@dataclass(eq=False)
class Run:
    """
    A run: its configuration, what it was made with, and its curves.

    :param key: ``<label>/<task>/seed<seed>-<hash>``
    :param info: ``label``, ``algorithm``, ``task``, ``seed``, ``horizon``, ``budget``, ``hyperparameters`` (those that are
        set), ``defaults`` (all others, as they were), ``evaluation``, ``status`` (``"finished"`` or ``"failed"``),
        ``traceback`` (of a failed run), ``versions``, ``machine``, ``revision``, ``duration`` (seconds: ``total``, ``update``,
        ``evaluation``)
    :param episodes: training episodes; columns ``timestep`` (at its end), ``return``, ``length``, ``wall_time`` (since the
        run's start)
    :param updates: one row per update; columns ``timestep``, ``log_prob`` (mean over the actions taken), ``update_time``,
        ``approx_kl`` (NaN if the algorithm logs none)
    :param evaluations: deterministic evaluations; columns ``timestep``, ``mean``, ``std``, ``episodes``, ``wall_time`` (since
        the run's start, without evaluations); no rows if off
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
        """All of them, as the Zoo writes them: what is set, and the defaults that the run was made with."""
        return {**self.info.get("defaults", {}), **self.info["hyperparameters"]}

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

    def line(self) -> str:
        """:return: its line of ``runs.jsonl``"""
        summary = {
            "final_return": statistics.final_return(self.episodes, self.info.get("budget", 0)),
            "mean_training_return": statistics.mean_training_return(self.episodes),
            "last_evaluation": self.evaluations["mean"].iloc[-1] if len(self.evaluations) else None,
        }
        rounded = {name: None if value is None or np.isnan(value) else _rounded(value) for name, value in summary.items()}
        return json.dumps({"key": self.key, "summary": rounded, **self.info}, sort_keys=True, default=str)


def curve(name: str, rows: Any = ()) -> pd.DataFrame:
    """
    :param name: name of the curve
    :param rows: a table, or the rows of one
    :return: the table as it is kept: six significant digits, and the same types with and without rows
    """
    types = CURVES[name]
    table = (rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows), columns=[*types]))[[*types]]
    floats = {column: table[column].map(_rounded) for column, kind in types.items() if kind == "float64"}
    return table.assign(**floats).astype(types).reset_index(drop=True)


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


class Store:
    """
    The runs of a study. The folder is scanned once, when they are first asked for.

    :param root: the folder; it need not exist
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._index: dict[str, tuple[dict[str, Any], Path]] | None = None
        self._tables: dict[tuple[Path, str], dict[str, pd.DataFrame]] = {}

    def finished(self) -> list[str]:
        """
        :return: keys of the finished runs
        """
        return sorted(key for key, (info, _) in self._runs().items() if info["status"] == "finished")

    def failed(self) -> list[str]:
        """
        :return: keys of the failed runs
        """
        return sorted(key for key, (info, _) in self._runs().items() if info["status"] != "finished")

    def info(self, key: str) -> dict[str, Any]:
        """
        :param key: key of a run
        :return: all of it, but the curves
        """
        return self._runs()[key][0]

    def load(self, key: str) -> Run:
        """
        :param key: key of a run
        :return: the run
        """
        try:
            return self._load(key)
        except FileNotFoundError:  # another process has packed it since
            self._forget()
            return self._load(key)

    def runs(self, keys: Iterable[str] | None = None) -> list[Run]:
        """
        :param keys: keys of runs; ``None``: of all that are finished
        :return: the runs
        """
        return [self.load(key) for key in (self.finished() if keys is None else keys)]

    def write(self, run: Run) -> None:
        """
        Keep a run, in scratch: it appears whole, and is on the disk when this returns. A run that is there already stays,
        unless it failed.

        :param run: the run
        """
        known = self._runs().get(run.key)
        if known is not None and known[0]["status"] == "finished":
            return
        folder = self.root / SCRATCH / uuid.uuid4().hex
        with self._partial() as partial:
            _write(partial, [run])
            partial.rename(folder)
        _flush(folder.parent)
        self._runs()[run.key] = run.info, folder

    def pack(self) -> int:
        """
        Move what is in scratch into the pack. Whatever happens meanwhile, each run stays in one of them.

        :return: number of runs moved
        """
        if not (self.root / SCRATCH).is_dir():
            return 0
        with FileLock(self.root / SCRATCH / ".lock"):
            self._forget()
            if folders := self._scratch():
                self._rewrite([self.load(key) for key in self._runs()])
            for folder in folders:
                with self._partial() as partial:  # a folder that goes, goes whole
                    folder.rename(partial / folder.name)
            self._forget()
        return len(folders)

    def merge(self, runs: Iterable[Run]) -> tuple[list[str], list[str]]:
        """
        Take finished runs from elsewhere. A run that is finished here, too, stays.

        :param runs: the runs
        :return: keys of the runs that were taken, and of those that are here with another learning curve
        """
        here = set(self.finished())
        taken, conflicting = [], []
        for run in runs:
            if not run.finished:
                continue
            if run.key not in here:
                self.write(run)
                here.add(run.key)
                taken.append(run.key)
            elif not run.agrees_with(self.load(run.key)):
                conflicting.append(run.key)
        return taken, conflicting

    def clean(self) -> None:
        """Remove what was half written and left long ago, by whatever process."""
        for partial in (self.root / SCRATCH).glob(f"{PARTIAL}*"):
            if time.time() - partial.stat().st_mtime > ABANDONED:
                shutil.rmtree(partial, ignore_errors=True)

    def _forget(self) -> None:
        self._index = None
        self._tables.clear()

    def _scratch(self) -> list[Path]:
        return sorted(folder for folder in (self.root / SCRATCH).glob("*/") if not folder.name.startswith("."))

    def _runs(self) -> dict[str, tuple[dict[str, Any], Path]]:
        if self._index is None:
            self._index = {}
            # Scratch first: what is packed between the two readings is in the pack then. A pack's own runs come before others
            scratch = [row for folder in self._scratch() for row in _lines(folder)]
            for key, info, folder in [*_lines(self.root), *scratch]:
                known = self._index.get(key)
                if known is None or (known[0]["status"] != "finished" and info["status"] == "finished"):
                    self._index[key] = info, folder
        return self._index

    def _load(self, key: str) -> Run:
        info, folder = self._runs()[key]
        if info["status"] != "finished":
            return Run(key, info, **{name: curve(name) for name in CURVES})
        return Run(key, info, **{name: self._table(folder, name).get(key, curve(name)) for name in CURVES})

    def _table(self, folder: Path, name: str) -> dict[str, pd.DataFrame]:
        if (folder, name) not in self._tables:
            if not (folder / RUNS).exists():
                raise FileNotFoundError(folder)
            path, tables = folder / f"{name}.parquet", {}
            if path.exists():
                table = pq.read_table(path).to_pandas()
                for key, rows in table.groupby("key", observed=True, sort=False):
                    tables[str(key)] = curve(name, rows)
            self._tables[folder, name] = tables
        return self._tables[folder, name]

    def _rewrite(self, runs: list[Run]) -> None:
        with self._partial() as partial:
            names = _write(partial, runs)
            for name in names:  # the list of runs comes last: until then, rows of runs that it does not name do not count
                os.replace(partial / name, self.root / name)
            _flush(self.root)

    @contextmanager
    def _partial(self) -> Iterator[Path]:
        """A new folder in scratch whose name nobody else has; it is gone in the end."""
        partial = self.root / SCRATCH / f"{PARTIAL}{uuid.uuid4().hex}"
        partial.mkdir(parents=True)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _lines(folder: Path) -> list[tuple[str, dict[str, Any], Path]]:
    try:
        lines = (folder / RUNS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    records = [json.loads(line) for line in lines]
    return [(record.pop("key"), {k: v for k, v in record.items() if k != "summary"}, folder) for record in records]


def _write(folder: Path, runs: Iterable[Run]) -> list[str]:
    """Write a pack into a folder, through to the disk; its files, the list of runs last."""
    runs = sorted(runs, key=lambda run: (run.info["label"], run.info["task"], run.info["seed"], run.key))
    names = []
    for name, types in CURVES.items():
        curves = [getattr(run, name) for run in runs]
        if sum(map(len, curves)) == 0:
            continue
        keys = np.repeat([run.key for run in runs], [len(table) for table in curves])
        columns = {column: np.concatenate([table[column].to_numpy() for table in curves]) for column in types}
        table = pa.table({"key": pa.array(keys).dictionary_encode(), **columns})
        pq.write_table(table, folder / f"{name}.parquet", compression="zstd", compression_level=9)
        names.append(f"{name}.parquet")
    (folder / RUNS).write_text("".join(run.line() + "\n" for run in runs), encoding="utf-8")
    names.append(RUNS)
    for name in (*names, "."):
        _flush(folder / name)
    return names


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["CURVES", "Run", "Store", "curve"]
