"""What a trained policy acts by: an average of its actor over the last updates."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch as th

from sb3_smac.maths import flatten, unflatten


class ActorAverage:
    """
    ``θ̄ ← θ̄ + c (θ - θ̄)`` after each update t, with ``c = 1 / (1 + share (t - 1))``.

    The last part ``share`` of all updates counts most, however many they are: 1 is their mean, 0 the actor itself. This is the
    polynomial-decay averaging of Shamir and Zhang (https://arxiv.org/abs/1212.1824). The training does not see it.

    Where somebody else has changed the actor since its last update, there is no average.
    """

    # as Stable-Baselines3 saves them with a model
    TENSORS = ("_average.mean", "_average.latest", "_average.count")

    def __init__(self) -> None:
        self.mean, self.latest = th.empty(0), th.empty(0)  # θ̄ and θ, shape (d,)
        self.count = th.zeros((), dtype=th.int64)

    @contextmanager
    def following(self, parameters: Sequence[th.Tensor], share: float) -> Iterator[None]:
        """
        Take what the block makes of the actor into the average, unless it raises.

        :param parameters: the actor's
        :param share: from 0 to 1
        """
        if not share or not self._is_of(_trainable(parameters)):
            self.count = th.zeros_like(self.count)
        yield
        if not share:
            return
        self.latest = flatten(_trainable(parameters))
        mean = self.mean.to(self.latest) if self.count and self.mean.shape == self.latest.shape else self.latest
        self.mean = th.lerp(mean, self.latest, 1 / (1 + share * self.count.item()))
        self.count = self.count + 1

    @contextmanager
    def acting(self, parameters: Sequence[th.Tensor]) -> Iterator[None]:
        """
        Act by the average in the block.

        :param parameters: the actor's
        """
        parameters = _trainable(parameters)
        if not self._is_of(parameters):
            yield
            return
        before = [parameter.data for parameter in parameters]
        for parameter, mean in zip(parameters, unflatten(self.mean.to(before[0]), parameters), strict=True):
            parameter.data = mean
        try:
            yield
        finally:
            for parameter, data in zip(parameters, before, strict=True):
                parameter.data = data

    def _is_of(self, parameters: Sequence[th.Tensor]) -> bool:
        if not self.count or not parameters:
            return False
        actor = flatten(parameters)
        return actor.shape == self.latest.shape and th.equal(actor, self.latest.to(actor))


def _trainable(parameters: Sequence[th.Tensor]) -> list[th.Tensor]:
    return [parameter for parameter in parameters if parameter.requires_grad]
