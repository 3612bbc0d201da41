"""What the command lines know of a task: its name, and which policy takes its observations."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_smac.envs.tasks import find_task, policy_for


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``theirs_module`` registers two versions of a task, and one without, when it is imported."""
    names = ["Theirs/Cart-v3", "Theirs/Cart-v12", "Unversioned"]
    calls = "".join(f"gym.register({name!r}, 'gymnasium.envs.classic_control:CartPoleEnv')\n" for name in names)
    (tmp_path / "theirs_module.py").write_text(f"import gymnasium as gym\n\n{calls}")
    monkeypatch.syspath_prepend(tmp_path)
    for name in names:
        monkeypatch.delitem(gym.registry, name, raising=False)
    monkeypatch.delitem(sys.modules, "theirs_module", raising=False)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("CartPole", "CartPole-v1"),
        ("theirs_module:Theirs/Cart-v3", "Theirs/Cart-v3"),
        ("theirs_module:Theirs/Cart", "Theirs/Cart-v12"),
        ("theirs_module:Unversioned", "Unversioned"),
        ("theirs_module:CartPole-v1", "CartPole-v1"),
    ],
)
def test_it_finds_what_gymnasium_makes(name: str, found: str) -> None:
    spec, made = find_task(name), gym.make(name).spec
    assert made is not None and spec.id == made.id == found and spec.entry_point == made.entry_point


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("CartPole-v9", gym.error.VersionNotFound, "v9"),
        ("Cartpole", gym.error.Error, "Cartpole"),
        ("Nowhere/Pong-v5", gym.error.NamespaceNotFound, "Nowhere"),
        ("a b", gym.error.Error, "Malformed environment ID"),
        ("no_such_module:CartPole-v1", ImportError, "no_such_module"),
    ],
)
def test_names_of_nothing(name: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find_task(name)


@pytest.mark.parametrize(
    ("space", "policy"),
    [
        (spaces.Box(0, 1, (64, 64, 3)), "MlpPolicy"),
        (spaces.Discrete(3), "MlpPolicy"),
        (spaces.Box(0, 255, (36, 36, 3), np.uint8), "CnnPolicy"),
        (spaces.Box(0, 255, (3, 36, 200), np.uint8), "CnnPolicy"),
        (spaces.Box(0, 255, (35, 200, 3), np.uint8), "MlpPolicy"),  # the convolutions have no output
        (spaces.Dict({"a": spaces.Discrete(3)}), "MultiInputPolicy"),
    ],
)
def test_policies(space: spaces.Space, policy: str) -> None:
    assert policy_for(space) == policy
