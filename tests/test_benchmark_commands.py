"""The command line, as a user types it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("rich")
pytest.importorskip("rl_zoo3")

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


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yml"
    path.write_text(STUDY)
    return path


def command(name: str, study: Path, *options: object, root: Path | None = None) -> list[str]:
    results = root or study.parent / "results"
    return [name, str(study), "--results", str(results), *map(str, options)]


def test_run_status_and_merge(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = load(study).jobs
    store = Store(study.parent / "results")
    assert main(command("run", study, "--workers", 1)) == 0
    output = capsys.readouterr().out
    assert set(store.finished()) == {job.key for job in jobs}
    assert output.count("smac on CartPole-v1, seed ") == 2
    assert "tiny: 4 of 4 runs are finished" in output

    # again: nothing is run; a run that is gone is run; a failed one only when asked to
    times = {key: (store.root / key / "run.json").stat().st_mtime_ns for key in store.finished()}
    gone, broken = jobs[0].key, jobs[1].key
    for file in (store.root / gone).iterdir():
        file.unlink()
    record = store.root / broken / "run.json"
    record.write_text(json.dumps({**store.info(broken), "status": "failed", "traceback": "ValueError: x"}))
    assert main(command("status", study)) == 0
    output = capsys.readouterr().out
    assert "smac   1 finished, 1 missing" in output
    assert "acsgd  1 finished, 1 failed" in output
    assert "tiny: 2 of 4 runs are finished" in output

    assert main(command("run", study, "--workers", 1)) == 1
    assert "tiny: 3 of 4 runs are finished" in capsys.readouterr().out
    assert store.failed() == [broken]
    assert main(command("run", study, "--workers", 1, "--retry-failed")) == 0
    assert len(store.finished()) == 4
    for key in {job.key for job in jobs} - {gone, broken}:
        assert (store.root / key / "run.json").stat().st_mtime_ns == times[key]

    other = study.parent / "other"
    assert main(command("merge", study, store.root, root=other)) == 0
    assert f"{store.root}: 4 runs taken" in capsys.readouterr().out
    assert main(command("merge", study, store.root, root=other)) == 0
    assert f"{store.root}: 0 runs taken" in capsys.readouterr().out
    assert sorted(Store(other).finished()) == sorted(store.finished())

    assert main(command("report", study, "--output", study.parent / "report")) == 0
    assert (study.parent / "report" / "report.md").exists()


def test_bad_values_stop_everything_before_it_starts(study: Path) -> None:
    study.write_text(STUDY.replace("{n_steps: 100}", "{n_steps: 0}"))
    message = main(command("run", study))
    assert isinstance(message, str)
    assert "smac on CartPole-v1: n_steps must be an integer >= 1, got 0" in message
    assert not (study.parent / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "nothing.yml"), "there is no study file 'nothing.yml'"),
        (("run", "tiny.yml", "--task", "CartPole-v0"), "there is no task in tiny 'CartPole-v0': did you mean 'CartPole-v1'"),
        (("report", "tiny.yml"), "tiny has no finished run"),
        (("merge", "tiny.yml", "nowhere"), "nowhere is not a folder"),
        (("tune", "tiny.yml"), "tune: learning_rate is missing"),
    ],
)
def test_what_is_wrong_is_said(study: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str) -> None:
    monkeypatch.chdir(study.parent)
    result = main(arguments)
    assert isinstance(result, str)
    assert message in result


@pytest.mark.skipif(not PROCESSES.exists(), reason="finds the workers in /proc")
def test_ctrl_c_stops_it_cleanly(study: Path) -> None:
    endless = study.parent / "endless.yml"
    endless.write_text(STUDY.replace("tiny", "endless").replace("budget: 200", "budget: 1000000000"))
    root = study.parent / "results"
    program = [sys.executable, "-m", "sb3_smac.benchmark"]
    process = subprocess.Popen(
        [*program, *command("run", endless, "--workers", 2)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell's background job ignores it, and so would what it starts
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while len(children := children_of(process.pid)) < 3 and time.monotonic() < deadline:  # two workers and their tracker
        time.sleep(0.1)
    time.sleep(3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Stopped. The same command goes on with what is missing." in output
    while (left := [child for child in children if (PROCESSES / child).exists()]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
    assert [path for path in root.rglob("*") if path.is_file()] == []


def children_of(process: int) -> list[str]:
    return (PROCESSES / str(process) / "task" / str(process) / "children").read_text().split()
