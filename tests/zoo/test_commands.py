"""The commands, as a user types them: each algorithm, on a discrete and a continuous task, with tiny budgets."""

import csv
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_smac.zoo import HYPERPARAMS
from sb3_smac.zoo.__main__ import main
from tests.zoo.conftest import Run, Start, finish

pytest.importorskip("rl_zoo3")
yaml = pytest.importorskip("yaml")
optuna = pytest.importorskip("optuna")

HELPERS = Path(__file__).parent / "helpers"
HORIZON = 1000
SAME = ("--num-threads", 1, "--seed", 1)  # whenever it runs
CARTPOLE = ("--algo", "smac", "--env", "CartPole-v1")
PENDULUM = ("--algo", "accg", "--env", "Pendulum-v1")
EVALUATIONS = ("--eval-freq", 1000, "--eval-episodes", 1)
LOGS = ("-f", "logs")


def logged(output: str, key: str) -> list[float]:
    """The values of a key in the printed tables."""
    return [float(value) for value in re.findall(rf"\b{key} +\| (\S+)", output)]


@pytest.fixture(scope="module")
def cartpole(run: Run, folder: Path) -> Path:
    """A run on a discrete task, with checkpoints, evaluations of one episode and a tensorboard log."""
    run("train", *CARTPOLE, *SAME, "-n", 2000, *EVALUATIONS, "--save-freq", 1000, "-tb", "tb")
    return folder / "logs/smac/CartPole-v1_1"


@pytest.fixture(scope="module")
def continued(run: Run, cartpole: Path) -> str:
    """A run that goes on where :func:`cartpole` stopped, with schedules."""
    return run(
        *("train", *CARTPOLE, *SAME, "-n", 2000, *EVALUATIONS),
        *("-i", cartpole / "CartPole-v1.zip", "-params", "critic_learning_rate:'lin_1e-2'", "target_kl:'lin_0.1'"),
    )


@pytest.fixture(scope="module")
def pendulum(run: Run) -> str:
    """A run on a continuous task, with two processes, schedules and a progress bar."""
    return run(
        *("train", *PENDULUM, *SAME, "-n", 2000, "--eval-freq", 2000, "--eval-episodes", 1, "-P"),
        *("--vec-env", "subproc", "-params", "n_envs:2", "n_steps:500"),
        *("learning_rate:'lin_0.1'", "critic_learning_rate:'lin_1e-3'", "target_kl:'lin_0.02'"),
    )


def test_train_leaves_models_statistics_evaluations_and_logs(cartpole: Path, folder: Path) -> None:
    for name in ("CartPole-v1.zip", "best_model.zip", "rl_model_1000_steps.zip", "rl_model_2000_steps.zip"):
        assert (cartpole / name).is_file()
    assert (cartpole / "CartPole-v1/vecnormalize.pkl").is_file()
    assert np.load(cartpole / "evaluations.npz")["timesteps"].tolist() == [1000, 2000]
    assert list(folder.glob("tb/CartPole-v1/SMAC_1/events*"))


def test_schedules_fall_with_progress(pendulum: str) -> None:
    """Two iterations: the update after the first one sees half of the training remaining."""
    assert logged(pendulum, "learning_rate")[-1] == 0.05
    assert logged(pendulum, "critic_learning_rate")[-1] == 0.0005
    assert logged(pendulum, "approx_kl")[-1] == pytest.approx(0.01, rel=0.3)


def test_training_goes_on_with_new_schedules(continued: str, cartpole: Path) -> None:
    assert continued.count("Loading saved VecNormalize stats") == 2  # training and evaluation
    assert logged(continued, "n_updates")[-1] == 3
    assert logged(continued, "critic_learning_rate")[-1] == 0.005
    assert logged(continued, "approx_kl")[-1] == pytest.approx(0.05, rel=0.3)
    assert (cartpole.parent / "CartPole-v1_2/CartPole-v1.zip").is_file()


def test_horizon_holds_in_training_and_evaluation(pendulum: str, folder: Path) -> None:
    """Pendulum never terminates, so that its episodes are as long as its horizon; gymnasium's is 200."""
    run_folder = folder / "logs/accg/Pendulum-v1_1"
    with open(run_folder / "0.monitor.csv") as file:
        assert [int(row["l"]) for row in csv.DictReader(list(file)[1:])] == [HORIZON]
    assert np.load(run_folder / "evaluations.npz")["ep_lengths"].tolist() == [[HORIZON]]


def test_horizon_holds_in_enjoy(pendulum: str, run: Run) -> None:
    output = run("enjoy", *PENDULUM, *LOGS, "--no-render", "-n", HORIZON)
    assert f"Mean episode length: {HORIZON}.00" in output


def test_enjoy_loads_the_last_checkpoint(cartpole: Path, run: Run) -> None:
    output = run("enjoy", *CARTPOLE, *LOGS, "--exp-id", 1, "--no-render", "--load-last-checkpoint", "-n", 1001)
    assert "rl_model_2000_steps.zip" in output
    assert "Mean reward" in output


def test_plots_of_runs_evaluated_with_one_episode(
    cartpole: Path, continued: str, run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["zoo"])
    output = run("plots", "-a", "smac", "-e", "CartPole", *LOGS, "--no-display", "--no-million", "-o", "results")
    last = [np.load(f"{cartpole}/../CartPole-v1_{i}/evaluations.npz")["results"][-1].item() for i in (1, 2)]
    assert f"{np.mean(last):.0f} +/- {np.std(last) / np.sqrt(2):.0f}" in output

    assert main(["plot_from_file", "-i", "results.pkl", "--no-million", "--rliable", "-o", "figure"]) == 0
    assert (folder / "figure").is_file()
    assert main(["plot_train", "-a", "smac", "-e", "CartPole", *LOGS, "-w", "2"]) == 0


