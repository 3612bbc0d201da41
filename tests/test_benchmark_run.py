"""One run: what is recorded, that it can be repeated, and that its measurements do not disturb it."""

import json
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("rl_zoo3")

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

import sb3_smac
from sb3_smac import NonFiniteError
from sb3_smac.benchmark import run as module
from sb3_smac.benchmark import settings
from sb3_smac.benchmark.run import build, check, run
from sb3_smac.benchmark.store import CURVES, Run
from sb3_smac.benchmark.study import Job

HORIZON = 50


def make_job(algorithm: str = "smac", task: str = "Pendulum-v1", **changes: Any) -> Job:
    hyperparameters: dict[str, Any] = {"policy": "MlpPolicy", "n_steps": 300, "normalize": True}
    hyperparameters = settings.with_horizon({**hyperparameters, **changes.pop("hyperparameters", {})}, HORIZON)
    job = Job(algorithm, algorithm, task, 0, 1200, HORIZON, hyperparameters, None)
    return replace(job, **changes)


@pytest.fixture(scope="module")
def finished() -> Run:
    return run(make_job())


def test_a_finished_run(finished: Run) -> None:
    assert finished.info["status"] == "finished", finished.info.get("traceback")
    assert finished.key == make_job().key
    for name, columns in CURVES.items():
        assert getattr(finished, name).columns.tolist() == [*columns]
    episodes = finished.episodes
    assert list(episodes["timestep"]) == list(range(HORIZON, 1201, HORIZON))
    assert set(episodes["length"]) == {HORIZON}
    assert episodes["wall_time"].is_monotonic_increasing


