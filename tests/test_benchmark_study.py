"""Studies: what they resolve to, and how they are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("yaml")
pytest.importorskip("pandas")
pytest.importorskip("rl_zoo3")

from sb3_smac.benchmark import settings
from sb3_smac.benchmark.study import Job, Study, find, load
from sb3_smac.zoo.wrappers import TIME_LIMIT

STUDIES = Path(__file__).parents[1] / "benchmarks" / "studies"
FILES = {"runs.jsonl", "episodes.parquet", "evaluations.parquet", "updates.parquet"}
EXAMPLE = """
name: example
algorithms:
  smac:
  smac full:
    algorithm: smac
    hyperparameters: {fisher_rank: full, gae_lambda: 0.8}
    tasks: {Pendulum-v1: {gae_lambda: 0.7}}
  ppo:
tasks:
  CartPole-v1:
  Pendulum-v1: {budget: 50, horizon: 7, hyperparameters: {damping: 1e-1, gae_lambda: 0.6}}
seeds: 2
budget: 100
horizon: 30
hyperparameters: {damping: 2, gae_lambda: 0.5}
evaluation: {every: 10, episodes: 1}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "study.yml"
    path.write_text(text)
    return path


@pytest.fixture
def example(tmp_path: Path) -> Study:
    return load(write(tmp_path, EXAMPLE))


def job(study: Study, label: str, task: str, seed: int = 0) -> Any:
    (job,) = (job for job in study.jobs if (job.label, job.task, job.seed) == (label, task, seed))
    return job


@pytest.mark.parametrize(
    ("label", "task", "name", "value"),
    [
        ("smac", "CartPole-v1", "gae_lambda", 0.5),  # the study's, not the Zoo entry's 0.9
        ("smac", "Pendulum-v1", "gae_lambda", 0.6),  # the task's
        ("smac full", "CartPole-v1", "gae_lambda", 0.8),  # the algorithm's
        ("smac full", "Pendulum-v1", "gae_lambda", 0.7),  # the algorithm's on the task
        ("smac", "CartPole-v1", "damping", 2),
        ("smac", "Pendulum-v1", "damping", 0.1),  # a number, though YAML 1.1 has it a string
        ("smac", "CartPole-v1", "normalize", True),  # this package's Zoo entry
        ("ppo", "CartPole-v1", "gae_lambda", 0.5),
        ("ppo", "CartPole-v1", "clip_range", "lin_0.2"),  # the Zoo's own entry
        ("ppo", "CartPole-v1", "damping", None),  # it has none
        ("smac", "CartPole-v1", "critic_learning_rate", None),  # what is not set is the constructor's matter
        ("smac", "CartPole-v1", "env_wrapper", [{TIME_LIMIT: {"max_episode_steps": 30}}]),  # not the Zoo entry's 1000
        ("smac", "Pendulum-v1", "env_wrapper", [{TIME_LIMIT: {"max_episode_steps": 7}}]),
        ("ppo", "CartPole-v1", "env_wrapper", [{TIME_LIMIT: {"max_episode_steps": 30}}]),
    ],
)
def test_the_last_word_counts(example: Study, label: str, task: str, name: str, value: object) -> None:
    assert job(example, label, task).hyperparameters.get(name) == value


def test_grid(example: Study) -> None:
    assert [(job.task, job.seed, job.label) for job in example.jobs] == [
        (task, seed, label)
        for task in ("CartPole-v1", "Pendulum-v1")
        for seed in (0, 1)
        for label in ("smac", "smac full", "ppo")
    ]
    assert len({job.key for job in example.jobs}) == 12
    assert [job(example, "smac", task).budget for task in example.tasks] == [100, 50]


def test_a_task_has_evaluations_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, EXAMPLE.replace("horizon: 7,", "horizon: 7, evaluation: {every: 25, episodes: 2},"))
    study = load(path)
    assert job(study, "smac", "CartPole-v1").evaluation == {"every": 10, "episodes": 1}
    assert job(study, "smac", "Pendulum-v1").evaluation == {"every": 25, "episodes": 2}
    path.write_text(path.read_text().replace("evaluation: {every: 10, episodes: 1}\n", ""))
    assert [job(load(path), "ppo", task).evaluation for task in study.tasks] == [None, {"every": 25, "episodes": 2}]


