"""How a policy is asked what it would do: by the way that acts, so that what acts is what is trained."""

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import PyTorchObs, RolloutBufferSamples

from sb3_smac.common.checks import TOO_LARGE, NonFiniteError
from sb3_smac.common.trust_region import is_invalid_distribution, mean_kl
from sb3_smac.fast.plain_policy import PlainPolicy
from sb3_smac.fast.threads import threads_of_torch

# Two ways to one log-probability or value may differ by this much, relative to its size (or to 1, if it is less): the rounding
# of float32 in a network that sees the observations in batches of another size
TOLERANCE = 1e-3
# So many transitions show what a layer takes, and whether values are what a layer puts out
N_COMPARED = 64


@dataclass(frozen=True)
class Evaluation:
    """
    A policy on N transitions.

    :param log_prob: ``log π(a_i | o_i)``, shape (N,)
    :param entropy: of ``π(· | o_i)``, shape (N,); ``None`` if it has no formula
    :param distribution: ``π(· | o_i)``; ``None`` if the policy is known by its log-probabilities alone
    :param activations: of the actor's layers, if it was evaluated as a plain policy, which gives no graph
    """

    log_prob: th.Tensor
    entropy: th.Tensor | None
    distribution: Distribution | None
    activations: list[np.ndarray] | None = None

    @property
    def mean_entropy(self) -> th.Tensor:
        """Mean entropy; where it has no formula, the actions' own estimate of it."""
        return (-self.log_prob if self.entropy is None else self.entropy).mean()

    def kl(self, new: "Evaluation | None") -> float:
        """
        KL divergence of a policy from this one, which has drawn the actions, averaged over states.

        Where there is no distribution, it is estimated from the actions: ``mean (r − 1 − log r)`` with the ratio r of the new
        probability to the old one (http://joschu.net/blog/kl-approx.html), which is never negative and has the Fisher matrix
        of the scores for its curvature.

        :param new: the policy to compare with, on the same transitions; ``None``: a broken one
        :return: the divergence; NaN for a broken policy
        """
        if new is None:
            return math.nan
        if self.distribution is not None and new.distribution is not None and has_kl(self.distribution):
            kl = mean_kl(self.distribution, new.distribution).item()
        else:
            log_ratio = (new.log_prob - self.log_prob).double()
            kl = (log_ratio.exp() - 1 - log_ratio).mean().item()
        return math.inf if math.isnan(kl) else max(kl, 0.0)  # ∞ − ∞ within the formula; rounding of a KL of 0


