"""``vec_env`` in a YAML file, or in ``-params``: which simulators the Zoo trains in."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("envpool")

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_smac.envs import EnvPoolVecEnv
from sb3_smac.zoo.__main__ import main
from sb3_smac.zoo.exp_manager import ExperimentManager


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[bool, VecEnv]:
    """The environments that the Zoo makes: under ``False``, those of training, under ``True``, of evaluation."""
    create_envs, made = ExperimentManager.create_envs, {}

    def record(manager: ExperimentManager, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        made[eval_env] = create_envs(manager, n_envs, eval_env, no_log)
        return made[eval_env]

    monkeypatch.setattr(ExperimentManager, "create_envs", record)
    return made


def train(*arguments: str, env: str = "CartPole-v1") -> int | str:
    return main(["train", "--algo", "smac", "--env", env, "-n", "400", *arguments])


def test_training_from_a_yaml_file(made: dict[bool, VecEnv]) -> None:
    """Evaluated in Gymnasium's environment; the same time limit in both; what the other commands read is there."""
    Path("mine.yml").write_text("""
CartPole-v1:
  policy: MlpPolicy
  n_timesteps: 1000
  n_steps: 50
  n_envs: 4
  normalize: true
  vec_env: envpool
  env_wrapper:
    - sb3_smac.zoo.wrappers.time_limit:
        max_episode_steps: 13
""")
    assert train("-conf", "mine.yml", "--eval-freq", "200", "--eval-episodes", "3") == 0
    pool, evaluation = made[False].unwrapped, made[True].unwrapped
    assert isinstance(pool, EnvPoolVecEnv) and (pool.num_envs, pool.max_episode_steps) == (4, 13)
    assert isinstance(evaluation, DummyVecEnv)
    run = Path("logs/smac/CartPole-v1_1")
    assert np.load(run / "evaluations.npz")["ep_lengths"].max() <= 13
    _, header, *episodes = (run / "monitor.csv").read_text().splitlines()
    assert header == "r,l,t"
    lengths = [int(episode.split(",")[1]) for episode in episodes]
    assert len(lengths) >= 400 // 13 - 4 and max(lengths) == 13
    assert (run / "CartPole-v1" / "vecnormalize.pkl").exists()
    assert "envpool" in (run / "CartPole-v1" / "config.yml").read_text()
    assert main(["enjoy", "--algo", "smac", "--env", "CartPole-v1", "-f", "logs", "--no-render", "-n", "50"]) in (0, None)


def test_the_key_goes_before_the_command_line(made: dict[bool, VecEnv], monkeypatch: pytest.MonkeyPatch) -> None:
    class InThisProcess(DummyVecEnv):
        """Starts faster."""

    monkeypatch.setattr("sb3_smac.zoo.exp_manager.SubprocVecEnv", InThisProcess)
    options = ("--eval-freq", "-1", "-params", "n_envs:2", "n_steps:100")
    for vec_env, cls in (("dummy", DummyVecEnv), ("subproc", InThisProcess), ("envpool", EnvPoolVecEnv)):
        assert train("--vec-env", "subproc" if vec_env == "dummy" else "dummy", *options, f"vec_env:{vec_env!r}") == 0
        assert type(made[False].unwrapped) is cls


def test_the_paper_s_pusher(made: dict[bool, VecEnv]) -> None:
    """Gymnasium has it no more; options of the task come from ``env_kwargs``."""
    options = ("-params", "vec_env:'envpool'", "n_steps:200", "env_kwargs:{'ctrl_cost_weight': 0.5}")
    assert train("--eval-freq", "-1", *options, env="Pusher-v4") == 0
    assert made[False].unwrapped._options_of_task["ctrl_cost_weight"] == 0.5


def test_the_seed_decides(made: dict[bool, VecEnv]) -> None:
    logs = []
    for seed in "112":
        train("--eval-freq", "-1", "--seed", seed, "-params", "vec_env:'envpool'", "n_envs:2", "n_steps:100")
    for run in (1, 2, 3):
        _, _, *episodes = Path(f"logs/smac/CartPole-v1_{run}/monitor.csv").read_text().splitlines()
        logs.append([episode.split(",")[:2] for episode in episodes])
    assert logs[0] == logs[1] != logs[2]


def test_search(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("-optimize", "--n-trials", "1", "--n-evaluations", "1", "--no-optim-plots")
    assert train(*arguments, "-params", "vec_env:'envpool'", "n_envs:2", "n_steps:500") == 0
    assert "Number of finished trials:  1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            ["vec_env:'envpool'", "env_wrapper:'rl_zoo3.wrappers.TimeFeatureWrapper'"],
            "env_wrapper must be none or sb3_smac.zoo.wrappers.time_limit with vec_env: envpool, whose environments are C++ "
            "objects; got 'rl_zoo3.wrappers.TimeFeatureWrapper'",
        ),
        (
            ["vec_env:'envpool'", "env_kwargs:{'max_step': 5}"],
            "'max_step' is no option of EnvPool's CartPole-v1",
        ),
        (
            ["vec_env:'envpool'", "monitor_kwargs:{'info_keywords': ('a',)}"],
            "monitor_kwargs must be empty with vec_env: envpool",
        ),
    ],
)
def test_errors(params: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        train("--eval-freq", "-1", "-params", *params)


def test_without_envpool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError, match=r"sb3_smac\[envpool\]"):
        train("--eval-freq", "-1", "-params", "vec_env:'envpool'")
