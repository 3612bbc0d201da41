"""Every task that the classes take, through the commands: names, spaces, packages, keyword arguments, time limits."""

import csv
import itertools
import pickle
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.monitor import Monitor

from sb3_smac import ALGORITHMS
from sb3_smac.zoo.__main__ import main
from sb3_smac.zoo.wrappers import ends, time_limit
from tests.zoo.conftest import ENVIRONMENT, HELPERS

pytest.importorskip("rl_zoo3.import_envs")  # it registers tasks of its own
yaml = pytest.importorskip("yaml")
sys.path.append(str(HELPERS))

import spaces_env  # noqa: E402

EVERY_TASK = [f"Spaces/{name}-v0" for name in (*spaces_env.OBSERVATIONS, *spaces_env.ACTIONS)]
SHORT = ("-n", "32", "--eval-freq", "16", "--eval-episodes", "1", "--seed", "1")
TWO_ENVIRONMENTS = ("-params", "n_steps:8", "n_envs:2")

BOX_PARTS = {"DictOfBoxes": {"a", "b"}, "DictMixed": {"box"}}
IS_NORMALIZED = {"Vector", "Matrix", "Unbounded", "Integers", *BOX_PARTS, *spaces_env.ACTIONS}
POLICIES = {
    **dict.fromkeys(("Image", "ImageChannelsFirst"), "CnnPolicy"),
    **dict.fromkeys(("DictOfBoxes", "DictMixed", "DictWithoutBoxes"), "MultiInputPolicy"),
}


def command(name: str, algo: str, task: str, *arguments: str) -> None:
    assert main([name, "--algo", algo, "--env", task, *arguments]) == 0


def saved(algo: str, name: str, run: int = 1) -> Any:
    with open(f"logs/{algo}/{name}_{run}/{name}/vecnormalize.pkl", "rb") as file:
        return pickle.load(file)


