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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from sb3_smac.benchmark import statistics

RUNS, SCRATCH = "runs.jsonl", ".runs"
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
    table = pd.DataFrame(rows, columns=[*CURVES[name]]).astype(CURVES[name])
    floats = table.select_dtypes("float64")
    return table.assign(**{column: floats[column].map(_rounded) for column in floats})


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")


class Store:
    """
    The runs of a study. The folder is read once, when they are first asked for.

    :param root: the folder; it need not exist
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._known: dict[str, Run] | None = None

    def finished(self) -> list[str]:
        """
        :return: keys of the finished runs
        """
        return sorted(key for key, run in self._runs().items() if run.finished)

    def failed(self) -> list[str]:
        """
        :return: keys of the failed runs
        """
        return sorted(key for key, run in self._runs().items() if not run.finished)

    def runs(self, keys: Iterable[str] | None = None) -> list[Run]:
        """
        :param keys: keys of runs; ``None``: of all that are finished
        :return: the runs
        """
        return [self._runs()[key] for key in (self.finished() if keys is None else keys)]

    def write(self, run: Run) -> None:
        """
        Keep a run, in scratch: it appears whole, and is on the disk when this returns. A run that is there already stays,
        unless it failed.

        :param run: the run
        """
        known = self._runs().get(run.key)
        if known is None or not known.finished:
            # Named by the time: of two runs of one configuration, the first stays
            folder = self.root / SCRATCH / f"{time.time_ns()}-{uuid.uuid4().hex}"
            folder.mkdir(parents=True)
            _write(folder, [run])
            self._runs()[run.key] = run

    def pack(self) -> int:
        """
        Move what is in scratch into the pack, and remove what was half written there and left long ago. Whatever happens
        meanwhile, each run stays in one of them.

        :return: number of runs moved
        """
        scratch = self.root / SCRATCH
        if not scratch.is_dir():
            return 0
        with FileLock(scratch / ".lock"):
            folders = [path.parent for path in scratch.glob(f"[!.]*/{RUNS}")]
            if folders:
                self._known = None
                _write(self.root, self._runs().values())
            for folder in folders:
                (folder / RUNS).unlink()  # from here on, it is no pack
                shutil.rmtree(folder)
            for folder in scratch.glob("*/"):
                if not (folder / RUNS).exists() and time.time() - folder.stat().st_mtime > ABANDONED:
                    shutil.rmtree(folder, ignore_errors=True)
        return len(folders)

    def merge(self, runs: Iterable[Run]) -> tuple[list[str], list[str]]:
        """
        Take finished runs from elsewhere. A run that is finished here, too, stays.

        :param runs: the runs
        :return: keys of the runs that were taken, and of those that are here with another learning curve
        """
        taken, conflicting = [], []
        for run in runs:
            here = self._runs().get(run.key)
            if run.finished and (here is None or not here.finished):
                self.write(run)
                taken.append(run.key)
            elif run.finished and here is not None and not run.agrees_with(here):
                conflicting.append(run.key)
        return taken, conflicting

    def _runs(self) -> dict[str, Run]:
        if self._known is None:
            # Scratch first: what is packed between the two readings is in the pack then. A pack's own runs come before others
            scratch = [run for path in sorted((self.root / SCRATCH).glob(f"[!.]*/{RUNS}")) for run in _read(path.parent)]
            self._known = {}
            for run in [*_read(self.root), *scratch]:
                if run.key not in self._known or not self._known[run.key].finished:
                    self._known[run.key] = run
        return self._known


def _read(folder: Path) -> list[Run]:
    """The runs of a pack; none if there is none, or it is being removed."""
    try:
        records = [json.loads(line) for line in (folder / RUNS).read_text(encoding="utf-8").splitlines()]
        curves = {name: _read_curves(folder / f"{name}.parquet") for name in CURVES}
        (folder / RUNS).stat()
    except FileNotFoundError:
        return []
    runs = []
    for record in records:
        key, _ = record.pop("key"), record.pop("summary")
        runs.append(Run(key, record, **{name: tables.get(key, curve(name)) for name, tables in curves.items()}))
    return runs


def _read_curves(path: Path) -> dict[str, pd.DataFrame]:
    """A table for each key."""
    if not path.exists():
        return {}
    groups = pq.read_table(path).to_pandas().groupby("key", observed=True, sort=False)
    return {str(key): rows.drop(columns="key").reset_index(drop=True) for key, rows in groups}


def _write(folder: Path, runs: Iterable[Run]) -> None:
    """Write a pack. The list of runs comes last: until then, rows of runs that it does not name do not count."""
    runs = sorted(runs, key=lambda run: (run.label, run.task, run.seed, run.key))
    for name, types in CURVES.items():
        curves = [getattr(run, name) for run in runs]
        if any(map(len, curves)):
            keys = np.repeat([run.key for run in runs], [len(table) for table in curves])
            columns = {column: np.concatenate([table[column].to_numpy() for table in curves]) for column in types}
            table = pa.table({"key": pa.array(keys).dictionary_encode(), **columns})
            _replace(folder / f"{name}.parquet", partial(pq.write_table, table, compression="zstd", compression_level=9))
    _replace(folder / RUNS, lambda file: file.write("".join(run.line() + "\n" for run in runs).encode()))


def _replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file that appears whole, and is on the disk when this returns."""
    unfinished = path.with_name(f".{path.name}.partial")
    with open(unfinished, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
