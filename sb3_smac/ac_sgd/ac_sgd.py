"""AC-SGD: actor-critic with a plain gradient step."""

import torch as th

from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.natural_actor_critic import NaturalActorCritic


class ACSGD(NaturalActorCritic):
    """
    AC-SGD: the actor's step is the policy gradient, ``θ ← θ + α g``: A2C with GAE and stochastic gradient ascent.

    Arguments and defaults are those of :class:`~sb3_smac.common.natural_actor_critic.NaturalActorCritic`.

    Paper: https://arxiv.org/abs/2601.18626 (§5, the AC-SGD baseline)
    """

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        """
        ``x = g``.

        :param batch: policy gradient g
        :return: x, shape (d,)
        """
        return batch.gradient
