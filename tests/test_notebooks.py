"""The notebooks run from the first cell to the last, and are saved with outputs that anyone may read."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("matplotlib")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parent.parent
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
RESULTS = "paper_figures"
"""The notebook that trains nothing, and shows what benchmarks/results has."""

PUBLIC = r"sb3_smac(\.maths|\.benchmark(\.\w+)?)?"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(?:\w[\w.-]*/)+\w|\b[A-Z]:\\")
STUDY = """
name: tiny
algorithms: [smac, acsgd]
tasks: [CartPole-v1, Pendulum-v1]
seeds: 2
budget: 400
horizon: 100
hyperparameters: {n_steps: 200}
"""


def outputs(notebook: "nbformat.NotebookNode") -> list["nbformat.NotebookNode"]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def text_of(output: "nbformat.NotebookNode") -> str:
    return "\n".join([output.get("text", ""), *(data for kind, data in output.get("data", {}).items() if "text" in kind)])


def pictures(notebook: "nbformat.NotebookNode") -> list[bytes]:
    return [
        base64.b64decode(data)
        for output in outputs(notebook)
        for kind, data in output.get("data", {}).items()
        if kind.startswith("image/")
    ]


def execute(name: str, folder: Path, **environment: str) -> "nbformat.NotebookNode":
    command = [sys.executable, str(ROOT / "notebooks/execute.py"), "--output", str(folder), str(NOTEBOOKS[name])]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return nbformat.read(folder / f"{name}.ipynb", as_version=4)


def test_there_are_three() -> None:
    assert [*NOTEBOOKS] == ["paper_figures", "quickstart", "what_rank_one_does"]


@pytest.mark.parametrize(("name", "count"), [("quickstart", 2), ("what_rank_one_does", 3)])
def test_it_runs(name: str, count: int, tmp_path: Path) -> None:
    before = NOTEBOOKS[name].read_bytes()
    notebook = execute(name, tmp_path, SB3_SMAC_NOTEBOOK_BUDGET="0.02")
    assert len(pictures(notebook)) == count
    assert [cell.source for cell in notebook.cells] == [cell.source for cell in nbformat.reads(before, 4).cells]
    assert NOTEBOOKS[name].read_bytes() == before


def test_the_papers_figures(tmp_path: Path) -> None:
    """Of a study whose runs are made here, in a folder of its own: each section and figure of its report is there."""
    for package in ("rl_zoo3", "rliable", "pandas", "yaml"):
        pytest.importorskip(package)
    from sb3_smac.benchmark.run import run
    from sb3_smac.benchmark.store import Store
    from sb3_smac.benchmark.study import load

    (tmp_path / "studies").mkdir()
    path = tmp_path / "studies" / "tiny.yml"
    path.write_text(STUDY)
    store, jobs = Store(tmp_path / "results" / "tiny"), load(path).jobs
    for job in jobs[:-1]:
        store.write(run(job))
    notebook = execute(RESULTS, tmp_path, SB3_SMAC_BENCHMARKS=str(tmp_path))
    text = "\n".join(map(text_of, outputs(notebook)))
    assert "7 of 8 runs: 2 algorithms" in text
    for heading in ("Final return", "Learning curves", "Convergence speed", "Over all tasks", "Time", "Log-probability"):
        assert f"## {heading}\n" in text
    # Learning curves, performance profiles, log-probabilities; KL divergences
    assert len(pictures(notebook)) == 4 and ".png" not in text
    # Two tasks by two algorithms
    assert re.search(r"CartPole-v1 +[12]\.0 +[12]\.0 ", text) and re.search(r"Pendulum-v1 +[12]\.0 +[12]\.0 ", text)


def test_a_failing_notebook_is_not_saved(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("raise KeyError('missing')")])
    nbformat.write(notebook, tmp_path / "failing.ipynb")
    before = (tmp_path / "failing.ipynb").read_bytes()
    command = [sys.executable, str(ROOT / "notebooks/execute.py"), str(tmp_path / "failing.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "KeyError" in done.stderr
    assert (tmp_path / "failing.ipynb").read_bytes() == before


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_saved_outputs(name: str) -> None:
    """Complete, small, and with nothing in them that a machine, a moment or a warning left."""
    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert NOTEBOOKS[name].stat().st_size < 600_000
    assert outputs(notebook)
    for output in outputs(notebook):
        assert output.output_type != "error" and output.get("name") != "stderr"
        assert "Warning" not in text_of(output)
        assert not ABSOLUTE_PATH.search(text_of(output))
    has_runs = any((ROOT / "benchmarks/results").glob("*/runs.jsonl"))
    assert pictures(notebook) or (name == RESULTS and not has_runs)


def test_absolute_paths_are_found() -> None:
    for text in ("in /home/me/file.py", "'/usr/lib/x'", r"C:\Users", "(/opt/python/bin)"):
        assert ABSOLUTE_PATH.search(text), text
    for text in ("https://arxiv.org/abs/1/2", "image/png", "../benchmarks/results", "a / b / c", "</td></tr>", "1/N/m"):
        assert not ABSOLUTE_PATH.search(text), text


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_only_public_names(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS[name], as_version=4).cells
    sources = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    modules = re.findall(r"(?:from|import) (sb3_smac[\w.]*)", sources)
    assert modules and all(re.fullmatch(PUBLIC, module) for module in modules)
    assert not re.search(r"(?<!\w)_(?!_)\w|\._\w", sources)
