"""The end of an update: what the policy has seen becomes part of its statistics, and the policy stays what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stable_baselines3.common.type_aliases import RolloutBufferSamples

from sb3_smac.common.actor_update import checked_kl
from sb3_smac.common.buffers import take
from sb3_smac.common.evaluation import Evaluation, Evaluator
from sb3_smac.common.normalizer import ObservationNormalizer
from sb3_smac.common.parameters import copy_of_state
from sb3_smac.common.policies import unwrapped
from sb3_smac.fast.plain_policy import is_samplewise

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic

# Statistics that no layer can make up for change where they move the policy by less than this part of the update's KL
LEAST_SHARE = 0.1


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

    The layers behind them make up for the change (but in a policy that has learned nothing yet), so that the policy stays what
    its step has made of it. Where that cannot be done, statistics that would move the policy by more than a tenth of its step
    stay as they are.

    :param model: the algorithm
    :param evaluator: of the policy
    :param rollout: N transitions
    :param acted: the policy on the rollout before the update
    :param moved: the policy on the rollout after its steps
    :param is_untrained: whether the policy was as it was built before the update
    :return: KL divergence of the policy after the update from the one before
    """
    policy = unwrapped(model.policy)
    is_as_moved = is_samplewise(policy)  # batch statistics have moved with the critic, too
    normalizer = getattr(policy, "observation_normalizer", None)
    if isinstance(normalizer, ObservationNormalizer):
        layers = [] if is_untrained else policy.input_layers(take(rollout.observations, slice(8)))
        state = copy_of_state(policy) if layers is None else {}
        is_exact = normalizer.update_preserving(rollout.observations, layers or [])
        if layers is None:
            after = evaluator.after_step(rollout.observations, rollout.actions)
            if not moved.kl(after) <= LEAST_SHARE * acted.kl(moved):
                policy.load_state_dict(state)
                is_exact = True
        is_as_moved = is_as_moved and is_exact and not is_untrained
    if not is_as_moved:
        return checked_kl(model.action_space, acted, evaluator.after_step(rollout.observations, rollout.actions))
    return acted.kl(moved)
