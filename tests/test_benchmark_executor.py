"""Worker processes: all runs are done, and those that die cost their run only."""

import multiprocessing
import os
import signal
import time
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
    jobs = [make_job(seed) for seed in range(3)] + [make_job(3, damping=-1.0)]
    results = {result.key: result for result in execute(jobs, workers=2)}
    assert set(results) == {job.key for job in jobs}
    for job in jobs[:3]:  # the third is a worker's second
        assert results[job.key].agrees_with(run(job))
    assert "damping must be" in results[jobs[3].key].info["traceback"]
    assert multiprocessing.active_children() == []


def test_a_killed_worker_costs_its_run_only() -> None:
    endless, others = make_job(0, budget=10**9), [make_job(seed) for seed in (1, 2, 3)]
    results = {}
    for count, result in enumerate(execute([endless, *others], workers=2)):
        results[result.key] = result
        if count == 0:  # the other worker's; the endless one goes on
            first = min(multiprocessing.active_children(), key=lambda process: process.pid or 0)
            assert first.pid is not None
            os.kill(first.pid, signal.SIGKILL)
    assert set(results) == {job.key for job in (endless, *others)}
    assert not results[endless.key].finished
    assert "The worker process died" in results[endless.key].info["traceback"]
    assert all(results[job.key].finished for job in others)
    assert multiprocessing.active_children() == []


def test_closing_it_ends_the_workers() -> None:
    events = execute([make_job(0), *(make_job(seed, budget=10**9) for seed in (1, 2))], workers=2)
    next(events)
    assert len(multiprocessing.active_children()) == 2
    events.close()
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_between_two_runs_costs_none() -> None:
    jobs = [make_job(seed) for seed in range(2)]
    results = []
    for result in execute(jobs, workers=1):
        results.append(result)
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
        time.sleep(1)  # the pool hears of it in a thread of its own
    assert [result.key for result in results] == [job.key for job in jobs]
    assert all(result.finished for result in results)
