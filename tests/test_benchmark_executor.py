"""Worker processes: all runs are done, and those that die cost their run only."""

import multiprocessing
import os
import signal
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("rl_zoo3")

from sb3_smac.benchmark import settings
from sb3_smac.benchmark.executor import Progress, execute
from sb3_smac.benchmark.run import run
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Job


def make_job(seed: int, budget: int = 200, **hyperparameters: Any) -> Job:
    chosen = settings.with_horizon({"policy": "MlpPolicy", "n_steps": 100, **hyperparameters}, 20)
    return Job("smac", "smac", "CartPole-v1", seed, budget, 20, settings.resolved("smac", chosen), None)


def test_every_run_is_done_once_and_as_in_this_process() -> None:
    jobs = [make_job(seed) for seed in range(3)] + [make_job(3, damping=-1.0)]
    results = {result.key: result for result in execute(jobs, workers=2) if isinstance(result, Run)}
    assert set(results) == {job.key for job in jobs}
    for job in jobs[:3]:  # the third is a worker's second
        assert results[job.key].agrees_with(run(job))
    assert "damping must be" in results[jobs[3].key].info["traceback"]
    assert multiprocessing.active_children() == []


def test_a_killed_worker_costs_its_run_only() -> None:
    endless, others = make_job(0, budget=10**9), [make_job(seed) for seed in (1, 2)]
    results = {}
    killed = False
    for event in execute([endless, *others], workers=1):
        if isinstance(event, Run):
            results[event.key] = event
        elif isinstance(event, Progress) and event.timesteps > 200 and not killed:
            (process,) = multiprocessing.active_children()
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            killed = True
    assert set(results) == {job.key for job in (endless, *others)}
    assert not results[endless.key].finished
    assert "ended by SIGKILL" in results[endless.key].info["traceback"]
    assert all(results[job.key].finished for job in others)


def test_closing_it_ends_the_workers() -> None:
    events = execute([make_job(seed, budget=10**9) for seed in range(3)], workers=2)
    next(events)
    assert len(multiprocessing.active_children()) == 2
    events.close()
    assert multiprocessing.active_children() == []
