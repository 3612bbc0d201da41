"""
A study: a small YAML file that names algorithms, tasks, seeds and a protocol.

.. code-block:: yaml

    name: example               # also of the folder of its results
    algorithms:                 # a list of keys, or label: settings
      smac:
      smac full:
        algorithm: smac
        hyperparameters: {fisher_rank: full}
        tasks: {Hopper-v4: {damping: 0.01}}
      ppo:
    tasks:                      # a list of ids, or id: what differs there
      Hopper-v4:
      CartPole-v1: {budget: 50000, hyperparameters: {damping: 0.1}}  # and horizon, evaluation
    seeds: 3                    # 0, 1, 2; or a list
    budget: 200000              # timesteps
    horizon: 1000               # optional: time limit of every episode, in steps; else the tasks' own
    zoo: ../../zoo_hyperparams  # optional: folder of YAML files that come before the Zoo's
    hyperparameters: {gamma: 0.99}                 # optional, for every algorithm that has them
    evaluation: {every: 10000, episodes: 10}       # optional: deterministic evaluations
    reference: ppo              # optional: whose times and returns a report divides by, else AC-SGD's
    published: {Hopper-v4: 3372}                   # optional: best returns that others publish at this budget

Hyperparameters are the Zoo's entry, then the study's, the task's, the algorithm's and the algorithm's on the task; the last
word counts. What the study or a task sets reaches the algorithms that have such a hyperparameter, and no other.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic import NonNegativeInt as Seed
from pydantic import PositiveInt as Count

from sb3_smac.benchmark import settings
from sb3_smac.zoo.settings import known, read_yaml

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


class Section(BaseModel):
    """A mapping of the YAML file; an empty one may be left out, and a key that there is not is an error."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, content: Any) -> Any:
        if isinstance(content, dict):
            known("key", content, cls.model_fields)
        return {} if content is None else content


def _listed(content: Any) -> Any:
    """A list of names is a mapping of names to nothing."""
    if not isinstance(content, list):
        return content
    if len(set(map(str, content))) < len(content):
        raise ValueError(f"has a name twice: {content!r}")
    return dict.fromkeys(content)


def _counted(content: Any) -> Any:
    return list(range(content)) if isinstance(content, int) and not isinstance(content, bool) else content


OrNothing = BeforeValidator(lambda content: {} if content is None else content)
Hyperparameters = Annotated[dict[str, Any], OrNothing]


class Evaluation(Section):
    """After how many timesteps, and how many episodes."""

    every: Count
    episodes: Count


class Entry(Section):
    """An algorithm (``None``: it is the label) and what is set, on every task and on single ones."""

    algorithm: str | None = None
    hyperparameters: Hyperparameters = {}
    tasks: Annotated[dict[str, Hyperparameters], OrNothing] = {}


class Task(Section):
    """What differs on a task; ``None``: the study's."""

    budget: Count | None = None
    horizon: Count | None = None
    hyperparameters: Hyperparameters = {}
    evaluation: Evaluation | None = None


class Study(Section):
    """A study whose names and numbers have been checked; the module's documentation says what each is."""

    name: Annotated[str, Field(pattern=r"^[\w=+][\w.=+-]*$")]
    algorithms: Annotated[dict[str, Entry], Field(min_length=1), BeforeValidator(_listed)]
    tasks: Annotated[dict[str, Task], Field(min_length=1), BeforeValidator(_listed)]
    seeds: Annotated[list[Seed], Field(min_length=1), BeforeValidator(_counted)]
    budget: Count
    horizon: Count | None = None
    zoo: Annotated[Path, Field(strict=False)] | None = None
    hyperparameters: Hyperparameters = {}
    evaluation: Evaluation | None = None
    reference: str | None = None
    published: Annotated[dict[str, Annotated[float, Field(strict=False, gt=0)]], OrNothing] = {}

    @model_validator(mode="after")
    def _names(self) -> "Study":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must be different, got {self.seeds}")
        slugs = {label: _slug(label) for label in self.algorithms}
        if not all(slugs.values()) or len({*slugs.values()}) < len(slugs):
            raise ValueError(f"algorithms: each must make a name of its own, got {slugs}")
        for label, entry in self.algorithms.items():
            known("algorithm", [self.algorithm(label)], settings.algorithms())
            known(f"task (of {label})", entry.tasks, self.tasks)
            for names in (entry.hyperparameters, *entry.tasks.values()):
                known(f"hyperparameter of {self.algorithm(label)}", names, settings.accepts(self.algorithm(label)))
        known("algorithm (as reference)", {self.reference} - {None}, self.algorithms)
        known("task (as published)", self.published, self.tasks)
        known("environment", self.tasks, gym.registry)
        every = {name: None for label in self.algorithms for name in settings.accepts(self.algorithm(label))}
        known("hyperparameter of any algorithm", self.hyperparameters, every)
        for task, there in self.tasks.items():
            known(f"hyperparameter of any algorithm (for {task})", there.hyperparameters, every)
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
        jobs = []
        for task, there in self.tasks.items():
            evaluation = there.evaluation or self.evaluation
            protocol: dict[str, Any] = {
                "budget": there.budget or self.budget,
                "horizon": there.horizon or self.horizon,
                "evaluation": None if evaluation is None else evaluation.model_dump(),
            }
            chosen = {label: self._chosen(label, task) for label in self.algorithms}
            for seed in self.seeds:
                for label, hyperparameters in chosen.items():
                    jobs.append(Job(label, self.algorithm(label), task, seed, hyperparameters=hyperparameters, **protocol))
        return jobs

    def _chosen(self, label: str, task: str) -> dict[str, Any]:
        """The hyperparameters that are set somewhere, by the Zoo or by the study, as the Zoo writes them."""
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
    if Path(study).is_file():
        return Path(study)
    if not STUDIES.is_dir():
        raise ValueError(f"{study!r} is no study file, nor is there a folder {STUDIES} here: give a path")
    known("study file", [study], [path.stem for path in sorted(STUDIES.glob("*.yml"))])
    return STUDIES / f"{study}.yml"


def load(path: str | Path) -> Study:
    """
    Read a study and check all names and numbers in it.

    :param path: YAML file
    :return: the study
    :raises ValueError: naming the file, the place in it, what is wrong and what is accepted
    """
    path = Path(path)
    try:
        content = read_yaml(path)
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
    place = "".join(f"{part}: " for part in error["loc"])
    got = "" if error["type"] in ("missing", "value_error") else f", got {error['input']!r}"
    return place + error["msg"].removeprefix("Value error, ") + got


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=+-]+", "-", text).strip("-.")