def test_benchmark_enjoys_a_trained_agent(cartpole: Path, pendulum: str, run: Run, folder: Path) -> None:
    first_only = "--test-mode"
    run("benchmark", "--log-dir", "logs", "--benchmark-dir", "table", "--no-hub", first_only, *SAME, "-n", HORIZON)
    assert re.search(r"\|(accg\|Pendulum|smac\|CartPole)-v1\| *-?\d+", (folder / "table/benchmark.md").read_text())


def test_record_video(pendulum: str, run: Run, folder: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg")
    run("record_video", *PENDULUM, *LOGS, "-n", 20, "-o", "video")
    (video,) = folder.glob("video/*.mp4")
    assert video.stat().st_size > 1000


def test_hub_gives_back_what_it_was_given(cartpole: Path, run: Run, folder: Path) -> None:
    hub = (str(HELPERS / "with_fake_hub.py"), "hub_store")
    run("push_to_hub", *CARTPOLE, *LOGS, "--exp-id", 1, "-orga", "us", "--no-render", program=hub)
    repository = folder / "hub_store/us/smac-CartPole-v1"
    card = (repository / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: stable-baselines3")
    assert "python -m sb3_smac.zoo enjoy --algo smac --env CartPole-v1" in card
    assert "rl_zoo3." not in card

    (repository / "vec_normalize.pkl").unlink()  # as that of a model trained without
    run("load_from_hub", *CARTPOLE, "-f", "downloaded", "-orga", "us", program=hub)
    downloaded = folder / "downloaded/smac/CartPole-v1_1"
    assert (downloaded / "CartPole-v1.zip").read_bytes() == (repository / "smac-CartPole-v1.zip").read_bytes()
    assert not (downloaded / "CartPole-v1/vecnormalize.pkl").exists()


OPTIMIZE = ("-optimize", "--no-optim-plots", "-n", 500, "--n-evaluations", 1, "--eval-episodes", 1, *SAME)


SQLITE = ("--storage", "sqlite:///study.db", "--study-name", "shared")
JOURNAL = ("--storage", "journal/study.log", "--study-name", "shared")


def search_with_two_processes(start: Start, *arguments: object) -> None:
    for process in [start("train", *arguments, *OPTIMIZE, "--n-trials", 1, "-params", "n_steps:500") for _ in range(2)]:
        finish(process)


def assert_complete(study: optuna.Study, n_trials: int) -> None:
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * n_trials


@pytest.fixture(scope="module")
def study(start: Start, folder: Path) -> optuna.Study:
    """A study in a database, by two processes."""
    search_with_two_processes(start, "--algo", "acsgd", "--env", "CartPole-v1", *SQLITE)
    return optuna.load_study(study_name="shared", storage=f"sqlite:///{folder}/study.db")


def test_two_processes_share_a_database(study: optuna.Study) -> None:
    assert_complete(study, n_trials=2)


def test_two_processes_share_a_journal(start: Start, folder: Path) -> None:
    search_with_two_processes(start, "--algo", "acadam", "--env", "Pendulum-v1", *JOURNAL)
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal/study.log"))
    assert_complete(optuna.load_study(study_name="shared", storage=optuna.storages.JournalStorage(backend)), n_trials=2)


@pytest.fixture(scope="module")
def first_trial(study: optuna.Study, run: Run, folder: Path) -> Path:
    """A run with the hyperparameters of a trial."""
    task = ("--algo", "acsgd", "--env", "CartPole-v1")
    run("train", *task, *SQLITE, "--trial-id", 0, *SAME, "-n", 1000, "--eval-freq", -1, "-f", "trial")
    return folder / "trial/acsgd/CartPole-v1_1"


def test_the_first_trial_can_be_trained_too(study: optuna.Study, first_trial: Path) -> None:
    """The Zoo alone would take ``--trial-id 0`` for no trial."""
    hyperparams = dict(yaml.unsafe_load((first_trial / "CartPole-v1/config.yml").read_text()))
    assert hyperparams["learning_rate"] == study.trials[0].params["learning_rate"]
    assert hyperparams["gamma"] == 1 - study.trials[0].params["one_minus_gamma"]


def test_record_training_calls_record_video(first_trial: Path, run: Run) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="no ffmpeg")
    output = run("record_training", "--algo", "acsgd", "--env", "CartPole-v1", "-f", "trial", "-n", 20)
    videos = {path.name.split("-")[0] for path in first_trial.glob("videos/*.mp4")}
    assert videos == {"final", "training.mp4"}, output


def test_numerical_failures_prune_their_trial_alone(run: Run, folder: Path) -> None:
    search = ("train", "--algo", "smac", "--env", "FailsAtFirst-v0", "--gym-packages", "failing_env", *OPTIMIZE)
    run(*search, "--n-trials", 3, "-f", "failing", "-params", "n_steps:500", "normalize:False")
    (report,) = folder.glob("failing/smac/report*.csv")
    with open(report) as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["PRUNED", "PRUNED", "COMPLETE"]


def test_own_training_script_knows_our_algorithms_and_yaml(run: Run, folder: Path) -> None:
    script = folder / "train.py"
    script.write_text("from sb3_smac import zoo\n\nzoo.register()\n\nfrom rl_zoo3.train import train\n\ntrain()\n")
    output = run(*CARTPOLE, *SAME, "-n", 1000, "--eval-freq", -1, "-f", "own", program=(str(script),))
    assert f"Loading hyperparameters from: {HYPERPARAMS / 'smac.yml'}" in output
