"""Processes: all runs are done, and one that dies costs its run only."""

import multiprocessing
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("rl_zoo3")

from sb3_smac.benchmark import settings
from sb3_smac.benchmark.executor import execute
from sb3_smac.benchmark.run import run
from sb3_smac.benchmark.study import Job


def make_job(seed: int, budget: int = 200, **hyperparameters: Any) -> Job:
    chosen = settings.with_horizon({"policy": "MlpPolicy", "n_steps": 100, **hyperparameters}, 20)
    return Job("smac", "smac", "CartPole-v1", seed, budget, 20, chosen, None)


def test_every_run_is_done_once_and_as_in_this_process() -> None:
    jobs = [make_job(0), make_job(1), make_job(2, damping=-1.0)]
    results = {result.key: result for result in execute(jobs, workers=2)}
    assert set(results) == {job.key for job in jobs}
    assert all(results[job.key].agrees_with(run(job)) for job in jobs[:2])
    assert "damping must be" in results[jobs[2].key].info["traceback"]
    assert multiprocessing.active_children() == []


def test_a_killed_process_costs_its_run_only() -> None:
    endless, others = make_job(0, budget=10**9), [make_job(seed) for seed in (1, 2)]
    results = {}
    for count, result in enumerate(execute([endless, *others], workers=2)):
        results[result.key] = result
        if count == 0:  # the endless one goes on
            first, *_ = sorted(multiprocessing.active_children(), key=lambda process: process.name)
            first.kill()
    assert set(results) == {job.key for job in (endless, *others)}
    assert not results[endless.key].finished
    assert "The worker process died" in results[endless.key].info["traceback"]
    assert results[endless.key].info["duration"]["total"] > 0
    assert all(results[job.key].finished for job in others)
    assert multiprocessing.active_children() == []


def test_closing_it_ends_the_workers() -> None:
    events = execute([make_job(0), *(make_job(seed, budget=10**9) for seed in (1, 2))], workers=2)
    next(events)
    assert multiprocessing.active_children()
    events.close()
    assert multiprocessing.active_children() == []
