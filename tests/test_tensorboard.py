"""TensorBoard: names of the runs, every documented key, and hyperparameters."""

from pathlib import Path

import gymnasium as gym
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from sb3_smac import ALGORITHMS
from tests.algorithms import TABLE, every_algorithm, make
from tests.test_logger import ROLLOUT_KEYS, TRAIN_KEYS

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")

# Stable-Baselines3 keeps counters out of TensorBoard: they are its horizontal axis
IN_TENSORBOARD = (TRAIN_KEYS - {"train/n_updates"}) | {"train/std", "time/fps"} | ROLLOUT_KEYS


class HyperparametersCallback(BaseCallback):
    """Shows hyperparameters beside metrics in TensorBoard's HParams tab."""

    def _on_training_start(self) -> None:
        hyperparameters = {"algorithm": type(self.model).__name__, "gamma": self.model.gamma, "n_steps": self.model.n_steps}
        metrics = {"rollout/ep_rew_mean": 0.0, "train/value_loss": 0.0}
        self.logger.record("hparams", HParam(hyperparameters, metrics), exclude=("stdout", "log", "json", "csv"))

    def _on_step(self) -> bool:
        return True


def events(folder: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return accumulator


@every_algorithm
def test_keys_and_hyperparameters(algo: str, tmp_path: Path) -> None:
    """Every key is a curve over timesteps, and the hyperparameters are in the event file."""
    env = gym.make("Pendulum-v1", max_episode_steps=10)
    model = make(algo, env, tensorboard_log=str(tmp_path)).learn(96, callback=HyperparametersCallback())
    read = events(tmp_path / f"{ALGORITHMS[algo].__name__}_1")
    assert IN_TENSORBOARD | set(TABLE[algo].log_keys) <= set(read.Tags()["scalars"])
    assert [event.step for event in read.Scalars("rollout/ep_rew_mean")] == [32, 64, 96]
    assert [event.step for event in read.Scalars("train/value_loss")] == [64, 96]  # with the rollout that follows the update

    metadata = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(metadata).session_start_info.hparams
    assert started["algorithm"].string_value == type(model).__name__
    assert (started["gamma"].number_value, started["n_steps"].number_value) == (0.99, 32)


@every_algorithm
def test_names_of_runs(algo: str, tmp_path: Path) -> None:
    """A run is named after its class, numbered, and goes on in the same folder if the timesteps do."""
    name = ALGORITHMS[algo].__name__
    model = make(algo, tensorboard_log=str(tmp_path)).learn(32)
    model.learn(32, reset_num_timesteps=False)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}_1"}
    model.learn(32)
    model.learn(32, tb_log_name="mine")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}_1", f"{name}_2", "mine_1"}


@every_algorithm
def test_nothing_is_written_unasked(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make(algo).learn(64)
    assert list(tmp_path.iterdir()) == []
