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
from tests.algorithms import ACTION_SPACES, SampleEnv

Outputs = tuple[th.Tensor, th.Tensor, th.Tensor]


def distribution_of(policy: Any, output: th.Tensor) -> Distribution:
    """The policy's kind of distribution with the output of a last layer."""
    log_std = (policy.log_std,) if isinstance(policy.action_space, spaces.Box) else ()
    return policy.action_dist.proba_distribution(output, *log_std)


def latent_of_actor(policy: Any, obs: th.Tensor) -> th.Tensor:
    """As the bodies of Stable-Baselines3's methods get it."""
    features = policy.extract_features(obs)
    return policy.mlp_extractor.forward_actor(features if policy.share_features_extractor else features[0])


class Own:
    """Acts and evaluates by :meth:`own_distribution` and :meth:`own_values`; leaves ``get_distribution`` as it is."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.build_own(self.action_net.out_features)
        self.optimizer = self.optimizer_class(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def build_own(self, n_outputs: int) -> None:
        """Layers of its own."""

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


class _OwnNetwork(Own):
    """A network of its own; the one that Stable-Baselines3 builds is never used for the actor."""

    def build_own(self, n_outputs: int) -> None:
        self.own_network = nn.Sequential(nn.Linear(self.features_dim, 7), nn.Tanh(), nn.Linear(7, n_outputs))

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        return distribution_of(self, self.own_network(obs.float().flatten(1)))


class OwnNetwork(_OwnNetwork, MlpPolicy):
    """On this package's class."""


class OwnNetworkOfSB3(_OwnNetwork, sb3_policies.ActorCriticPolicy):
    """On Stable-Baselines3's."""


class _OwnValues(_OwnNetwork):
    """A value network of its own, too, of which ``predict_values`` does not know."""

    def build_own(self, n_outputs: int) -> None:
        super().build_own(n_outputs)
        self.own_value_network = nn.Sequential(nn.Linear(self.features_dim, 6), nn.Tanh(), nn.Linear(6, 1))

    def own_values(self, obs: th.Tensor) -> th.Tensor:
        return self.own_value_network(obs.float().flatten(1))


class OwnValues(_OwnValues, MlpPolicy):
    """On this package's class."""


class OwnValuesOfSB3(_OwnValues, sb3_policies.ActorCriticPolicy):
    """On Stable-Baselines3's."""


class FeaturesToOwnHead(Own, MlpPolicy):
    """A head of its own behind ``extract_features``, which normalises observations."""

    def build_own(self, n_outputs: int) -> None:
        self.own_head = nn.Linear(self.features_dim, n_outputs)

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        features = self.extract_features(obs)
        return distribution_of(self, self.own_head(features if self.share_features_extractor else features[0]))


class Mask(Own, MlpPolicy):
    """An action that is forbidden where the first observation is positive."""

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        logits = self.action_net(latent_of_actor(self, obs))
        forbidden = th.zeros_like(logits, dtype=th.bool)
        forbidden[:, 0] = obs.flatten(1)[:, 0] > 0
        return distribution_of(self, logits.masked_fill(forbidden, -1e8))


class Temperature(Own, MlpPolicy):
    """A softer policy than the one of ``get_distribution``."""

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        output = self.action_net(latent_of_actor(self, obs))
        return distribution_of(self, output / 3 + 0.5 * th.arange(self.action_net.out_features))


class LearnedTemperature(Own, MlpPolicy):
    """The same by a temperature that is a parameter."""

    def build_own(self, n_outputs: int) -> None:
        self.log_temperature = nn.Parameter(th.full((), 0.3))
        self.bias = nn.Parameter(th.arange(n_outputs) * 0.5)

    def own_distribution(self, obs: th.Tensor) -> Distribution:
        output = self.action_net(latent_of_actor(self, obs))
        return distribution_of(self, (output + self.bias) / self.log_temperature.exp())


class FromLatent(MlpPolicy):
    """Only the last step to a distribution is its own: every method uses it."""

    def _get_action_dist_from_latent(self, latent_pi: th.Tensor) -> Distribution:
        return distribution_of(self, 3 * self.action_net(latent_pi) + 0.1)


class ForwardOnly(MlpPolicy):
    """Acts at another temperature than any other method knows of."""

    own_distribution, own_values, forward = Temperature.own_distribution, Own.own_values, Own.forward


class ValuesOfForwardOnly(MlpPolicy):
    """Values that no other method gives."""

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Outputs:
        actions, values, log_prob = super().forward(obs, deterministic)
        return actions, values + 7, log_prob


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


