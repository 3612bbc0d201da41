"""Runs on this machine: worker processes that each do one run after the other."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from sb3_smac.benchmark.run import failed, prepare_process, run
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Job

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Progress:
    """
    :param job: a run that goes on
    :param timesteps: how many are done
    """

    job: Job
    timesteps: int


@dataclass
class _Worker:
    process: Any
    connection: Connection
    output: Path
    job: Job
    started: float


def execute(jobs: Sequence[Job], workers: int) -> Generator[Run | Progress, None, None]:
    """
    Do all runs; a worker that dies costs the run that it was at. Closing the iterator ends the workers.

    :param jobs: what to run
    :param workers: number of processes
    :return: runs as they end, and news of those that go on
    """
    waiting = deque(jobs)
    active: dict[Connection, _Worker] = {}
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                worker = _start(waiting.popleft())
                active[worker.connection] = worker
            for connection in wait(list(active)):
                assert isinstance(connection, Connection)
                worker = active[connection]
                outcome = _receive(worker)
                yield outcome
                if isinstance(outcome, Run):
                    if waiting and worker.process.is_alive():
                        _give(worker, waiting.popleft())
                    else:
                        del active[connection]
                        _end(worker)
    finally:
        for worker in active.values():
            worker.process.terminate()
        for worker in active.values():
            _end(worker)


def _start(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    file, output = tempfile.mkstemp(prefix="benchmark-", suffix=".log")
    os.close(file)
    process = context.Process(target=_work, args=(there, Path(output)), daemon=True)
    environment = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)  # read when NumPy and PyTorch are loaded
    try:
        process.start()
    finally:
        for name, value in environment.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    there.close()
    worker = _Worker(process, here, Path(output), job, 0.0)
    _give(worker, job)
    return worker


def _give(worker: _Worker, job: Job) -> None:
    worker.job, worker.started = job, time.perf_counter()
    try:
        worker.connection.send(job)
    except OSError:  # it has died: _receive() will see that
        pass


def _receive(worker: _Worker) -> Run | Progress:
    try:
        outcome = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join()
        code = worker.process.exitcode
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        memory = " (this is how the system ends a process when memory is short)" if name == "SIGKILL" else ""
        printed = worker.output.read_text(errors="replace")[-2000:]
        reason = f"{printed}\nThe worker process ended by {name}{memory}."
        return failed(worker.job, reason.strip(), time.perf_counter() - worker.started)
    return Progress(worker.job, outcome) if isinstance(outcome, int) else outcome


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.join()
    worker.output.unlink(missing_ok=True)


def _work(connection: Connection, output: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    prepare_process(output)
    while True:
        try:
            job = connection.recv()
            connection.send(run(job, connection.send))
        except (EOFError, OSError):  # the parent has gone
            return


__all__ = ["Progress", "execute"]