def test_the_key_is_of_the_configuration(tmp_path: Path) -> None:
    keys = [job.key for job in load(write(tmp_path, EXAMPLE)).jobs]
    assert keys == [job.key for job in load(write(tmp_path, EXAMPLE.replace("name: example", "name: other"))).jobs]
    assert keys[0].startswith("smac/CartPole-v1/seed0-")
    for old, new in (("damping: 2", "damping: 3"), ("horizon: 30", "horizon: 31"), ("every: 10,", "every: 11,")):
        changed = load(write(tmp_path, EXAMPLE.replace(old, new)))
        assert changed.jobs[0].key != keys[0], new


def key(hyperparameters: dict[str, Any]) -> str:
    return Job("smac", "smac", "CartPole-v1", 0, 100, None, hyperparameters, None).key


def test_a_key_is_of_what_is_set_not_of_how_it_is_written() -> None:
    assert key({"damping": 1, "n_steps": 5}) == key({"n_steps": 5.0, "damping": 1.0})
    assert key({"policy_kwargs": {"net_arch": (64, 64.0)}}) == key({"policy_kwargs": {"net_arch": [64.0, 64]}})
    different = [{"damping": value} for value in (1, 1.5, True, "1", None, [1])] + [{}, {"gamma": 1}]
    assert len({key(hyperparameters) for hyperparameters in different}) == len(different)


