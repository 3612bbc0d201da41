"""A batch of transitions as an algorithm sees it: advantages, scores and the policy gradient."""

from dataclasses import dataclass

import torch as th
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_smac.common.checks import TOO_LARGE, NonFiniteError
from sb3_smac.common.evaluation import Evaluation, Evaluator, as_log_prob_takes
from sb3_smac.common.trust_region import is_invalid_distribution
from sb3_smac.fast.plain_policy import PlainPolicy, is_samplewise, scale_calls
from sb3_smac.maths import LayerCall, LayerRecorder, ScaleCall, Scores, flat_gradient


@dataclass(frozen=True)
class ActorBatch:
    """
    What an algorithm sees of one actor batch of N transitions; d is the number of actor parameters.

    :param observations: o_i, shape (N, ...), or a dict of such
    :param actions: a_i, as the rollout buffer gives them, shape (N, ...)
    :param advantages: A_i, shape (N,)
    :param gradient: policy gradient ``g = (1/N) Σ A_i s_i`` (plus the entropy bonus's, if any; clipped, if so), shape (d,)
    :param weights: c with which ``g = Sᵀ c``, shape (N,); ``None`` if an entropy bonus makes g another sum
    :param scores: the score matrix S (N, d) as a linear operator
    :param evaluation: the policy on the batch (with its graph, unless it was evaluated as a plain policy)
    :param parameters: the actor's parameters θ
    :param evaluator: of the policy
    """

    observations: PyTorchObs
    actions: th.Tensor
    advantages: th.Tensor
    gradient: th.Tensor
    weights: th.Tensor | None
    scores: Scores
    evaluation: Evaluation
    parameters: list[nn.Parameter]
    evaluator: Evaluator

    @property
    def distribution(self) -> Distribution | None:
        """``π_θ(· | o_i)`` with its graph; ``None`` if the policy is known by its log-probabilities alone."""
        if self.evaluation.activations is None:
            return self.evaluation.distribution
        return self.evaluator.evaluate(self.observations, self.actions).distribution


def make_actor_batch(
    evaluator: Evaluator,
    parameters: list[nn.Parameter],
    observations: PyTorchObs,
    actions: th.Tensor,
    advantages: th.Tensor,
    ent_coef: float = 0.0,
    max_grad_norm: float | None = None,
    acted: Evaluation | None = None,
) -> ActorBatch:
    """
    Run the policy forward, in training mode, and differentiate.

    :param evaluator: of the policy
    :param parameters: the actor's parameters θ
    :param observations: o_i, shape (N, ...), or a dict of such
    :param actions: a_i, as the rollout buffer gives them, shape (N, ...)
    :param advantages: A_i, shape (N,)
    :param ent_coef: coefficient of the entropy bonus
    :param max_grad_norm: largest norm of the policy gradient; ``None``: no clipping
    :param acted: the policy on this batch as it acts, if it is known
    :return: the batch
    :raises NonFiniteError: if the policy's outputs make no distribution
    """
    try:
        if evaluator.plain is not None and ent_coef == 0 and evaluator.plain.is_all(parameters):
            evaluation = acted or evaluator.as_it_acts(observations, actions)
            scores = _plain_scores(evaluator.plain, parameters, evaluation, actions)
        else:
            evaluation, scores = _by_autograd(evaluator, parameters, observations, actions)
    except ValueError as error:
        if is_invalid_distribution(error):
            raise NonFiniteError(TOO_LARGE) from error
        raise
    advantages = advantages.to(evaluation.log_prob.dtype)
    weights = advantages / len(scores)
    gradient = scores.weighted_sum(weights)
    if ent_coef > 0:
        gradient += flat_gradient(ent_coef * evaluation.mean_entropy, parameters, retain_graph=True)
    if max_grad_norm is not None:
        norm = th.linalg.vector_norm(gradient, dtype=th.float64)
        factor = (max_grad_norm / (norm + 1e-6)).clamp(max=1.0).to(gradient)
        gradient *= factor
        weights = weights * factor
    return ActorBatch(
        *(observations, actions, advantages, gradient, weights if ent_coef == 0 else None, scores, evaluation, parameters),
        evaluator=evaluator,
    )


def _by_autograd(
    evaluator: Evaluator, parameters: list[nn.Parameter], observations: PyTorchObs, actions: th.Tensor
) -> tuple[Evaluation, Scores]:
    policy = evaluator.policy
    policy.set_training_mode(True)  # batch statistics and dropout
    with LayerRecorder(policy.modules()) as recorder:
        evaluation = evaluator.evaluate(observations, actions)
    scale = [] if evaluation.distribution is None else scale_calls(policy, evaluation.distribution)
    calls: list[LayerCall | ScaleCall] = [*recorder.calls, *scale]
    return evaluation, Scores(evaluation.log_prob, parameters, calls, is_samplewise(policy))


@th.no_grad()
def _plain_scores(plain: PlainPolicy, parameters: list[nn.Parameter], evaluation: Evaluation, actions: th.Tensor) -> Scores:
    assert evaluation.distribution is not None and evaluation.activations is not None
    actions = as_log_prob_takes(plain.policy.action_space, actions)
    factors = plain.scores(evaluation.distribution, evaluation.activations, actions)
    return Scores(evaluation.log_prob, parameters, factors=factors)


def normalized(advantages: th.Tensor) -> th.Tensor:
    """
    Give advantages mean 0 and standard deviation 1; advantages that are all equal become 0, whatever their rounding.

    :param advantages: A_i, shape (N,)
    :return: same shape and type
    """
    exact = advantages.double()  # squares of large rewards leave float32
    std = exact.std()
    if not std > th.finfo(advantages.dtype).eps * exact.abs().max():
        return th.zeros_like(advantages)
    return ((exact - exact.mean()) / (std + 1e-8)).to(advantages.dtype)
