"""Images."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize, VecTransposeImage, is_vecenv_wrapped

from sb3_smac import SMAC
from sb3_smac.maths import flatten
from tests.algorithms import TABLE, every_algorithm, is_finite, is_same, make


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


@every_algorithm
@pytest.mark.parametrize("channel_first", [True, False])
@pytest.mark.parametrize("discrete", [True, False])
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


@every_algorithm
@pytest.mark.parametrize("share", [None, False, True])
def test_who_owns_the_features_extractor(algo: str, share: bool | None) -> None:
    """Each has its own unless the user shares it; a shared one is the actor's, and the critic's gradient leaves it alone."""
    model = make_cnn(algo, image_env(), share, target_kl=None, learning_rate=0.0)
    policy = model.policy
    owner = {id(parameter): "actor" for parameter in model.actor_parameters}
    owner |= {id(parameter): "critic" for parameter in model.critic_parameters}
    assert {owner[id(parameter)] for parameter in policy.pi_features_extractor.parameters()} == {"actor"}
    of_critic = {owner[id(parameter)] for parameter in policy.vf_features_extractor.parameters()}
    assert of_critic == ({"actor"} if share else {"critic"})

    actor, critic = flatten(model.actor_parameters), flatten(model.critic_parameters)
    features = flatten(policy.vf_features_extractor.parameters())
    model.learn(16)  # the actor's step is 0: whatever moves was moved by the critic
    assert th.equal(actor, flatten(model.actor_parameters))
    assert not th.equal(critic, flatten(model.critic_parameters))
    assert th.equal(features, flatten(policy.vf_features_extractor.parameters())) == bool(share)


@every_algorithm
def test_the_actor_moves_a_shared_features_extractor(algo: str) -> None:
    """And the critic is then fitted on the features that the actor's step left."""
    model = make_cnn(algo, image_env(), share_features_extractor=True, target_kl=0.01)
    before = flatten(model.policy.features_extractor.parameters())
    model.learn(16)
    assert not th.equal(before, flatten(model.policy.features_extractor.parameters()))


@every_algorithm
def test_frame_stack(algo: str) -> None:
    model = make_cnn(algo, VecFrameStack(DummyVecEnv([image_env] * 2), n_stack=3)).learn(32)
    assert model.observation_space.shape == (3, 36, 36)
    assert is_finite(model)


@every_algorithm
def test_images_that_are_already_normalised(algo: str) -> None:
    """Floats are accepted as images only if the user says that they are normalised."""
    env = VecNormalize(DummyVecEnv([lambda: image_env(channel_first=True)]))
    with pytest.raises(AssertionError, match="image"):
        make(algo, env, "CnnPolicy", policy_kwargs=tiny())
    model = make(algo, env, "CnnPolicy", policy_kwargs=tiny(normalize_images=False), n_steps=16)
    assert is_finite(model.learn(16))


def test_no_advice_against_a_gpu_for_images() -> None:
    """The advice to use the CPU is for small networks only."""
    model: SMAC = make_cnn("smac", image_env())
    model.device = th.device("cuda")  # pretend
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model._maybe_recommend_cpu()
