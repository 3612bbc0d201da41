"""
Search of the step sizes: successive halving over a grid, with the same budget for every algorithm.

.. code-block:: yaml

    tune:
      learning_rate:                    # per label: a list, or one per task
        smac: {default: [0.1, 1], CartPole-v1: [0.01, 0.1]}
        acsgd: [0.1, 1]
      critic_learning_rate: [5e-4, 2e-3]
      rungs: [10000, 50000]             # timesteps of a trial: all candidates, then the survivors
      survivors: [2]                    # how many go on to the next rung
      seeds: [1000]                     # not the study's

All pairs of the two learning rates train for the first rung's timesteps; the best go on, from the start, to the next rung. A
trial counts by the mean training return over the last quarter of its timesteps, and least of all if it failed. In the end
every candidate counts by its longest trial: a large fixed step may lead early and break down later, and then one that did not
go on wins. Idea: K. Jamieson and A. Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization"
(https://arxiv.org/abs/1502.07943).
"""

import itertools
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import yaml

from sb3_smac.benchmark import settings
from sb3_smac.benchmark.store import Store
from sb3_smac.benchmark.study import Job, Study, mapping
from sb3_smac.common import checks

KEYS = ("learning_rate", "critic_learning_rate", "rungs", "survivors", "seeds")
STEP_SIZES = ("learning_rate", "critic_learning_rate")
FINAL_PART = 0.25

Candidate = tuple[float, float]


class Trial(NamedTuple):
    """
    The longest trial of a candidate.

    :param score: its :func:`score`, mean over the seeds
    :param budget: its timesteps
    """

    score: float
    budget: int


Execute = Callable[[Sequence[Job]], None]


@dataclass(frozen=True)
class Search:
    """
    How step sizes are searched; see the module's documentation.

    :param learning_rates: actor step sizes per label and task
    :param critic_learning_rates: the critic's
    :param rungs: timesteps of a trial
    :param survivors: how many candidates go on to the next rung
    :param seeds: random seeds of every trial
    """

    learning_rates: dict[tuple[str, str], list[float]]
    critic_learning_rates: list[float]
    rungs: list[int]
    survivors: list[int]
    seeds: list[int]

    @property
    def timesteps(self) -> int:
        """Of one algorithm on one task, all trials together."""
        return len(self.seeds) * sum(n * budget for n, budget in zip(self._sizes, self.rungs, strict=True))

    @property
    def trials(self) -> int:
        """Of one algorithm on one task."""
        return len(self.seeds) * sum(self._sizes)

    @property
    def _sizes(self) -> list[int]:
        n_learning_rates = len(next(iter(self.learning_rates.values())))
        return [n_learning_rates * len(self.critic_learning_rates), *self.survivors]

    def candidates(self, label: str, task: str) -> list[Candidate]:
        """
        :param label: label of an algorithm
        :param task: id of a task
        :return: pairs of actor step size and critic learning rate
        """
        return list(itertools.product(self.learning_rates[label, task], self.critic_learning_rates))


def parse(study: Study) -> Search:
    """
    :param study: a study
    :return: its search, checked
    :raises ValueError: naming the place in the study and what is accepted
    """
    content = mapping("tune", study.tune, KEYS)
    for key in KEYS:
        if key not in content:
            raise ValueError(f"tune: {key} is missing")
    _check_study(study)
    given = mapping("tune: learning_rate", content["learning_rate"], study.entries)
    learning_rates = {}
    for label in study.entries:
        for task in study.tasks:
            there = given.get(label)
            if isinstance(there, dict):
                mapping(f"tune: learning_rate: {label}", there, [*gym.registry, "default"])
                there = there.get(task, there.get("default"))
            learning_rates[label, task] = _numbers(f"tune: learning_rate: {label}", there)
    if len(set(map(len, learning_rates.values()))) > 1:
        raise ValueError("tune: learning_rate must have as many values for every algorithm and task: budgets are equal")
    search = Search(
        learning_rates,
        _numbers("tune: critic_learning_rate", content["critic_learning_rate"]),
        _integers("tune: rungs", content["rungs"], minimum=1),
        _integers("tune: survivors", content["survivors"], minimum=1),
        _integers("tune: seeds", content["seeds"], minimum=0),
    )
    if len(search.survivors) != len(search.rungs) - 1:
        raise ValueError(f"tune: survivors must have one number fewer than rungs, got {search.survivors} and {search.rungs}")
    n_candidates = len(next(iter(learning_rates.values()))) * len(search.critic_learning_rates)
    if [n_candidates, *search.survivors] != sorted({n_candidates, *search.survivors}, reverse=True):
        raise ValueError(f"tune: survivors must become fewer, from {n_candidates} candidates, got {search.survivors}")
    return search


