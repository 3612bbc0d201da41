"""What an update logs."""

from collections import defaultdict

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import explained_variance
from torch import nn

from sb3_smac.common.actor_batch import ActorBatch

# Keeps a quotient of zeros finite
TINY = 1e-30


class Metrics:
    """Quantities of the actor batches of one update."""

    def __init__(self) -> None:
        self._values: defaultdict[str, list[float]] = defaultdict(list)

    def add(self, name: str, value: float) -> None:
        """
        :param name: key, without ``train/``
        :param value: its value for one actor batch
        """
        self._values[name].append(value)

    def add_direction(self, batch: ActorBatch, direction: th.Tensor) -> None:
        """
        :param batch: actor batch
        :param direction: x, shape (d,)
        """
        lengths = [th.linalg.vector_norm(vector, dtype=th.float64).item() for vector in (batch.gradient, direction)]
        units = [vector / max(length, TINY) for vector, length in zip((batch.gradient, direction), lengths, strict=True)]
        self.add("policy_loss", -(batch.advantages * batch.evaluation.log_prob.detach()).mean().item())
        self.add("entropy_loss", -batch.evaluation.mean_entropy.item())
        self.add("policy_gradient_norm", lengths[0])
        self.add("natural_gradient_norm", lengths[1])
        self.add("cosine_similarity", units[0].dot(units[1]).item())
        if "score_norm" not in self._values:  # of the first batch only: it may cost a backward pass
            self.add("score_norm", batch.scores.mean().norm().item())

    def clear(self) -> None:
        """Forget everything: an update begins."""
        self._values.clear()

    def log(self, logger: Logger, approx_kl: float, value_loss: float | None) -> None:
        """
        Log the means over the batches.

        :param logger: where to
        :param approx_kl: KL divergence of the policy after the update from the one before
        :param value_loss: mean squared error of the critic, in units of the return; ``None``: it was not fitted
        """
        for name, values in self._values.items():
            logger.record(f"train/{name}", float(np.mean(values)))
        logger.record("train/approx_kl", approx_kl)
        if value_loss is not None:
            logger.record("train/value_loss", value_loss)


def record_rollout(logger: Logger, buffer: RolloutBuffer, policy: nn.Module, n_updates: int) -> None:
    """
    Log what needs no actor batch.

    :param logger: where to
    :param buffer: the rollout
    :param policy: the policy after the update
    :param n_updates: number of updates
    """
    # float64: squares of large rewards leave float32
    predicted, returns = (array.flatten().astype(np.float64) for array in (buffer.values, buffer.returns))
    logger.record("train/log_prob", float(buffer.log_probs.mean()))
    logger.record("train/explained_variance", explained_variance(predicted, returns))
    log_std = getattr(policy, "log_std", None)
    if isinstance(log_std, th.Tensor):
        logger.record("train/std", log_std.exp().mean().item())
    logger.record("train/n_updates", n_updates, exclude="tensorboard")
