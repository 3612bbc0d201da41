"""Results on disk: whole or not at all, once, whoever else writes, and the same bytes for the same runs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
store_module = pytest.importorskip("sb3_smac.benchmark.store")
Run, Store, curve = store_module.Run, store_module.Store, store_module.curve

KEY = "smac/CartPole-v1/seed0-0123abcd"
PACK = {"runs.jsonl", "episodes.parquet", "updates.parquet"}


def make_run(key: str = KEY, returns: tuple[float, ...] = (10.0, 20.123456789), status: str = "finished") -> Any:
    label, task, seed = key.split("/")
    episodes = curve("episodes", [(10, returns[0], 10, 0.5), (30, returns[1], 20, 1.25)])
    updates = curve("updates", [(30, -0.7, 0.01, float("nan"))])
    info = {"label": label, "task": task, "seed": int(seed[4:-9]), "algorithm": label, "status": status, "budget": 30}
    info |= {"hyperparameters": {"gamma": 0.9}, "defaults": {"n_steps": 5}}
    return Run(key, info, episodes, updates, curve("evaluations"))


def keys(count: int) -> list[str]:
    return [f"smac/CartPole-v1/seed{seed}-0123abcd" for seed in range(count)]


def filled(root: Path, names: list[str], pack: bool = False) -> Any:
    store = Store(root)
    for key in names:
        store.write(make_run(key))
    if pack:
        assert store.pack() == len(names)
    return store


def pack_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


def returns(store: Any) -> list[float]:
    (run,) = store.runs()
    return run.episodes["return"].tolist()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_what_is_written_is_read(tmp_path: Path, packed: bool, anew: bool) -> None:
    store = filled(tmp_path, [KEY], packed)
    (run,) = (Store(tmp_path) if anew else store).runs()
    assert (run.key, run.label, run.task, run.seed, run.algorithm) == (KEY, "smac", "CartPole-v1", 0, "smac")
    assert run.hyperparameters == {"gamma": 0.9, "n_steps": 5}
    assert run.episodes["return"].tolist() == [10, 20.1235]  # six digits
    assert run.updates["approx_kl"].isna().all() and run.evaluations.empty
    assert run.agrees_with(make_run())
    for name, columns in store_module.CURVES.items():
        assert {column: str(kind) for column, kind in getattr(run, name).dtypes.items()} == columns


def test_the_same_runs_are_the_same_few_files(tmp_path: Path) -> None:
    """Whatever their order, and whether they were packed at once or one by one; packing anew changes nothing."""
    filled(tmp_path / "a", keys(3), pack=True)
    for key in reversed(keys(3)):
        filled(tmp_path / "b", [key], pack=True)
    before = pack_of(tmp_path / "a")
    assert set(before) == PACK and before == pack_of(tmp_path / "b")
    lines = [json.loads(line) for line in before["runs.jsonl"].splitlines()]
    assert [line["key"] for line in lines] == keys(3)
    assert lines[0]["summary"] == {"final_return": 20.1235, "last_evaluation": None, "mean_training_return": 16.749}
    store = filled(tmp_path / "a", [KEY])  # is there already
    assert store.pack() == 0
    assert pack_of(tmp_path / "a") == before and not list((tmp_path / "a" / ".runs").glob("*/"))


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert store.pack() == 0
    assert store.finished() == store.failed() == store.runs() == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_a_finished_run_stays_and_a_failed_one_gives_way(tmp_path: Path, packed: bool) -> None:
    store = Store(tmp_path)
    store.write(make_run(status="failed"))
    assert (store.failed(), store.finished()) == ([KEY], [])
    if packed:
        store.pack()
    store.write(make_run())
    other = Store(tmp_path / "empty")  # knows of nothing that is here
    other.root = tmp_path
    for later in (make_run(status="failed"), make_run(returns=(1.0, 2.0))):
        other.write(later)
        for same in (store, Store(tmp_path)):
            assert (same.failed(), same.finished(), returns(same)) == ([], [KEY], [10, 20.1235])
        store.pack()


@pytest.mark.parametrize("target", [(os, "replace"), (store_module.pq, "write_table"), (os, "fsync")], ids=lambda it: it[1])
def test_a_write_that_failed_leaves_no_run_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: tuple[Any, str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    store = Store(tmp_path)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(*target, fail)
        store.write(make_run())
    assert Store(tmp_path).finished() == store.finished() == []
    store.write(make_run())
    assert Store(tmp_path).finished() == [KEY]


@pytest.mark.parametrize("survives", range(6))
def test_packing_that_breaks_off_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int) -> None:
    """At every file that is replaced, and at every run that goes from scratch."""
    filled(tmp_path, [KEY], pack=True)
    store = filled(tmp_path, keys(3))
    left = survives

    def breaking(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", breaking(os.replace))
        patch.setattr(Path, "unlink", breaking(Path.unlink))
        patch.setattr(store_module.shutil, "rmtree", breaking(store_module.shutil.rmtree))
        store.pack()
    for same in (store, Store(tmp_path)):
        assert same.finished() == keys(3)
        assert all(run.agrees_with(make_run(run.key)) for run in same.runs())
    Store(tmp_path).pack()
    filled(tmp_path / "whole", keys(3), pack=True)
    assert pack_of(tmp_path) == pack_of(tmp_path / "whole")


def test_what_appears_is_on_the_disk_and_its_list_of_runs_is_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/proc/self/fd").exists():
        pytest.skip("names the files of descriptors by /proc")
    events, fsync, replace = [], os.fsync, os.replace

    def flushed(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def replaced(old: Path, new: Path) -> None:
        assert events.pop() == Path(old).name
        replace(old, new)
        events.append(Path(new).name)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    filled(tmp_path, [KEY], pack=True)
    assert len(events) == 6 and events[2] == events[-1] == "runs.jsonl" and set(events) == PACK


def test_two_machines_of_one_name_do_not_touch_each_others_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers share hostname and process number; the other one writes and packs in the middle of a write."""
    monkeypatch.setattr("socket.gethostname", lambda: "container")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    mine, *others = keys(3)
    replace, entered = os.replace, False

    def interrupted(old: Path, new: Path) -> None:
        nonlocal entered
        if not entered:
            entered = True
            filled(tmp_path, others, pack=True)
        replace(old, new)

    monkeypatch.setattr(os, "replace", interrupted)
    filled(tmp_path, [mine])
    assert entered and Store(tmp_path).finished() == [mine, *others]


