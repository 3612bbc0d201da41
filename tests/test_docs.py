"""The pages of the documentation: they build, their links lead somewhere, their examples run, and they name every key."""

import inspect
import json
import re
import subprocess
import sys
import tempfile
from ast import literal_eval
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_smac import ACCG, ACSGD, ALGORITHMS, SMAC, ACAdam
from tests.algorithms import make

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "pages").rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]
GONE = {
    *("benchmarks/search_defaults.py", "benchmarks/variants.py", "benchmarks/gains.py", "sb3_smac/benchmark/tune.py"),
    *("docs/benchmark/ppo_continuous_action.md", "docs/modules/trpo.md"),  # of other projects
}
"""What the documents name as code of an earlier commit, or of others."""

FENCE = re.compile(r"^```.*?^```", flags=re.DOTALL | re.MULTILINE)


def anchors(path: Path) -> set[str]:
    """Anchors of the headings, as GitHub and Python-Markdown make them where they agree."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE)
    return {re.sub(r"[^\w\s-]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def links(path: Path) -> Iterator[str]:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield unquote(target)


def test_links() -> None:
    """Every relative link leads to a file, and its anchor to a heading of it."""
    for path, link in ((page, link) for page in TEXTS for link in links(page)):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_file(), (path, link)
        if DOCS in path.parents:
            assert DOCS / "pages" in target.parents, f"{link} is outside the site"
        if anchor:
            assert anchor in anchors(target), (path, link)


def test_every_page_is_in_the_navigation() -> None:
    configuration = (DOCS / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"[\w/]+\.md", configuration)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS / "pages")) for page in PAGES)


def test_every_image_is_shown() -> None:
    shown = {(path.parent / link).resolve() for path in TEXTS for link in links(path) if link.endswith(".png")}
    assert shown == {image.resolve() for image in (DOCS / "pages" / "images").iterdir()}


def table(path: Path, header: str, after: str = "") -> dict[str, list[str]]:
    """Cells of a table's rows, without bold, under the row's first one: of the first table with that header after a text."""
    text = path.read_text(encoding="utf-8")
    lines = text[text.index(after) :].splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(header))
    rows = {}
    for line in takewhile(lambda line: line.startswith("|"), lines[start + 2 :]):
        first, *others = (cell.strip().replace("**", "") for cell in line.strip("|").split("|"))
        rows[first] = others
    return rows


def test_table_of_parameters() -> None:
    """It has every argument that is not Stable-Baselines3's, with each algorithm's default."""
    page = DOCS / "pages" / "algorithms" / "index.md"
    rows = table(page, "| parameter | SMAC |")
    prose = page.read_text(encoding="utf-8")
    stable_baselines3 = {
        "policy",
        "env",
        *re.findall(r"`(\w+)`", re.search(r"\)\)\. `use_sde`.*? are SB3's", prose, re.DOTALL)[0]),
    }
    for column, algorithm in enumerate((SMAC, ACCG, ACSGD, ACAdam)):
        parameters = inspect.signature(algorithm).parameters
        documented = {row.strip("`"): cells[column].strip("`") for row, cells in rows.items() if "`" in cells[column]}
        assert set(documented) | stable_baselines3 == {argument for argument in parameters if not argument.startswith("_")}
        for argument, default in documented.items():
            assert literal_eval(default) == parameters[argument].default, (algorithm, argument)


LABELS = {
    "AC-SGD": "acsgd",
    "SMAC rank 1": "smac rank 1",
    "SMAC rank 128": "smac rank 128",
    "SMAC full": "smac full",
    "AC-CG": "accg",
    "SMAC tuned": "smac tuned",
    "SMAC tuned (full)": "smac tuned",
    "PPO": "ppo",
    "TRPO": "trpo",
}


def stored(study: str, curve: str, column: str) -> tuple[Any, Any]:
    """The stored runs of a study, with their summaries, and the values of a curve of each run; both by its key."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    folder = ROOT / "benchmarks" / "results" / study
    lines = (folder / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    runs = pandas.DataFrame([{**run, **run["summary"]} for run in map(json.loads, lines)]).set_index("key")
    values = pandas.read_parquet(folder / f"{curve}.parquet", columns=["key", column])
    return runs, values.groupby("key", observed=True)[column]


def evaluated(study: str) -> dict[tuple[str, str], list[float]]:
    """The last evaluation of every stored run of a study, for each label and task."""
    runs, evaluations = stored(study, "evaluations", "mean")
    return runs.assign(last=evaluations.last()).groupby(["label", "task"])["last"].agg(list).to_dict()


def cell(values: list[float] | None, seeds: int, digits: int = 0) -> str:
    """How a page writes them."""
    if not values:
        return ""
    text = f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}".replace("-", "\N{MINUS SIGN}")
    return text if len(values) == seeds else f"{text} ({len(values)})"


