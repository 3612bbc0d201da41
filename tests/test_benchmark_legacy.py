"""Runs in the layout of the first results: they are found again under the keys of today, with the same curves."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pyarrow")
pytest.importorskip("rl_zoo3")

from sb3_smac.benchmark import legacy, settings
from sb3_smac.benchmark.__main__ import main
from sb3_smac.benchmark.store import Run, Store
from sb3_smac.benchmark.study import Job, load

STUDY = """
name: old
algorithms: {smac: {hyperparameters: {damping: 1, n_steps: 100}}, trpo: , extra: {algorithm: trpo}}
tasks: [Pendulum-v1]
seeds: 2
budget: 400
horizon: 100
evaluation: {every: 200, episodes: 2}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "old.yml"
    path.write_text(STUDY)
    return path


def write(root: Path, job: Job, **changes: Any) -> Path:
    """As it was: every hyperparameter of the constructor in one table, numbers as YAML had them, curves as CSV."""
    hyperparameters = {**settings.defaults(job.algorithm), **job.hyperparameters, **changes}
    hyperparameters.pop("critic_optimizer", None)  # came later
    folder = root / job.label / job.task / f"seed{job.seed}-01234567"
    folder.mkdir(parents=True)
    info = {"status": "finished", "label": job.label, **job.configuration, "hyperparameters": hyperparameters}
    info |= {"duration": {"total": 12.0, "update": 1.0, "evaluation": 4.0}, "versions": {"python": "3"}, "warnings": []}
    (folder / "run.json").write_text(json.dumps(info))
    curves = {
        "episodes": "timestep,return,length,wall_time\n100,-1234.57,100,2\n200,-1,100,4\n300,-2,100,8\n400,-3,100,10\n",
        "updates": "timestep,log_prob,update_time,approx_kl\n400,-0.5,1,\n",
        "evaluations": "timestep,mean,std,episodes\n200,-5,1,2\n400,-4.5,0,2\n",
    }
    for name, text in curves.items():
        with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
            file.write(text)
    return folder


def read(root: Path, study: Path) -> list[Run]:
    return list(legacy.read(root, load(study)))


def test_a_run_gets_the_key_of_its_job(tmp_path: Path, study: Path) -> None:
    jobs = load(study).jobs
    for job in jobs:
        changes = {"damping": 1.0} if job.algorithm == "smac" else {}
        write(tmp_path / "there", job, **changes)
    runs = read(tmp_path / "there", study)
    assert sorted(run.key for run in runs) == sorted(job.key for job in jobs)
    run = next(run for run in runs if run.label == "smac")
    assert run.info["hyperparameters"] == next(job for job in jobs if job.label == "smac").hyperparameters
    assert run.hyperparameters.keys() >= settings.defaults("smac").keys()
    assert run.episodes["return"].tolist() == [-1234.57, -1, -2, -3]
    assert run.evaluations["mean"].tolist() == [-5, -4.5]
    # 4 s until the first; two seconds of evaluation later, 10 - 2
    assert run.evaluations["wall_time"].tolist() == [4, 8]


def test_another_configuration_stays_one(tmp_path: Path, study: Path) -> None:
    jobs = load(study).jobs
    write(tmp_path / "there", jobs[0], damping=2.0)
    write(tmp_path / "there", jobs[1], cg_max_steps=99)
    assert not {run.key for run in read(tmp_path / "there", study)} & {job.key for job in jobs}


def test_a_run_that_failed_or_is_half_there_is_left(tmp_path: Path, study: Path) -> None:
    job = load(study).jobs[0]
    folder = write(tmp_path / "there", job)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, "status": "failed"}))
    (folder.parent / ".partial-host+1-seed0").mkdir()
    (folder.parent / ".partial-host+1-seed0" / "run.json").write_text('{"status": "fini')
    assert read(tmp_path / "there", study) == []


def test_merge_takes_them(tmp_path: Path, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = load(study).jobs
    for job in jobs[:3]:
        write(tmp_path / "there", job)
    results = tmp_path / "results"
    for taken in (3, 0):
        assert main(["merge", str(study), str(tmp_path / "there"), "--results", str(results)]) == 0
        assert f"{taken} runs taken\n" in capsys.readouterr().out
    assert sorted(Store(results).finished()) == sorted(job.key for job in jobs[:3])
    assert main(["report", str(study), "--results", str(results)]) == 0
