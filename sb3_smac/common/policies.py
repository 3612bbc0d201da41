"""Policies whose actor and critic share no parameters unless asked to, and that can normalise what they see."""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch as th
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_smac.common.normalizer import EPSILON, ObservationNormalizer, ReturnNormalizer, is_vector
from sb3_smac.maths import LayerRecorder

FastForward = Callable[[PyTorchObs, bool], tuple[th.Tensor, th.Tensor, th.Tensor] | None]

# What computes the same faster while a rollout is collected, or gives ``None``. Not in the policy: copies do not take it along
FAST_FORWARDS: WeakKeyDictionary[nn.Module, FastForward] = WeakKeyDictionary()


class _DisjointByDefault:
    """
    Mixin: the paper's θ (actor) and φ (critic) are disjoint.

    :param share_features_extractor: share one features extractor between actor and critic. ``None`` (the default) shares only
        an extractor that has no parameters, which cannot tie them. If shared, its parameters are the actor's: they move with
        the actor's step, and the critic's gradient leaves them alone.
    """

    def __init__(self, *args: Any, share_features_extractor: bool | None = None, **kwargs: Any) -> None:
        if share_features_extractor is None:
            default = FlattenExtractor if isinstance(self, ActorCriticPolicy) else None
            share_features_extractor = kwargs.get("features_extractor_class", default) is FlattenExtractor
        super().__init__(*args, share_features_extractor=share_features_extractor, **kwargs)  # type: ignore[call-arg]  # a mixin

    def _get_constructor_parameters(self) -> dict[str, Any]:
        # Stable-Baselines3 leaves it out, and a policy that is loaded alone would be built with the default
        parameters = super()._get_constructor_parameters()  # type: ignore[misc]  # a mixin
        return {**parameters, "share_features_extractor": self.share_features_extractor}  # type: ignore[attr-defined]  # ditto


class _NormalizedFeatures(BasePolicy):
    """Comes between Stable-Baselines3's ActorCriticPolicy and BasePolicy: all ways to features lead through it, once."""

    observation_normalizer: nn.Module

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """
        :param obs: observations as the environment gives them
        :param features_extractor: takes the normalised ones
        :return: features
        """
        return super().extract_features(self.observation_normalizer(obs), features_extractor)


