"""TensorBoard: names of the runs, and hyperparameters (tests/test_docs.py has the keys)."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from sb3_smac import SMAC
from tests.algorithms import make

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """Its callback, as printed there, puts hyperparameters into the event file; the last line, which trains, is ours."""
    page = (Path(__file__).parents[1] / "docs" / "pages" / "tensorboard.md").read_text(encoding="utf-8")
    (example,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "HParam(" in block)
    tree = ast.parse(example)
    tree.body.pop()
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(compile(tree, "tensorboard.md", "exec"), namespace)
    (callback,) = (value for value in namespace.values() if getattr(value, "__module__", None) == "page")
    make("smac", tensorboard_log=str(tmp_path)).learn(32, callback=callback())
    read = EventAccumulator(str(tmp_path / "SMAC_1"))
    read.Reload()
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    shown = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert shown["target_kl"].string_value == SMAC("MlpPolicy", "Pendulum-v1").target_kl


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
