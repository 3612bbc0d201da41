"""``benchmarks/speed`` measures what it says that it measures, and runs from end to end; what an update needs of memory."""

import csv
import importlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac.common.actor_batch import make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.maths import unflatten

for package in ("matplotlib", "pandas", "tabulate"):
    pytest.importorskip(package)

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
OBSERVATION_SIZE, ACTION_SIZE, HIDDEN = 5, 2, (16, 16)


@pytest.fixture(scope="module")
def speed() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        for module in ("actor", "gpu", "growth", "learn", "memory", "models", "report", "summary", "timing", "update"):
            importlib.import_module(f"speed.{module}")
        return importlib.import_module("speed")


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


def make_update(speed: ModuleType, name: str, size: int, width: int = 64) -> Any:
    env = DummyVecEnv([lambda: speed.models.RandomTask(11, 3)] * 4)
    return speed.update.Update(name, env, size, (width, width))


def test_interleaved_and_ratio(speed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(speed.timing, "time", clock)
    functions = {"slow": partial(clock.pass_by, 0.5), "fast": partial(clock.pass_by, 0.125)}
    prepare = {"slow": partial(clock.pass_by, 100.0)}  # outside of the time
    times = speed.timing.interleaved(functions, seconds=0.25, turn=0.25, prepare=prepare)
    assert times == {"slow": [0.5] * 3, "fast": [0.125] * 3}
    assert speed.timing.ratio([2.0, 9.0, 4.0], [1.0, 1.0, 2.0]) == 2


def test_peak_memory_counts_what_is_alive_at_once(speed: ModuleType) -> None:
    def allocate() -> None:
        first = th.zeros(1000)
        second = first + 1
        del first
        third = th.zeros(1000)
        del second, third

    def allocate_arrays() -> None:
        for _ in range(3):
            np.zeros(100_000)

    assert speed.timing.peak_memory(allocate) == pytest.approx(8000, abs=100)
    assert speed.timing.peak_numpy_memory(allocate_arrays) == pytest.approx(800_000, rel=0.01)


def test_updates_start_from_the_same(speed: ModuleType) -> None:
    for name in ("SMAC, full", "AC-Adam", "PPO", "TRPO"):
        update = make_update(speed, name, 64, 8)
        after = []
        for _ in range(2):
            update.restore()
            before = [parameter.clone() for parameter in update.model.policy.parameters()]
            np.random.seed(0)  # PPO's minibatches
            update()
            after.append([parameter.clone() for parameter in update.model.policy.parameters()])
        assert any(not th.equal(old, new) for old, new in zip(before, after[0], strict=True)), name
        for first, second in zip(*after, strict=True):
            th.testing.assert_close(first, second, rtol=0, atol=0)


def test_actor_update_leaves_the_critic(speed: ModuleType) -> None:
    for name in ("SMAC", "AC-CG", "TRPO"):
        actor = speed.actor.ActorUpdate(make_update(speed, name, 64, 8))
        actor.restore()
        policy = actor.update.model.policy
        networks = policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net
        before = [th.nn.utils.parameters_to_vector(network.parameters()) for network in networks]
        actor()
        after = [th.nn.utils.parameters_to_vector(network.parameters()) for network in networks]
        assert not th.equal(before[0], after[0]) and th.equal(before[1], after[1]), name


def test_hidden_width(speed: ModuleType) -> None:
    for n_parameters in (1e3, 1e5):
        width = speed.growth.hidden_width(n_parameters, OBSERVATION_SIZE, ACTION_SIZE)
        env = speed.models.RandomTask(OBSERVATION_SIZE, ACTION_SIZE)
        model = speed.models.build_step("AC-SGD", env, 8, (width, width))
        assert sum(each.numel() for each in model.actor_parameters) == pytest.approx(n_parameters, rel=0.05)


def test_materialised_scores_give_the_full_step(speed: ModuleType) -> None:
    data = speed.models.Data.random(50, OBSERVATION_SIZE, ACTION_SIZE)
    model = speed.models.build_step("SMAC, full", speed.models.RandomTask(OBSERVATION_SIZE, ACTION_SIZE), 50, HIDDEN)
    direction = unflatten(
        model.actor_direction(make_actor_batch(Evaluator(model.policy), model.actor_parameters, *data)), model.actor_parameters
    )
    solve = speed.actor.MaterialisedSolve(model.policy, model._damping_of(50, 50))
    materialised = unflatten(solve.direction(data), list(solve.parameters.values()))
    expected = dict(zip(model.actor_parameters, direction, strict=True))
    for parameter, actual in zip(solve.parameters.values(), materialised, strict=True):
        th.testing.assert_close(actual, expected[parameter], rtol=1e-3, atol=1e-5)


def test_exponent(speed: ModuleType) -> None:
    rows = [{"N": size, "ms": 0.1 * size**1.5 + 1e-3} for size in (100, 200, 400, 800)]
    assert speed.growth.exponent(rows, "N", "ms") == pytest.approx(1.5, abs=0.01)


def test_what_would_take_too_long_is_left_out(speed: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed.growth, "LONGEST", 0.0)
    rows, left_out = speed.growth.grow("N", [(32, 8), (64, 8)], "cpu", ["AC-SGD"], seconds=0)
    assert [row["N"] for row in rows] == [32]
    assert len(left_out) == 1 and "AC-SGD from N = 64" in left_out[0]


def test_devices_side_by_side(speed: ModuleType) -> None:
    row = speed.gpu.compare("SMAC", 64, 8, "cpu", seconds=0)  # the CPU beside itself
    assert row["N"] == 64 and row["GPU / CPU"] > 0
    slow, fast = ({"train()": "SMAC", "d": d, "N": 64, "GPU / CPU": ratio} for d, ratio in ((10, 2.0), (1000, 0.5)))
    assert speed.gpu.pays_from([fast, slow]) == "SMAC, d = 1,000 and N = 64"
    assert speed.gpu.pays_from([slow]) == "none of these sizes"


def test_all_aims_are_measured(speed: ModuleType) -> None:
    learn = [
        {"task": setting.task, "environments": setting.n_envs, "simulator": simulator, "algorithm": name}
        for setting in speed.learn.SETTINGS
        for simulator in setting.simulators
        for name in setting.algorithms
    ]
    networks = speed.models.NETWORKS
    update = [{"network": network, "train()": name} for network in networks for name in speed.update.NAMES]
    actor = [{"network": network, "actor's update": name} for network in networks for name in speed.actor.OURS]
    numbers = {ratio.column: 0.5 for ratio in speed.summary.RATIOS}
    tables = {"learn": learn, "update": update, "actor": actor, "memory": update}
    rows = speed.summary.summary({name: [{**row, **numbers} for row in rows] for name, rows in tables.items()}).rows
    aims = {(row["ratio"], row["of"]): row for row in rows if row["aim"]}
    assert len(aims) == sum(len(ratio.aims) for ratio in speed.summary.RATIOS)
    assert aims["train() over PPO's", "Hopper, 64x64"]["aim"] == "SMAC, full: 0.15"
    assert all(row["SMAC"] == row["SMAC, full"] == 0.5 for row in rows)


def test_everything_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "speed"), "--quick", "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    expected = {"learn", "update", "actor", "actor_step", "single_sample", "memory", "rollout", "growth", "growth_exponents"}
    tables = {path.stem: list(csv.DictReader(path.open())) for path in tmp_path.glob("*.csv")}
    assert {*expected, "summary"} <= set(tables)
    words = {"network", "actor's update", "actor's step", "train()", "task", "simulator", "normalised", "algorithm", "grows"}
    for name in expected:
        numbers = [float(value) for row in tables[name] for column, value in row.items() if column not in words]
        assert numbers and np.isfinite(numbers).all(), name
    assert {row["algorithm"] for row in tables["learn"]} >= {"SMAC", "SMAC, full", "A2C", "PPO", "TRPO", "random actions"}
    assert float(tables["single_sample"][0]["largest difference"]) < 1e-5
    report = (tmp_path / "speed.md").read_text()
    assert result.stdout == report and report.count("\n\n| ") == len(tables)
    assert {path.suffix for path in tmp_path.glob("growth.*")} == {".csv", ".png", ".svg"}