def without(content: dict[str, Any] | None, labels: Collection[str]) -> dict[str, Any] | None:
    """
    :param content: a study's ``tune``, unchecked
    :param labels: labels that are not to be searched
    :return: the same without their step sizes
    """
    if not isinstance(content, dict) or not isinstance(content.get("learning_rate"), dict):
        return content
    return content | {"learning_rate": {key: value for key, value in content["learning_rate"].items() if key not in labels}}


def _check_study(study: Study) -> None:
    if study.zoo is None:
        raise ValueError("tune writes into the study's folder of Zoo entries, but zoo is missing")
    algorithms = [entry.algorithm for entry in study.entries.values()]
    if len(set(algorithms)) < len(algorithms):
        raise ValueError("tune needs each algorithm once: a Zoo file has one entry per task")
    for label, entry in study.entries.items():
        for name in STEP_SIZES:
            if name not in settings.accepts(entry.algorithm):
                raise ValueError(f"algorithms: {label}: {entry.algorithm} has no {name} that could be searched")
            shared = (study.hyperparameters, *(there.hyperparameters for there in study.tasks.values()))
            if any(name in names for names in (*shared, entry.hyperparameters, *entry.tasks.values())):
                raise ValueError(f"{name} is set by the study, so what a search finds would have no effect")


def _numbers(place: str, content: object) -> list[float]:
    if not isinstance(content, list) or not content:
        raise ValueError(f"{place} must be a list of numbers, got {content!r}")
    for value in content:
        checks.number(place, value, minimum=0, exclusive=True)
    return content


def _integers(place: str, content: object, minimum: int) -> list[int]:
    if not isinstance(content, list):
        raise ValueError(f"{place} must be a list of integers, got {content!r}")
    for value in content:
        checks.integer(place, value, minimum)
    return content


def tune(study: Study, store: Store, execute: Execute) -> None:
    """
    Search task by task, and write the Zoo entries of each task when its search is complete.

    :param study: the study
    :param store: where the trials are kept
    :param execute: runs what is missing of some jobs, and keeps it in the store
    :raises ValueError: if the study cannot be searched
    """
    search = parse(study)
    study = replace(study, evaluation=None)
    for task in study.tasks:
        left = {label: search.candidates(label, task) for label in study.entries}
        longest: dict[str, dict[Candidate, Trial]] = {label: {} for label in study.entries}
        for budget, survivors in zip(search.rungs, [*search.survivors, 1], strict=True):
            trials = {
                label: {candidate: _jobs(study, search, label, task, budget, candidate) for candidate in candidates}
                for label, candidates in left.items()
            }
            execute([job for candidates in trials.values() for jobs in candidates.values() for job in jobs])
            scores = {label: _scores(store, candidates) for label, candidates in trials.items()}
            for label, its_scores in scores.items():
                longest[label] |= {candidate: Trial(value, budget) for candidate, value in its_scores.items()}
            left = {label: best(scores[label], survivors) for label in left}
        for label, trials_of in longest.items():
            winner = best_trials(trials_of)[0]
            value, budget = trials_of[winner]
            if value == -math.inf:
                write_entry(study, label, task, None, "untuned: every trial failed")
                print(f"{label} on {task}: every trial failed")
                continue
            write_entry(study, label, task, winner, _comment(study, search, trials_of, winner))
            print(f"{label} on {task}: {_describe(winner)}, return {value:.1f} at {budget} steps")


