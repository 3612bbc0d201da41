"""Runs on a Ray cluster of two nodes, one of which is lost in the middle."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("rl_zoo3")

from sb3_smac.benchmark.__main__ import main
from sb3_smac.benchmark.run import run
from sb3_smac.benchmark.store import Store
from sb3_smac.benchmark.study import load

PROCESSES = Path("/proc")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROCESSES.exists(), reason="finds the processes of a node in /proc"),
]
STUDY = """
name: tiny
algorithms: [smac, acsgd]
tasks: [CartPole-v1]
seeds: 4
budget: 8000
hyperparameters: {n_steps: 500}
"""
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(__file__).parents[1]),
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture
def nodes(address: str, tmp_path: Path) -> Iterator[list[subprocess.Popen]]:
    """A head and a second node, one CPU each, in process groups of their own."""
    port = address.rpartition(":")[2]
    short_folder = tempfile.mkdtemp(prefix="ray")  # Unix sockets have short names
    head = (
        "--head",
        f"--port={port}",
        "--include-dashboard=false",
        f"--ray-client-server-port={free_port()}",
        f"--temp-dir={short_folder}",
    )
    nodes = []
    try:
        for options in (head, (f"--address={address}",)):
            program = "from ray.scripts.scripts import main; main()"
            with open(tmp_path / f"node{len(nodes)}.log", "wb") as log:
                nodes.append(
                    subprocess.Popen(
                        [sys.executable, "-c", program, "start", "--block", "--num-cpus=1", *options],
                        env=ENVIRONMENT,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            wait_for(lambda: any("raylet" in name for name in names_of(nodes[-1])))
        yield nodes
    finally:
        for node in reversed(nodes):
            kill(node)
        shutil.rmtree(short_folder)


def kill(node: subprocess.Popen) -> None:
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def names_of(node: subprocess.Popen) -> list[str]:
    """Command lines of a node's processes."""
    names = []
    for process in PROCESSES.glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == node.pid:
                names.append((process / "cmdline").read_text())
        except OSError:  # it has ended
            pass
    return names


def test_a_lost_node_loses_no_run(nodes: list[subprocess.Popen], address: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yml").write_text(STUDY)
    study, store = load(tmp_path / "tiny.yml"), Store(tmp_path / "results")
    arguments = ["run", str(tmp_path / "tiny.yml"), "--results", str(store.root), "--ray", address]
    driver = subprocess.Popen(
        [sys.executable, "-m", "sb3_smac.benchmark", *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )
    try:
        # Both nodes are at a run, and some are done: then one node goes
        wait_for(lambda: all(any("ray::run" in name for name in names_of(node)) for node in nodes))
        wait_for(lambda: len(Store(store.root).finished()) >= 2)
        wait_for(lambda: any("ray::run" in name for name in names_of(nodes[1])))
        assert len(Store(store.root).finished()) < len(study.jobs) - 1
        kill(nodes[1])
        output, _ = driver.communicate(timeout=300)
    finally:
        driver.kill()
    assert driver.returncode == 0, output
    assert f"tiny: {len(study.jobs)} of {len(study.jobs)} runs are finished" in output
    assert output.count("on CartPole-v1, seed ") == len(study.jobs)  # a line each, once
    assert Store(store.root).finished() == sorted(job.key for job in study.jobs)
    here = Store(tmp_path / "here")
    here.write(run(study.jobs[-1]))
    assert here.merge(Store(store.root).runs()) == (sorted(job.key for job in study.jobs[:-1]), [])  # no conflict


def test_no_cluster(tmp_path: Path, address: str) -> None:
    (tmp_path / "tiny.yml").write_text(STUDY)
    message = main(["run", str(tmp_path / "tiny.yml"), "--results", str(tmp_path / "results"), "--ray", address])
    assert isinstance(message, str)
    assert f"--ray: no cluster at '{address}'" in message
