"""A policy's parts compose as Stable-Baselines3's do: whichever way one goes, the same comes out."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_smac import NaturalActorCritic
from tests import own_policies
from tests.algorithms import make
from tests.own_policies import Residual

EXTRACTORS: dict[str, dict[str, Any]] = {
    "flat": {},
    "flat, not shared": {"features_extractor_class": FlattenExtractor, "share_features_extractor": False},
    "own": {"features_extractor_class": Residual},
    "own, shared": {"features_extractor_class": Residual, "share_features_extractor": True},
}
NORMALIZATION = {"on": (True, True), "off": (False, False), "observations": (True, False), "returns": (False, True)}
ENVS = {
    "discrete": own_policies.DISCRETE,
    "continuous": own_policies.CONTINUOUS,
    "MultiDiscrete": own_policies.MULTI_DISCRETE,
    "MultiBinary": own_policies.MULTI_BINARY,
    "gSDE": own_policies.CONTINUOUS,
}
OBSERVATIONS = th.as_tensor(np.random.default_rng(1).normal(size=(64, 3)), dtype=th.float32)


def trained(env: str = "continuous", extractor: str = "flat", normalization: str = "on") -> NaturalActorCritic:
    """A model whose statistics are not those that it was built with."""
    observations, returns = NORMALIZATION[normalization]
    model = make(
        *("smac", DummyVecEnv([ENVS[env]])),
        **{"n_steps": 16, "target_kl": 0.05, "use_sde": env == "gSDE"},
        **{"normalize_observations": observations, "normalize_returns": returns},
        policy_kwargs={"net_arch": [8], **EXTRACTORS[extractor]},
    ).learn(48)
    model.policy.set_training_mode(False)
    if observations:
        assert model.policy.observation_normalizer.count > 0
    return model


def latents(policy: Any, obs: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """As the bodies of Stable-Baselines3's ``forward`` and ``evaluate_actions`` get them."""
    features = policy.extract_features(obs)
    if policy.share_features_extractor:
        return policy.mlp_extractor(features)
    pi_features, vf_features = features
    return policy.mlp_extractor.forward_actor(pi_features), policy.mlp_extractor.forward_critic(vf_features)


def from_features(policy: Any, obs: th.Tensor) -> tuple[Distribution, th.Tensor]:
    """The bodies of Stable-Baselines3's documentation."""
    latent_pi, latent_vf = latents(policy, obs)
    return policy._get_action_dist_from_latent(latent_pi), policy.value_net(latent_vf)


def from_parts(policy: Any, obs: th.Tensor) -> tuple[Distribution, th.Tensor]:
    """Down to the last layer, as exporters do it, with the base class's features."""
    pi_features = super(sb3_policies.ActorCriticPolicy, policy).extract_features(obs, policy.pi_features_extractor)
    vf_features = super(sb3_policies.ActorCriticPolicy, policy).extract_features(obs, policy.vf_features_extractor)
    latent_pi, latent_vf = policy.mlp_extractor.policy_net(pi_features), policy.mlp_extractor.value_net(vf_features)
    extra = (policy.log_std, *((latent_pi,) if policy.use_sde else ())) if isinstance(policy.action_space, spaces.Box) else ()
    return policy.action_dist.proba_distribution(policy.action_net(latent_pi), *extra), policy.value_net(latent_vf)


def from_methods(policy: Any, obs: th.Tensor) -> tuple[Distribution, th.Tensor]:
    return policy.get_distribution(obs), policy.predict_values(obs)


def unbound(policy: Any, obs: th.Tensor) -> tuple[Distribution, th.Tensor]:
    """By Stable-Baselines3's own functions."""
    cls = sb3_policies.ActorCriticPolicy
    return cls.get_distribution(policy, obs), cls.predict_values(policy, obs)


WAYS = (from_features, from_parts, from_methods, unbound)


