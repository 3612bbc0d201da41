"""The end of an update: what the policy has seen becomes part of its statistics, and the policy stays what it is."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

from stable_baselines3.common.type_aliases import RolloutBufferSamples

from sb3_smac.common.actor_update import checked_kl
from sb3_smac.common.buffers import take
from sb3_smac.common.evaluation import Evaluation, Evaluator
from sb3_smac.common.normalizer import ObservationNormalizer
from sb3_smac.common.policies import unwrapped
from sb3_smac.fast.plain_policy import is_samplewise

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic

# New statistics may move the policy by this part of the KL divergence of the actor's step
SHARE = 0.1


def update_observation_statistics(
    model: NaturalActorCritic,
    evaluator: Evaluator,
    rollout: RolloutBufferSamples,
    acted: Evaluation,
    moved: Evaluation,
    is_untrained: bool,
) -> float:
    """
    Add the rollout to the statistics of observations, after actor and critic: all of an update sees the same ones.

    They may move the policy by a tenth of the KL divergence of its step (and a policy that has learned nothing yet by any).
    The layers behind them make up for a change that would move it more; where none can, the statistics stay as they are.

    :param model: the algorithm
    :param evaluator: of the policy
    :param rollout: N transitions
    :param acted: the policy on the rollout before the update
    :param moved: the policy on the rollout after its steps
    :param is_untrained: whether the policy was as it was built before the update
    :return: KL divergence of the policy after the update from the one before
    """
    policy = unwrapped(model.policy)
    normalizer = getattr(policy, "observation_normalizer", None)

    def now() -> Evaluation | None:
        return evaluator.after_step(rollout.observations, rollout.actions)

    after: Evaluation | None = moved
    if isinstance(normalizer, ObservationNormalizer):
        before = copy.deepcopy(normalizer)
        normalizer.update(rollout.observations)
        after, allowed = now(), SHARE * acted.kl(moved)
        change = moved.kl(after)
        if not is_untrained and not change <= allowed:
            layers = policy.input_layers(take(rollout.observations, slice(8)))
            if layers is None:
                normalizer.load_state_dict(before.state_dict())
            else:
                # the divergence is quadratic in the share
                normalizer.fold(before, math.sqrt(allowed / change) if change < math.inf else 0.0, layers)
            after = now()
    elif not is_samplewise(policy):  # batch statistics have moved with the critic
        after = now()
    return checked_kl(model.action_space, acted, after)
