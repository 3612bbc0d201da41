"""
Runs in the layout of the first results: folders ``<label>/<task>/seed<seed>-<hash>/`` of ``run.json`` and gzipped CSV files.

Their keys had hashed every hyperparameter, the constructors' defaults included. A run gets the key of the study's job that it
is: the one whose settings, with the defaults of today for all others, are the run's.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sb3_smac.benchmark import settings
from sb3_smac.benchmark.store import CURVES, Run, curve
from sb3_smac.benchmark.study import Job, Study


def read(folder: Path, study: Study) -> Iterator[Run]:
    """
    :param folder: folder of results
    :param study: the study that they are of
    :return: its finished runs, under the keys of today
    """
    jobs = {(job.label, job.task, job.seed): job for job in study.jobs}
    for path in sorted(folder.glob("*/*/*/run.json")):
        if path.parent.name.startswith("."):  # somebody is writing it
            continue
        info = json.loads(path.read_text(encoding="utf-8"))
        if info["status"] == "finished":
            curves = {name: _curve(path.parent, name, info) for name in CURVES}
            job = _job(info, jobs.get((info["label"], info["task"], info["seed"])))
            everything = {**settings.defaults(info["algorithm"]), **info["hyperparameters"]}
            info["hyperparameters"] = job.hyperparameters
            info["defaults"] = {name: value for name, value in everything.items() if name not in job.hyperparameters}
            yield Run(job.key, info, **curves)


def _job(info: dict[str, Any], wanted: Job | None) -> Job:
    """The job that a run is of: the study's, or one of another configuration."""
    # An environment's number is the Zoo's, and one where it says none
    everything = {"n_envs": 1, **settings.defaults(info["algorithm"]), **info["hyperparameters"]}
    names = set() if wanted is None else set(wanted.hyperparameters)
    names |= {
        name for name, value in info["hyperparameters"].items() if value != settings.defaults(info["algorithm"]).get(name)
    }
    chosen = {name: everything[name] for name in everything if name in names}
    record = {name: info[name] for name in ("label", "algorithm", "task", "seed", "budget", "horizon", "evaluation")}
    job = Job(**record, hyperparameters=chosen)
    if wanted is None:
        return job
    complete = {"n_envs": 1, **settings.defaults(wanted.algorithm), **wanted.hyperparameters}
    run, ours = ({**it.configuration, "hyperparameters": values} for it, values in ((job, everything), (wanted, complete)))
    return wanted if settings.canonical(run) == settings.canonical(ours) else job


def _curve(folder: Path, name: str, info: dict[str, Any]) -> pd.DataFrame:
    path = folder / f"{name}.csv.gz"
    table = pd.read_csv(path, float_precision="round_trip") if path.exists() else pd.DataFrame()
    if table.empty:
        return curve(name)
    if name == "evaluations":
        table["wall_time"] = _evaluation_times(table, _curve(folder, "episodes", info), info["duration"]["evaluation"])
    return curve(name, table)


def _evaluation_times(evaluations: pd.DataFrame, episodes: pd.DataFrame, seconds: float) -> np.ndarray:
    """They were not kept: read off the training episodes, less the mean time of the evaluations before."""
    if episodes.empty:
        return np.full(len(evaluations), np.nan)
    each = seconds / len(evaluations)
    before = np.searchsorted(evaluations["timestep"], episodes["timestep"], side="left")  # evaluations before an episode's end
    return np.interp(evaluations["timestep"], episodes["timestep"], episodes["wall_time"] - each * before)


__all__ = ["read"]