class _Modes(BaseFeaturesExtractor):
    """A linear layer, layers whose behaviour depends on the mode, and a count of the passes in each mode."""

    layers: tuple[Callable[[], nn.Module], ...]

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 5)
        self.net = nn.Sequential(nn.Linear(observation_space.shape[0], 5), *(layer() for layer in self.layers))
        self.passes = {True: 0, False: 0}

    def forward(self, observations: th.Tensor) -> th.Tensor:
        self.passes[self.training] += 1
        return self.net(observations)


class BatchNorm(_Modes):
    """Statistics of batches."""

    layers = (lambda: nn.BatchNorm1d(5),)


class Dropout(_Modes):
    """Random numbers in training."""

    layers = (lambda: nn.Dropout(0.3),)


class BatchNormAndDropout(_Modes):
    """Both."""

    layers = (*BatchNorm.layers, *Dropout.layers)


BOX = spaces.Box(-2, 2, (3,))
DICT = spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})


def sample_env(actions: spaces.Space, observations: spaces.Space = BOX) -> Callable[[], gym.Env]:
    return lambda: SampleEnv(observations, actions)


DISCRETE, CONTINUOUS = (sample_env(ACTION_SPACES[name]) for name in ("Discrete", "Box"))
MULTI_DISCRETE, MULTI_BINARY = (sample_env(ACTION_SPACES[name]) for name in ("MultiDiscrete", "MultiBinary"))


@dataclass(frozen=True)
class Case:
    """
    A policy and an environment for it.

    :param policy: its class or name
    :param env: makes the environment
    :param kwargs: arguments of the policy
    :param arguments: of the algorithm
    """

    policy: Any
    env: Callable[[], gym.Env]
    kwargs: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


def with_extractor(extractor: type[BaseFeaturesExtractor], **kwargs: Any) -> Case:
    return Case("MlpPolicy", CONTINUOUS, {"features_extractor_class": extractor, **kwargs})


CASES: dict[str, Case] = {
    "OwnNetwork": Case(OwnNetwork, CONTINUOUS),
    "OwnNetworkOfSB3": Case(OwnNetworkOfSB3, DISCRETE),
    "OwnValues": Case(OwnValues, DISCRETE),
    "OwnValuesOfSB3": Case(OwnValuesOfSB3, CONTINUOUS),
    "FeaturesToOwnHead": Case(FeaturesToOwnHead, CONTINUOUS),
    "Mask": Case(Mask, DISCRETE),
    "Temperature": Case(Temperature, DISCRETE),
    "LearnedTemperature": Case(LearnedTemperature, CONTINUOUS),
    "FromLatent": Case(FromLatent, CONTINUOUS),
    "MlpPolicy": Case("MlpPolicy", CONTINUOUS),
    "MlpPolicy-MultiDiscrete": Case("MlpPolicy", MULTI_DISCRETE),
    "MlpPolicy-MultiBinary": Case("MlpPolicy", MULTI_BINARY),
    "MlpPolicy-discrete-observations": Case("MlpPolicy", sample_env(spaces.Discrete(2), spaces.Discrete(4))),
    "SB3": Case(sb3_policies.ActorCriticPolicy, CONTINUOUS),
    "Dict": Case("MultiInputPolicy", sample_env(spaces.Discrete(3), DICT)),
    "DictOfSB3": Case(sb3_policies.MultiInputActorCriticPolicy, sample_env(spaces.Discrete(3), DICT)),
    "Cnn": Case(
        "CnnPolicy",
        lambda: FakeImageEnv(screen_height=36, screen_width=36, n_channels=1, discrete=True),
        {"features_extractor_kwargs": {"features_dim": 8}},
    ),
    "gSDE": Case("MlpPolicy", CONTINUOUS, {}, {"use_sde": True, "sde_sample_freq": 4}),
    "gSDE-full-features": Case("MlpPolicy", CONTINUOUS, {"full_std": False, "use_expln": True}, {"use_sde": True}),
    "shared": with_extractor(Residual, share_features_extractor=True),
    "flat-not-shared": with_extractor(FlattenExtractor, share_features_extractor=False),
    "Residual": with_extractor(Residual),
    "Convolved": with_extractor(Convolved),
    "BatchNorm": with_extractor(BatchNorm),
    "BatchNorm-shared": with_extractor(BatchNorm, share_features_extractor=True),
    "Dropout": with_extractor(Dropout),
}
DETERMINISTIC = [name for name in CASES if "BatchNorm" not in name and name != "Dropout"]
"""Those whose training mode does the same as their evaluation mode."""
