"""``benchmarks/speed.py`` measures what it says that it measures, and runs from end to end."""

import csv
import importlib
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch as th

from sb3_smac.common.actor_batch import make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.maths import unflatten

pytest.importorskip("matplotlib")

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
OBSERVATION_SIZE, ACTION_SIZE, HIDDEN = 5, 2, (16, 16)


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return importlib.import_module("speed")


def test_interleaved_and_ratio(speed: ModuleType) -> None:
    functions = {"slow": partial(time.sleep, 0.02), "fast": partial(time.sleep, 0.002)}
    times = speed.interleaved(functions, seconds=0.01, turn=0.01)
    assert list(times) == ["slow", "fast"]
    assert all(len(of_name) == 3 for of_name in times.values())
    assert min(times["slow"]) >= 0.02 > min(times["fast"]) >= 0.002
    assert speed.ratio([2.0, 9.0, 4.0], [1.0, 1.0, 2.0]) == 2


def test_peak_memory_counts_what_is_alive_at_once(speed: ModuleType) -> None:
    def allocate() -> None:
        first = th.zeros(1000)
        second = first + 1
        del first
        third = th.zeros(1000)
        del second, third

    assert speed.peak_memory(allocate, "cpu") == pytest.approx(8000, abs=100)


def test_hidden_width(speed: ModuleType) -> None:
    for n_parameters in (1e3, 1e5):
        width = speed.hidden_width(n_parameters, OBSERVATION_SIZE, ACTION_SIZE)
        env = speed.Spaces(OBSERVATION_SIZE, ACTION_SIZE)
        model = speed.build(speed.STEPS["AC-SGD"], env, 8, (width, width))
        assert sum(each.numel() for each in model.actor_parameters) == pytest.approx(n_parameters, rel=0.05)


def test_materialised_scores_give_the_full_step(speed: ModuleType) -> None:
    data = speed.Data.random(50, OBSERVATION_SIZE, ACTION_SIZE)
    model = speed.build(speed.STEPS["SMAC, full"], speed.Spaces(OBSERVATION_SIZE, ACTION_SIZE), 50, HIDDEN)
    direction = unflatten(
        model.actor_direction(make_actor_batch(Evaluator(model.policy), model.actor_parameters, *data)), model.actor_parameters
    )
    solve = speed.MaterialisedSolve(model)
    materialised = unflatten(solve.direction(data), list(solve.parameters.values()))
    expected = dict(zip(model.actor_parameters, direction, strict=True))
    for parameter, piece in zip(solve.parameters.values(), materialised, strict=True):
        th.testing.assert_close(piece, expected[parameter], rtol=1e-3, atol=1e-5)


def test_steps_move_every_policy_a_little(speed: ModuleType) -> None:
    data = speed.Data.random(200, OBSERVATION_SIZE, ACTION_SIZE)
    steps = speed.actor_steps(speed.Spaces(OBSERVATION_SIZE, ACTION_SIZE), HIDDEN, data)
    assert set(steps) == {*speed.STEPS, "plain autograd", "TRPO (sb3-contrib)", "materialised scores"}
    for name, step in steps.items():
        is_solve = name == "materialised scores"
        parameters = list(step.func.__self__.parameters.values() if is_solve else step.args[0].policy.parameters())
        before = [each.clone() for each in parameters]
        step()
        moves = [(each - old).abs().max().item() for each, old in zip(parameters, before, strict=True)]
        assert 0 < max(moves) < 1e-3, name


def test_exponent(speed: ModuleType) -> None:
    rows = [{"N": size, "ms": 0.1 * size**1.5 + 1e-3} for size in (100, 200, 400, 800)]
    assert speed.exponent(rows, "N", "ms") == pytest.approx(1.5, abs=0.01)


def test_what_would_take_too_long_is_left_out(speed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "GROWING", ("AC-SGD",))
    monkeypatch.setattr(speed, "LONGEST", 0.0)
    rows, left_out = speed.grow("N", [(32, 8), (64, 8)], "cpu")
    assert [row["N"] for row in rows] == [32]
    assert len(left_out) == 1 and "AC-SGD from N = 64" in left_out[0]


def test_everything_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "speed.py"), "--quick", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    expected = {"actor", "single_sample", "forward", "learn", "growth", "growth_exponents"}
    tables = {path.stem: list(csv.DictReader(path.open())) for path in tmp_path.glob("*.csv")}
    assert expected <= set(tables)
    for name, rows in tables.items():
        words = {"network", "actor step", "task", "normalised", "algorithm", "grows"}
        numbers = [float(value) for row in rows for column, value in row.items() if column not in words]
        assert numbers and np.isfinite(numbers).all(), name
    assert {row["algorithm"] for row in tables["learn"]} >= {"SMAC", "AC-CG", "A2C", "PPO", "TRPO", "random actions"}
    assert float(tables["single_sample"][0]["largest difference"]) < 1e-5
    report = (tmp_path / "speed.md").read_text()
    assert result.stdout.startswith(report) and report.count("\n\n| ") == len(tables)
    assert {path.suffix for path in tmp_path.glob("growth.*")} == {".csv", ".png", ".svg"}
