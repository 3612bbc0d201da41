"""Runs in processes of this machine, or on a Ray cluster whose nodes have this package in the same version."""

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import torch as th

from sb3_smac.benchmark.run import failed, run
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Job

# Read when NumPy and PyTorch are loaded
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# How often a run starts again when its Ray node or its process dies
RETRIES = 5
CONNECTION_SECONDS = 10


def execute(jobs: Sequence[Job], workers: int) -> Generator[Run, None, None]:
    """
    Do all runs; a worker that dies costs the run that it was at. Closing the iterator ends the workers.

    :param jobs: what to run
    :param workers: number of processes
    :return: runs as they end
    """
    before = set(multiprocessing.active_children())
    waiting = iter(jobs)
    started: list[_Worker] = []
    pending: dict[Future[Run], tuple[Job, _Worker]] = {}

    def start() -> _Worker:
        started.append(_Worker())
        return started[-1]

    def give(worker: _Worker) -> None:
        job = next(waiting, None)
        if job is None:
            worker.close()
            return
        try:
            future = worker.submit(job)
        except BrokenProcessPool:
            worker = start()
            future = worker.submit(job)
        pending[future] = job, worker

    try:
        with _environment(ONE_THREAD):
            for _ in range(min(workers, len(jobs))):
                give(start())
            while pending:
                for future in wait(pending, return_when=FIRST_COMPLETED).done:
                    job, worker = pending.pop(future)
                    try:
                        result = future.result()
                    except BrokenProcessPool:
                        result = failed(job, worker.last_words(), time.perf_counter() - worker.start)
                    yield result
                    give(worker)
    finally:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        for worker in started:
            worker.close()


class _Worker:
    """A process that does one run after the other. A pool of several would lose all of its runs when one process dies."""

    def __init__(self) -> None:
        file, name = tempfile.mkstemp(prefix="benchmark-", suffix=".log")
        os.close(file)
        self.output = Path(name)
        self.start = 0.0
        context = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(self.output,))

    def submit(self, job: Job) -> Future[Run]:
        self.start = time.perf_counter()
        return self.pool.submit(run, job)

    def last_words(self) -> str:
        printed = self.output.read_text(errors="replace")[-2000:]
        return f"{printed}\nThe worker process died. The system ends a process like this when memory is short.".strip()

    def close(self) -> None:
        self.pool.shutdown()
        self.output.unlink(missing_ok=True)


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _prepare(output: Path) -> None:
    """One thread for PyTorch, one place for what simulators print past Python, and an end when the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    th.set_num_threads(1)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """Else the worker of a killed parent would wait for its next run forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def execute_on_ray(jobs: Sequence[Job], address: str) -> Generator[Run, None, None]:
    """
    Do all runs, one CPU each; what a lost node had is done again elsewhere. Closing the iterator ends the runs.

    :param jobs: what to run
    :param address: of the cluster, such as ``auto`` or ``ray://host:10001``
    :return: runs as they end
    :raises ValueError: if there is no cluster
    """
    import ray

    try:
        host, _, port = address.removeprefix("ray://").rpartition(":")
        if port.isdecimal():  # Ray itself would wait for it without end
            socket.create_connection((host, int(port)), CONNECTION_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, ray.exceptions.RayError) as error:
        raise ValueError(f"--ray: no cluster at {address!r}: {error}") from error
    try:
        remote_run = ray.remote(num_cpus=1, max_retries=RETRIES)(_run)
        pending = {remote_run.remote(job): job for job in jobs}
        while pending:
            for reference in ray.wait(list(pending))[0]:
                job = pending.pop(reference)
                try:
                    yield ray.get(reference)
                except ray.exceptions.RayError as error:
                    yield failed(job, f"Ray gave up after {RETRIES} retries: {error}", 0.0)
    finally:
        ray.shutdown()


def _run(job: Job) -> Run:
    th.set_num_threads(1)
    return run(job)


__all__ = ["execute", "execute_on_ray"]