def test_tables_of_the_ladder() -> None:
    """The README's and the page's numbers are those of the stored runs."""

    def cells_of(study: str, seeds: int) -> dict[str, dict[tuple[str, str], str]]:
        """Mean ± standard deviation over seeds of three returns, for each label and task."""
        runs, episodes = stored(study, "episodes", "return")
        runs["last_100_episodes"] = episodes.apply(lambda values: values.tail(100).mean())
        groups = runs.groupby(["label", "task"])
        return {
            column: {key: cell(values.tolist(), seeds) for key, values in groups[column]}
            for column in ("last_100_episodes", "mean_training_return", "final_return")
        }

    ladder, hopper = cells_of("ladder", 3), cells_of("hopper", 10)
    readme, page = ROOT / "README.md", DOCS / "pages" / "benchmarks.md"
    tasks = ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4")
    header = f"| | {' | '.join(tasks)} |"
    sections = {
        "Mean return of the last 100 training episodes": "last_100_episodes",
        "Area under the learning curve": "mean_training_return",
        "Mean return of the episodes that end in the last tenth": "final_return",
    }
    found = [(table(readme, header), "last_100_episodes")]
    found += [(table(page, header, after), column) for after, column in sections.items()]
    for rows, column in found:
        assert len(rows) == 8
        for label, cells in rows.items():
            assert cells == [ladder[column][LABELS[label], task] for task in tasks], (label, column)
    ten = table(page, "| | last 100 episodes | area under the curve |")
    for label, cells in ten.items():
        key = LABELS[label], "Hopper-v4"
        assert cells == [hopper[column][key] for column in sections.values()]
        assert cells[0] in readme.read_text(encoding="utf-8")


def test_tables_of_a_million_steps() -> None:
    """The README's and the page's numbers are those of the stored runs, and say how many of them there are."""
    runs = evaluated("million")
    readme, page = ROOT / "README.md", DOCS / "pages" / "benchmarks.md"
    count = sum(map(len, runs.values()))
    assert f"\n{count} of 150 runs are made so far" in page.read_text(encoding="utf-8") or count == 150
    for task, cells in table(page, "| | best published, with seeds |").items():
        assert cells[1:] == [cell(runs.get((label, task)), 5) for label in ("smac", "smac rule", "trpo", "ppo")], task
    tasks = ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4", "Ant-v4", "Swimmer-v4")
    assert table(readme, f"| | {' | '.join(tasks)} |")["SMAC"] == [cell(runs["smac", task], 5) for task in tasks]


def test_table_of_tasks_that_nothing_was_chosen_on() -> None:
    """The page's numbers are those of the stored runs."""
    runs = evaluated("elsewhere")
    for name, cells in table(DOCS / "pages" / "benchmarks.md", "| | SMAC, the rule | TRPO, Zoo | PPO, Zoo |").items():
        task = name.split(",")[0]
        digits = 1 if task in ("Acrobot-v1", "Reacher-v5") else 0
        assert cells[:3] == [cell(runs.get((label, task)), 3, digits) for label in ("smac full", "trpo", "ppo")], task


def examples() -> Iterator[object]:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for index, found in enumerate(re.finditer(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)):
            if not text[: found.start()].rstrip().endswith("-->"):  # <!-- not run: why -->
                yield pytest.param(found[1], id=f"{page.relative_to(DOCS / 'pages')}-{index}")


