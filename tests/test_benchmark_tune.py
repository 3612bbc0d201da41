"""The search of the step sizes: who goes on, what it costs, what is written, and that it resumes."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("rl_zoo3")

import pandas as pd

from sb3_smac.benchmark import settings
from sb3_smac.benchmark.__main__ import main
from sb3_smac.benchmark.store import Run, Store, empty_curve
from sb3_smac.benchmark.study import Job, Study, load
from sb3_smac.benchmark.tune import Trial, best, best_trials, parse, score, tune

STUDY = """
name: tiny
algorithms: [smac, acsgd]
tasks: [CartPole-v1, Pendulum-v1]
seeds: 1
budget: 5000
horizon: 100
zoo: entries
hyperparameters: {target_kl: null}
evaluation: {every: 100, episodes: 1}
tune:
  learning_rate: {smac: {Pendulum-v1: [0.1, 0.2, 0.4], default: [1, 2, 4]}, acsgd: [10, 20, 40]}
  critic_learning_rate: [1e-3, 2e-3]
  rungs: [100, 300, 1000]
  survivors: [3, 2]
  seeds: [1000, 1001]
"""


def write(folder: Path, text: str = STUDY) -> Study:
    (folder / "entries").mkdir(exist_ok=True)
    (folder / "tiny.yml").write_text(text)
    return load(folder / "tiny.yml")


class FakeRuns:
    """Trials whose return is known: best at ``learning_rate`` 2 or 20 or 0.2, and better with the smaller critic's."""

    def __init__(self, store: Store, failing: float = math.nan) -> None:
        self.store = store
        self.failing = failing
        self.jobs: list[Job] = []

    def __call__(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if job.key not in self.store.finished() + self.store.failed():
                self.jobs.append(job)
                self.store.write(self.run(job))

    def run(self, job: Job) -> Run:
        rate = job.hyperparameters["learning_rate"]
        status = "failed" if rate == self.failing else "finished"
        final = (
            -abs(math.log10(rate) - math.log10(2) - round(math.log10(rate / 2))) - job.hyperparameters["critic_learning_rate"]
        )
        timesteps = [job.budget // 2, job.budget]
        episodes = pd.DataFrame({"timestep": timesteps, "return": [99.0, final], "length": 50, "wall_time": 0.0})
        info = {"status": status, "label": job.label, **job.configuration}
        return Run(job.key, info, episodes, empty_curve("updates"), empty_curve("evaluations"))


def test_successive_halving(tmp_path: Path) -> None:
    study, store = write(tmp_path), Store(tmp_path / "trials")
    runs = FakeRuns(store)
    tune(study, store, runs)

    for algorithm, rate in (("smac", 2), ("acsgd", 20)):
        entry = settings.read_yaml(tmp_path / "entries" / f"{algorithm}.yml")["CartPole-v1"]
        assert (entry["learning_rate"], entry["critic_learning_rate"]) == (rate, 1e-3)
        assert entry["target_kl"] is None
        assert entry["n_timesteps"] == 5000
    # equal budgets, as announced; the search's seeds, and no evaluations
    search = parse(study)
    for label in study.entries:
        trials = [job for job in runs.jobs if (job.label, job.task) == (label, "Pendulum-v1")]
        assert [[job.budget for job in trials].count(budget) for budget in search.rungs] == [2 * 6, 2 * 3, 2 * 2]
        assert (len(trials), sum(job.budget for job in trials)) == (search.trials, search.timesteps)
        assert {job.seed for job in trials} == {1000, 1001}
        assert all(job.evaluation is None for job in trials)
    # the best go on
    _, second, third = (pairs(runs.jobs, "smac", "CartPole-v1", budget) for budget in search.rungs)
    assert third == {(2, 1e-3), (2, 2e-3)}
    assert second > third


def pairs(jobs: list[Job], label: str, task: str, budget: int) -> set[tuple[float, float]]:
    return {
        (job.hyperparameters["learning_rate"], job.hyperparameters["critic_learning_rate"])
        for job in jobs
        if (job.label, job.task, job.budget) == (label, task, budget)
    }


def test_the_study_uses_what_was_found(tmp_path: Path) -> None:
    study, store = write(tmp_path), Store(tmp_path / "trials")
    tune(study, store, FakeRuns(store))
    jobs = {(job.label, job.task): job for job in load(tmp_path / "tiny.yml").jobs}
    assert jobs["smac", "Pendulum-v1"].hyperparameters["learning_rate"] == 0.2
    before = {(job.label, job.task): job for job in study.jobs}
    job = jobs["acsgd", "CartPole-v1"]
    assert job.hyperparameters == {
        **before["acsgd", "CartPole-v1"].hyperparameters,
        **{"learning_rate": 20, "critic_learning_rate": 1e-3},
    }


def test_it_resumes(tmp_path: Path) -> None:
    study, store = write(tmp_path), Store(tmp_path / "trials")
    tune(study, store, FakeRuns(store))
    written = (tmp_path / "entries" / "smac.yml").read_bytes()
    again = FakeRuns(store)
    tune(load(tmp_path / "tiny.yml"), store, again)
    assert again.jobs == []
    assert (tmp_path / "entries" / "smac.yml").read_bytes() == written


def test_a_failed_trial_is_the_worst(tmp_path: Path) -> None:
    study, store = write(tmp_path), Store(tmp_path / "trials")
    tune(study, store, FakeRuns(store, failing=2))
    assert settings.read_yaml(tmp_path / "entries" / "smac.yml")["CartPole-v1"]["learning_rate"] != 2


def test_finalists_that_break_down_lose(tmp_path: Path) -> None:
    class BreakingRuns(FakeRuns):
        def run(self, job: Job) -> Run:
            run = super().run(job)
            if job.budget == 1000 and job.label == "smac":
                run.episodes["return"] -= 1000
            return run

    study, store = write(tmp_path), Store(tmp_path / "trials")
    tune(study, store, BreakingRuns(store))
    text = (tmp_path / "entries" / "smac.yml").read_text()
    entry = settings.read_yaml(tmp_path / "entries" / "smac.yml")["CartPole-v1"]
    # of three in the second rung, the two finalists, at 2, lost
    assert entry["learning_rate"] in (1, 4)
    assert "after 300 timesteps;\n# -1000 by learning_rate 2, critic_learning_rate 0.001 after 1000;" in text
    assert settings.read_yaml(tmp_path / "entries" / "acsgd.yml")["CartPole-v1"]["learning_rate"] == 20


def test_best_trials() -> None:
    trials = {
        (1.0, 1.0): Trial(5, 100),
        (2.0, 1.0): Trial(5, 1000),
        (3.0, 1.0): Trial(6, 100),
        (4.0, 1.0): Trial(-math.inf, 100),
    }
    assert best_trials(trials) == [(3.0, 1.0), (2.0, 1.0), (1.0, 1.0), (4.0, 1.0)]


def test_other_entries_stay_as_they_are(tmp_path: Path) -> None:
    study = write(tmp_path)
    path = tmp_path / "entries" / "acsgd.yml"
    other = "# Hopper-v4: by hand\nHopper-v4: {policy: MlpPolicy, n_timesteps: 7}  # so\n"
    path.write_text(f"# AC-SGD\n\n{other}")
    store = Store(tmp_path / "trials")
    tune(study, store, FakeRuns(store))
    text = path.read_text()
    assert text.startswith(f"# AC-SGD\n\n{other}\n# CartPole-v1: tuned: ")
    assert list(settings.read_yaml(path)) == ["Hopper-v4", "CartPole-v1", "Pendulum-v1"]


def test_score_is_the_mean_of_the_last_quarter(tmp_path: Path) -> None:
    store = Store(tmp_path)
    job = write(tmp_path).job("smac", "CartPole-v1", 0, budget=100)
    episodes = pd.DataFrame({"timestep": [50, 75, 76, 100], "return": [1.0, 2.0, 3.0, 5.0], "length": 10, "wall_time": 0.0})
    info = {"status": "finished", "label": "smac", **job.configuration}
    store.write(Run(job.key, info, episodes, empty_curve("updates"), empty_curve("evaluations")))
    assert score(store, job) == 4


def test_best() -> None:
    assert best({(1.0, 1.0): 0.0, (2.0, 1.0): 5.0, (3.0, 1.0): 5.0, (4.0, 1.0): -math.inf}, 2) == [(2.0, 1.0), (3.0, 1.0)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("survivors: [3, 2]", "", "tune: survivors is missing"),
        ("survivors: [3, 2]", "survivors: [3]", "survivors must have one number fewer than rungs"),
        ("survivors: [3, 2]", "survivors: [2, 3]", "survivors must become fewer, from 6 candidates"),
        ("survivors: [3, 2]", "survivors: [7, 2]", "survivors must become fewer, from 6 candidates"),
        ("rungs: [100,", "rungs: [0,", "tune: rungs must be an integer >= 1, got 0"),
        ("acsgd: [10, 20, 40]", "acsgd: [10, 20]", "as many values for every algorithm and task"),
        ("acsgd: [10, 20, 40]", "acsgd: [10, 20, 0]", "tune: learning_rate: acsgd must be a finite number > 0, got 0"),
        (", acsgd: [10, 20, 40]", "", "tune: learning_rate: acsgd must be a list of numbers, got None"),
        ("acsgd: [10", "acsdg: [10", "tune: learning_rate: there is no key 'acsdg': did you mean 'acsgd'"),
        ("{Pendulum-v1: [", "{Pendulun-v1: [", "there is no key 'Pendulun-v1': did you mean 'Pendulum-v1'"),
        ("zoo: entries", "", "zoo is missing"),
        ("{target_kl: null}", "{learning_rate: 1}", "learning_rate is set by the study"),
        ("[smac, acsgd]", "[smac, ppo]", "algorithms: ppo: ppo has no critic_learning_rate"),
        ("[smac, acsgd]", "{smac: , other: {algorithm: smac}}", "tune needs each algorithm once"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in STUDY
    study = write(tmp_path, STUDY.replace(old, new))
    with pytest.raises(ValueError) as error:
        parse(study)
    assert message in str(error.value)


def test_of_one_algorithm(tmp_path: Path) -> None:
    write(tmp_path, STUDY.replace("rungs: [100, 300, 1000]", "rungs: [100]").replace("survivors: [3, 2]", "survivors: []"))
    path = tmp_path / "tiny.yml"
    path.write_text(
        path.read_text().replace("[1000, 1001]", "[1000]").replace("learning_rate: {smac", "learning_rate: {smca", 1)
    )
    command = ["tune", str(path), "--results", str(tmp_path / "trials"), "--algorithm", "acsgd", "--task", "CartPole-v1"]
    assert "there is no key 'smca'" in str(main([*command, "--workers", "1"]))
    path.write_text(path.read_text().replace("smca", "smac"))
    assert main([*command, "--workers", "1"]) == 0
    assert list(settings.read_yaml(tmp_path / "entries" / "acsgd.yml")) == ["CartPole-v1"]
    assert not (tmp_path / "entries" / "smac.yml").exists()
