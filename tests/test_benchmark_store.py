"""Results on disk: whole or not at all, once, and the same bytes for the same curves."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pd = pytest.importorskip("pandas")
store_module = pytest.importorskip("sb3_smac.benchmark.store")
Run, Store = store_module.Run, store_module.Store

KEY = "smac/CartPole-v1/seed0-0123abcd"


def make_run(key: str = KEY, returns: tuple[float, ...] = (10.0, 20.123456789), status: str = "finished") -> Any:
    label, task, _ = key.split("/")
    episodes = pd.DataFrame({"timestep": [10, 30], "return": returns, "length": [10, 20], "wall_time": [0.5, 1.25]})
    updates = pd.DataFrame({"timestep": [30], "log_prob": [-0.7], "update_time": [0.01], "approx_kl": [float("nan")]})
    info = {"label": label, "task": task, "seed": 0, "algorithm": label, "hyperparameters": {"gamma": 0.9}, "status": status}
    return Run(key, info, episodes, updates, store_module.empty_curve("evaluations"))


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_run())
    run = store.load(KEY)
    assert store.finished() == [KEY]
    assert (run.label, run.task, run.seed, run.algorithm, run.hyperparameters) == (
        "smac",
        "CartPole-v1",
        0,
        "smac",
        {"gamma": 0.9},
    )
    assert list(run.episodes["timestep"]) == [10, 30]
    assert list(run.episodes["return"]) == [10, 20.1235]  # six digits
    assert run.updates["approx_kl"].isna().all()
    assert run.evaluations.empty
    for name, columns in store_module.CURVES.items():
        assert tuple(getattr(run, name).columns) == columns


def test_the_same_curves_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Store(tmp_path / name).write(make_run())
    assert files(tmp_path / "a") == files(tmp_path / "b")
    for file in files(tmp_path / "a"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    store.clean()
    assert store.finished() == store.failed() == store.runs() == []


def test_a_finished_run_stays_and_a_failed_one_gives_way(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write(make_run(status="failed"))
    assert (store.failed(), store.finished()) == ([KEY], [])
    store.write(make_run())
    assert (store.failed(), store.finished()) == ([], [KEY])
    for later in (make_run(status="failed"), make_run(returns=(1.0, 2.0))):
        store.write(later)
        assert list(store.load(KEY).episodes["return"]) == [10, 20.1235]


def test_a_write_that_breaks_off_leaves_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="disk full"):
            store.write(make_run())
    assert files(tmp_path)  # the half is there, under another name
    assert store.finished() == store.failed() == []


def test_clean_removes_what_dead_processes_left(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    folder = tmp_path / "smac" / "CartPole-v1"
    names = {
        "dead": f"{socket.gethostname()}+{child.pid}",
        "alive": f"{socket.gethostname()}+{os.getpid()}",
        "far": "elsewhere+1",
    }
    for name, owner in names.items():
        (folder / f".partial-{owner}-{name}").mkdir(parents=True)
    store = Store(tmp_path)
    store.write(make_run())
    store.clean()
    left = {path.name.rpartition("-")[2] for path in folder.glob(".partial-*")}
    assert left == {"alive", "far"}
    assert store.finished() == [KEY]


def test_merge_takes_each_run_once_and_reports_conflicts(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    same, conflicting, failed_here, new, failed_there = (f"smac/CartPole-v1/seed{seed}-0123abcd" for seed in range(5))
    here.write(make_run(same))
    here.write(make_run(conflicting))
    here.write(make_run(failed_here, status="failed"))
    for key in (same, failed_here, new):
        there.write(make_run(key))
    there.write(make_run(conflicting, returns=(1.0, 2.0)))
    there.write(make_run(failed_there, status="failed"))
    taken, conflicts = here.merge(there)
    assert (taken, conflicts) == ([failed_here, new], [conflicting])
    assert here.finished() == sorted([same, conflicting, failed_here, new])
    assert list(here.load(conflicting).episodes["return"]) == [10, 20.1235]
    assert here.merge(there) == ([], [conflicting])