@pytest.mark.parametrize(
    ("env", "extractor", "normalization"),
    [
        *[(env, "flat", "on") for env in ENVS],
        *[("continuous", extractor, "on") for extractor in EXTRACTORS if extractor != "flat"],
        *[("discrete", "own", normalization) for normalization in NORMALIZATION],
        ("gSDE", "own, shared", "observations"),
    ],
)
def test_every_way_leads_to_the_same(env: str, extractor: str, normalization: str) -> None:
    """Action, log-probability and value."""
    policy = trained(env, extractor, normalization).policy
    observations = 3 * OBSERVATIONS[:7]
    with th.no_grad():
        if env == "gSDE":
            policy.reset_noise(7)
        actions, values, log_prob = policy(observations)
        mode, values_of_mode, _ = policy(observations, deterministic=True)
        flat = actions.flatten() if env == "discrete" else actions
        evaluated = policy.evaluate_actions(observations, flat)
        assert th.allclose(values, evaluated[0], rtol=1e-4, atol=1e-5)
        assert th.allclose(values, values_of_mode, rtol=1e-4, atol=1e-5)
        assert th.allclose(log_prob, evaluated[1], rtol=1e-4, atol=1e-5)
        assert th.allclose(mode.float(), policy._predict(observations, deterministic=True).float(), atol=1e-5)
        predicted, _ = policy.predict(observations.numpy(), deterministic=True)
        space, expected = policy.action_space, mode.numpy()
        clipped = np.clip(expected, space.low, space.high) if isinstance(space, spaces.Box) else expected
        assert np.allclose(predicted, clipped, atol=1e-5)
        for way in WAYS:
            distribution, found = way(policy, observations)
            assert th.allclose(found, values, rtol=1e-4, atol=1e-5), way.__name__
            assert th.allclose(distribution.log_prob(flat), log_prob, rtol=1e-4, atol=1e-5), way.__name__
            assert th.allclose(distribution.mode().float().view(mode.shape), mode.float(), atol=1e-5), way.__name__


@pytest.mark.parametrize("case", ["MlpPolicy", "Dict"])
def test_every_entry_of_the_state_dict_is_floating_point(case: str) -> None:
    """Averages of policies, exponential ones too, are taken over all entries; evolution strategies add noise to each."""
    chosen = own_policies.CASES[case]
    model = make("smac", DummyVecEnv([chosen.env]), chosen.policy, n_steps=16).learn(32)
    state = model.policy.state_dict()
    for name, value in state.items():
        assert isinstance(value, th.Tensor) and value.is_floating_point(), name
    average = {name: (value + 0.01 * th.randn_like(value) + state[name]) / 2 for name, value in state.items()}
    model.set_parameters({"policy": average}, exact_match=False)
    model.learn(16, reset_num_timesteps=False)


class Exported(nn.Module):
    """Stable-Baselines3's documentation on exporting models: a module around the policy."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        return self.policy(observation, deterministic=True)


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_tracing(extractor: str) -> None:
    """TorchScript's trace computes what the policy computes."""
    policy = trained("continuous", extractor).policy
    with th.no_grad():
        mode, values, _ = policy(OBSERVATIONS, deterministic=True)
        outputs = th.jit.trace(Exported(policy), (th.zeros(64, 3),), check_trace=False)(OBSERVATIONS)
        assert th.allclose(outputs[0], mode, atol=1e-5)
        assert th.allclose(outputs[1], values, rtol=1e-4, atol=1e-4)


def test_a_policy_goes_to_sb3() -> None:
    """Without normalisation its parameters are Stable-Baselines3's, and do the same there."""
    policy = trained(normalization="off").policy
    plain = sb3_policies.ActorCriticPolicy(policy.observation_space, policy.action_space, lambda _: 1e-3, net_arch=[8])
    plain.load_state_dict(policy.state_dict())
    for way in WAYS:
        ours, theirs = way(policy, OBSERVATIONS), way(plain, OBSERVATIONS)
        assert th.allclose(ours[0].mode(), theirs[0].mode(), atol=1e-6)
        assert th.allclose(ours[1], theirs[1], atol=1e-6)


def test_copies_are_independent() -> None:
    """
    A copy of the policy goes on doing what the policy did when it was copied. There is one: no distribution is left behind
    with a graph that ``deepcopy`` refuses.
    """
    model = trained()
    copied = copy.deepcopy(model.policy)
    before = copied.get_distribution(OBSERVATIONS).mode().detach()
    model.learn(32, reset_num_timesteps=False)
    assert th.equal(copied.get_distribution(OBSERVATIONS).mode(), before)
    assert copy.deepcopy(make("smac").policy) is not None  # before training, too