@pytest.mark.parametrize("example", list(examples()))
def test_example(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as it stands, with a smaller budget, and what it trains has been updated."""
    if "EnvPool" in example:
        pytest.importorskip("envpool")
    monkeypatch.chdir(tmp_path)
    smaller, count = re.subn(r"\.learn\([\d_]+", ".learn(1", example)
    assert count
    trained = []
    learn = OnPolicyAlgorithm.learn
    monkeypatch.setattr(
        OnPolicyAlgorithm, "learn", lambda model, *given, **named: trained.append(model) or learn(model, *given, **named)
    )
    exec(smaller, {"__name__": "documentation"})
    assert trained
    expected = 0 if "NonFiniteError" in example else 1
    assert all(model._n_updates >= expected for model in trained)


def test_tensorboard_keys(tmp_path: Path) -> None:
    """What short trainings write, of those that write the most, is what the page explains: no key more, none less."""
    written: set[str] = set()
    for algo in ("smac_full", "accg"):
        env = gym.make("Pendulum-v1", max_episode_steps=10)
        make(algo, env, tensorboard_log=str(tmp_path / algo)).learn(64)
        (folder,) = (tmp_path / algo).iterdir()
        read = EventAccumulator(str(folder))
        read.Reload()
        written |= set(read.Tags()["scalars"])
        assert [event.step for event in read.Scalars("rollout/ep_rew_mean")] == [32, 64]
        assert [event.step for event in read.Scalars("train/value_loss")] == [64]  # with the rollout that follows the update
    page = (DOCS / "pages" / "tensorboard.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `((?:train|rollout|time)/\w+)` \|", page, flags=re.MULTILINE)
    assert len(documented) == len(set(documented))
    assert set(documented) == written


@pytest.mark.skipif(find_spec("mkdocs") is None or find_spec("mkdocstrings") is None, reason="no MkDocs (the extra [docs])")
def test_strict_build(tmp_path: Path) -> None:
    """As `make docs` does it: a warning is an error. Every page has its text, and the API its docstrings."""
    options = ["--strict", "--config-file", DOCS / "mkdocs.yml", "--site-dir", tmp_path]
    run = subprocess.run([sys.executable, "-m", "mkdocs", "build", *options], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    api = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    assert all(cls.__name__ in api for cls in ALGORITHMS.values())
    assert "damping" in api and ":class:" not in api


def test_nothing_of_the_workshop() -> None:
    """The documents are for readers who know no machine but theirs."""
    folders = {Path.home(), Path.home().parent / "home", Path(tempfile.gettempdir()), ROOT} - {Path("/")}
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        assert not [folder for folder in folders if f"{folder}/" in text], path


def shell() -> str:
    """All shell snippets, and what stands between backticks."""
    texts = [path.read_text(encoding="utf-8") for path in TEXTS]
    return "\n".join(
        line for text in texts for line in [*re.findall(r"`([^`\n]+)`", FENCE.sub("", text)), *FENCE.findall(text)]
    )


def test_benchmark_commands() -> None:
    """Commands and studies that the documents name are there, and so are the entries and tasks that they choose."""
    main = pytest.importorskip("sb3_smac.benchmark.__main__")
    study = pytest.importorskip("sb3_smac.benchmark.study")
    load = cache(lambda name: study.load(study.find(name)))
    named = re.findall(r"python -m sb3_smac\.benchmark (\w+) (\w+)([^#\n]*)", shell())
    assert named
    for command, name, options in named:
        assert command in main.COMMANDS or command == "tune"  # of an earlier commit
        loaded = load(name)
        assert set(re.findall(r"--task (\S+)", options)) <= set(loaded.tasks)
        assert set(re.findall(r"--algorithm (\S+)", options)) <= set(loaded.algorithms)


def test_targets_scripts_and_files() -> None:
    """Every make target, script and folder of the repository that the documents name is there."""
    text = shell()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    for path in re.findall(r"\b(?:benchmarks|docs|notebooks|tests|sb3_smac|zoo_hyperparams)/[\w./-]*\w", text):
        assert (ROOT / path).exists() or path in GONE, path
