"""Policies as users write them: each does something of its own, in the methods that A2C and PPO call."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import torch as th
from gymnasium import spaces
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from torch import nn

from sb3_smac.smac import MlpPolicy
from tests.algorithms import SampleEnv

Outputs = tuple[th.Tensor, th.Tensor, th.Tensor]


class _Own:
    """Acts and evaluates by :meth:`own_distribution` and :meth:`own_values`; leaves ``get_distribution`` as it is."""

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        raise NotImplementedError

    def own_values(self, obs: th.Tensor) -> th.Tensor:
        return self.predict_values(obs)

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Outputs:
        distribution = self.own_distribution(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return (actions.reshape((-1, *self.action_space.shape)), self.own_values(obs), distribution.log_prob(actions))

    def evaluate_actions(self, obs: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        distribution = self.own_distribution(obs)
        return (self.own_values(obs), distribution.log_prob(actions), distribution.entropy())

    def _predict(self, observation: th.Tensor, deterministic: bool = False) -> th.Tensor:
        return self.own_distribution(observation).get_actions(deterministic=deterministic)


def _dist(policy: Any, latent: th.Tensor, output: th.Tensor) -> Distribution:
    if isinstance(policy.action_space, spaces.Box):
        return policy.action_dist.proba_distribution(output, policy.log_std)
    return policy.action_dist.proba_distribution(output)


class _OwnNetwork(_Own):
    """A network of its own; the one that Stable-Baselines3 builds is never used for the actor."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        n_outputs = self.action_net.out_features
        self.own_network = nn.Sequential(nn.Linear(self.features_dim, 7), nn.Tanh(), nn.Linear(7, n_outputs))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        return _dist(self, obs, self.own_network(obs.float().flatten(1)))


class OwnNetwork(_OwnNetwork, MlpPolicy):
    """On this package's class."""


class OwnNetworkOfSB3(_OwnNetwork, sb3_policies.ActorCriticPolicy):
    """On Stable-Baselines3's."""


class _OwnValues(_OwnNetwork):
    """A value network of its own, too."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.own_value_network = nn.Sequential(nn.Linear(self.features_dim, 6), nn.Tanh(), nn.Linear(6, 1))
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def own_values(self, obs: th.Tensor) -> th.Tensor:
        return self.own_value_network(obs.float().flatten(1))


class OwnValues(_OwnValues, MlpPolicy):
    """``predict_values`` does not know of the value network."""


class OwnValuesOfSB3(_OwnValues, sb3_policies.ActorCriticPolicy):
    """``predict_values`` does not know of the value network."""


class OwnValuesEverywhere(_OwnValues, MlpPolicy):
    """It does."""

    def predict_values(self, obs: th.Tensor) -> th.Tensor:
        return self.own_values(obs)


class FeaturesToOwnHead(_Own, MlpPolicy):
    """A head of its own behind ``extract_features``, which normalises observations."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.own_head = nn.Linear(self.features_dim, self.action_net.out_features)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        features = self.extract_features(obs)
        features = features if self.share_features_extractor else features[0]
        return _dist(self, features, self.own_head(features))


class Mask(_Own, MlpPolicy):
    """An action that is forbidden where the first observation is positive."""

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        logits = self.action_net(self.mlp_extractor.forward_actor(sb3_features(self, obs)))
        forbidden = th.zeros_like(logits, dtype=th.bool)
        forbidden[:, 0] = obs.flatten(1)[:, 0] > 0
        return self.action_dist.proba_distribution(logits.masked_fill(forbidden, -1e8))


class Temperature(_Own, MlpPolicy):
    """A softer policy than the one of ``get_distribution``."""

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        latent = self.mlp_extractor.forward_actor(sb3_features(self, obs))
        return _dist(self, latent, self.action_net(latent) / 3 + 0.5 * th.arange(self.action_net.out_features))


class LearnedTemperature(_Own, MlpPolicy):
    """A temperature that is a parameter."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.log_temperature = nn.Parameter(th.full((), 0.3))
        self.bias = nn.Parameter(th.arange(self.action_net.out_features) * 0.5)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        latent = self.mlp_extractor.forward_actor(sb3_features(self, obs))
        return _dist(self, latent, (self.action_net(latent) + self.bias) / self.log_temperature.exp())


class FromLatent(MlpPolicy):
    """Only the last step to a distribution is its own: every method uses it."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return _dist(self, latent_pi, 3 * self.action_net(latent_pi) + 0.1)


class ForwardOnly(MlpPolicy):
    """Acts at another temperature than any other method knows of."""

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Outputs:
        latent = self.mlp_extractor.forward_actor(sb3_features(self, obs))
        distribution = _dist(self, latent, self.action_net(latent) / 3 + 0.5 * th.arange(self.action_net.out_features))
        actions = distribution.get_actions(deterministic=deterministic)
        return (actions.reshape((-1, *self.action_space.shape)), self.predict_values(obs), distribution.log_prob(actions))


class ValuesOfForwardOnly(MlpPolicy):
    """Values that no other method gives."""

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Outputs:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, values + 7, log_prob


