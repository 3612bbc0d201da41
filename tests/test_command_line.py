"""``python -m sb3_smac``: every task, and options that are wrong."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from sb3_smac import ALGORITHMS
from sb3_smac.__main__ import main, parse_arguments

HELPERS = Path(__file__).parent / "zoo" / "helpers"
TASKS = {
    "CartPole": "MlpPolicy",
    "FrozenLake-v1": "MlpPolicy",
    "spaces_env:Spaces/Image-v0": "CnnPolicy",
    "spaces_env:Spaces/SmallImage-v0": "MlpPolicy",
    "spaces_env:Spaces/DictMixed-v0": "MultiInputPolicy",
    "spaces_env:Spaces/ActMultiBinary-v0": "MlpPolicy",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(HELPERS)


@pytest.mark.parametrize("number, task", list(enumerate(TASKS)))
def test_train_and_show(number: int, task: str, capsys: pytest.CaptureFixture[str]) -> None:
    algo = list(ALGORITHMS)[number % len(ALGORITHMS)]
    main(["--algo", algo, "--env", task, "-n", "32", "--output", "out"])
    (model,) = Path("out").glob("*.zip")
    assert model.name == f"{algo}_{task.replace(':', '-').replace('/', '-')}_seed0.zip"
    assert ALGORITHMS[algo].load(model).policy_class is ALGORITHMS[algo].policy_aliases[TASKS[task]]
    main(["--algo", algo, "--env", task, "--show", str(model)])
    assert "Mean return: " in capsys.readouterr().out


def test_an_agent_that_walks_in_circles_is_shown_until_the_limit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sb3_smac.zoo.wrappers.ends.__defaults__", (12,))
    task = "spaces_env:Endless-v0"
    main(["--env", task, "-n", "32"])
    (model,) = Path("runs").glob("*.zip")
    main(["--env", task, "--show", str(model)])
    assert "Mean return: " in capsys.readouterr().out


@pytest.mark.parametrize("steps, number", [("1000", 1000), ("1e6", 1_000_000), ("2.5E3", 2500), ("1_000", 1000)])
def test_steps(steps: str, number: int) -> None:
    assert parse_arguments(["-n", steps]).steps == parse_arguments(["--steps", steps]).steps == number


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "0"], "argument -n/--steps: must be at least 1, got 0"),
        (["--steps", "1.5"], "argument -n/--steps: must be an integer, such as 100000 or 1e5, got '1.5'"),
        (["-n", "1e999"], "argument -n/--steps: must be an integer, such as 100000 or 1e5, got '1e999'"),
        (["-n", "many"], "argument -n/--steps: must be an integer, such as 100000 or 1e5, got 'many'"),
        (["--seed", "-1"], "argument --seed: must be between 0 and 2**32 - 1, got -1"),
        (["--env", "CartPole-v9"], "argument --env: 'CartPole-v9': Environment version `v9`"),
        (["--env", "ALE/NoGame-v5"], "argument --env: 'ALE/NoGame-v5': "),
        (["--env", "no_such_module:CartPole-v1"], "argument --env: 'no_such_module:CartPole-v1': No module named"),
        (["--show", "nothing.zip"], "argument --show: there is no file nothing.zip"),
        (["--show", "."], "argument --show: there is no file ."),
        (["--render"], "argument --render: goes with --show"),
        (["--output", f"{__file__}/runs"], f"argument --output: {__file__}/runs is no folder, and cannot become one"),
    ],
)
def test_wrong_options(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_a_space_that_stable_baselines3_does_not_take() -> None:
    with pytest.raises(SystemExit, match=re.escape(f"Blackjack-v1 with {gym.make('Blackjack-v1').observation_space} and ")):
        main(["--env", "Blackjack-v1", "-n", "10"])


def test_what_is_no_model() -> None:
    Path("model.zip").write_text("no model")
    with pytest.raises(SystemExit, match=r"model.zip does not fit --algo smac and --env CartPole-v1"):
        main(["--env", "CartPole-v1", "--show", "model.zip"])


def test_a_checkout_that_is_not_installed_is_imported() -> None:
    program = (
        "import importlib.metadata as metadata; version = metadata.version; "
        "metadata.version = lambda name: version('no-such-package' if name == 'sb3_smac' else name); "
        "import sb3_smac; print(sb3_smac.__version__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0")
