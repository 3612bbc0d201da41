"""Fitting the critic: regression of values on returns."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch as th
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import nn
from torch.nn import functional as F

from sb3_smac.common.buffers import select
from sb3_smac.common.checks import NonFiniteError
from sb3_smac.common.diagnosis import explain_critic
from sb3_smac.common.evaluation import N_COMPARED, Evaluator
from sb3_smac.common.normalizer import ReturnNormalizer, last_linear, unit_scale
from sb3_smac.common.policies import unwrapped
from sb3_smac.fast.adam import FlatAdam
from sb3_smac.fast.plain_policy import is_samplewise
from sb3_smac.maths import LayerRecorder, Scores, assign, flatten, gauss_newton_step

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic

CriticOptimizer = Literal["adam", "gauss_newton"]

# Sets the gradients of a minibatch's error, of which it gets the indices, and returns that error
Gradients = Callable[[th.Tensor], th.Tensor | float]

# Further Gauss–Newton steps that lower the loss by less than this part of it are not worth their cost
LEAST_PROGRESS = 0.01


def fit_critic(
    model: NaturalActorCritic, evaluator: Evaluator, rollout: RolloutBufferSamples, is_untrained: bool
) -> float | None:
    """
    Fit the critic to the returns; parameters that it shares with the actor stay as they are.

    :param model: the algorithm
    :param evaluator: of the policy
    :param rollout: N transitions
    :param is_untrained: whether the policy was as it was built before the update
    :return: mean squared error in units of the return; ``None`` if the user has frozen the critic
    :raises NonFiniteError: if the error or a parameter is not finite
    """
    parameters = [parameter for parameter in model.critic_parameters if parameter.requires_grad]
    if not parameters:
        return None
    policy, few = unwrapped(model.policy), slice(N_COMPARED)
    moments = getattr(policy, "return_normalizer", None)
    head = last_linear(getattr(policy, "value_net", None))
    if head is not None and not set(head.parameters()) <= set(model.critic_parameters):  # the actor's, too
        head = None
    observations, actions = select(rollout.observations, few), rollout.actions[few]

    def values() -> th.Tensor:
        policy.set_training_mode(False)
        return evaluator.values(observations, actions)

    with unit_scale(
        head, moments if isinstance(moments, ReturnNormalizer) else None, rollout.returns, values, is_untrained
    ) as (targets, scale):
        policy.set_training_mode(True)
        data = (evaluator, rollout, targets, parameters, model.n_critic_updates)
        if model.critic_optimizer == "adam":
            loss = fit_by_gradients(*data, model.critic_batch_size, model.max_grad_norm)
        else:
            loss = fit_by_gauss_newton(*data, model.critic_damping)
    if not math.isfinite(loss) or not all(th.isfinite(parameter).all() for parameter in parameters):
        raise NonFiniteError(explain_critic(model.rollout_buffer, model.num_timesteps))
    return loss * scale**2


def fit_by_gradients(
    evaluator: Evaluator,
    rollout: RolloutBufferSamples,
    targets: th.Tensor,
    parameters: list[nn.Parameter],
    n_passes: int,
    batch_size: int | None,
    max_grad_norm: float | None,
) -> float:
    """
    Minibatch steps of the policy's optimizer on the mean squared error.

    :param evaluator: of the policy, whose ``optimizer`` is the critic's
    :param rollout: N transitions
    :param targets: regression targets, shape (N,)
    :param parameters: what is fitted
    :param n_passes: passes over the transitions, each in a new random order
    :param batch_size: size of a minibatch; ``None``: all
    :param max_grad_norm: largest norm of a gradient; ``None``: no clipping
    :return: mean loss over the minibatches
    """
    optimizer, size, plain = evaluator.policy.optimizer, batch_size or len(targets), evaluator.plain
    # Only of Adam it is known that parameters and gradients stay where they are
    is_plain = plain is not None and set(plain.critic.parameters) == set(parameters)
    flat = FlatAdam.of(optimizer, plain.critic.parameters) if plain is not None and is_plain else None
    gradients: Gradients = _gradients_by_autograd(evaluator, rollout, targets, parameters)
    if plain is not None and flat is not None:
        out = [parameter.grad for parameter in plain.critic.parameters if parameter.grad is not None]
        gradients = plain.value_gradients(rollout.observations, targets, out)
    losses = []
    try:
        for _ in range(n_passes):
            for indices in th.randperm(len(targets), device="cpu").to(targets.device).split(size):
                losses.append(gradients(indices))
                if max_grad_norm is not None:
                    nn.utils.clip_grad_norm_(parameters, max_grad_norm)
                (optimizer if flat is None else flat).step()
    finally:
        if flat is not None:
            flat.close()
    return float(sum(losses)) / len(losses)


def _gradients_by_autograd(
    evaluator: Evaluator, rollout: RolloutBufferSamples, targets: th.Tensor, parameters: list[nn.Parameter]
) -> Gradients:
    """A function of the indices of a minibatch: it sets the gradients of the mean squared error, and returns that."""

    def gradients(indices: th.Tensor) -> th.Tensor:
        values = evaluator.values(select(rollout.observations, indices), rollout.actions[indices])
        loss = F.mse_loss(values, targets[indices].to(values.dtype))
        evaluator.policy.optimizer.zero_grad()
        loss.backward(inputs=parameters)
        return loss.detach()

    return gradients


def fit_by_gauss_newton(
    evaluator: Evaluator,
    rollout: RolloutBufferSamples,
    targets: th.Tensor,
    parameters: list[nn.Parameter],
    n_steps: int,
    damping: float,
) -> float:
    """
    Damped Gauss–Newton steps on the mean squared error of all transitions; none that raises it is taken.

    :param evaluator: of the policy
    :param rollout: N transitions
    :param targets: regression targets, shape (N,)
    :param parameters: what is fitted
    :param n_steps: largest number of steps; they end where the loss falls by less than 1 %
    :param damping: λ > 0, in units of the targets
    :return: loss after the last step
    """
    samplewise = is_samplewise(evaluator.policy)

    def outputs() -> th.Tensor:
        return evaluator.values(rollout.observations, rollout.actions)

    def linearize() -> Scores:
        with LayerRecorder(evaluator.policy.modules()) as recorder:
            values = outputs()
        return Scores(values, parameters, recorder.calls, samplewise)

    @th.no_grad()
    def loss() -> float:
        return (targets - outputs()).square().mean().item()

    last = float("inf")
    for _ in range(n_steps):
        start = flatten(parameters)

        def move(displacement: th.Tensor | None, start: th.Tensor = start) -> None:
            assign(parameters, start, displacement, step_size=1.0)

        step = gauss_newton_step(linearize, targets, damping, move, loss)
        if not step.loss < (1 - LEAST_PROGRESS) * last:
            break
        last = step.loss
    return step.loss