def _jobs(study: Study, search: Search, label: str, task: str, budget: int, candidate: Candidate) -> list[Job]:
    step_sizes = dict(zip(STEP_SIZES, candidate, strict=True))
    return [study.job(label, task, seed, budget, **step_sizes) for seed in search.seeds]


def _scores(store: Store, trials: dict[Candidate, list[Job]]) -> dict[Candidate, float]:
    return {candidate: float(np.mean([score(store, job) for job in jobs])) for candidate, jobs in trials.items()}


def score(store: Store, job: Job) -> float:
    """
    :param store: where the trial is kept
    :param job: a trial
    :return: mean training return over the last quarter of its timesteps; −∞ if it failed or no episode ended there
    :raises FileNotFoundError: if the trial has not been run
    """
    trial = store.load(job.key)
    returns = trial.episodes["return"][trial.episodes["timestep"] > (1 - FINAL_PART) * job.budget]
    if not trial.finished or returns.empty or not math.isfinite(returns.mean()):
        return -math.inf
    return float(returns.mean())


def best(scores: dict[Candidate, float], number: int) -> list[Candidate]:
    """
    :param scores: score of each candidate
    :param number: how many are wanted
    :return: the best ones, best first; of equals, the one that comes first
    """
    return sorted(scores, key=lambda candidate: -scores[candidate])[:number]


def best_trials(trials: dict[Candidate, Trial]) -> list[Candidate]:
    """
    :param trials: longest trial of each candidate
    :return: the candidates, best first; of equals, the one that was tried for longer, then the one that comes first
    """
    return sorted(trials, key=lambda candidate: (-trials[candidate].score, -trials[candidate].budget))


def _describe(candidate: Candidate) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in zip(STEP_SIZES, candidate, strict=True))


def _comment(study: Study, search: Search, trials: dict[Candidate, Trial], winner: Candidate) -> str:
    value, budget = trials[winner]
    finalists = (candidate for candidate in best_trials(trials) if trials[candidate].budget == search.rungs[-1])
    others = (
        f";\n# {trials[candidate].score:.4g} by {_describe(candidate)}"
        + (f" after {search.rungs[-1]}" * (budget != search.rungs[-1]))
        for candidate in finalists
        if candidate != winner
    )
    return (
        f"tuned: {' and '.join(STEP_SIZES)} by `tune {study.name}`\n"
        f"# ({search.trials} trials, {search.timesteps} timesteps in all);\n"
        f"# return {value:.4g} after {budget} timesteps" + "".join(others)
    )


def write_entry(study: Study, label: str, task: str, candidate: Candidate | None, comment: str) -> None:
    """
    Write a task's entry into the study's Zoo file of an algorithm; the other entries stay as they are.

    :param study: the study
    :param label: label of the algorithm
    :param task: id of the task
    :param candidate: the step sizes; ``None``: those that the study has already
    :param comment: where they come from
    """
    assert study.zoo is not None
    step_sizes = {} if candidate is None else dict(zip(STEP_SIZES, candidate, strict=True))
    budget = study.tasks[task].budget or study.budget
    entry = {"n_timesteps": budget, **study.chosen(label, task), **step_sizes}
    path = study.zoo / f"{study.entries[label].algorithm}.yml"
    header, *blocks = re.split(r"^(?=# \S+: )", path.read_text(encoding="utf-8") if path.exists() else "", flags=re.M)
    entries = {block[2:].partition(": ")[0]: block for block in blocks}
    entries[task] = f"# {task}: {comment}\n{yaml.safe_dump({task: entry})}"
    path.write_text("\n\n".join(text.strip() for text in (header, *entries.values())).lstrip() + "\n", encoding="utf-8")


__all__ = ["Search", "Trial", "best", "best_trials", "parse", "score", "tune", "without", "write_entry"]