class NormalizingPolicy(sb3_policies.ActorCriticPolicy, _NormalizedFeatures):  # type: ignore[misc]  # as SB3's own bases
    """
    Mixin: ``extract_features`` normalises observations, by statistics of the policy's own.

    Acting and evaluating leave the statistics alone: an algorithm updates them. All parts compose as
    Stable-Baselines3's do: ``extract_features`` takes observations as the environment gives them, and ``value_net`` puts out
    values in the units of the reward.

    :param normalize_observations: whether there is an :class:`ObservationNormalizer`
    :param normalize_returns: whether there is a :class:`ReturnNormalizer`, by which the critic is fitted
    :raises ValueError: if observations are to be normalised and are no vectors
    """

    def __init__(
        self, *args: Any, normalize_observations: bool = False, normalize_returns: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        if normalize_observations and not is_vector(self.observation_space):
            raise ValueError(
                "normalize_observations must be False unless the observation space is a one-dimensional Box, got "
                f"{normalize_observations!r} for {self.observation_space}"
            )
        self.normalize_observations, self.normalize_returns = normalize_observations, normalize_returns
        shape = self.observation_space.shape or ()
        self.observation_normalizer = ObservationNormalizer(shape) if normalize_observations else nn.Identity()
        self.return_normalizer = ReturnNormalizer() if normalize_returns else nn.Identity()

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = {"normalize_observations": self.normalize_observations, "normalize_returns": self.normalize_returns}
        return {**super()._get_constructor_parameters(), **parameters}

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        fast_forward = FAST_FORWARDS.get(self)
        result = None if fast_forward is None else fast_forward(obs, deterministic)
        return super().forward(obs, deterministic) if result is None else result  # type: ignore[arg-type]  # SB3: Tensor

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """
        :param state_dict: parameters and buffers
        :param strict: whether every one must be there, and no other
        :param assign: as in :meth:`torch.nn.Module.load_state_dict`
        :return: as in :meth:`torch.nn.Module.load_state_dict`
        :raises ValueError: if it does not fit this policy
        """
        for name in ("observation", "return") if strict else ():
            has, gets = getattr(self, f"normalize_{name}s"), f"{name}_normalizer.mean" in state_dict
            if bool(has) != gets:
                raise ValueError(
                    f"normalize_{name}s must be {gets} for these parameters, which were trained with it, got {has!r}"
                )
        try:
            return super().load_state_dict(_with_values_in_units_of_reward(state_dict), strict, assign)
        except RuntimeError as error:
            raise StateDictError(f"state_dict must be that of a policy like this one. {error}") from error

    def input_layers(self, observations: th.Tensor, *runs: Callable[[], object]) -> list[nn.Linear]:
        """
        Find the layers that normalised observations go into.

        :param observations: a few, shape (N, ...)
        :param runs: what evaluates actor and critic on them
        :return: those of actor and critic whose weight and bias can make up for a change of the statistics
        """
        features = self.observation_normalizer(observations).flatten(start_dim=1)
        found: list[nn.Linear] = []
        with th.no_grad():
            for run in runs:
                with LayerRecorder(self.modules()) as recorder:
                    run()
                found += [
                    call.layer
                    for call in recorder.calls
                    if isinstance(call.layer, nn.Linear)
                    and call.inputs.shape == features.shape
                    and th.equal(call.inputs, features)
                    and call.layer.bias is not None
                    and all(parameter.requires_grad for parameter in call.layer.parameters())
                    and call.layer not in found
                ]
        return found


class StateDictError(ValueError, RuntimeError):
    """Parameters of another policy. (PyTorch raises a RuntimeError.)"""


def _with_values_in_units_of_reward(state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """Until version 0.1 the critic's last layer put out normalised values, and the statistics' count was an integer."""
    count = state_dict.get("return_normalizer.count")
    if count is None or count.is_floating_point() or "value_net.weight" not in state_dict:
        return state_dict
    mean, std = state_dict["return_normalizer.mean"], (state_dict["return_normalizer.var"] + EPSILON).sqrt()
    weight, bias = state_dict["value_net.weight"], state_dict["value_net.bias"]
    scaled = {"value_net.weight": (weight * std).to(weight), "value_net.bias": (bias * std + mean).to(bias)}
    return {**state_dict, **scaled}


class ActorCriticPolicy(_DisjointByDefault, NormalizingPolicy):  # type: ignore[misc]
    """``"MlpPolicy"``: :class:`stable_baselines3.common.policies.ActorCriticPolicy`, disjoint by default."""


class ActorCriticCnnPolicy(_DisjointByDefault, NormalizingPolicy, sb3_policies.ActorCriticCnnPolicy):  # type: ignore[misc]
    """``"CnnPolicy"``: :class:`stable_baselines3.common.policies.ActorCriticCnnPolicy`, disjoint by default."""


class MultiInputActorCriticPolicy(  # type: ignore[misc]
    _DisjointByDefault,
    NormalizingPolicy,
    sb3_policies.MultiInputActorCriticPolicy,
):
    """``"MultiInputPolicy"``: :class:`stable_baselines3.common.policies.MultiInputActorCriticPolicy`, disjoint by default."""


MlpPolicy = ActorCriticPolicy
CnnPolicy = ActorCriticCnnPolicy
MultiInputPolicy = MultiInputActorCriticPolicy


def unwrapped(policy: nn.Module) -> Any:
    """
    :param policy: a policy, or what ``torch.compile`` or a data-parallel wrapper has made of one
    :return: the policy
    """
    while not isinstance(policy, BasePolicy):
        inner = getattr(policy, "_orig_mod", None) or getattr(policy, "module", None)
        if inner is None:
            return policy
        policy = inner
    return policy
