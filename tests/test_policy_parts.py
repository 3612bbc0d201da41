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
from sb3_smac.common import policies
from tests import own_policies
from tests.algorithms import every_algorithm, make
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
    "MultiDiscrete": own_policies.sample_env(own_policies.BOX, spaces.MultiDiscrete([2, 3])),
    "MultiBinary": own_policies.sample_env(own_policies.BOX, spaces.MultiBinary(3)),
    "gSDE": own_policies.CONTINUOUS,
}


def trained(env: str, extractor: str, normalization: str, algo: str = "smac", **kwargs: Any) -> NaturalActorCritic:
    """A model whose statistics are not those that it was built with."""
    observations, returns = NORMALIZATION[normalization]
    model = make(
        *(algo, DummyVecEnv([ENVS[env]])),
        **{"n_steps": 16, "target_kl": 0.05, "use_sde": env == "gSDE"},
        **{"normalize_observations": observations, "normalize_returns": returns},
        policy_kwargs={"net_arch": [8], **EXTRACTORS[extractor], **kwargs},
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
    mean, distribution = policy.action_net(latent_pi), policy.action_dist
    if isinstance(policy.action_space, spaces.Box):
        extra = (latent_pi,) if policy.use_sde else ()
        distribution = distribution.proba_distribution(mean, policy.log_std, *extra)
    else:
        distribution = distribution.proba_distribution(mean)
    return distribution, policy.value_net(latent_vf)


def from_methods(policy: Any, obs: th.Tensor) -> tuple[Distribution, th.Tensor]:
    return policy.get_distribution(obs), policy.predict_values(obs)


def unbound(policy: Any, obs: th.Tensor) -> tuple[Distribution, th.Tensor]:
    """By Stable-Baselines3's own functions."""
    cls = sb3_policies.ActorCriticPolicy
    return cls.get_distribution(policy, obs), cls.predict_values(policy, obs)


WAYS = (from_features, from_parts, from_methods, unbound)


@pytest.mark.parametrize("env", ENVS)
@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("normalization", NORMALIZATION)
def test_every_way_leads_to_the_same(env: str, extractor: str, normalization: str) -> None:
    """Action, log-probability and value."""
    policy = trained(env, extractor, normalization).policy
    observations = th.as_tensor(3 * np.random.default_rng(0).normal(size=(7, 3)), dtype=th.float32)
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
        unscaled = mode.numpy()
        predicted, _ = policy.predict(observations.numpy(), deterministic=True)
        low_high = (policy.action_space.low, policy.action_space.high) if env in ("continuous", "gSDE") else (None, None)
        assert np.allclose(predicted, unscaled if low_high[0] is None else np.clip(unscaled, *low_high), atol=1e-5)
        for way in WAYS:
            distribution, found = way(policy, observations)
            assert th.allclose(found, values, rtol=1e-4, atol=1e-5), way.__name__
            assert th.allclose(distribution.log_prob(flat), log_prob, rtol=1e-4, atol=1e-5), way.__name__
            assert th.allclose(distribution.mode().float().view(mode.shape), mode.float(), atol=1e-5), way.__name__


@every_algorithm
@pytest.mark.parametrize("normalization", ["on", "off"])
def test_values_are_in_units_of_the_reward(algo: str, normalization: str) -> None:
    """What the rollout buffer holds, what ``predict_values`` says, and what the critic's last layer puts out."""
    model = trained("continuous", "flat", normalization, algo)
    model.learn(16, reset_num_timesteps=False, callback=lambda local, _: check(local) or True)
    assert model.policy.value_net(th.zeros(1, 8)).isfinite().all()


def check(local: dict[str, Any]) -> None:
    policy = local["self"].policy
    with th.no_grad():
        expected = policy.predict_values(local["obs_tensor"])
        _, latent_vf = latents(policy, local["obs_tensor"])
    assert th.allclose(local["values"], expected, rtol=1e-4, atol=1e-5)
    assert th.allclose(policy.value_net(latent_vf), expected, rtol=1e-4, atol=1e-5)


@every_algorithm
@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_every_entry_of_the_state_dict_is_floating_point(algo: str, policy: str) -> None:
    """Averages of policies, exponential ones too, are taken over all entries."""
    env = own_policies.CASES["Dict"].env if policy == "MultiInputPolicy" else own_policies.CONTINUOUS
    model = make(algo, DummyVecEnv([env]), policy, n_steps=16).learn(32)
    state = model.policy.state_dict()
    for name, value in state.items():
        assert isinstance(value, th.Tensor) and value.is_floating_point(), name
    average = {name: (value + state[name]) / 2 for name, value in state.items()}
    model.policy.load_state_dict(average)
    model.learn(16, reset_num_timesteps=False)


def test_averages_of_two_policies() -> None:
    """As Stable-Baselines3's example of an evolution strategy makes them: noise on every entry, and back."""
    model = trained("continuous", "flat", "on")
    generator = th.Generator().manual_seed(0)
    noisy = {
        name: value + 0.01 * th.randn(value.shape, generator=generator, dtype=value.dtype)
        for name, value in model.policy.state_dict().items()
    }
    other = trained("continuous", "flat", "on")
    other.policy.load_state_dict(noisy)
    action, _ = other.predict(np.zeros(3, np.float32), deterministic=True)
    assert np.isfinite(action).all()
    parameters = model.get_parameters()
    parameters["policy"] = {**parameters["policy"], **noisy}
    model.set_parameters(parameters, exact_match=False)
    other.learn(16)


class Exported(nn.Module):
    """Stable-Baselines3's documentation on exporting models: a module around the policy's parts."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        return self.policy(observation, deterministic=True)


class ExportedParts(nn.Module):
    """The same by hand."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        action_hidden, value_hidden = latents(self.policy, observation)
        return self.policy.action_net(action_hidden), self.policy.value_net(value_hidden)


@pytest.mark.parametrize("normalization", NORMALIZATION)
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_tracing(extractor: str, normalization: str) -> None:
    """TorchScript's trace computes what the policy computes."""
    policy = trained("continuous", extractor, normalization).policy
    observations = th.as_tensor(np.random.default_rng(1).normal(size=(5, 3)), dtype=th.float32)
    with th.no_grad():
        mode, values, _ = policy(observations, deterministic=True)
        for wrapped in (Exported(policy), ExportedParts(policy)):
            traced = th.jit.trace(wrapped, (th.zeros(5, 3),), check_trace=False)
            outputs = traced(observations)
            assert th.allclose(outputs[0], mode, atol=1e-5)
            assert th.allclose(outputs[1], values, rtol=1e-4, atol=1e-4)


class Documented(policies.ActorCriticPolicy):
    """Bodies copied from Stable-Baselines3's ``ActorCriticPolicy``."""

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        distribution, values = from_features(self, obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return (actions.reshape((-1, *self.action_space.shape)), values, distribution.log_prob(actions))

    def evaluate_actions(self, obs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        distribution, values = from_features(self, obs)
        return values, distribution.log_prob(actions), distribution.entropy()


@every_algorithm
@pytest.mark.parametrize("env", ["discrete", "continuous"])
@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_copied_bodies(algo: str, env: str, extractor: str) -> None:
    """Train to what the class that they are copied from is trained to."""
    kwargs = {"net_arch": [8], **EXTRACTORS[extractor]}
    models = [
        make(algo, DummyVecEnv([ENVS[env]]), policy, n_steps=16, policy_kwargs=kwargs).learn(48)
        for policy in (Documented, "MlpPolicy")
    ]
    first, second = (model.policy.state_dict() for model in models)
    for name, value in first.items():
        assert th.allclose(value, second[name], rtol=5e-3, atol=1e-3), name


@every_algorithm
def test_a_policy_goes_to_sb3(algo: str) -> None:
    """Without normalisation its parameters are Stable-Baselines3's, and do the same there."""
    model = trained("continuous", "flat", "off", algo)
    policy = model.policy
    plain = sb3_policies.ActorCriticPolicy(policy.observation_space, policy.action_space, lambda _: 1e-3, net_arch=[8])
    plain.load_state_dict(policy.state_dict())
    observations = th.as_tensor(np.random.default_rng(1).normal(size=(5, 3)), dtype=th.float32)
    for way in WAYS:
        ours, theirs = way(policy, observations), way(plain, observations)
        assert th.allclose(ours[0].mode(), theirs[0].mode(), atol=1e-6)
        assert th.allclose(ours[1], theirs[1], atol=1e-6)


def test_behaviour_cloning() -> None:
    """A loop of the user's on ``evaluate_actions``, through the parts, before and between updates."""
    model = trained("continuous", "own", "on")
    policy = model.policy
    optimizer = th.optim.Adam(policy.parameters(), 0.03)
    observations = th.as_tensor(np.random.default_rng(1).normal(size=(64, 3)), dtype=th.float32)
    actions = 0.5 * observations[:, :2]
    losses = []
    for _ in range(60):
        values, log_prob, _ = policy.evaluate_actions(observations, actions)
        loss = values.square().mean() - log_prob.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
    error = (policy.get_distribution(observations).mode() - actions).square().mean().item()
    model.learn(32, reset_num_timesteps=False)
    assert (policy.get_distribution(observations).mode() - actions).square().mean().item() < error + 0.2


def test_extra_features_extractor_argument() -> None:
    """``extract_features(obs, extractor)`` as ``BasePolicy`` has it, normalised once and only once."""
    for extractor in ("flat", "own, shared"):
        policy = trained("continuous", extractor, "on").policy
        observations = th.as_tensor(np.random.default_rng(1).normal(size=(5, 3)), dtype=th.float32)
        expected = policy.features_extractor(policy.observation_normalizer(observations))
        assert th.allclose(policy.extract_features(observations), expected)
        assert th.allclose(policy.extract_features(observations, policy.features_extractor), expected)


@every_algorithm
def test_copies_are_independent(algo: str) -> None:
    """A copy of the policy goes on doing what the policy did when it was copied."""
    model = trained("continuous", "flat", "on", algo)
    copied = copy.deepcopy(model.policy)
    observations = th.as_tensor(np.random.default_rng(1).normal(size=(5, 3)), dtype=th.float32)
    before = copied.get_distribution(observations).mode().detach()
    model.learn(32, reset_num_timesteps=False)
    assert th.equal(copied.get_distribution(observations).mode(), before)