@pytest.mark.parametrize("task, algo", zip(EVERY_TASK, itertools.cycle(ALGORITHMS), strict=False))
def test_every_space_from_the_default_entry(task: str, algo: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, evaluated, trained on, watched; with the policy that takes it, and what can be normalised normalised."""
    name = task.replace("/", "-")
    observations = name.split("-")[1]
    command("train", algo, task, *SHORT, *TWO_ENVIRONMENTS)
    model = ALGORITHMS[algo].load(f"logs/{algo}/{name}_1/{name}.zip")
    assert model.policy_class is ALGORITHMS[algo].policy_aliases[POLICIES.get(observations, "MlpPolicy")]
    config = dict(yaml.unsafe_load(Path(f"logs/{algo}/{name}_1/{name}/config.yml").read_text()))
    assert config["policy"] == POLICIES.get(observations, "MlpPolicy")

    statistics = saved(algo, name)
    assert statistics.norm_reward and statistics.ret_rms.count > 32
    assert statistics.norm_obs == (observations in IS_NORMALIZED)
    if observations in BOX_PARTS:
        assert set(statistics.obs_rms) == set(statistics.norm_obs_keys) == BOX_PARTS[observations]
    elif statistics.norm_obs:
        assert statistics.obs_rms.count > 32

    command("train", algo, task, *SHORT, *TWO_ENVIRONMENTS, "-i", f"logs/{algo}/{name}_1/{name}.zip")
    assert saved(algo, name, 2).ret_rms.count > statistics.ret_rms.count
    capsys.readouterr()
    command("enjoy", algo, task, "-f", "logs", "--no-render", "-n", str(spaces_env.HORIZON), "--exp-id", "1")
    output = capsys.readouterr().out
    assert "Loading running average" in output and "1 Episodes" in output


@pytest.mark.parametrize("task", ["FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"])
def test_gymnasium_s_tables(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sb3_smac.zoo.wrappers.ends.__defaults__", (50,))  # CliffWalking has no time limit
    command("train", "smac", task, *SHORT, "-params", "n_steps:16")
    assert not saved("smac", task).norm_obs
    assert np.load(f"logs/smac/{task}_1/evaluations.npz")["ep_lengths"].max() <= 200
    command("enjoy", "smac", task, "-f", "logs", "--no-render", "-n", "10")


@pytest.mark.parametrize("task", ["Spaces/DictMixed-v0", "Spaces/Image-v0", "Spaces/Discrete-v0"])
def test_search_on_other_observations(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    search = ("-optimize", "--n-trials", "2", "--n-evaluations", "1", "--no-optim-plots")
    command("train", "acsgd", task, *SHORT, *search, *TWO_ENVIRONMENTS)
    assert "Best trial:" in capsys.readouterr().out


def test_a_video_of_a_dict(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    command("train", "accg", "Spaces/DictMixed-v0", *SHORT, *TWO_ENVIRONMENTS)
    video = ("-f", "logs", "-n", "5", "-o", "video", "--gym-packages", "spaces_env")
    command("record_video", "accg", "Spaces/DictMixed-v0", *video)
    assert list(tmp_path.glob("video/*.mp4"))


@pytest.mark.parametrize(
    ("normalize", "is_normalized"),
    [("True", {"a", "b"}), ("{'norm_obs_keys': ['b']}", {"b"}), ("'dict(norm_obs=False)'", set())],
)
def test_what_an_entry_says_of_normalisation_holds(normalize: str, is_normalized: set[str]) -> None:
    command("train", "smac", "Spaces/DictOfBoxes-v0", *SHORT, *TWO_ENVIRONMENTS, f"normalize:{normalize}")
    statistics = saved("smac", "Spaces-DictOfBoxes-v0")
    assert set(vars(statistics).get("obs_rms", {})) == is_normalized and statistics.norm_obs == bool(is_normalized)


def test_a_policy_that_is_chosen_stays() -> None:
    command("train", "smac", "Spaces/Image-v0", *SHORT, *TWO_ENVIRONMENTS, "policy:'MlpPolicy'")
    name = "Spaces-Image-v0"
    Path("mine.yml").write_text("Spaces/Image-v0: {policy: MlpPolicy, n_timesteps: 32, n_steps: 8, normalize: false}")
    command("train", "smac", "Spaces/Image-v0", *SHORT, "-conf", "mine.yml")
    policies = [ALGORITHMS["smac"].load(f"logs/smac/{name}_{number}/{name}.zip").policy_class for number in (1, 2)]
    assert policies == [ALGORITHMS["smac"].policy_aliases["MlpPolicy"]] * 2


@pytest.mark.parametrize("name, folder", [("CartPole", "CartPole"), ("spaces_env:Spaces/ActBox", "Spaces-ActBox")])
def test_names_as_gymnasium_makes_them(name: str, folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a module, without a version; the entry is that of the task that they stand for; the registry stays as it was."""
    registered = set(gym.registry)
    Path("mine.yml").write_text(
        "Spaces/ActBox-v0: {policy: MlpPolicy, n_timesteps: 32, n_steps: 8, damping: 0.7}\n"
        "CartPole-v1: {policy: MlpPolicy, n_timesteps: 32, n_steps: 8, damping: 0.7}\n"
    )
    command("train", "smac", name, *SHORT, "-conf", "mine.yml")
    assert ALGORITHMS["smac"].load(f"logs/smac/{folder}_1/{folder}.zip").damping == 0.7
    command("enjoy", "smac", name, "-f", "logs", "--no-render", "-n", "10")
    assert main(["plot_train", "-a", "smac", "-e", name, "-f", "logs", "-w", "1"]) == 0
    assert "Skipping" not in capsys.readouterr().out
    assert set(gym.registry) == registered


def test_env_kwargs_of_an_entry_hold_wherever_the_environment_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yml").write_text(
        "Spaces/Vector-v0: {policy: MlpPolicy, n_timesteps: 32, n_steps: 8, normalize: false, env_kwargs: {bonus: 100.0}}"
    )
    command("train", "smac", "Spaces/Vector-v0", *SHORT, "-conf", "mine.yml")
    run = Path("logs/smac/Spaces-Vector-v0_1")
    with open(run / "0.monitor.csv") as file:
        assert all(float(row["r"]) >= 100 * spaces_env.HORIZON for row in csv.DictReader(list(file)[1:]))
    assert np.load(run / "evaluations.npz")["results"].min() >= 100 * spaces_env.HORIZON
    capsys.readouterr()
    command("enjoy", "smac", "Spaces/Vector-v0", "-f", "logs", "--no-render", "-n", str(spaces_env.HORIZON))
    assert "Episode Reward: 80" in capsys.readouterr().out