def test_a_key_outlives_a_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Constructors get arguments and change defaults: what is stored keeps its key, also where the default itself is set."""
    path = write(tmp_path, EXAMPLE.replace("{damping: 2,", "{critic_learning_rate: 0.001, damping: 2,"))
    keys = [job.key for job in load(path).jobs]
    assert settings.defaults("smac")["critic_learning_rate"] == 0.001
    defaults = settings.defaults

    def later(algorithm: str) -> dict[str, Any]:
        changed = {name: 0.125 for name in ("critic_learning_rate", "vf_coef", "gamma") if name in defaults(algorithm)}
        return {**defaults(algorithm), **changed, "an_argument_of_a_later_release": 7}

    monkeypatch.setattr(settings, "defaults", later)
    assert [job.key for job in load(path).jobs] == keys


def test_a_folder_of_zoo_entries_comes_first(tmp_path: Path) -> None:
    (tmp_path / "entries").mkdir()
    (tmp_path / "entries" / "smac.yml").write_text("CartPole-v1: {policy: MlpPolicy, n_timesteps: 5, learning_rate: 0.25}")
    study = load(write(tmp_path, EXAMPLE + "zoo: entries\n"))
    assert job(study, "smac", "CartPole-v1").hyperparameters["learning_rate"] == 0.25
    assert job(study, "smac", "CartPole-v1").budget == 100
    assert "learning_rate" not in job(study, "smac", "Pendulum-v1").hyperparameters


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("algorithms:", "algoritms:", "'algoritms' is no key; did you mean 'algorithms'"),
        ("seeds: 2", "", "seeds: Field required"),
        ("  ppo:", "  pppo:", "'pppo' is no algorithm; did you mean 'ppo'"),
        ("algorithm: smac", "algorithm: smack", "'smack' is no algorithm; did you mean 'smac'"),
        ("fisher_rank", "fisher_rang", "'fisher_rang' is no hyperparameter of smac; did you mean 'fisher_rank'"),
        ("{damping: 2,", "{dampin: 2,", "'dampin' is no hyperparameter of any algorithm; did you mean 'damping'"),
        (
            "{damping: 1e-1,",
            "{dampin: 1,",
            "'dampin' is no hyperparameter of any algorithm (for Pendulum-v1); did you mean 'damping'",
        ),
        ("  CartPole-v1:", "  CartPol-v1:", "'CartPol-v1' is no environment; did you mean 'CartPole-v1'"),
        ("  CartPole-v1:", "  CartPole-v7:", "'CartPole-v7' is no environment; did you mean 'CartPole-v1'"),
        (
            "{Pendulum-v1: {",
            "{Hopper-v4: {",
            "'Hopper-v4' is no task (of smac full); choose from CartPole-v1, Pendulum-v1",
        ),
        ("{budget: 50", "{budge: 50", "tasks: Pendulum-v1: 'budge' is no key; did you mean 'budget'"),
        ("{budget: 50", "{budget: -5", "tasks: Pendulum-v1: budget: Input should be greater than 0, got -5"),
        ("budget: 100", "budget: 100\nreference: pp", "'pp' is no algorithm (as reference); did you mean 'ppo'"),
        ("seeds: 2", "seeds: 2\npublished: {Hopper-v4: 3}", "'Hopper-v4' is no task (as published); choose from"),
        ("seeds: 2", "seeds: 2\npublished: {CartPole-v1: 0}", "published: CartPole-v1: Input should be greater than 0, got 0"),
        ("seeds: 2", "seeds: 0", "seeds: List should have at least 1 item"),
        ("seeds: 2", "seeds: true", "seeds: Input should be a valid list, got True"),
        ("budget: 100", "budget: 1.5", "budget: Input should be a valid integer, got 1.5"),
        ("seeds: 2", "seeds: [1, 1]", "seeds must be different, got [1, 1]"),
        ("seeds: 2", "seeds: [-1]", "seeds: 0: Input should be greater than or equal to 0, got -1"),
        ("budget: 100", "budget: many", "budget: Input should be a valid integer, got 'many'"),
        ("horizon: 30", "horizon: 0", "horizon: Input should be greater than 0, got 0"),
        ("every: 10,", "every: 0,", "evaluation: every: Input should be greater than 0, got 0"),
        ("every: 10,", "", "evaluation: every: Field required"),
        ("name: example", "name: a/b", "name: String should match pattern"),
        ("  smac full:", "  'smac ':", "each must make a name of its own"),
        ("name: example", "name: [", "is not a YAML file"),
        ("budget: 100", "budget: 100\nzoo: nowhere", "zoo must be a folder, got"),
        ("evaluation: {every: 10, episodes: 1}", "evaluation: 3", "evaluation: Input should be a valid dictionary"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    path = write(tmp_path, EXAMPLE.replace(old, new, 1))
    with pytest.raises(ValueError) as error:
        load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_what_a_task_does_not_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "{name: x, algorithms: [smac], tasks: [CliffWalking-v1], seeds: 1, budget: 1, horizon: 5}"
    with pytest.raises(ValueError, match="horizon: CliffWalking-v1 has no time limit"):
        load(write(tmp_path, text))
    (tmp_path / "smac.yml").write_text("Pendulum-v1: {policy: MlpPolicy}")
    monkeypatch.setattr(settings, "HYPERPARAMS", tmp_path)
    with pytest.raises(ValueError, match=r"smac has no Zoo entry for CartPole-v1 in .*smac\.yml"):
        load(write(tmp_path, text.replace("CliffWalking", "CartPole")))


def test_finding_a_study(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(STUDIES.parents[1])
    assert find("smoke").name == "smoke.yml"
    with pytest.raises(ValueError, match="'smok' is no study file; did you mean 'smoke'"):
        find("smok")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"'smoke' is no study file, nor is there a folder benchmarks.studies here"):
        find("smoke")


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.yml")), ids=lambda path: path.stem)
def test_the_studies_of_the_repository(path: Path) -> None:
    study = load(path)
    assert study.name == path.stem
    assert study.jobs


def test_the_papers_protocol() -> None:
    study = load(STUDIES / "paper.yml")
    assert len(study.jobs) == 4 * 9 * 5
    dampings = {"Acrobot-v1": 0.1, "CartPole-v1": 0.1, "Pendulum-v1": 0.1, "Pusher-v5": 0.01, "Humanoid-v4": 0.01}
    for run in study.jobs:
        hyperparameters = run.hyperparameters
        chosen = {name: hyperparameters[name] for name in ("n_steps", "gamma", "gae_lambda", "target_kl")}
        assert chosen == {"n_steps": 1000, "gamma": 0.99, "gae_lambda": 0.9, "target_kl": None}
        assert hyperparameters["critic_target"] == "monte_carlo"
        assert hyperparameters["env_wrapper"] == [{TIME_LIMIT: {"max_episode_steps": 1000}}]
        assert run.budget == (300_000 if "Acrobot CartPole Pendulum".find(run.task[:-3]) >= 0 else 1_000_000)
        if run.algorithm in ("smac", "accg"):
            assert hyperparameters["damping"] == dampings.get(run.task, 1.0)


@pytest.mark.parametrize("path", sorted((STUDIES.parent / "results").glob("*/runs.jsonl")), ids=lambda path: path.parent.name)
def test_published_results_are_found(path: Path) -> None:
    """A change of a study, a Zoo entry or the key would orphan them."""
    stored = [json.loads(line) for line in path.read_text().splitlines()]
    assert {run["key"] for run in stored} <= {job.key for job in load(STUDIES / f"{path.parent.name}.yml").jobs}
    assert all(run["status"] == "finished" and run["summary"]["final_return"] is not None for run in stored)
    assert {file.name for file in path.parent.iterdir() if file.is_file()} <= FILES
