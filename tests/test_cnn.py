"""Images."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecTransposeImage, is_vecenv_wrapped

from sb3_smac import SMAC
from tests.algorithms import TABLE, is_finite, is_same, make


def tiny(**policy_kwargs: Any) -> dict[str, Any]:
    """Stable-Baselines3 writes into the extractor's arguments: a new dictionary each time."""
    return {"net_arch": [8], "features_extractor_kwargs": {"features_dim": 8}, **policy_kwargs}


def image_env(channel_first: bool = False, n_channels: int = 1, discrete: bool = True) -> FakeImageEnv:
    return FakeImageEnv(
        screen_height=36, screen_width=36, n_channels=n_channels, discrete=discrete, channel_first=channel_first
    )


def make_cnn(algo: str, env: Any, share_features_extractor: bool | None = None, **arguments: Any) -> Any:
    policy_kwargs = tiny(share_features_extractor=share_features_extractor)
    return make(algo, env, "CnnPolicy", policy_kwargs=policy_kwargs, n_steps=16, **arguments)


@pytest.mark.parametrize(
    ("algo", "channel_first", "discrete"),
    [("smac", True, True), ("smac", False, False), ("smac_full", True, False), ("accg", True, False), ("acadam", True, True)],
)
def test_learns_saves_and_predicts(algo: str, channel_first: bool, discrete: bool, tmp_path: Path) -> None:
    """Images are transposed where their channels come last, in training and for the user's own observations."""
    model = make_cnn(algo, image_env(channel_first, discrete=discrete)).learn(32)
    assert is_finite(model)
    assert is_vecenv_wrapped(model.get_env(), VecTransposeImage) is not channel_first
    observation, _ = image_env(channel_first, discrete=discrete).reset()
    action, _ = model.predict(observation, deterministic=True)
    assert model.action_space.contains(action if action.ndim else int(action))
    model.save(tmp_path / "model")
    loaded = TABLE[algo].cls.load(tmp_path / "model")
    assert is_same(action, loaded.predict(observation, deterministic=True)[0])


def test_frame_stack() -> None:
    model = make_cnn("smac", VecFrameStack(DummyVecEnv([image_env] * 2), n_stack=3)).learn(32)
    assert model.observation_space.shape == (3, 36, 36)
    assert is_finite(model)


def test_no_advice_against_a_gpu_for_images() -> None:
    """The advice to use the CPU is for small networks only."""
    model: SMAC = make_cnn("smac", image_env())
    model.device = th.device("cuda")  # pretend
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model._maybe_recommend_cpu()
