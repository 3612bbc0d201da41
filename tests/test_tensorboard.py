"""TensorBoard: names of the runs, every documented key, and hyperparameters."""

import ast
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HParam
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from sb3_smac import SMAC
from tests.algorithms import TABLE, make
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


def hyperparameters_in(read: EventAccumulator) -> Any:
    """Name and value of each hyperparameter that the HParams tab shows."""
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams


@pytest.mark.parametrize("algo", ["smac_full", "accg"])
def test_keys_and_hyperparameters(algo: str, tmp_path: Path) -> None:
    """Every key is a curve over timesteps, and the hyperparameters are in the event file."""
    env = gym.make("Pendulum-v1", max_episode_steps=10)
    model = make(algo, env, tensorboard_log=str(tmp_path)).learn(96, callback=HyperparametersCallback())
    read = events(tmp_path / f"{TABLE[algo].cls.__name__}_1")
    assert IN_TENSORBOARD | set(TABLE[algo].log_keys) <= set(read.Tags()["scalars"])
    assert [event.step for event in read.Scalars("rollout/ep_rew_mean")] == [32, 64, 96]
    assert [event.step for event in read.Scalars("train/value_loss")] == [64, 96]  # with the rollout that follows the update

    shown = hyperparameters_in(read)
    assert shown["algorithm"].string_value == type(model).__name__
    assert (shown["gamma"].number_value, shown["n_steps"].number_value) == (0.99, 32)


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """Its callback, as printed there, puts what it promises into the event file; the last line, which trains, is ours."""
    page = (Path(__file__).parents[1] / "docs" / "pages" / "tensorboard.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "HParam(" in block)
    tree = ast.parse(example)
    tree.body.pop()
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(tree, "tensorboard.md", "exec"), namespace)
    (callback,) = (value for value in namespace.values() if getattr(value, "__module__", None) == "page")
    make("smac", tensorboard_log=str(tmp_path)).learn(32, callback=callback())
    shown = hyperparameters_in(events(tmp_path / "SMAC_1"))
    assert shown["target_kl"].number_value == SMAC("MlpPolicy", "Pendulum-v1").target_kl


def test_names_of_runs(tmp_path: Path) -> None:
    """A run is named after its class, numbered, and goes on in the same folder if the timesteps do."""
    model = make("smac", tensorboard_log=str(tmp_path)).learn(32)
    model.learn(32, reset_num_timesteps=False)
    assert {path.name for path in tmp_path.iterdir()} == {"SMAC_1"}
    model.learn(32)
    model.learn(32, tb_log_name="mine")
    assert {path.name for path in tmp_path.iterdir()} == {"SMAC_1", "SMAC_2", "mine_1"}


def test_nothing_is_written_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make("smac").learn(64)
    assert list(tmp_path.iterdir()) == []
