"""What a trained policy acts by: an average of its actor over the last updates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_smac.maths import flatten, unflatten

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic


class ActorAverage:
    """
    ``θ̄ ← θ̄ + c (θ - θ̄)`` after each update t, with ``c = 1 / (1 + averaging (t - 1))``.

    The last part ``averaging`` of all updates counts most, however many they are: 1 is their mean, 0 the actor itself. This is
    the polynomial-decay averaging of Shamir and Zhang (https://arxiv.org/abs/1212.1824). The training does not see it.

    Where somebody else has changed the actor since its last update, there is no average.
    """

    # as Stable-Baselines3 saves them with a model
    TENSORS = ("_average.mean", "_average.latest", "_average.count")

    def __init__(self) -> None:
        self.mean, self.latest = th.empty(0), th.empty(0)  # θ̄ and θ, shape (d,)
        self.count = th.zeros((), dtype=th.int64)

    def begin(self, model: NaturalActorCritic) -> None:
        """
        Before an update: what does not go on from the last one begins another average.

        :param model: the algorithm
        """
        if not self._is_of(_actor(model)):
            self.count = th.zeros_like(self.count)

    def add(self, model: NaturalActorCritic) -> None:
        """
        Take the actor into the average, after an update.

        :param model: the algorithm
        """
        if actor := _actor(model):
            self.latest = flatten(actor)
            mean = self.mean.to(self.latest) if self.count else self.latest
            self.mean = th.lerp(mean, self.latest, 1 / (1 + model._share_averaged * self.count.item()))
            self.count = self.count + 1

    @contextmanager
    def acting(self, model: NaturalActorCritic) -> Iterator[None]:
        """
        Act by the average in the block, if there is one.

        :param model: the algorithm
        """
        actor = _actor(model)
        if not self._is_of(actor):
            yield
            return
        before = [parameter.data for parameter in actor]
        for parameter, mean in zip(actor, unflatten(self.mean, actor), strict=True):
            parameter.data = mean.to(parameter)
        try:
            yield
        finally:
            for parameter, data in zip(actor, before, strict=True):
                parameter.data = data

    def _is_of(self, actor: list[th.nn.Parameter]) -> bool:
        """Whether the actor is what the last update left."""
        if not self.count or sum(parameter.numel() for parameter in actor) != len(self.latest):
            return False
        return all(th.equal(now, then.to(now)) for now, then in zip(actor, unflatten(self.latest, actor), strict=True))


@contextmanager
def acting_policy(model: NaturalActorCritic) -> Iterator[ActorCriticPolicy]:
    """
    The policy that :meth:`~sb3_smac.NaturalActorCritic.predict` acts by, for what needs the network itself, such as an export.

    :param model: the algorithm
    :return: ``model.policy``; within the block its actor is the average, if the model acts by one
    """
    with model._average.acting(model):
        yield model.policy


def _actor(model: NaturalActorCritic) -> list[th.nn.Parameter]:
    """What is averaged: its parameters as the policy has them now, but for the deviation, of which the present one counts."""
    if not model._share_averaged:
        return []
    named = dict(model.policy.named_parameters())
    names = model._names[0] if hasattr(model, "_names") else ()
    return [named[name] for name in names if name in named and name.split(".")[-1] != "log_std"]
