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


def pack_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.is_file()}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_what_is_written_is_read(tmp_path: Path, packed: bool, anew: bool) -> None:
    store = Store(tmp_path)
    store.write(make_run())
    if packed:
        assert store.pack() == 1
    store = Store(tmp_path) if anew else store
    run = store.load(KEY)
    assert store.finished() == [KEY]
    assert (run.label, run.task, run.seed, run.algorithm) == ("smac", "CartPole-v1", 0, "smac")
    assert run.hyperparameters == {"gamma": 0.9, "n_steps": 5}
    assert list(run.episodes["timestep"]) == [10, 30]
    assert list(run.episodes["return"]) == [10, 20.1235]  # six digits
    assert run.updates["approx_kl"].isna().all()
    assert run.evaluations.empty
    assert run.agrees_with(make_run())
    for name, columns in store_module.CURVES.items():
        assert {column: str(kind) for column, kind in getattr(run, name).dtypes.items()} == columns


def test_a_pack_is_a_few_files_and_a_line_a_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in keys(3):
        store.write(make_run(key))
    assert store.pack() == 3
    assert set(pack_of(tmp_path)) == PACK
    assert list((tmp_path / ".runs").glob("*/")) == []
    lines = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert [line["key"] for line in lines] == keys(3)
    assert lines[0]["summary"]["final_return"] == 20.1235
    assert lines[0]["summary"]["last_evaluation"] is None


def test_the_same_runs_are_the_same_bytes(tmp_path: Path) -> None:
    """Whatever their order, and whether they were packed at once or one by one; packing anew changes nothing."""
    for name, order, step in (("a", keys(4), False), ("b", keys(4)[::-1], True)):
        store = Store(tmp_path / name)
        for key in order:
            store.write(make_run(key))
            if step:
                store.pack()
        store.pack()
    assert pack_of(tmp_path / "a") == pack_of(tmp_path / "b")
    before = pack_of(tmp_path / "a")
    assert Store(tmp_path / "a").pack() == 0
    store = Store(tmp_path / "a")
    store.write(make_run())  # is there already
    store.pack()
    assert pack_of(tmp_path / "a") == before


def test_a_folder_that_is_not_there_has_no_runs(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    store.clean()
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
    for later in (make_run(status="failed"), make_run(returns=(1.0, 2.0))):
        store.write(later)
        store.pack()
        for same in (store, Store(tmp_path)):
            assert (same.failed(), same.finished()) == ([], [KEY])
            assert list(same.load(KEY).episodes["return"]) == [10, 20.1235]


def test_a_write_that_failed_leaves_nothing_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)

    def fail(*arguments: object, **options: object) -> None:
        raise OSError("disk full")

    for target in (Path, "rename"), (store_module.pq, "write_table"), (os, "fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(*target, fail)
            with pytest.raises(OSError, match="disk full"):
                store.write(make_run())
        assert Store(tmp_path).finished() == store.finished() == []
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    store.write(make_run())
    assert Store(tmp_path).finished() == [KEY]


@pytest.mark.parametrize("survives", range(4))
def test_packing_that_breaks_off_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: int) -> None:
    """At every file that is replaced, and before the scratch goes."""
    store = Store(tmp_path)
    store.write(make_run())
    store.pack()
    for key in keys(3):
        store.write(make_run(key))
    count = 0
    replace, rename = os.replace, Path.rename

    def breaking(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal count
            count += 1
            if count > survives:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", breaking(replace))
        patch.setattr(Path, "rename", breaking(rename))
        with pytest.raises(KeyboardInterrupt):
            store.pack()
    for same in (store, Store(tmp_path)):
        assert same.finished() == keys(3)
        assert all(run.agrees_with(make_run(run.key)) for run in same.runs())
    Store(tmp_path).pack()
    whole = Store(tmp_path / "whole")
    for key in keys(3):
        whole.write(make_run(key))
    whole.pack()
    assert pack_of(tmp_path) == pack_of(tmp_path / "whole")


def test_a_write_is_on_the_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is flushed before its folder gets its name, and the folder of that name after it."""
    events = []
    fsync, rename = os.fsync, Path.rename

    def flushed(descriptor: int) -> None:
        events.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        fsync(descriptor)

    def renamed(path: Path, target: Path) -> Path:
        events.append("rename")
        return rename(path, target)

    if not Path("/proc/self/fd").exists():
        pytest.skip("names the files of descriptors by /proc")
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "rename", renamed)
    store = Store(tmp_path)
    store.write(make_run())
    at = events.index("rename")
    assert PACK <= set(events[:at])
    assert events[at + 1 :] == [".runs"]
    events.clear()
    store.pack()
    assert PACK <= set(events[: events.index("rename")])
    assert tmp_path.name in events


def test_two_machines_of_one_name_do_not_touch_each_others_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers share hostname and process number; the other one writes, cleans and packs in the middle of a write."""
    monkeypatch.setattr("socket.gethostname", lambda: "container")
    monkeypatch.setattr(os, "getpid", lambda: 1)
    mine, other, third = keys(3)
    rename, entered = Path.rename, False

    def interrupted(path: Path, target: Path) -> Path:
        nonlocal entered
        if not entered:
            entered = True
            store = Store(tmp_path)
            store.clean()
            for key in (other, third):
                store.write(make_run(key))
            store.pack()
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    Store(tmp_path).write(make_run(mine))
    assert entered
    assert Store(tmp_path).finished() == [mine, other, third]


def test_clean_removes_only_what_was_left_long_ago(tmp_path: Path) -> None:
    scratch = tmp_path / ".runs"
    for name, age in (("old", 2 * 24 * 3600), ("new", 60)):
        (scratch / f".partial-{name}").mkdir(parents=True)
        os.utime(scratch / f".partial-{name}", (time.time() - age,) * 2)
    store = Store(tmp_path)
    store.write(make_run())
    store.clean()
    assert [path.name for path in scratch.glob(".partial-*")] == [".partial-new"]
    assert store.finished() == [KEY]


def test_a_killed_process_leaves_its_runs_to_the_next(tmp_path: Path) -> None:
    program = "import os, sys, test_benchmark_store as t; t.Store(sys.argv[1]).write(t.make_run()); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])}
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment).returncode == -9
    store = Store(tmp_path)
    assert store.finished() == [KEY]
    assert store.pack() == 1
    assert set(pack_of(tmp_path)) == PACK


