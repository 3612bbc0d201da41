"""Runs in processes of this machine, or on a Ray cluster whose nodes have this package in the same version."""

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from unittest.mock import patch

from sb3_smac.benchmark.run import failed, run
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Job

# Read when NumPy and PyTorch are loaded
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# On Linux, a process is forked off one that has imported these; elsewhere, libraries may not survive that
CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
CONTEXT.set_forkserver_preload(["sb3_smac.benchmark.run", "sb3_smac.zoo.exp_manager"])
# How often a run on Ray starts again when its node or its process dies
RETRIES = 5
CONNECTION_SECONDS = 10


def execute(jobs: Sequence[Job], workers: int) -> Generator[Run, None, None]:
    """
    Do all runs, each in a process of its own: one that dies costs its run only. Closing the iterator ends the processes.

    :param jobs: what to run
    :param workers: number of processes at a time
    :return: runs as they end
    """
    before = set(multiprocessing.active_children())
    with ThreadPoolExecutor(workers) as threads, patch.dict(os.environ, ONE_THREAD):
        futures = [threads.submit(_run_in_a_process, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            started = [future for future in futures if not future.cancel()]
            while wait(started, timeout=0.1).not_done:
                for child in set(multiprocessing.active_children()) - before:
                    child.terminate()


def _run_in_a_process(job: Job) -> Run:
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        output = Path(folder) / "output"
        with ProcessPoolExecutor(1, CONTEXT, initializer=_prepare, initargs=(output,)) as process:
            try:
                return process.submit(run, job).result()
            except BrokenProcessPool:
                reason = "The worker process died. The system ends a process like this when memory is short."
            except Exception as error:  # such as a result that cannot be sent
                reason = f"The worker process failed: {type(error).__name__}: {error}"
            printed = output.read_text(errors="replace")[-2000:] if output.exists() else ""
        return failed(job, f"{printed}\n{reason}".strip(), time.perf_counter() - start)


def _prepare(output: Path) -> None:
    """One place for what simulators print past Python, and an end when the parent has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's matter
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """Else the run of a killed parent would go on, for nobody."""
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
        remote_run = ray.remote(num_cpus=1, max_retries=RETRIES)(run)
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
