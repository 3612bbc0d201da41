"""The README is short, and what it tells its readers to type works."""

import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from sb3_smac import ALGORITHMS
from sb3_smac.__main__ import parse_arguments

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = {
    language: re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL) for language in ("python", "bash", "bibtex", "")
}


def commands(snippet: str) -> list[list[str]]:
    """:return: the words of each line of a shell snippet, without its comments"""
    return [shlex.split(line, comments=True) for line in snippet.replace("\\\n", "").splitlines() if line.strip()]


INSTALL, MAKE, ZOO = map(commands, SNIPPETS["bash"])


def test_length() -> None:
    assert len(README.splitlines()) <= 130


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It saves a model, and prints a mean and a standard deviation that belong to CartPole."""
    monkeypatch.chdir(tmp_path)
    (example,) = SNIPPETS["python"]
    assert len([line for line in example.splitlines() if line]) <= 6
    exec(example.replace("learn(50_000)", "learn(1_000)"), {"__name__": "readme"})
    printed = capsys.readouterr().out.splitlines()[-1]
    mean, deviation = map(float, re.findall(r"\d+\.\d+", printed))
    assert 8 <= mean <= 500 and deviation >= 0
    assert (tmp_path / "smac_cartpole.zip").is_file()


def test_install() -> None:
    """The constraints are there, and setup.cfg has the extras."""
    ((program, install, option, constraints, what),) = INSTALL
    assert (program, install, option) == ("pip", "install", "-c")
    assert (ROOT / constraints).is_file()
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(re.fullmatch(r"\.\[(.*)\]", what)[1].split(",")) <= set(setup["options.extras_require"])


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_make() -> None:
    """`make train` trains what the README says, with options that the command line takes; `make test` runs pytest."""

    def lines(*arguments: str) -> list[list[str]]:
        run = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
        return [shlex.split(line) for line in run.stdout.replace("\\\n", "").splitlines()]

    def trained(*arguments: str) -> tuple[str, str, int, int]:
        (line,) = (line for line in lines("train", *arguments) if line[1:3] == ["-m", "sb3_smac"])
        options = parse_arguments(line[3:])
        return options.algo, options.env, options.steps, options.seed

    assert [words[:2] for words in MAKE] == [["make", "train"], ["make", "test"]]
    assert trained() == ("smac", "Hopper-v4", 1_000_000, 0)
    (other,) = re.findall(r"`make train (\S.*?)`", README)
    assert trained(*other.split()) == ("accg", "HalfCheetah-v4", 300_000, 1)
    assert any(line[1:3] == ["-m", "pytest"] for line in lines("test"))


SMALLER = {"-n": "300", "--eval-freq": "200", "--n-trials": "2"}
FEWER = ["--eval-episodes", "1", "--n-evaluations", "1", "--num-threads", "1", "--no-optim-plots"]


def smaller(words: list[str]) -> list[str]:
    """:return: a command of the Zoo with smaller budgets"""
    before = [None, *words]
    words = [SMALLER.get(str(option), word) for option, word in zip(before, words, strict=False)]
    return [*words, *(FEWER if "train" in words else [])]


def test_zoo(tmp_path: Path) -> None:
    """A training leaves a model, its return is shown, a search leaves its trials, and its curve can be drawn."""
    pytest.importorskip("rl_zoo3")
    assert len(ZOO) == 4 and all(words[:3] == ["python", "-m", "sb3_smac.zoo"] for words in ZOO)
    # one process for the four: most of the time is that of the imports
    calls = [smaller(words[3:]) for words in ZOO]
    program = (
        f"import runpy, sys\nfor call in {calls!r}:\n    sys.argv[1:] = call\n    from sb3_smac.zoo.__main__ import main\n"
    )
    program += "    print('>', call[0], flush=True)\n    assert main(call) == 0\n"
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PATH": "", "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "logs/smac/CartPole-v1_1/CartPole-v1.zip").is_file()
    enjoyed = run.stdout.split("> enjoy")[1].split("> train")[0]
    assert "Mean reward" in enjoyed or "Episode Reward" in enjoyed
    assert list(tmp_path.glob("searches/**/report_*.csv"))


def test_table_of_algorithms() -> None:
    """It has every class under its name."""
    rows = re.findall(r"^\| \[`(\w+)`\]\(.*?\) \| `(\w+)` \|", README, flags=re.MULTILINE)
    assert {name: row for row, name in rows} == {name: cls.__name__ for name, cls in ALGORITHMS.items()}
