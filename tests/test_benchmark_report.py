"""The report of a study, on learning curves simple enough to know every number."""

# The tables' signs are a multiplication sign and a dash
# ruff: noqa: RUF001

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

pytest.importorskip("rliable")
pytest.importorskip("yaml")
pytest.importorskip("rl_zoo3")

import pandas as pd
from matplotlib.image import imread

from sb3_smac.benchmark import figures, report, tables
from sb3_smac.benchmark.report import write_report
from sb3_smac.benchmark.store import Run, curve
from sb3_smac.benchmark.study import Study

BUDGET = 100_000
STUDY = Study(
    name="example",
    algorithms={
        "AC-SGD": {"algorithm": "acsgd"},
        "SMAC": {"algorithm": "smac"},
        "SMAC single": {"algorithm": "smac", "hyperparameters": {"batch_size": 1}},
    },
    tasks=["Hopper-v4", "Pendulum-v1"],
    seeds=[0, 1],
    budget=BUDGET,
)
TABLES = (
    "runs final_return final_return_difference last_100_episodes mean_training_return convergence way interquartile_mean "
    "probability_of_improvement performance_profiles batch_size time"
).split()
FIGURES = ("learning_curves", "log_probability", "performance_profiles")
FILES = {"report.md", *(f"{name}.csv" for name in TABLES), *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "svg"))}


def make_run(label: str, task: str, seed: int, start: float, end: float, solved: int, update_time: float) -> Run:
    """A return of ``start`` up to a timestep, and of ``end`` from there on, in episodes of 100 steps."""
    timesteps = np.arange(100, BUDGET + 1, 100)
    returns = np.where(timesteps <= solved, start, end).astype(float)
    episodes = pd.DataFrame({"timestep": timesteps, "return": returns, "length": 100, "wall_time": timesteps / 500})
    updates = np.arange(1000, BUDGET + 1, 1000)
    rows = zip(updates, -2 + updates / BUDGET, np.full(len(updates), update_time), np.full(len(updates), np.nan), strict=True)
    info = {
        **{"label": label, "algorithm": STUDY.algorithm(label), "task": task, "seed": seed, "horizon": 100, "budget": BUDGET},
        **{"hyperparameters": STUDY.algorithms[label].hyperparameters, "evaluation": None, "status": "finished"},
        "duration": {"total": 200 + 100 * update_time, "update": 100 * update_time, "evaluation": 50.0},
    }
    return Run(f"{label}/{task}/seed{seed}", info, curve("episodes", episodes), curve("updates", rows), curve("evaluations"))


ENDS = {
    # On Hopper, AC-SGD jumps from 0 to 200 at 50k, SMAC from 0 to 300 at 10k, single-sample SMAC to 150 at 20k
    "Hopper-v4": {"AC-SGD": (0, 200), "SMAC": (0, 300), "SMAC single": (0, 150)},
    "Pendulum-v1": {"AC-SGD": (-5000, -3000), "SMAC": (-5000, -4000), "SMAC single": (-5000, -3500)},
}
JUMPS = {"AC-SGD": (50_000, 0.1), "SMAC": (10_000, 0.2), "SMAC single": (20_000, 1.0)}
"""When, and the time of an update."""


def all_runs() -> list[Run]:
    return [
        make_run(label, task, seed, start, end + shift, *JUMPS[label])
        for seed, shift in enumerate((-10.0, 10.0))
        for task, ends in ENDS.items()
        for label, (start, end) in ends.items()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "report"
    assert write_report(STUDY, all_runs(), folder) == folder / "report.md"
    return folder


def section(folder: Path, heading: str) -> str:
    text = (folder / "report.md").read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """Rows of the first Markdown table, with its header and without the line below it."""
    table = text[text.index("\n|") + 1 :].split("\n\n")[0]
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines())
    assert all(len(row) == len(header) for row in rows)
    return [header, *rows]


