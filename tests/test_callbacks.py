"""Stable-Baselines3's callbacks, and what they may do to a run."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)

from sb3_smac import SMAC
from tests.algorithms import is_same, make, snapshot


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_all_together(tmp_path: Path) -> None:
    """Evaluation, checkpoints and stopping rules in one list, with the progress bar; what they write can be loaded."""
    evaluation = EvalCallback(
        gym.make("Pendulum-v1"),
        n_eval_episodes=1,
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=1e6),
        callback_after_eval=StopTrainingOnNoModelImprovement(max_no_improvement_evals=10, min_evals=1),
        best_model_save_path=str(tmp_path),
        log_path=str(tmp_path),
        eval_freq=32,
        warn=False,
        verbose=0,
    )
    checkpoints = CheckpointCallback(save_freq=1, save_path=str(tmp_path), name_prefix="event")
    callbacks = [evaluation, EveryNTimesteps(48, checkpoints), LogEveryNTimesteps(16), StopTrainingOnMaxEpisodes(100)]
    model = make("smac").learn(96, callback=callbacks, progress_bar=True)
    assert np.load(tmp_path / "evaluations.npz")["timesteps"].tolist() == [32, 64, 96]
    assert sorted(path.name for path in tmp_path.glob("event*")) == ["event_48_steps.zip", "event_96_steps.zip"]
    assert SMAC.load(tmp_path / "event_48_steps").num_timesteps == 48
    assert SMAC.load(tmp_path / "best_model", env=model.get_env()).learn(32).num_timesteps == 32


def test_evaluation_and_checkpoints_do_not_disturb_training(tmp_path: Path) -> None:
    """The same training with and without them, bit for bit: deterministic evaluation draws no random numbers."""

    def train(callback: Any) -> dict[str, Any]:
        return snapshot(make("smac", target_kl=0.01).learn(96, callback=callback))

    evaluation = EvalCallback(gym.make("Pendulum-v1"), n_eval_episodes=1, eval_freq=20, warn=False, verbose=0)
    checkpoints = CheckpointCallback(save_freq=20, save_path=str(tmp_path))
    assert is_same(train(None), train(CallbackList([evaluation, checkpoints])))


@pytest.mark.parametrize("false", [False, np.bool_(False), th.tensor(False)], ids=["bool", "numpy", "torch"])
def test_stopping_within_a_rollout(false: Any) -> None:
    """No update is made on half a rollout, and training can go on afterwards."""

    class Stop(BaseCallback):
        def _on_step(self) -> Any:
            return false if self.n_calls == 5 else True

    model = make("smac")
    before = snapshot(model)
    model.learn(64, callback=Stop())
    assert (model.num_timesteps, model._n_updates) == (5, 0)
    assert is_same(before, snapshot(model))
    model.learn(32)
    assert model._n_updates == 1


def test_function_as_callback() -> None:
    """The old way, which may stop training too."""
    calls = []
    make("smac").learn(64, callback=lambda local, _: calls.append(local["n_steps"]) or len(calls) < 10)
    assert len(calls) == 10
