"""The end of an update: what the policy has seen becomes part of its statistics, and the policy stays what it is."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import torch as th
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from sb3_smac.common.actor_update import checked_kl
from sb3_smac.common.evaluation import N_COMPARED, Evaluation, Evaluator
from sb3_smac.common.normalizer import ObservationNormalizer
from sb3_smac.common.policies import NormalizingPolicy, unwrapped
from sb3_smac.fast.plain_policy import is_samplewise

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic

# KL divergence of a policy from itself, computed in another way
ROUNDING = 1e-6
# New statistics may move the policy by this part of the KL divergence of the actor's step
SHARE = 0.1
# What the transitions of a rollout count whose statistics would move the policy too far: the first that does not
WEIGHTS = (1.0, 1 / 4, 1 / 16, 1 / 64, 1 / 256)


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
    The layers behind them make up for a change that would move it more; where that is not enough (observations were clipped,
    or no layer can), the rollout counts less.

    :param model: the algorithm
    :param evaluator: of the policy
    :param rollout: N transitions
    :param acted: the policy on the rollout before the update
    :param moved: the policy on the rollout after its steps
    :param is_untrained: whether the policy was as it was built before the update
    :return: KL divergence of the policy after the update from the one before
    """
    policy = unwrapped(model.policy)
    after: Evaluation | None = moved
    if isinstance(policy, NormalizingPolicy) and isinstance(policy.observation_normalizer, ObservationNormalizer):
        allowed = math.inf if is_untrained else SHARE * acted.kl(moved)
        after = _statistics_updated(policy, policy.observation_normalizer, evaluator, rollout, moved, allowed)
    elif not is_samplewise(policy):  # batch statistics have moved with the critic
        after = evaluator.after_step(rollout.observations, rollout.actions)
    return checked_kl(model.action_space, acted, after)


def _statistics_updated(
    policy: NormalizingPolicy,
    normalizer: ObservationNormalizer,
    evaluator: Evaluator,
    rollout: RolloutBufferSamples,
    moved: Evaluation,
    allowed: float,
) -> Evaluation | None:
    """The policy on the rollout with new statistics, which move it by no more KL divergence than is allowed."""
    before, few, actions = copy.deepcopy(normalizer), rollout.observations[:N_COMPARED], rollout.actions[:N_COMPARED]

    def now() -> Evaluation | None:
        return evaluator.after_step(rollout.observations, rollout.actions)

    for weight in WEIGHTS:
        normalizer.update(rollout.observations, weight)
        after = now()
        change = moved.kl(after)
        if change <= allowed:
            return after
        if evaluator.plain is None:
            layers = policy.input_layers(few, lambda: evaluator.evaluate(few, actions), lambda: evaluator.values(few, actions))
        else:
            layers = evaluator.plain.foldable_input_layers()
        state = [parameter.detach().clone() for layer in layers for parameter in layer.parameters()]
        # the divergence is quadratic in the share
        normalizer.fold(before, math.sqrt(allowed / change) if change < math.inf else 0.0, layers)
        after = now()
        if moved.kl(after) <= 2 * allowed + ROUNDING:
            return after
        with th.no_grad():
            for parameter, value in zip((p for layer in layers for p in layer.parameters()), state, strict=True):
                parameter.copy_(value)
        normalizer.load_state_dict(before.state_dict())
    return now()