def test_packing_removes_what_was_left_half_written_long_ago(tmp_path: Path) -> None:
    for name, age in (("old", 2 * 24 * 3600), ("new", 60)):
        (tmp_path / ".runs" / name).mkdir(parents=True)
        os.utime(tmp_path / ".runs" / name, (time.time() - age,) * 2)
    store = filled(tmp_path, [KEY], pack=True)
    assert [path.name for path in (tmp_path / ".runs").glob("*/")] == ["new"]
    assert store.finished() == [KEY]


def test_a_killed_process_leaves_its_runs_to_the_next(tmp_path: Path) -> None:
    program = "import os, sys, test_benchmark_store as t; t.Store(sys.argv[1]).write(t.make_run()); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment).returncode == -9
    store = Store(tmp_path)
    assert store.finished() == [KEY] and store.pack() == 1
    assert set(pack_of(tmp_path)) == PACK


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_reader_sees_every_run_whole_while_another_process_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    filled(tmp_path, [KEY])
    reader, read_curves = Store(tmp_path), store_module._read_curves
    if moment == "before":
        assert reader.finished() == [KEY]
        Store(tmp_path).pack()
    else:

        def packed_meanwhile(path: Path) -> Any:
            monkeypatch.setattr(store_module, "_read_curves", read_curves)
            Store(tmp_path).pack()
            return read_curves(path)

        monkeypatch.setattr(store_module, "_read_curves", packed_meanwhile)
    assert returns(reader) == [10, 20.1235]


def test_the_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(tmp_path, keys(3), pack=True)
    reads, read = [], store_module._read
    monkeypatch.setattr(store_module, "_read", lambda folder: reads.append(folder) or read(folder))
    store = Store(tmp_path)
    for _ in range(5):
        assert store.finished() == keys(3)
        store.failed()
        store.write(make_run())
        store.runs()
    assert reads == [tmp_path]


def test_merge_loses_and_doubles_nothing(tmp_path: Path) -> None:
    here, there = tmp_path / "here", Store(tmp_path / "there")
    same, conflicting, failed_here, new, failed_there = keys(5)
    store = filled(here, [same, conflicting])
    store.write(make_run(failed_here, status="failed"))
    store.pack()
    filled(there.root, [same, failed_here, new])
    there.write(make_run(conflicting, returns=(1.0, 2.0)))
    there.write(make_run(failed_there, status="failed"))
    assert store.merge(there.runs()) == ([failed_here, new], [conflicting])
    store.pack()
    assert (store.finished(), store.failed()) == ([same, conflicting, failed_here, new], [])
    assert store.runs([conflicting])[0].episodes["return"].tolist() == [10, 20.1235]
    before = pack_of(here)
    assert Store(here).merge(there.runs()) == ([], [conflicting])
    assert Store(here).pack() == 0
    assert pack_of(here) == before and len(before["runs.jsonl"].splitlines()) == 4


def test_merge_gives_the_same_pack_from_either_side(tmp_path: Path) -> None:
    halves = filled(tmp_path / "a", keys(5)[::2]), filled(tmp_path / "b", keys(5)[1::2], pack=True)
    for name, sides in {"c": halves, "d": halves[::-1]}.items():
        both = Store(tmp_path / name)
        for side in sides:
            both.merge(side.runs())
        both.pack()
        assert both.finished() == keys(5)
    assert pack_of(tmp_path / "c") == pack_of(tmp_path / "d")
