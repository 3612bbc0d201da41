"""Runs on a Ray cluster. Every node needs this package, of the same version."""

import socket
from collections.abc import Generator, Sequence

import torch as th

from sb3_smac.benchmark.executor import Progress
from sb3_smac.benchmark.run import failed, run
from sb3_smac.benchmark.store import Run
from sb3_smac.benchmark.study import Job

# How often a run starts again when its node or its process dies
RETRIES = 5
CONNECTION_SECONDS = 10


def execute(jobs: Sequence[Job], address: str) -> Generator[Run | Progress, None, None]:
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
            ended, _ = ray.wait(list(pending))
            for reference in ended:
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


__all__ = ["execute"]
