"""Policies whose actor and critic share no parameters unless asked to."""

from typing import Any

from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.torch_layers import FlattenExtractor


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


class ActorCriticPolicy(_DisjointByDefault, sb3_policies.ActorCriticPolicy):
    """``"MlpPolicy"``: :class:`stable_baselines3.common.policies.ActorCriticPolicy`, disjoint by default."""


class ActorCriticCnnPolicy(_DisjointByDefault, sb3_policies.ActorCriticCnnPolicy):
    """``"CnnPolicy"``: :class:`stable_baselines3.common.policies.ActorCriticCnnPolicy`, disjoint by default."""


class MultiInputActorCriticPolicy(_DisjointByDefault, sb3_policies.MultiInputActorCriticPolicy):
    """``"MultiInputPolicy"``: :class:`stable_baselines3.common.policies.MultiInputActorCriticPolicy`, disjoint by default."""


MlpPolicy = ActorCriticPolicy
CnnPolicy = ActorCriticCnnPolicy
MultiInputPolicy = MultiInputActorCriticPolicy
