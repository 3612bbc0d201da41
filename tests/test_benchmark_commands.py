"""The command line, as a user types it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
pytest.importorskip("rl_zoo3")

from sb3_smac.benchmark import commands, settings
from sb3_smac.benchmark import store as store_module
from sb3_smac.benchmark.__main__ import main
from sb3_smac.benchmark.store import Store
from sb3_smac.benchmark.study import load

PROCESSES = Path("/proc")
STUDY = """
name: tiny
algorithms: [smac, acsgd]
tasks: [CartPole-v1]
seeds: 2
budget: 200
horizon: 20
hyperparameters: {n_steps: 100}
"""
ENDLESS = """
  short: {algorithm: acsgd}
  endless: {algorithm: acsgd, tasks: {CartPole-v1: {env_wrapper: test_benchmark_commands.slow}}}"""


def slow(env: gym.Env) -> gym.Env:
    """An environment of which no run ends."""

    class Slow(gym.Wrapper):
        def step(self, action: Any) -> Any:
            time.sleep(3600)

    return Slow(env)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(STUDY)
    return path


def command(name: str, study: Path, *options: object, root: Path | None = None) -> list[str]:
    results = root or study.parent / "results"
    return [name, str(study), "--results", str(results), *map(str, options)]


def test_run_status_pack_and_merge(study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = load(study).jobs
    root = study.parent / "results"
    assert main(command("run", study, "--workers", 1)) == 0
    output = capsys.readouterr().out
    assert set(Store(root).finished()) == {job.key for job in jobs}
    assert output.count("smac on CartPole-v1, seed ") == 2 and "[4/4] " in output
    assert "tiny: 4 of 4 runs are finished" in output
    # `run` ends packed, and again nothing is run and nothing changes
    before = files(root)
    assert set(before) == {"runs.jsonl", "episodes.parquet", "updates.parquet"}
    assert main(command("run", study, "--workers", 1)) == 0
    assert main(command("pack", study)) == 0
    assert "0 runs packed" in capsys.readouterr().out
    assert files(root) == before

    # a run that is gone is run; a failed one only when asked to
    gone, broken = jobs[0].key, jobs[1].key
    damaged, runs = Store(study.parent / "damaged"), {run.key: run for run in Store(root).runs()}
    for key in set(runs) - {gone, broken}:
        damaged.write(runs[key])
    damaged.write(replace(runs[broken], info={**runs[broken].info, "status": "failed", "traceback": "ValueError: x"}))
    assert main(command("status", study, root=damaged.root)) == 0
    output = capsys.readouterr().out
    assert "smac   1 finished, 1 missing" in output
    assert "acsgd  1 finished, 1 failed" in output
    assert "tiny: 2 of 4 runs are finished" in output
    assert "another" not in output
    assert main(command("run", study, "--workers", 1, root=damaged.root)) == 1
    assert "tiny: 3 of 4 runs are finished" in capsys.readouterr().out
    assert Store(damaged.root).failed() == [broken]
    assert main(command("run", study, "--workers", 1, "--retry-failed", root=damaged.root)) == 0
    again = Store(damaged.root).runs()
    assert len(again) == 4 and all(run.agrees_with(runs[run.key]) for run in again)

    other = study.parent / "other"
    for taken in (4, 0):
        assert main(command("merge", study, root, root=other)) == 0
        assert f"{root}: {taken} runs taken" in capsys.readouterr().out
        assert files(other) == before

    assert main(command("report", study, "--output", study.parent / "report")) == 0
    assert (study.parent / "report" / "report.md").exists()
    assert files(root) == before

    # A default that a release changed since is no other run, but it is said
    defaults = settings.defaults
    monkeypatch.setattr(settings, "defaults", lambda algorithm: {**defaults(algorithm), "critic_batch_size": 9})
    assert main(command("status", study)) == 0
    output = capsys.readouterr().out
    assert "tiny: 4 of 4 runs are finished" in output
    assert "2 of them were made with another default of smac's critic_batch_size than today's" in output


def files(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


def test_the_store_is_read_once_per_command(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once per job."""
    study.write_text(STUDY.replace("seeds: 2", "seeds: 40"))
    scans = []
    read = store_module._read
    monkeypatch.setattr(store_module, "_read", lambda folder: scans.append(folder) or read(folder))
    monkeypatch.setattr(commands.executor, "execute", lambda jobs, workers: (_ for _ in ()))
    for name in ("status", "run"):
        scans.clear()
        main(command(name, study))
        assert len(scans) <= 2


def test_a_part_of_a_study(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the options choose of it is run, and nothing else."""
    chosen = []
    monkeypatch.setattr(commands.executor, "execute", lambda jobs, workers: chosen.extend(jobs) or (_ for _ in ()))
    main(command("run", study, "--algorithm", "smac", "--seed", 1))
    assert [(job.label, job.seed) for job in chosen] == [("smac", 1)]
    assert main(command("status", study, "--seed", 0)) == 0
    assert "tiny: 0 of 2 runs are finished" in capsys.readouterr().out


def test_bad_values_stop_everything_before_it_starts(study: Path) -> None:
    study.write_text(STUDY.replace("{n_steps: 100}", "{n_steps: 0}"))
    message = main(command("run", study))
    assert isinstance(message, str)
    assert "smac on CartPole-v1: n_steps must be an integer >= 1, got 0" in message
    assert not (study.parent / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "nothing.yml"), "'nothing.yml' is no study file"),
        (("run", "tiny.yml", "--task", "CartPole-v0"), "'CartPole-v0' is no task in tiny; did you mean 'CartPole-v1'"),
        (("run", "tiny.yml", "--seed", "7"), "'7' is no seed in tiny"),
        (("report", "tiny.yml"), "tiny has no finished run"),
        (("merge", "tiny.yml", "nowhere"), "nowhere is not a folder"),
    ],
)
def test_what_is_wrong_is_said(study: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(study.parent)
    result = main(arguments)
    assert isinstance(result, str)
    assert message in result


@pytest.mark.skipif(not PROCESSES.exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_stopped_it_keeps_what_is_finished(study: Path, number: signal.Signals) -> None:
    """Packed at Ctrl-C and SIGTERM; after SIGKILL the next command does it. The workers end with it."""
    study.write_text(STUDY.replace(" [smac, acsgd]", ENDLESS))
    root = study.parent / "results"
    process = subprocess.Popen(
        [sys.executable, "-m", "sb3_smac.benchmark", *command("run", study, "--workers", 2)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])},
        # A shell's background job ignores it, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert "[1/4] short on CartPole-v1, seed 0" in process.stdout.readline()
    children = children_of(str(process.pid))
    assert len(children) >= 2
    process.send_signal(number)
    output, _ = process.communicate(timeout=300)
    deadline = time.monotonic() + 300
    while (left := [child for child in children if (PROCESSES / child).exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    if number == signal.SIGKILL:
        assert main(command("pack", study)) == 0
    else:
        assert process.returncode == 1
        assert "Stopped. The same command goes on with what is missing." in output
    assert set(files(root)) == {"runs.jsonl", "episodes.parquet", "updates.parquet"}
    assert {key.partition("/")[0] for key in Store(root).finished()} == {"short"}
    assert list((root / ".runs").glob("*/")) == []


def children_of(process: str) -> list[str]:
    """And theirs: the processes of runs are started by a process of their own, and that by a thread."""
    children = [child for path in PROCESSES.glob(f"{process}/task/*/children") for child in path.read_text().split()]
    return [*children, *(grandchild for child in children for grandchild in children_of(child))]
