"""Policies whose actor and critic share no parameters unless asked to, and that can normalise what they see and predict."""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch as th
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_smac.common.normalizer import ObservationNormalizer, ReturnNormalizer, is_vector

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


class NormalizingPolicy(sb3_policies.ActorCriticPolicy):
    """
    Mixin: observations are normalised on their way in and values scaled on their way out, by statistics of the policy's own.

    Acting and evaluating leave the statistics alone: an algorithm updates them. ``extract_features`` and the networks take
    observations that are already normalised.

    :param normalize_observations: whether there is an :class:`ObservationNormalizer`
    :param normalize_returns: whether there is a :class:`ReturnNormalizer`
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
        own = {"normalize_observations": self.normalize_observations, "normalize_returns": self.normalize_returns}
        return {**super()._get_constructor_parameters(), **own}

    def forward(self, obs: PyTorchObs, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        fast_forward = FAST_FORWARDS.get(self)
        result = None if fast_forward is None else fast_forward(obs, deterministic)
        if result is not None:
            return result
        actions, values, log_prob = super().forward(self.observation_normalizer(obs), deterministic)
        return actions, self.return_normalizer(values), log_prob

    def evaluate_actions(self, obs: PyTorchObs, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor | None]:
        values, log_prob, entropy = super().evaluate_actions(self.observation_normalizer(obs), actions)
        return self.return_normalizer(values), log_prob, entropy

    def get_distribution(self, obs: PyTorchObs) -> Distribution:
        return super().get_distribution(self.observation_normalizer(obs))

    def predict_values(self, obs: PyTorchObs) -> th.Tensor:
        return self.return_normalizer(super().predict_values(self.observation_normalizer(obs)))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """
        :param state_dict: parameters and buffers
        :param strict: whether every one must be there, and no other
        :param assign: as in :meth:`torch.nn.Module.load_state_dict`
        :return: as in :meth:`torch.nn.Module.load_state_dict`
        :raises ValueError: if it is strict, and one of the two policies has statistics that the other one has not
        """
        for name in ("observation", "return") if strict else ():
            has, gets = getattr(self, f"normalize_{name}s"), f"{name}_normalizer.mean" in state_dict
            if bool(has) != gets:
                raise ValueError(
                    f"normalize_{name}s must be {gets} for these parameters, which were trained with it, got {has!r}"
                )
        return super().load_state_dict(state_dict, strict, assign)

    def update_observation_statistics(self, observations: PyTorchObs) -> None:
        """
        :param observations: of a rollout, as the environment gave them, shape (N, ...)
        """
        if isinstance(self.observation_normalizer, ObservationNormalizer):
            assert isinstance(observations, th.Tensor)
            self.observation_normalizer.update(observations)

    def update_return_statistics(self, returns: th.Tensor) -> None:
        """
        :param returns: targets of the critic, shape (N,)
        """
        if isinstance(self.return_normalizer, ReturnNormalizer):
            self.return_normalizer.update_preserving(returns, self.value_net)

    @property
    def return_scale(self) -> float:
        """What a value of 1 of the critic's last layer is worth in units of the return."""
        return self.return_normalizer.std.item() if isinstance(self.return_normalizer, ReturnNormalizer) else 1.0


class ActorCriticPolicy(_DisjointByDefault, NormalizingPolicy):
    """``"MlpPolicy"``: :class:`stable_baselines3.common.policies.ActorCriticPolicy`, disjoint by default."""


class ActorCriticCnnPolicy(_DisjointByDefault, NormalizingPolicy, sb3_policies.ActorCriticCnnPolicy):
    """``"CnnPolicy"``: :class:`stable_baselines3.common.policies.ActorCriticCnnPolicy`, disjoint by default."""


class MultiInputActorCriticPolicy(_DisjointByDefault, NormalizingPolicy, sb3_policies.MultiInputActorCriticPolicy):
    """``"MultiInputPolicy"``: :class:`stable_baselines3.common.policies.MultiInputActorCriticPolicy`, disjoint by default."""


MlpPolicy = ActorCriticPolicy
CnnPolicy = ActorCriticCnnPolicy
MultiInputPolicy = MultiInputActorCriticPolicy
