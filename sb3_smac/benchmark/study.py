"""
A study: a small YAML file that names algorithms, tasks, seeds and a protocol.

.. code-block:: yaml

    name: example
    algorithms:                 # a list of keys, or label: settings
      smac:
      smac full:
        algorithm: smac
        hyperparameters: {fisher_rank: full}
        tasks: {Hopper-v4: {damping: 0.01}}
      ppo:
    tasks:                      # a list of ids, or id: what differs there
      Hopper-v4:
      CartPole-v1: {budget: 50000, hyperparameters: {damping: 0.1}}
    seeds: 3                    # 0, 1, 2; or a list
    budget: 200000              # timesteps
    horizon: 1000               # optional: time limit of every episode
    zoo: ../../zoo_hyperparams  # optional: folder of YAML files that come before the Zoo's
    hyperparameters: {gamma: 0.99}                 # optional, for every algorithm that has them
    evaluation: {every: 10000, episodes: 10}       # optional: deterministic evaluations

Hyperparameters are the Zoo's entry, then the study's, the task's, the algorithm's and the algorithm's on the task; the last
word counts. What the study or a task sets reaches the algorithms that have such a hyperparameter, and no other.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_smac.benchmark import settings
from sb3_smac.common import checks

STUDIES = Path("benchmarks/studies")
RESULTS = Path("benchmarks/results")
KEYS = ("name", "algorithms", "tasks", "seeds", "budget", "horizon", "zoo", "hyperparameters", "evaluation", "tune")
REQUIRED = ("name", "algorithms", "tasks", "seeds", "budget")

# No part of a key: arguments that came after results had been kept, at the value with which those were made, and what the Zoo
# takes where an entry does not say it
IMPLIED = [("critic_optimizer", "adam"), ("critic_damping", 0.1), ("n_envs", 1)]


@dataclass(frozen=True)
class Job:
    """
    One run that a study asks for.

    :param label: name of the study's entry
    :param algorithm: key of the algorithm
    :param task: id of the environment
    :param seed: random seed
    :param budget: timesteps
    :param horizon: time limit of every episode, in steps; ``None``: the task's own
    :param hyperparameters: all of them, as the Zoo writes them
    :param evaluation: ``every`` how many timesteps, and ``episodes``; ``None``: no evaluations
    """

    label: str
    algorithm: str
    task: str
    seed: int
    budget: int
    horizon: int | None
    hyperparameters: dict[str, Any]
    evaluation: dict[str, int] | None

    @property
    def configuration(self) -> dict[str, Any]:
        """All that decides the outcome; the label is only a name."""
        return {name: value for name, value in vars(self).items() if name != "label"}

    @property
    def key(self) -> str:
        """``<label>/<task>/seed<seed>-<hash of the configuration>``."""
        hyperparameters = {name: value for name, value in self.hyperparameters.items() if (name, value) not in IMPLIED}
        text = json.dumps({**self.configuration, "hyperparameters": hyperparameters}, sort_keys=True, default=str)
        return f"{_slug(self.label)}/{_slug(self.task)}/seed{self.seed}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    def __str__(self) -> str:
        return f"{self.label} on {self.task}, seed {self.seed}"


@dataclass(frozen=True)
class Entry:
    """
    An algorithm with its settings.

    :param algorithm: key of the algorithm
    :param hyperparameters: what is set on every task
    :param tasks: per task, what is set there
    """

    algorithm: str
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """
    A task with what differs there.

    :param budget: timesteps; ``None``: the study's
    :param horizon: time limit of every episode, in steps; ``None``: the study's
    :param hyperparameters: what is set there
    """

    budget: int | None = None
    horizon: int | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """
    A study whose names and numbers have been checked; see the module's documentation.

    :param name: its name, also of the folder of its results
    :param entries: label to algorithm
    :param tasks: id to what differs there
    :param seeds: random seeds
    :param budget: timesteps of a run
    :param horizon: time limit of every episode, in steps; ``None``: the tasks' own
    :param zoo: folder of YAML files that come before the Zoo's
    :param hyperparameters: what is set for every algorithm that has it
    :param evaluation: ``every`` how many timesteps, and ``episodes``; ``None``: no evaluations
    :param tune: how step sizes are searched (see :mod:`sb3_smac.benchmark.tune`)
    """

    name: str
    entries: dict[str, Entry]
    tasks: dict[str, Task]
    seeds: list[int]
    budget: int
    horizon: int | None = None
    zoo: Path | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, int] | None = None
    tune: dict[str, Any] | None = None

    @cached_property
    def jobs(self) -> list[Job]:
        """All runs: task by task, and seed by seed within a task, so that what is done first can be compared first."""
        return [self.job(label, task, seed) for task in self.tasks for seed in self.seeds for label in self.entries]

    def job(self, label: str, task: str, seed: int, budget: int | None = None, **hyperparameters: Any) -> Job:
        """
        :param label: label of an algorithm
        :param task: id of a task
        :param seed: random seed
        :param budget: timesteps; ``None``: as the study has it
        :param hyperparameters: changes
        :return: the run
        """
        algorithm, there = self.entries[label].algorithm, self.tasks[task]
        chosen = {**self.chosen(label, task), **hyperparameters}
        return Job(
            label,
            algorithm,
            task,
            seed,
            budget or there.budget or self.budget,
            there.horizon or self.horizon,
            settings.resolved(algorithm, chosen),
            self.evaluation,
        )

    def chosen(self, label: str, task: str) -> dict[str, Any]:
        """
        :param label: label of an algorithm
        :param task: id of a task
        :return: the hyperparameters that are set somewhere, by the Zoo or by the study, as the Zoo writes them
        """
        entry, there = self.entries[label], self.tasks[task]
        accepted = settings.accepts(entry.algorithm)
        shared = {**self.hyperparameters, **there.hyperparameters}
        chosen = {
            **settings.zoo_entry(entry.algorithm, task, self.zoo),
            **{name: value for name, value in shared.items() if name in accepted},
            **entry.hyperparameters,
            **entry.tasks.get(task, {}),
        }
        horizon = there.horizon or self.horizon
        return chosen if horizon is None else settings.with_horizon(chosen, horizon)


def find(study: str) -> Path:
    """
    :param study: path of a YAML file, or the name of one in ``benchmarks/studies``
    :return: its path
    :raises ValueError: if there is no such file
    """
    for path in (Path(study), STUDIES / f"{study}.yml"):
        if path.is_file():
            return path
    if not STUDIES.is_dir():
        raise ValueError(f"there is no study file {study!r}, nor a folder {STUDIES} here: give a path")
    names = [path.stem for path in sorted(STUDIES.glob("*.yml"))]
    settings.known("study file", study, names)
    raise AssertionError  # known() has raised


def load(path: str | Path) -> Study:
    """
    Read a study and check all names and numbers in it.

    :param path: YAML file
    :return: the study
    :raises ValueError: naming the file, the place in it, what is wrong and what is accepted
    """
    path = Path(path)
    try:
        return _parse(settings.read_yaml(path), path.parent)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _parse(content: Any, folder: Path) -> Study:
    content = mapping("the study", content, KEYS)
    for name in REQUIRED:
        if name not in content:
            raise ValueError(f"{name} is missing")
    if not isinstance(content["name"], str) or _slug(content["name"]) != content["name"]:
        raise ValueError(f"name must be letters, digits and any of _.=+-, got {content['name']!r}")
    tasks = {task: _task(task, there) for task, there in _table("tasks", content["tasks"]).items()}
    zoo = None if content.get("zoo") is None else folder / content["zoo"]
    if zoo is not None and not zoo.is_dir():
        raise ValueError(f"zoo must be a folder, got {content['zoo']!r}, which is not one beside the study")
    study = Study(
        name=content["name"],
        entries={label: _entry(label, entry, tasks) for label, entry in _table("algorithms", content["algorithms"]).items()},
        tasks=tasks,
        seeds=_seeds(content["seeds"]),
        budget=content["budget"],
        horizon=content.get("horizon"),
        zoo=zoo,
        hyperparameters=mapping("hyperparameters", content.get("hyperparameters")),
        evaluation=_evaluation(content.get("evaluation")),
        tune=content.get("tune"),
    )
    _check(study)
    return study


def _check(study: Study) -> None:
    checks.integer("budget", study.budget, minimum=1)
    checks.integer("horizon", study.horizon, minimum=1, besides=(None,))
    slugs = [_slug(label) for label in study.entries]
    for label, slug in zip(study.entries, slugs, strict=True):
        if not slug or slugs.count(slug) > 1:
            raise ValueError(f"algorithms: {label!r} makes no folder of its own ({slug!r})")
    every = {name: None for entry in study.entries.values() for name in settings.accepts(entry.algorithm)}
    for place, names in (
        ("hyperparameters", study.hyperparameters),
        *((f"tasks: {task}: hyperparameters", there.hyperparameters) for task, there in study.tasks.items()),
    ):
        _known_names(place, names, list(every))
    for task, there in study.tasks.items():
        if (there.horizon or study.horizon) and gym.spec(task).max_episode_steps is None:
            raise ValueError(f"horizon: {task} has no time limit that could be changed")
    for _ in study.jobs:  # each finds its Zoo entry
        pass


def _entry(label: str, content: Any, tasks: Mapping[str, Task]) -> Entry:
    place = f"algorithms: {label}"
    content = mapping(place, content, ("algorithm", "hyperparameters", "tasks"))
    algorithm = content.get("algorithm", label)
    try:
        settings.known("algorithm", algorithm, settings.algorithms())
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    there = mapping(f"{place}: tasks", content.get("tasks"), tasks)
    entry = Entry(
        algorithm,
        mapping(f"{place}: hyperparameters", content.get("hyperparameters")),
        {task: mapping(f"{place}: tasks: {task}", hyperparameters) for task, hyperparameters in there.items()},
    )
    for names in (entry.hyperparameters, *entry.tasks.values()):
        _known_names(place, names, settings.accepts(algorithm), f"hyperparameter of {algorithm}")
    return entry


def _task(task: str, content: Any) -> Task:
    settings.algorithms()  # the Zoo registers some environments, too
    try:
        gym.spec(task)
    except gym.error.Error:
        _known_names("tasks", [task], list(gym.registry), kind="environment")
        raise
    content = mapping(f"tasks: {task}", content, ("budget", "horizon", "hyperparameters"))
    for name in ("budget", "horizon"):
        checks.integer(f"tasks: {task}: {name}", content.get(name), minimum=1, besides=(None,))
    hyperparameters = mapping(f"tasks: {task}: hyperparameters", content.get("hyperparameters"))
    return Task(content.get("budget"), content.get("horizon"), hyperparameters)


def _seeds(content: Any) -> list[int]:
    if not isinstance(content, list):
        checks.integer("seeds", content, minimum=1)
        return list(range(content))
    for seed in content:
        checks.integer("seeds", seed, minimum=0)
    if not content or len(set(content)) < len(content):
        raise ValueError(f"seeds must be a number, or a list of different ones, got {content!r}")
    return content


def _evaluation(content: Any) -> dict[str, int] | None:
    if content is None:
        return None
    content = mapping("evaluation", content, ("every", "episodes"))
    for name in ("every", "episodes"):
        checks.integer(f"evaluation: {name}", content.get(name), minimum=1)
    return content


def _known_names(place: str, names: Iterable[Any], accepted: Collection[str], kind: str = "hyperparameter") -> None:
    for name in names:
        try:
            settings.known(kind, name, accepted)
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error


def _table(place: str, content: Any) -> dict[str, Any]:
    if isinstance(content, list):
        if len(set(map(str, content))) < len(content):
            raise ValueError(f"{place} has a name twice: {content!r}")
        content = {name: None for name in content}
    content = mapping(place, content)
    if not content:
        raise ValueError(f"{place} must be a list or a mapping with at least one name, got {content!r}")
    return content


def mapping(place: str, content: Any, keys: Collection[str] | None = None) -> dict[str, Any]:
    """
    :param place: place in the study
    :param content: what is there
    :param keys: keys that are accepted; ``None``: any
    :return: it, or nothing if it is ``None``
    :raises ValueError: if it is not a mapping, or has another key
    """
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{place} must be a mapping of names, got {content!r}")
    if keys is not None:
        _known_names(place, content, keys, kind="key")
    return content


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-.")


__all__ = ["RESULTS", "Entry", "Job", "Study", "Task", "find", "load", "mapping"]