def test_env_kwargs_of_an_entry_hold_in_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("moviepy")
    made, make = [], spaces_env.Spaces.__init__

    def record(env: spaces_env.Spaces, *args: Any, **kwargs: Any) -> None:
        make(env, *args, **kwargs)
        made.append(env.bonus)

    params = ("-params", "n_steps:8", "normalize:False", "env_kwargs:{'bonus': 100.0}")
    command("train", "smac", "Spaces/Vector-v0", *SHORT, *params)
    monkeypatch.setattr(spaces_env.Spaces, "__init__", record)
    for options in ((), ("--env-kwargs", "bonus:3")):
        command("record_video", "smac", "Spaces/Vector-v0", "-f", "logs", "-n", "5", "-o", "video", *options)
    assert made == [100.0, 3]


@pytest.mark.parametrize("limit", [None, 5])
def test_a_task_without_a_time_limit(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the wrapper it has one in training, too; without, only its evaluations end."""
    monkeypatch.setattr("sb3_smac.zoo.wrappers.ends.__defaults__", (12,))
    wrapper = f"env_wrapper:[{{'sb3_smac.zoo.wrappers.time_limit': {{'max_episode_steps': {limit}}}}}]"
    command("train", "smac", "Endless-v0", *SHORT, "-params", "n_steps:16", *([wrapper] if limit else []))
    run = Path("logs/smac/Endless-v0_1")
    assert np.load(run / "evaluations.npz")["ep_lengths"].tolist() == [[limit or 12]] * 2
    with open(run / "0.monitor.csv") as file:
        assert {int(row["l"]) for row in csv.DictReader(list(file)[1:])} == ({limit} if limit else set())


def test_atari_from_a_file_without_an_entry_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Zoo knows Atari's tasks by the name of their class."""
    spec = gym.spec("Spaces/Image-v0")
    monkeypatch.setitem(
        gym.registry, "ALE/Fake-v5", gym.envs.registration.EnvSpec("ALE/Fake-v5", _AtariEnv, kwargs=spec.kwargs)
    )
    command("train", "smac", "ALE/Fake-v5", "-n", "32", "--eval-freq", "-1", *TWO_ENVIRONMENTS)
    assert Path("logs/smac/ALE-Fake-v5_1/ALE-Fake-v5.zip").exists()


class _AtariEnv(spaces_env.Spaces):
    pass


def test_packages_of_the_training_are_imported_by_the_other_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered by ``--gym-packages`` alone, or by the module in the name."""
    command("train", "acsgd", "Spaces/Vector-v0", *SHORT, *TWO_ENVIRONMENTS, "--gym-packages", "spaces_env")
    command("train", "accg", "spaces_env:Spaces/ActBox-v0", *SHORT, *TWO_ENVIRONMENTS)
    # It calls enjoy for each, in processes that have not imported them
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    Path("table").mkdir()
    assert main(["benchmark", "--log-dir", "logs", "--benchmark-dir", "table", "--no-hub", "-n", "50"]) == 0
    table = Path("table/benchmark.md").read_text()
    assert "|acsgd|Spaces-Vector-v0|" in table and "|accg |Spaces-ActBox-v0|" in table


@pytest.mark.parametrize("name", ["record_video", "push_to_hub", "record_training", "benchmark"])
def test_every_command_takes_packages(name: str) -> None:
    """The Zoo's own do not know the option."""
    with pytest.raises(SystemExit, match="--gym-packages: no_such_module cannot be imported"):
        main([name, "--env", "CartPole-v1", "--gym-packages", "no_such_module"])


@pytest.mark.parametrize("task, limit", [("Endless-v0", 3), ("Spaces/Vector-v0", 3), ("Spaces/Vector-v0", 300)])
def test_the_limit_is_given_shortened_and_lengthened_inside_the_monitor(task: str, limit: int) -> None:
    monitored = Monitor(gym.make(task))
    assert time_limit(monitored, limit) is monitored
    monitored.reset(seed=0)
    for step in range(1, limit + 1):
        *_, truncated, info = monitored.step(0)
        assert truncated == ("episode" in info) == (step == limit)
    assert ends(monitored) is monitored  # it has one now
    with pytest.raises(ValueError, match="max_episode_steps must be an integer >= 1, got 0"):
        time_limit(monitored, 0)