def test_returns_are_the_raw_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recomputed outside of the monitor; normalised ones would be smaller."""
    total, returns = 0.0, []
    step_wait = VecNormalize.step_wait

    def counting(self: VecNormalize) -> Any:
        nonlocal total
        result = step_wait(self)
        total += float(self.get_original_reward()[0])
        if result[2][0]:
            returns.append(total)
            total = 0.0
        return result

    monkeypatch.setattr(VecNormalize, "step_wait", counting)
    recorded = run(make_job()).episodes["return"]
    assert np.allclose(recorded, returns, rtol=1e-4)


def test_updates(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    updates = finished.updates
    assert list(updates["timestep"]) == [600, 1200]  # updates every 300 timesteps share rows of at least 500
    assert np.allclose(updates["approx_kl"], 0.05, rtol=0.5)
    assert updates["update_time"].sum() == pytest.approx(finished.info["duration"]["update"], abs=1e-3)
    assert 0 < finished.info["duration"]["update"] < finished.info["duration"]["total"]

    monkeypatch.setattr(module, "RESOLUTION", 1)
    logged: list[float] = []
    train = sb3_smac.SMAC.train

    def logging(self: sb3_smac.SMAC) -> None:
        train(self)
        logged.append(self.logger.name_to_value["train/log_prob"])

    monkeypatch.setattr(sb3_smac.SMAC, "train", logging)
    every = run(make_job()).updates
    assert list(every["timestep"]) == [300, 600, 900, 1200]
    assert np.allclose(every["log_prob"], logged, rtol=1e-5)  # the algorithm's own, of the actions taken
    pairs = every["log_prob"].to_numpy().reshape(2, 2).mean(1)
    assert np.allclose(updates["log_prob"], pairs)


def test_again_is_the_same(finished: Run) -> None:
    again = run(make_job())
    assert again.agrees_with(finished)
    assert again.updates["log_prob"].equals(finished.updates["log_prob"])
    assert not run(make_job(seed=1)).agrees_with(finished)


def test_evaluations_do_not_disturb_training(finished: Run) -> None:
    evaluated = run(make_job(evaluation={"every": 400, "episodes": 3}))
    assert evaluated.episodes["return"].equals(finished.episodes["return"])
    assert list(evaluated.evaluations["timestep"]) == [400, 800, 1200]
    assert list(evaluated.evaluations["episodes"]) == [3, 3, 3]
    assert (evaluated.evaluations["mean"] < -1.5 * HORIZON / 10).all()  # raw rewards
    # Without the time of the evaluations
    assert evaluated.evaluations["wall_time"].is_monotonic_increasing
    training = evaluated.info["duration"]["total"] - evaluated.info["duration"]["evaluation"]
    assert 0 < evaluated.evaluations["wall_time"].iloc[-1] <= training
    assert 0 < evaluated.info["duration"]["evaluation"] < evaluated.info["duration"]["total"]


def test_evaluations_use_the_frozen_statistics_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    def evaluate(model: BaseAlgorithm, env: VecNormalize, episodes: int, **kwargs: Any) -> tuple[list[float], list[int]]:
        training_env = model.get_vec_normalize_env()
        assert training_env is not None
        same = np.allclose(training_env.obs_rms.mean, env.obs_rms.mean) and training_env.obs_rms.count > 100
        seen.append((same, env.training, env.norm_reward))
        return [0.0] * episodes, [1] * episodes

    monkeypatch.setattr(module, "evaluate_policy", evaluate)
    run(make_job(evaluation={"every": 600, "episodes": 1}))
    assert seen == [(True, False, False)] * 2


@pytest.mark.parametrize(
    ("algorithm", "hyperparameters"),
    [
        *((name, {}) for name in ("accg", "acsgd", "acadam", "trpo", "a2c")),
        ("ppo", {"n_envs": 2, "learning_rate": "lin_1e-3", "policy_kwargs": "dict(net_arch=[8])"}),  # as the Zoo writes them
        ("smac", {"batch_size": 100, "fisher_rank": "full"}),
    ],
)
def test_algorithms(algorithm: str, hyperparameters: dict[str, Any]) -> None:
    result = run(make_job(algorithm, hyperparameters=hyperparameters))
    assert result.info["status"] == "finished", result.info.get("traceback")
    assert result.episodes["length"].eq(HORIZON).all()
    assert result.updates["log_prob"].notna().all()


def test_off_policy_peers_have_no_log_probability() -> None:
    hyperparameters = settings.with_horizon({"policy": "MlpPolicy", "learning_starts": 100}, HORIZON)
    result = run(replace(make_job(), algorithm="dqn", task="CartPole-v1", budget=700, hyperparameters=hyperparameters))
    assert result.info["status"] == "finished", result.info.get("traceback")
    assert result.updates["log_prob"].isna().all()
    assert len(result.updates) == 2  # not one per update


def test_what_goes_wrong_is_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object) -> None:
        raise NonFiniteError("too large")

    monkeypatch.setattr(sb3_smac.SMAC, "train", fail)
    result = run(make_job())
    assert not result.finished
    assert "NonFiniteError: too large" in result.info["traceback"]
    assert result.episodes.empty
    assert result.key == make_job().key


def test_what_it_was_made_with(finished: Run) -> None:
    info = json.loads(json.dumps(finished.info))
    for name, value in make_job().configuration.items():
        assert info[name] == value
    assert info["defaults"]["gamma"] == 0.99 and not info["defaults"].keys() & info["hyperparameters"].keys()
    assert finished.hyperparameters.keys() >= settings.defaults("smac").keys()
    assert info["versions"]["gymnasium"] == gym.__version__
    assert {"python", "torch", "numpy", "mujoco", "stable-baselines3", "sb3-contrib", "sb3_smac"} <= set(info["versions"])
    assert info["machine"]["cores"] >= 1
    if (Path(sb3_smac.__file__).parents[1] / ".git").exists():
        assert len(info["revision"]["commit"]) == 40


def test_the_model_has_the_hyperparameters() -> None:
    with ExitStack() as envs:
        job = make_job(hyperparameters={"damping": 0.3, "target_kl": None, "learning_rate": 0.02})
        model, _, evaluation_env = build(job, envs)
    assert evaluation_env is None
    assert isinstance(model, sb3_smac.SMAC)
    assert (model.damping, model.target_kl, model.n_steps, model.seed) == (0.3, None, 300, 0)
    assert model.lr_schedule(1) == 0.02
    assert model.get_vec_normalize_env() is not None


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"damping": -1}, "smac on Pendulum-v1: damping must be None or a finite number > 0, got -1"),
        ({"batch_size": 301}, "batch_size must be None or between 1 and 300"),
        ({"policy": "CnnPolicy"}, "smac on Pendulum-v1: "),
    ],
)
def test_bad_values_are_found_before_anything_runs(hyperparameters: dict[str, Any], message: str) -> None:
    check(make_job())
    with pytest.raises(ValueError, match=message):
        check(make_job(hyperparameters=hyperparameters))
