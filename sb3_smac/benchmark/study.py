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
    reference: ppo              # optional: whose times and returns a report divides by

Hyperparameters are the Zoo's entry, then the study's, the task's, the algorithm's and the algorithm's on the task; the last
word counts. What the study or a task sets reaches the algorithms that have such a hyperparameter, and no other.
"""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic import NonNegativeInt as Seed
from pydantic import PositiveInt as Count

from sb3_smac.benchmark import settings

STUDIES = Path("benchmarks/studies")
RESULTS = Path("benchmarks/results")


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
    :param hyperparameters: those that the Zoo's entry or the study sets, as the Zoo writes them
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
        """
        ``<label>/<task>/seed<seed>-<hash of the configuration>``.

        Constructors' defaults are no part of it: a new argument in a library's signature orphans no result. A value that is
        set is, even where it equals the default of today, so that it keeps its key when the default changes.
        """
        digest = hashlib.sha256(settings.canonical(self.configuration).encode()).hexdigest()[:8]
        return f"{_slug(self.label)}/{_slug(self.task)}/seed{self.seed}-{digest}"

    def __str__(self) -> str:
        return f"{self.label} on {self.task}, seed {self.seed}"


class Section(BaseModel):
    """A mapping of the YAML file; an empty one may be left out, and a key that there is not is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, content: Any) -> Any:
        content = {} if content is None else content
        if isinstance(content, dict):
            _known("key", content, cls.model_fields)
        return content


def _listed(content: Any) -> Any:
    """A list of names is a mapping of names to nothing."""
    if not isinstance(content, list):
        return content
    if len(set(map(str, content))) < len(content):
        raise ValueError(f"has a name twice: {content!r}")
    return dict.fromkeys(content)


Hyperparameters = Annotated[dict[str, Any], BeforeValidator(lambda content: {} if content is None else content)]


class Evaluation(Section):
    """After how many timesteps, and how many episodes."""

    every: Count
    episodes: Count


class Entry(Section):
    """An algorithm (empty: it is the label) and what is set, on every task and on single ones."""

    algorithm: str = ""
    hyperparameters: Hyperparameters = {}
    tasks: Annotated[dict[str, Hyperparameters], BeforeValidator(lambda content: content or {})] = {}


class Task(Section):
    """What differs on a task; ``None``: the study's."""

    budget: Count | None = None
    horizon: Count | None = None
    hyperparameters: Hyperparameters = {}