def test_a_reader_goes_on_while_another_process_packs(tmp_path: Path) -> None:
    Store(tmp_path).write(make_run())
    reader = Store(tmp_path)
    assert reader.finished() == [KEY]
    Store(tmp_path).pack()
    assert reader.load(KEY).agrees_with(make_run())


def test_the_folder_is_scanned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for key in keys(3):
        store.write(make_run(key))
    store.pack()
    scans = []
    lines = store_module._lines
    monkeypatch.setattr(store_module, "_lines", lambda folder: scans.append(folder) or lines(folder))
    store = Store(tmp_path)
    for _ in range(5):
        assert store.finished() == keys(3)
        store.failed()
        store.write(make_run())
        store.runs()
    assert scans == [tmp_path]


def test_merge_loses_and_doubles_nothing(tmp_path: Path) -> None:
    here, there = Store(tmp_path / "here"), Store(tmp_path / "there")
    same, conflicting, failed_here, new, failed_there = keys(5)
    here.write(make_run(same))
    here.write(make_run(conflicting))
    here.write(make_run(failed_here, status="failed"))
    here.pack()
    for key in (same, failed_here, new):
        there.write(make_run(key))
    there.write(make_run(conflicting, returns=(1.0, 2.0)))
    there.write(make_run(failed_there, status="failed"))
    assert here.merge(there.runs()) == ([failed_here, new], [conflicting])
    here.pack()
    assert here.finished() == [same, conflicting, failed_here, new]
    assert here.failed() == []
    assert list(here.load(conflicting).episodes["return"]) == [10, 20.1235]
    before = pack_of(tmp_path / "here")
    assert here.merge(there.runs()) == ([], [conflicting])
    here.pack()
    assert pack_of(tmp_path / "here") == before
    assert len(before["runs.jsonl"].splitlines()) == 4


def test_merge_gives_the_same_pack_from_either_side(tmp_path: Path) -> None:
    halves = [Store(tmp_path / name) for name in "ab"]
    for index, key in enumerate(keys(5)):
        halves[index % 2].write(make_run(key))
    halves[1].pack()
    for name, (one, other) in {"c": halves, "d": halves[::-1]}.items():
        both = Store(tmp_path / name)
        both.merge(one.runs())
        both.merge(other.runs())
        both.pack()
    assert pack_of(tmp_path / "c") == pack_of(tmp_path / "d")
    assert Store(tmp_path / "c").finished() == keys(5)
