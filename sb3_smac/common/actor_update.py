"""The actor's part of an update: batch after batch, a direction and a step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import RolloutBufferSamples

from sb3_smac.common.actor_batch import ActorBatch, make_actor_batch, normalized
from sb3_smac.common.buffers import select
from sb3_smac.common.checks import TOO_LARGE, NonFiniteError
from sb3_smac.common.diagnosis import explain_actor
from sb3_smac.common.evaluation import Evaluation, Evaluator
from sb3_smac.fast.plain_policy import is_samplewise

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic


def move_actor(
    model: NaturalActorCritic, evaluator: Evaluator, rollout: RolloutBufferSamples, acted: Evaluation
) -> Evaluation:
    """
    Move the actor, and check that the policy is still one.

    :param model: the algorithm
    :param evaluator: of the policy
    :param rollout: N shuffled transitions
    :param acted: the policy on the rollout, as it acted
    :return: the policy on the rollout after its steps
    :raises NonFiniteError: if a gradient or the moved policy is not finite
    """
    model._metrics.clear()
    if not any(parameter.requires_grad for parameter in model.actor_parameters):  # the user froze them all
        return acted
    advantages = normalized(rollout.advantages) if model.normalize_advantage else rollout.advantages
    moved = model._actor_steps(evaluator, rollout, advantages, acted)
    if moved is None:
        moved = evaluator.after_step(rollout.observations, rollout.actions)
    checked_kl(model.action_space, acted, moved)
    assert moved is not None
    return moved


def step_over_batches(
    model: NaturalActorCritic,
    evaluator: Evaluator,
    rollout: RolloutBufferSamples,
    advantages: th.Tensor,
    acted: Evaluation,
) -> Evaluation | None:
    """
    One step per actor batch, each at the parameters that the previous one left.

    :param model: the algorithm
    :param evaluator: of the policy
    :param rollout: N shuffled transitions
    :param advantages: A_i, normalized if they are to be, shape (N,)
    :param acted: the policy on the rollout before the first step
    :return: the policy on the rollout after the last step; ``None`` if nobody has looked
    """
    n_samples = len(advantages)
    batch_size = min(model.batch_size or n_samples, n_samples)
    is_whole, target_kl, line_search = batch_size == n_samples, model._current_target_kl, model._searches_line
    for start in range(0, n_samples, batch_size):
        indices = slice(start, start + batch_size)
        transitions = select(rollout.observations, indices), rollout.actions[indices]
        batch = make_actor_batch(
            *(evaluator, model.actor_parameters, *transitions, advantages[indices]),
            *(model.ent_coef, model.max_grad_norm, acted if is_whole else None),
        )
        direction = _finite_direction(model, evaluator, batch)
        before = batch.evaluation
        if before.activations is None and (target_kl is not None or line_search):
            # as it acts, with the batch statistics that the pass in training mode has moved
            before = acted if is_whole and is_samplewise(evaluator.policy) else evaluator.as_it_acts(*transitions)
        taken = model._step.take(
            *(evaluator, batch, direction, before), model._step_size, target_kl, line_search, model.ent_coef
        )
        model.record_actor("step_size", taken.step_size)
        if taken.halvings is not None:
            model.record_actor("line_search_halvings", taken.halvings)
        del batch, direction  # two vectors of the parameters' size, which the next batch has no use for
    return taken.evaluation if is_whole else None


def _finite_direction(model: NaturalActorCritic, evaluator: Evaluator, batch: ActorBatch) -> th.Tensor:
    """The algorithm's direction; an error that says which transition it comes from if it is not finite."""
    try:
        direction = model.actor_direction(batch) if th.isfinite(batch.gradient).all() else None
    except FloatingPointError:
        direction = None
    if direction is None or not th.isfinite(direction).all():
        raise NonFiniteError(explain_actor(evaluator, model.actor_parameters, model.rollout_buffer, model.num_timesteps))
    model._metrics.add_direction(batch, direction)
    return direction


def checked_kl(action_space: spaces.Space, old: Evaluation, new: Evaluation | None) -> float:
    """
    :param action_space: action space
    :param old: the policy before
    :param new: the policy after; ``None``: a broken one
    :return: its KL divergence
    :raises NonFiniteError: if the policy is broken
    """
    kl = old.kl(new)
    # Among few actions a probability may round to 0, and the KL divergence is then infinite though nothing is broken
    if math.isnan(kl) or (math.isinf(kl) and isinstance(action_space, spaces.Box)):
        raise NonFiniteError(TOO_LARGE)
    return kl