@dataclass(frozen=True)
class Evaluator:
    """
    Asks a policy by the methods that agree with how it acts.

    :param policy: an actor-critic policy
    :param by_distribution: whether ``get_distribution`` says how the policy acts; if not, ``evaluate_actions`` does
    :param by_values: whether ``predict_values`` gives the values; if not, ``evaluate_actions`` does
    :param plain: what does the same faster where no graph is needed; ``None``: nothing
    """

    policy: ActorCriticPolicy
    by_distribution: bool = True
    by_values: bool = True
    plain: PlainPolicy | None = None

    def evaluate(self, observations: PyTorchObs, actions: th.Tensor) -> Evaluation:
        """
        :param observations: of N transitions
        :param actions: as the rollout buffer gives them
        :return: the policy on them, with its graph
        :raises ValueError: as torch does, if the policy's outputs make no distribution
        """
        actions = as_log_prob_takes(self.policy.action_space, actions)
        if self.by_distribution:
            # The policy writes its next distribution into the same object: keep this one
            distribution = copy.copy(self.policy.get_distribution(observations))
            return Evaluation(distribution.log_prob(actions), distribution.entropy(), distribution)
        _, log_prob, entropy = self.policy.evaluate_actions(observations, actions)
        return Evaluation(log_prob, entropy, None)

    @th.no_grad()
    def as_it_acts(self, observations: PyTorchObs, actions: th.Tensor) -> Evaluation:
        """:meth:`evaluate` in evaluation mode, as rollouts are collected, without a graph."""
        if self.plain is None or self.policy.training:
            self.policy.set_training_mode(False)
        if self.plain is None:
            return self.evaluate(observations, actions)
        activations = self.plain.actor_activations(observations)  # type: ignore[arg-type]  # a plain policy has no Dict
        distribution = self.plain.distribution(activations[-1])
        log_prob = distribution.log_prob(as_log_prob_takes(self.policy.action_space, actions))
        return Evaluation(log_prob, distribution.entropy(), distribution, activations)

    def after_step(self, observations: PyTorchObs, actions: th.Tensor) -> Evaluation | None:
        """:meth:`as_it_acts`; ``None`` if a step has broken the policy."""
        try:
            return self.as_it_acts(observations, actions)
        except ValueError as error:
            if is_invalid_distribution(error):
                return None
            raise

    def values(self, observations: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param observations: of N transitions
        :param actions: as the rollout buffer gives them
        :return: values with their graph, shape (N,)
        """
        if self.by_values:
            return self.policy.predict_values(observations).flatten()
        actions = as_log_prob_takes(self.policy.action_space, actions)
        return self.policy.evaluate_actions(observations, actions)[0].flatten()


@th.no_grad()
def has_kl(distribution: Distribution) -> bool:
    """
    :param distribution: action distribution of a policy
    :return: whether there is a formula for the KL divergence of two such
    """
    inner = distribution.distribution
    if isinstance(inner, list) or isinstance(inner, th.distributions.Normal | th.distributions.Categorical):
        return True
    try:
        mean_kl(distribution, distribution)
    except NotImplementedError:
        return False
    return True


def as_log_prob_takes(space: spaces.Space, actions: th.Tensor) -> th.Tensor:
    """
    :param space: action space
    :param actions: as the rollout buffer gives them
    :return: as a distribution's ``log_prob`` takes them
    """
    return actions.long().flatten() if isinstance(space, spaces.Discrete) else actions


@th.no_grad()
def agreeing_evaluator(policy: ActorCriticPolicy, rollout: RolloutBufferSamples) -> tuple[Evaluator, Evaluation]:
    """
    Find the methods of a policy that agree with how it acted: in evaluation mode, they give the log-probabilities and values
    that ``forward`` gave while the rollout was collected.

    A policy that has been changed since (by a callback, say) agrees with none: then its ``forward`` is asked once more.

    :param policy: an actor-critic policy
    :param rollout: N transitions, as they were stored, in random order
    :return: how the policy is evaluated, and the policy on the rollout
    :raises ValueError: if no method agrees with ``forward``: nothing could train what acts
    :raises NonFiniteError: if the policy's outputs make no distribution
    """
    try:
        with threads_of_torch():
            return _agreeing_evaluator(policy, rollout)
    except ValueError as error:
        if is_invalid_distribution(error):
            raise NonFiniteError(TOO_LARGE) from error
        raise


def _agreeing_evaluator(policy: ActorCriticPolicy, rollout: RolloutBufferSamples) -> tuple[Evaluator, Evaluation]:
    # the whole rollout: what differs may be rare
    found = _agreeing(policy, rollout.observations, rollout.actions, rollout.old_values, rollout.old_log_prob)
    if found is not None:
        return found
    found = _agreeing(policy, rollout.observations, *_act(policy, rollout.observations))
    if found is None:
        name = type(policy).__name__
        raise ValueError(
            f"policy {name}: neither {name}.get_distribution nor {name}.evaluate_actions gives the log-probabilities (or "
            f"neither {name}.predict_values nor {name}.evaluate_actions gives the values) that {name}.forward acts by. "
            "What forward does to actions and values has to be done in evaluate_actions, too: it would not be trained."
        )
    warnings.warn(
        "The log-probabilities or values of the rollout are no longer those of the policy: it has been changed since, or "
        "its standard deviation is too small for float32. It is trained as it is now.",
        stacklevel=3,
    )
    evaluator, _ = found
    return evaluator, evaluator.as_it_acts(rollout.observations, rollout.actions)


@th.no_grad()
def initial_evaluator(policy: ActorCriticPolicy, observations: PyTorchObs) -> tuple[Evaluator, th.Tensor]:
    """
    :param policy: a policy that has not acted yet, in evaluation mode
    :param observations: a few
    :return: how it is evaluated so that what acts is what is trained (if any way agrees), and actions of its ``forward``
    """
    try:
        actions, values, log_prob = _act(policy, observations)
    except Exception:  # it cannot act as it is built: that is said where it has to
        return Evaluator(policy), policy.get_distribution(observations).mode()
    found = _agreeing(policy, observations, actions, values, log_prob)
    return Evaluator(policy) if found is None else found[0], actions


def _agreeing(
    policy: ActorCriticPolicy, observations: PyTorchObs, actions: th.Tensor, values: th.Tensor, log_prob: th.Tensor
) -> tuple[Evaluator, Evaluation] | None:
    """The first way to evaluate a policy that gives these values and log-probabilities, and the policy evaluated."""
    ways = [Evaluator(policy, by_distribution, by_values) for by_distribution in (True, False) for by_values in (True, False)]
    ways[0] = Evaluator(policy, plain=PlainPolicy.of(policy))
    for evaluator in ways:
        try:
            evaluation = evaluator.as_it_acts(observations, actions)
        except Exception as error:
            if is_invalid_distribution(error):
                raise
            continue  # a method that nobody else calls may not work
        is_actors = is_same_log_prob(evaluation.log_prob, log_prob)
        critic: Any = evaluator.plain or evaluator
        if is_actors and is_same_value(critic.values(observations, actions), values):
            return evaluator, evaluation
    return None


def _act(policy: ActorCriticPolicy, observations: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """Actions, values and log-probabilities of ``forward``, which uses up no random numbers."""
    with th.random.fork_rng([policy.device] if policy.device.type == "cuda" else []):
        actions, values, log_prob = policy(observations)
    return actions.reshape(len(log_prob), -1), values, log_prob


def is_same_log_prob(actual: th.Tensor, expected: th.Tensor) -> bool:
    """
    :param actual: log-probabilities, shape (N,)
    :param expected: the same, computed in another way
    :return: whether they are equal but for rounding, each relative to its own size
    """
    return bool((actual == expected).logical_or((actual - expected).abs() <= TOLERANCE * expected.abs().clamp(min=1)).all())


def is_same_value(actual: th.Tensor, expected: th.Tensor) -> bool:
    """
    :param actual: values, N entries
    :param expected: the same, computed in another way
    :return: whether they are equal but for rounding, relative to the largest
    """
    actual, expected = actual.flatten(), expected.flatten()
    return bool(((actual - expected).abs() <= TOLERANCE * expected.abs().max().clamp(min=1)).all())