class Study(Section):
    """
    A study whose names and numbers have been checked; see the module's documentation.

    :param name: its name, also of the folder of its results
    :param algorithms: label to algorithm
    :param tasks: id to what differs there
    :param seeds: random seeds
    :param budget: timesteps of a run
    :param horizon: time limit of every episode, in steps; ``None``: the tasks' own
    :param zoo: folder of YAML files that come before the Zoo's
    :param hyperparameters: what is set for every algorithm that has it
    :param evaluation: deterministic evaluations; ``None``: there are none
    :param reference: label of the entry whose times and returns a report divides by; ``None``: AC-SGD's, or the first
    """

    name: Annotated[str, Field(pattern=r"^[\w=+][\w.=+-]*$")]
    algorithms: Annotated[dict[str, Entry], BeforeValidator(_listed), Field(min_length=1)]
    tasks: Annotated[dict[str, Task], BeforeValidator(_listed), Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    budget: Count
    horizon: Count | None = None
    zoo: Annotated[Path, Field(strict=False)] | None = None
    hyperparameters: Hyperparameters = {}
    evaluation: Evaluation | None = None
    reference: str | None = None

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, content: Any) -> Any:
        return list(range(content)) if isinstance(content, int) and not isinstance(content, bool) else content

    @model_validator(mode="after")
    def _names(self) -> "Study":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different, got {self.seeds}")
        slugs = [_slug(label) for label in self.algorithms]
        for label, entry in self.algorithms.items():
            slug, place = _slug(label), f"algorithms: {label}"
            if not slug or slugs.count(slug) > 1:
                raise ValueError(f"algorithms: {label!r} makes no name of its own ({slug!r})")
            _known("algorithm", [self.algorithm(label)], settings.algorithms(), place)
            _known("task", entry.tasks, self.tasks, f"{place}: tasks")
            accepted = settings.accepts(self.algorithm(label))
            for names in (entry.hyperparameters, *entry.tasks.values()):
                _known(f"hyperparameter of {self.algorithm(label)}", names, accepted, place)
        _known("algorithm", [self.reference] if self.reference else [], self.algorithms, "reference")
        every = {name: None for label in self.algorithms for name in settings.accepts(self.algorithm(label))}
        _known("hyperparameter", self.hyperparameters, every, "hyperparameters")
        for task, there in self.tasks.items():
            _known("environment", [task], gym.registry, "tasks")
            _known("hyperparameter", there.hyperparameters, every, f"tasks: {task}: hyperparameters")
            if (there.horizon or self.horizon) and gym.spec(task).max_episode_steps is None:
                raise ValueError(f"horizon: {task} has no time limit that could be changed")
        return self

    def algorithm(self, label: str) -> str:
        """
        :param label: label of an entry
        :return: key of its algorithm
        """
        return self.algorithms[label].algorithm or label

    @property
    def jobs(self) -> list[Job]:
        """All runs: task by task, and seed by seed within a task, so that what is done first can be compared first."""
        evaluation = None if self.evaluation is None else self.evaluation.model_dump()
        chosen = {(label, task): self.chosen(label, task) for task in self.tasks for label in self.algorithms}
        return [
            Job(
                label,
                self.algorithm(label),
                task,
                seed,
                there.budget or self.budget,
                there.horizon or self.horizon,
                chosen[label, task],
                evaluation,
            )
            for task, there in self.tasks.items()
            for seed in self.seeds
            for label in self.algorithms
        ]

    def chosen(self, label: str, task: str) -> dict[str, Any]:
        """
        :param label: label of an algorithm
        :param task: id of a task
        :return: the hyperparameters that are set somewhere, by the Zoo or by the study, as the Zoo writes them
        """
        entry, there = self.algorithms[label], self.tasks[task]
        accepted = settings.accepts(self.algorithm(label))
        shared = {**self.hyperparameters, **there.hyperparameters}
        chosen = {
            **settings.zoo_entry(self.algorithm(label), task, self.zoo),
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
    settings.known("study file", study, [path.stem for path in sorted(STUDIES.glob("*.yml"))])
    raise ValueError(f"there is no study file {study!r}")


def load(path: str | Path) -> Study:
    """
    Read a study and check all names and numbers in it.

    :param path: YAML file
    :return: the study
    :raises ValueError: naming the file, the place in it, what is wrong and what is accepted
    """
    path = Path(path)
    try:
        content = settings.read_yaml(path)
        if isinstance(content, dict) and isinstance(content.get("zoo"), str):
            content["zoo"] = path.parent / content["zoo"]
            if not content["zoo"].is_dir():
                raise ValueError(f"zoo must be a folder, got {str(content['zoo'])!r}")
        study = Study.model_validate(content)
        assert study.jobs  # each finds its Zoo entry
        return study
    except ValidationError as error:
        raise ValueError("; ".join(f"{path}: {_message(details)}" for details in error.errors())) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _message(error: Mapping[str, Any]) -> str:
    place = ": ".join(str(part) for part in error["loc"])
    got = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r}"
    text = error["msg"].removeprefix("Value error, ")
    return (f"{place}: " if place else "") + text + got


def _known(kind: str, names: Collection[Any], accepted: Collection[str], place: str = "") -> None:
    for name in names:
        try:
            settings.known(kind, name, accepted)
        except ValueError as error:
            raise ValueError(f"{place}: {error}" if place else str(error)) from error


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-.")


__all__ = ["RESULTS", "Entry", "Evaluation", "Job", "Study", "Task", "find", "load"]