def test_everything_is_there_and_linked(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == FILES
    text = (folder / "report.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([\w.]+)\)", text)
    assert set(links) == FILES - {"report.md"}
    assert "12 of 12 runs" in text and "nan" not in text.lower()


def test_the_papers_table_1(folder: Path) -> None:
    assert cells(section(folder, "Final return")) == [
        ["task", "AC-SGD", "SMAC", "SMAC, paper", "SMAC single"],
        ["Hopper-v4", "200.0 ± 10.0", "**300.0 ± 10.0**", "331.2", "150.0 ± 10.0"],
        ["Pendulum-v1", "**-3000 ± 10.0**", "-4000 ± 10.0", "-2230", "-3500 ± 10.0"],
    ]
    assert "2601.18626" in section(folder, "Final return")
    numbers = pd.read_csv(folder / "final_return.csv")
    assert numbers.columns.tolist() == ["task", "label", "mean", "std", "seeds"]
    assert numbers.iloc[0].tolist() == ["Hopper-v4", "AC-SGD", 200, 10, 2]


def test_the_other_readings(folder: Path) -> None:
    # AC-SGD: half of the time at 0, half at 200; SMAC: nine tenths at 300
    assert cells(section(folder, "Area under the curve"))[1] == ["Hopper-v4", "100.0 ± 5.0", "**270.0 ± 9.0**", "120.0 ± 8.0"]
    assert cells(section(folder, "Last 100 episodes"))[1] == ["Hopper-v4", "200.0 ± 10.0", "**300.0 ± 10.0**", "150.0 ± 10.0"]
    assert "## Last evaluation" not in (folder / "report.md").read_text(encoding="utf-8")


def test_convergence_speed(folder: Path) -> None:
    """
    On Hopper, 1 % of the range is 3. A jump by J at a bin's end falls short of its target by J/2 in the next bin, then J/4
    and so on (nearly: the weights are normalized).
    """
    rows = cells(section(folder, "Convergence speed"))
    assert rows[0] == ["task", "final return of", "threshold", "AC-SGD", "SMAC", "SMAC single"]
    assert rows[1:4] == [
        # SMAC reaches 197 of its 300 in two bins (225); AC-SGD in seven (198.4; 196.9 in six)
        ["Hopper-v4", "AC-SGD", "200.0", "57k (1.00×)", "**12k (0.21×)**", "never"],
        ["Hopper-v4", "SMAC", "300.0", "never", "**17k (1.00×)**", "never"],
        # 147: SMAC in one bin (150.1), AC-SGD in two (150.0), single-sample SMAC in six (147.7)
        ["Hopper-v4", "SMAC single", "150.0", "52k (2.00×)", "**11k (0.42×)**", "26k (1.00×)"],
    ]
    assert [row[:3] for row in rows[4:]] == [
        ["Pendulum-v1", "AC-SGD", "-3000"],
        ["Pendulum-v1", "SMAC", "-4000"],
        ["Pendulum-v1", "SMAC single", "-3500"],
    ]
    numbers = pd.read_csv(folder / "convergence.csv").set_index(["task", "baseline", "label"])
    assert numbers.loc[("Hopper-v4", "AC-SGD", "SMAC"), "relative"] == pytest.approx(12 / 57, rel=1e-5)
    assert np.isnan(numbers.loc[("Hopper-v4", "SMAC", "AC-SGD"), "timesteps"])


def test_the_way_to_the_best_end(folder: Path) -> None:
    """On Hopper from 0 to 300: AC-SGD ends at 200, single-sample SMAC at 150, which 150 less 1 % of the range lets pass."""
    rows = cells(section(folder, "On the way to the best end"))
    assert rows[0] == ["task", "of the way", "AC-SGD", "SMAC", "SMAC single"]
    assert rows[1:4] == [
        ["Hopper-v4", "50%", "52k", "**11k**", "26k"],
        ["Hopper-v4", "75%", "never", "**12k**", "never"],  # AC-SGD's 200 is short of 225
        ["Hopper-v4", "90%", "never", "**14k**", "never"],
    ]
    assert pd.read_csv(folder / "way.csv")["threshold"][:9].tolist() == [150] * 3 + [225] * 3 + [270] * 3


def test_differences_with_welchs_interval(folder: Path) -> None:
    """Two runs each, 10 from their mean: the difference has a standard error of 14.1 and two degrees of freedom."""
    rows = cells(section(folder, "Differences of the final return"))
    assert rows[0] == ["X", "Y", "Hopper-v4", "Pendulum-v1"]
    half = 4.302652730 * 200**0.5  # of Student's t, 97.5 %
    assert rows[1] == [
        *("AC-SGD", "SMAC"),
        f"**-100.0 [{-100 - half:.1f}, {-100 + half:.1f}]**",
        f"**1000 [{1000 - half:.1f}, {1000 + half:.0f}]**",
    ]
    assert rows[2][2] == f"50.0 [{50 - half:.1f}, {50 + half:.1f}]"


def test_aggregates(folder: Path) -> None:
    """Scores on Hopper: SMAC single 0, AC-SGD 1/3, SMAC 1; on Pendulum: SMAC 0, SMAC single 1/2, AC-SGD 1 (± a little)."""
    means = pd.read_csv(folder / "interquartile_mean.csv").set_index("label")
    # Of two runs per task, the middle two: the better one of the worse task and the worse one of the better task
    assert means.loc["SMAC", "iqm"] == pytest.approx((10 / 1000 + 1 - 10 / 150) / 2)
    assert (means["low"] <= means["iqm"]).all() and (means["iqm"] <= means["high"]).all()
    assert means[["runs", "tasks"]].to_numpy().tolist() == [[2, 2]] * 3
    pairs = pd.read_csv(folder / "probability_of_improvement.csv")
    assert pairs[["x", "y", "probability"]].to_numpy().tolist() == [
        ["AC-SGD", "SMAC", 0.5],
        ["AC-SGD", "SMAC single", 1],
        ["SMAC", "SMAC single", 0.5],
    ]
    profiles = pd.read_csv(folder / "performance_profiles.csv")
    smac = profiles[profiles["label"] == "SMAC"]
    assert smac["fraction"][smac["score"].between(0.02, 0.9)].eq(0.5).all()


def test_the_batch_size_study(folder: Path) -> None:
    assert cells(section(folder, "Batch size"))[:4] == [
        ["task", "algorithm", "batch", "final return", "ratio", "updates [s]", "ratio of updates"],
        ["Hopper-v4", "SMAC single", "1", "150.0 ± 10.0", "1.00×", "100.0", "1.00×"],
        ["Hopper-v4", "SMAC", "whole rollout", "300.0 ± 10.0", "2.00×", "20.0", "0.20×"],
        ["Pendulum-v1", "SMAC single", "1", "-3500 ± 10.0", "–", "100.0", "1.00×"],
    ]


STEP_SIZES = Study(
    name="steps",
    algorithms={
        f"{algorithm} {size:g}": {"algorithm": algorithm, "hyperparameters": {"learning_rate": size, "target_kl": None}}
        for algorithm, sizes in (("smac", (0.1, 1.0, 0.3)), ("acsgd", (2.0, 5.0)))
        for size in sizes
    },
    tasks=["Hopper-v4"],
    seeds=[0, 1],
    budget=BUDGET,
)


def stepped(label: str, seed: int, start: float, end: float, until: int = 80_000, **hyperparameters: Any) -> Run:
    run = make_run("SMAC", "Hopper-v4", seed, start, end, until, 0.1)
    algorithm, size = label.split()
    hyperparameters = {"learning_rate": float(size), "target_kl": None, **hyperparameters}
    info = {**run.info, "label": label, "algorithm": algorithm, "hyperparameters": hyperparameters}
    return replace(run, key=f"{label}/{seed}", info=info)


def test_step_sizes(tmp_path: Path) -> None:
    """Of SMAC's, 1 ends highest and loses most; 0.3 is the best of what is kept, and 0.1 within its standard error, 20."""
    runs = [stepped("smac 0.1", seed, 0, 185 + 10 * seed) for seed in (0, 1)]
    runs += [stepped("smac 1", seed, 500, 300) for seed in (0, 1)]
    runs += [stepped("smac 0.3", seed, 0, 180 + 40 * seed) for seed in (0, 1)]
    runs += [stepped("acsgd 2", 0, 0, 100), stepped("acsgd 5", 0, 0, 101)]
    write_report(STEP_SIZES, runs, tmp_path)
    text = section(tmp_path, "Step sizes")
    assert cells(text) == [
        ["task", "algorithm", "step size", "final return", "lost", "kept"],
        ["Hopper-v4", "acsgd", "2", "100.0 (1/2)", "0.0", "100.0"],
        ["Hopper-v4", "acsgd", "5", "101.0 (1/2)", "0.0", "**101.0**"],
        ["Hopper-v4", "smac", "0.1", "190.0 ± 5.0", "0.0", "**190.0**"],
        ["Hopper-v4", "smac", "0.3", "200.0 ± 20.0", "0.0", "200.0"],
        ["Hopper-v4", "smac", "1", "300.0 ± 0.0", "200.0", "100.0"],
    ]
    assert "step_sizes.svg" in text and imread(tmp_path / "step_sizes.png").std() > 0.02


def test_one_step_size_or_a_kl_target_has_no_such_section(tmp_path: Path) -> None:
    runs = [stepped("smac 0.1", 0, 0, 1), stepped("smac 1", 0, 0, 1, target_kl=0.05), stepped("acsgd 2", 0, 0, 1)]
    runs.append(stepped("smac 0.3", 0, 0, 1, learning_rate="lin_0.3"))
    write_report(STEP_SIZES, runs, tmp_path)
    assert "## Step sizes" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_times(folder: Path) -> None:
    text = section(folder, "Time")
    assert cells(text.split("Updates")[0])[1] == ["Hopper-v4", "160.0 (1.00×)", "170.0 (1.06×)", "250.0 (1.56×)"]
    assert cells(text.split("Updates")[1])[1] == ["Hopper-v4", "10.0 (1.00×)", "20.0 (2.00×)", "100.0 (10.00×)"]
    numbers = pd.read_csv(folder / "time.csv")
    assert numbers.loc[0, ["update_share", "steps_per_second"]].tolist() == [0.0625, 625]


def test_figures(folder: Path) -> None:
    for name in FIGURES:
        assert imread(folder / f"{name}.png").std() > 0.02
        assert all((folder / f"{name}.{kind}").stat().st_size < 200_000 for kind in ("png", "svg"))
        elements = ElementTree.parse(folder / f"{name}.svg").iter("{http://www.w3.org/2000/svg}text")
        assert {*STUDY.algorithms} <= {element.text for element in elements}
    x = np.linspace(10, 1000, 100)
    both = np.stack([np.full(100, 1.0), np.full(100, 3.0)])
    figure = figures.curves_figure(
        {"Hopper-v4": {"SMAC": (x, both), "PPO": (x, np.full((2, 100), np.nan))}},
        figures.styles({"SMAC": "smac", "PPO": "ppo"}),
        "return",
    )
    (line,), (band,) = figure.axes[0].get_lines(), figure.axes[0].collections
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["SMAC"]
    assert line.get_xydata()[[0, -1]].tolist() == [[10, 2], [1000, 2]]
    assert band.get_datalim(figure.axes[0].transData).intervaly.tolist() == [1, 3]


def test_lines_are_told_apart_and_keep_their_look() -> None:
    paper = figures.styles({"AC-SGD": "acsgd", "AC-Adam": "acadam", "AC-CG": "accg", "SMAC": "smac"})
    ladder = figures.styles({"SMAC": "smac", **{f"other {index}": "smac" for index in range(10)}, "AC-CG": "accg"})
    assert ladder["SMAC"] == paper["SMAC"] and ladder["AC-CG"] == paper["AC-CG"]
    for styles in (paper, ladder):
        assert len({(style["color"], style["linestyle"]) for style in styles.values()}) == len(styles)
    assert len({style["color"] for style in paper.values()}) == len({style["linestyle"] for style in paper.values()}) == 4
    assert len(figures.styles({str(index): "ppo" for index in range(30)})) == 30


def test_the_same_runs_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    np.random.seed(7)
    write_report(STUDY, all_runs()[::-1], tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_partly_finished_study(tmp_path: Path) -> None:
    """Missing seeds are counted, missing cells shown, and Pendulum, which AC-SGD has not begun, is in no aggregate."""
    runs = [run for run in all_runs() if (run.label, run.task) != ("AC-SGD", "Pendulum-v1")]
    runs = [run for run in runs if (run.label, run.seed) != ("SMAC", 1)]
    failed = make_run("AC-SGD", "Pendulum-v1", 0, 0, 0, 0, 0.1)
    failed.info["status"] = "failed"
    write_report(STUDY, [failed, *runs], tmp_path)
    assert cells(section(tmp_path, "Final return"))[1:] == [
        ["Hopper-v4", "200.0 ± 10.0", "**290.0 (1/2)**", "331.2", "150.0 ± 10.0"],
        ["Pendulum-v1", "–", "-4010 (1/2)", "-2230", "**-3500 ± 10.0**"],
    ]
    assert "8 of 12 runs" in (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "Tasks: 1," in section(tmp_path, "Over all tasks")
    assert "runs per task: AC-SGD 2, SMAC 1, SMAC single 2" in section(tmp_path, "Over all tasks")
    assert cells(section(tmp_path, "Time"))[2][1:] == ["–", "170.0 (–)", "250.0 (–)"]
    assert len(cells(section(tmp_path, "Convergence speed"))) == 1 + 3 + 2


def test_scores_take_as_many_seeds_as_every_task_has() -> None:
    """SMAC has one seed of Pendulum, so its first one of Hopper counts: 290 between 150 (worst mean) and 290 (best)."""
    runs = [run for run in all_runs() if (run.label, run.task, run.seed) != ("SMAC", "Pendulum-v1", 1)]
    scores = report._scores(tables.Results(STUDY, runs))
    assert scores["SMAC"].tolist() == [[1, 0]]
    np.testing.assert_allclose(scores["AC-SGD"][:, 0], [40 / 140, 60 / 140])


def test_a_single_run(tmp_path: Path) -> None:
    write_report(STUDY, all_runs()[:1], tmp_path)
    assert cells(section(tmp_path, "Final return")) == [["task", "AC-SGD"], ["Hopper-v4", "**190.0 (1/2)**"]]
    assert "two algorithms" in section(tmp_path, "Over all tasks")
    assert not (tmp_path / "performance_profiles.png").exists()
    assert "## Batch size" not in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_runs_without_an_episode(tmp_path: Path) -> None:
    """A budget shorter than an episode: nothing to say about returns, and no error."""
    runs = all_runs()[:2]
    for run in runs:
        run.episodes = curve("episodes")
    write_report(STUDY, runs, tmp_path)
    assert cells(section(tmp_path, "Final return"))[1][1:3] == ["–", "–"]
    assert cells(section(tmp_path, "Convergence speed"))[1] == ["Hopper-v4", "AC-SGD", "–", "never", "never"]


def evaluated(label: str, task: str, seed: int, returns: tuple[float, ...], seconds: float) -> Run:
    """Evaluations at the half and the end of the budget, ``seconds`` apart."""
    run = make_run("SMAC", task, seed, 0, 30, 1000, 0.1)
    run.info.update(label=label, algorithm="ppo", hyperparameters={"batch_size": 32 + len(label)})
    rows = [((i + 1) * BUDGET // 2, value, 1.0, 10, (i + 1) * seconds) for i, value in enumerate(returns)]
    run.evaluations = curve("evaluations", rows)
    return run


def peers(**arguments: Any) -> Study:
    algorithms = {"new": {"algorithm": "ppo"}, "PPO": {"algorithm": "ppo"}}
    tasks = ["Swimmer-v4", "Hopper-v4", "Pendulum-v1"]
    return Study(name="peers", algorithms=algorithms, tasks=tasks, seeds=[0, 1], budget=BUDGET, **arguments)


def test_evaluations_and_algorithms_of_another_library(tmp_path: Path) -> None:
    study = peers(reference="PPO")
    runs = []
    for task, scale in (("Swimmer-v4", 1), ("Hopper-v4", 100), ("Pendulum-v1", -1)):
        for seed in (0, 1):
            runs.append(evaluated("PPO", task, seed, (5 * scale, (10 + 2 * seed) * scale), 3600))
            runs.append(evaluated("new", task, seed, (11 * scale, (22 + 2 * seed) * scale), 1800))
    write_report(study, runs, tmp_path)
    assert cells(section(tmp_path, "Last evaluation"))[1] == ["Swimmer-v4", "**23.0 ± 1.0**", "11.0 ± 1.0"]
    assert cells(section(tmp_path, "Area under the evaluations"))[2] == ["Hopper-v4", "**1700 ± 50.0**", "800.0 ± 50.0"]
    # Twice and more of PPO's 11 and 8; Pendulum, where PPO's mean is negative, has no ratio
    text = section(tmp_path, "Evaluations over all tasks")
    assert "over PPO's mean return" in text and "Tasks: 2," in text
    means = pd.read_csv(tmp_path / "evaluation_iqm.csv").set_index("label")["iqm"]
    assert means["PPO"] == pytest.approx(1) and means["new"] == pytest.approx(23 / 11, rel=1e-5)
    means = pd.read_csv(tmp_path / "mean_evaluation_iqm.csv").set_index("label")["iqm"]
    assert means["new"] == pytest.approx(17 / 8, rel=1e-5)
    assert "tasks in which both have runs" in section(tmp_path, "Improvement in evaluations")
    # The probability takes all three: on Pendulum it is 0
    pairs = pd.read_csv(tmp_path / "evaluation_improvement.csv")
    assert pairs[["x", "y"]].to_numpy().tolist() == [["new", "PPO"]]
    assert pairs["probability"][0] == pytest.approx(2 / 3, rel=1e-5) and pairs["tasks"][0] == 3
    results = tables.Results(study, runs)
    x, y = results.evaluation_curves("wall_time")["Swimmer-v4"]["new"]
    assert (x.tolist(), y.tolist()) == ([1800, 3600], [[11, 22], [11, 24]])
    assert results.evaluation_curves("timestep")["Hopper-v4"]["PPO"][0].tolist() == [BUDGET / 2, BUDGET]
    for name in ("evaluations", "evaluations_wall_clock"):
        assert imread(tmp_path / f"{name}.png").std() > 0.02
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    # Its batch size is not that of an actor step, and the paper has no value for it
    assert "## Batch size" not in text and "paper" not in text
    assert "ratio to PPO" in section(tmp_path, "Time")


def test_published_returns(tmp_path: Path) -> None:
    """Beside ours, and each algorithm over those of the tasks in which it has most runs."""
    study = peers(published={"Swimmer-v4": 10, "Hopper-v4": 500})
    runs = [evaluated("new", "Swimmer-v4", seed, (0, 20), 1) for seed in (0, 1)]
    runs += [evaluated("new", "Hopper-v4", 0, (0, 9), 1)]
    runs += [
        evaluated("PPO", task, 0, (0, last), 1) for task, last in (("Swimmer-v4", 5), ("Hopper-v4", 500), ("Pendulum-v1", 9))
    ]
    write_report(study, runs, tmp_path)
    last = cells(section(tmp_path, "Last evaluation"))
    assert [row[:2] for row in last] == [
        ["task", "best published"],
        ["Swimmer-v4", "10.0"],
        ["Hopper-v4", "500.0"],
        ["Pendulum-v1", "–"],
    ]
    means = pd.read_csv(tmp_path / "published_iqm.csv").set_index("label")
    assert means[["iqm", "runs", "tasks"]].to_numpy().tolist() == [[2, 2, 1], [0.75, 1, 2]]
    assert "| 2.00 [2.00, 2.00] |" in section(tmp_path, "Against what is published")
    # Each pair on the tasks that both have: 20 against 5, and 9 against 500
    pairs = pd.read_csv(tmp_path / "evaluation_improvement.csv")
    assert pairs[["x", "y", "probability", "tasks"]].to_numpy().tolist() == [["new", "PPO", 0.5, 2]]


def test_a_study_whose_evaluations_have_begun(tmp_path: Path) -> None:
    """One algorithm, and one run that has an evaluation less: nothing to compare, and what both have is drawn."""
    study = Study(name="peers", algorithms=["ppo"], tasks=["Swimmer-v4"], seeds=2, budget=BUDGET)
    runs = [evaluated("ppo", "Swimmer-v4", 0, (1.0, 2.0), 60), evaluated("ppo", "Swimmer-v4", 1, (3.0,), 60)]
    write_report(study, runs, tmp_path)
    assert "## Evaluations over all tasks" not in (tmp_path / "report.md").read_text(encoding="utf-8")
    x, y = tables.Results(study, runs).evaluation_curves("timestep")["Swimmer-v4"]["ppo"]
    assert (x.tolist(), y.tolist()) == ([BUDGET / 2], [[1], [3]])


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'example' has no finished run"):
        write_report(STUDY, [], tmp_path)
    stranger = make_run("SMAC", "Walker2d-v4", 0, 0, 1, 1000, 0.1)
    with pytest.raises(ValueError, match=r"'SMAC/Walker2d-v4/seed0' is not of study 'example'.*Hopper-v4"):
        write_report(STUDY, [stranger], tmp_path)
    assert not list(tmp_path.iterdir())


def test_timesteps() -> None:
    assert [tables.timesteps(count) for count in (0, 50, 3000, 12_500, 990_000, 1_000_000, 1_250_000)] == [
        *("0", "50", "3k", "12.5k", "990k", "1M", "1.25M")
    ]
