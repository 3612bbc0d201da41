"""The entry point's own messages, and errors that must be understood."""

import importlib.metadata
import importlib.util
import re

import pytest

from sb3_smac import ALGORITHMS
from sb3_smac.zoo.__main__ import COMMANDS, main

needs_zoo = pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="the extra [zoo] is not installed")


@pytest.mark.parametrize("arguments, status", [(["--help"], 0), ([], 2)])
def test_help_names_every_command(arguments: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == status
    output = capsys.readouterr().out
    assert all(f"  {command} " in output for command in COMMANDS)


@needs_zoo
def test_console_script() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="sb3-smac-zoo")
    assert script.load() is main


def test_unknown_command() -> None:
    message = main(["trian"])
    assert isinstance(message, str)
    assert message.startswith("unknown command 'trian': choose from train, enjoy, ")


def test_without_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["train"]) == "The RL Zoo is not installed: pip install '.[zoo]' in a checkout of sb3_smac"


@needs_zoo
def test_the_zoo_s_own_algorithms_keep_their_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--algo", "a2c", "--env", "CartPole-v1", "-n", "40", "--eval-freq", "-1"]) == 0
    assert re.search(r"Loading hyperparameters from: .*rl_zoo3/hyperparams/a2c.yml", capsys.readouterr().out)


@needs_zoo
def test_unknown_algorithm(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "--algo", "smacc"])
    error = capsys.readouterr().err
    assert "argument --algo: invalid choice: 'smacc'" in error
    assert all(algo in error for algo in ("ppo", *ALGORITHMS))


@needs_zoo
def test_unknown_environment() -> None:
    with pytest.raises(ValueError, match=r"CartPole-v9 not found in gym registry, you maybe meant CartPole-v1\?"):
        main(["train", "--algo", "smac", "--env", "CartPole-v9"])