def sb3_features(policy: Any, obs: th.Tensor) -> th.Tensor:
    """As the bodies of Stable-Baselines3's methods get the actor's features."""
    features = policy.extract_features(obs)
    return features if policy.share_features_extractor else features[0]


class Residual(BaseFeaturesExtractor):
    """Observations and a function of them side by side."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 2 * observation_space.shape[0])
        self.linear = nn.Linear(observation_space.shape[0], observation_space.shape[0])

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.cat([observations, self.linear(observations).tanh()], dim=1)


class Convolved(BaseFeaturesExtractor):
    """No linear layer takes the observations."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 2 * observation_space.shape[0])
        self.conv = nn.Conv1d(1, 2, 1)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.conv(observations[:, None]).tanh().flatten(1)


class BatchNorm(BaseFeaturesExtractor):
    """Statistics of batches."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)
        self.net = nn.Sequential(nn.Linear(observation_space.shape[0], 5), nn.BatchNorm1d(5))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.net(observations)


class Dropout(BaseFeaturesExtractor):
    """Random numbers in training."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)
        self.net = nn.Sequential(nn.Linear(observation_space.shape[0], 5), nn.Dropout(0.3))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.net(observations)


def sample_env(observations: spaces.Space, actions: spaces.Space) -> Callable[[], gym.Env]:
    return lambda: SampleEnv(observations, actions)


BOX = spaces.Box(-2, 2, (3,))
DICT = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})


@dataclass(frozen=True)
class Case:
    """
    A policy and an environment for it.

    :param policy: its class or name
    :param env: makes the environment
    :param kwargs: arguments of the policy
    :param arguments: of the algorithm
    :param is_deterministic: whether training mode does the same as evaluation mode
    """

    policy: Any
    env: Callable[[], gym.Env]
    kwargs: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)
    is_deterministic: bool = True


DISCRETE, CONTINUOUS = sample_env(BOX, spaces.Discrete(3)), sample_env(BOX, spaces.Box(-1, 1, (2,)))

CASES: dict[str, Case] = {
    **{
        f"{policy.__name__}-{name}": Case(policy, env)
        for policy in (OwnNetwork, OwnNetworkOfSB3, OwnValues, OwnValuesOfSB3, OwnValuesEverywhere, FeaturesToOwnHead)
        for name, env in (("discrete", DISCRETE), ("continuous", CONTINUOUS))
    },
    "Mask": Case(Mask, DISCRETE),
    "Temperature-discrete": Case(Temperature, DISCRETE),
    "Temperature-continuous": Case(Temperature, CONTINUOUS),
    "LearnedTemperature-discrete": Case(LearnedTemperature, DISCRETE),
    "LearnedTemperature-continuous": Case(LearnedTemperature, CONTINUOUS),
    "FromLatent": Case(FromLatent, CONTINUOUS),
    "MlpPolicy": Case("MlpPolicy", CONTINUOUS),
    "MlpPolicy-MultiDiscrete": Case("MlpPolicy", sample_env(BOX, spaces.MultiDiscrete([2, 3]))),
    "MlpPolicy-MultiBinary": Case("MlpPolicy", sample_env(BOX, spaces.MultiBinary(3))),
    "MlpPolicy-discrete-observations": Case("MlpPolicy", sample_env(spaces.Discrete(4), spaces.Discrete(2))),
    "SB3": Case(sb3_policies.ActorCriticPolicy, CONTINUOUS),
    "Dict": Case("MultiInputPolicy", sample_env(DICT, spaces.Discrete(3))),
    "DictOfSB3": Case(sb3_policies.MultiInputActorCriticPolicy, sample_env(DICT, spaces.Discrete(3))),
    "Cnn": Case(
        "CnnPolicy",
        lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True),
        {"features_extractor_kwargs": {"features_dim": 8}},
    ),
    "gSDE": Case("MlpPolicy", CONTINUOUS, {}, {"use_sde": True, "sde_sample_freq": 4}),
    "gSDE-full-features": Case("MlpPolicy", CONTINUOUS, {"full_std": False, "use_expln": True}, {"use_sde": True}),
    "shared": Case("MlpPolicy", CONTINUOUS, {"features_extractor_class": Residual, "share_features_extractor": True}),
    "flat-not-shared": Case(
        "MlpPolicy", CONTINUOUS, {"features_extractor_class": FlattenExtractor, "share_features_extractor": False}
    ),
    "Residual": Case("MlpPolicy", CONTINUOUS, {"features_extractor_class": Residual}),
    "Convolved": Case("MlpPolicy", CONTINUOUS, {"features_extractor_class": Convolved}),
    "BatchNorm": Case("MlpPolicy", CONTINUOUS, {"features_extractor_class": BatchNorm}, {}, False),
    "BatchNorm-shared": Case(
        "MlpPolicy", CONTINUOUS, {"features_extractor_class": BatchNorm, "share_features_extractor": True}, {}, False
    ),
    "Dropout": Case("MlpPolicy", CONTINUOUS, {"features_extractor_class": Dropout}, {}, False),
}
