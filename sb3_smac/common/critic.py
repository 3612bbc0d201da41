"""Fitting the critic: regression of values on returns."""

from collections.abc import Callable
from typing import Literal

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F

from sb3_smac.common.plain_policy import PlainPolicy, is_samplewise
from sb3_smac.common.policies import NormalizingPolicy
from sb3_smac.maths import LayerRecorder, Scores, assign, flatten, gauss_newton_step

CriticOptimizer = Literal["adam", "gauss_newton"]

# Further Gauss–Newton steps that lower the loss by less than this part of it are not worth their cost
LEAST_PROGRESS = 0.01


def take(observations: PyTorchObs, indices: slice | th.Tensor) -> PyTorchObs:
    """
    :param observations: of N transitions, also of a Dict space
    :param indices: which of them
    :return: these observations
    """
    if isinstance(observations, dict):
        return {key: value[indices] for key, value in observations.items()}
    return observations[indices]


def _scale(policy: ActorCriticPolicy) -> float:
    """Losses are in units of the return; gradients and residuals in those of what the critic's last layer is fitted to."""
    return policy.return_scale if isinstance(policy, NormalizingPolicy) else 1.0


def fit_by_gradients(
    policy: ActorCriticPolicy,
    observations: PyTorchObs,
    returns: th.Tensor,
    parameters: list[nn.Parameter],
    n_passes: int,
    batch_size: int | None,
    max_grad_norm: float | None,
) -> th.Tensor:
    """
    Minibatch steps of the policy's optimizer on the mean squared error.

    :param policy: policy whose ``optimizer`` is the critic's
    :param observations: of N transitions
    :param returns: regression targets, shape (N,)
    :param parameters: what is fitted
    :param n_passes: passes over the transitions, each in a new random order
    :param batch_size: size of a minibatch; ``None``: all
    :param max_grad_norm: largest norm of a gradient; ``None``: no clipping
    :return: mean loss over the minibatches, a scalar tensor
    """
    gradients = _minibatch_gradients(policy, observations, returns, parameters)
    losses = []
    for _ in range(n_passes):
        for indices in th.randperm(len(returns), device="cpu").to(returns.device).split(batch_size or len(returns)):
            losses.append(gradients(indices))
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(parameters, max_grad_norm)
            policy.optimizer.step()
    return th.stack(losses).mean()


def _minibatch_gradients(
    policy: ActorCriticPolicy, observations: PyTorchObs, returns: th.Tensor, parameters: list[nn.Parameter]
) -> Callable[[th.Tensor], th.Tensor]:
    """A function of the indices of a minibatch: it sets the gradients of the mean squared error, and returns that."""
    plain = PlainPolicy.of(policy)
    if plain is not None and set(plain.critic.parameters) == set(parameters):
        return plain.value_gradients(observations, returns)  # type: ignore[arg-type]  # a plain policy has no Dict
    scale = _scale(policy)

    def gradients(indices: th.Tensor) -> th.Tensor:
        values = policy.predict_values(take(observations, indices)).flatten()
        loss = F.mse_loss(values, returns[indices].to(values.dtype))
        policy.optimizer.zero_grad()
        (loss / scale**2).backward(inputs=parameters)
        return loss.detach()

    return gradients


def fit_by_gauss_newton(
    policy: ActorCriticPolicy,
    observations: PyTorchObs,
    returns: th.Tensor,
    parameters: list[nn.Parameter],
    n_steps: int,
    damping: float,
) -> th.Tensor:
    """
    Damped Gauss–Newton steps on the mean squared error of all transitions; none that raises it is taken.

    :param policy: the policy
    :param observations: of N transitions
    :param returns: regression targets, shape (N,)
    :param parameters: what is fitted
    :param n_steps: largest number of steps; they end where the loss falls by less than 1 %
    :param damping: λ > 0, in units of the critic's last layer
    :return: loss after the last step, a scalar tensor
    """
    scale, samplewise = _scale(policy), is_samplewise(policy)
    targets = returns / scale

    def outputs() -> th.Tensor:
        return policy.predict_values(observations).flatten() / scale

    def linearize() -> Scores:
        with LayerRecorder(policy.modules()) as recorder:
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
    return returns.new_tensor(step.loss * scale**2)
