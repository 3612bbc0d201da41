"""Runs the commands as a user types them, in a folder of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import sb3_smac

CHECKOUT = Path(sb3_smac.__file__).parents[1]  # the package that is tested, wherever another one may be installed
HELPERS = Path(__file__).parent / "helpers"
ENVIRONMENT = {
    **os.environ,
    "MPLBACKEND": "Agg",
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join((str(HELPERS), str(CHECKOUT))),
    "SDL_VIDEODRIVER": "dummy",
    "TRUST_REMOTE_CODE": "True",
}
Start = Callable[..., subprocess.Popen]
Run = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands that are called here leave their files in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["zoo"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands of one test file run, and leave their logs."""
    return tmp_path_factory.mktemp("zoo")


@pytest.fixture(scope="module")
def start(folder: Path) -> Start:
    """Start ``python -m sb3_smac.zoo <arguments>``, or another module or script with its own command line."""

    def start(*arguments: object, program: tuple[str, ...] = ("-m", "sb3_smac.zoo")) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, *program, *map(str, arguments)],
            cwd=folder,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def run(start: Start) -> Run:
    """Run it and return what it prints; a failure fails the test with that."""

    def run(*arguments: object, **kwargs: tuple[str, ...]) -> str:
        return finish(start(*arguments, **kwargs))

    return run


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output
