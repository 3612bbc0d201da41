"""The paper's single-sample variant, a rollout's worth of sequential steps, written out for plain policies."""

from dataclasses import dataclass, field

import numpy as np
import torch as th

from sb3_smac.fast.plain_policy import PlainPolicy


@dataclass
class SingleSampleSteps:
    """
    What the steps of a rollout were, one entry per transition.

    :param squared_norms: ``‖s_i‖²`` of the score at the parameters that the previous step left
    :param log_probs: ``log π(a_i | o_i)`` at those parameters
    :param entropies: entropy of the policy in o_i at those parameters
    """

    squared_norms: list[float] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)


@th.no_grad()
def single_sample_steps(
    plain: PlainPolicy, observations: th.Tensor, actions: th.Tensor, advantages: th.Tensor, step_size: float, damping: float
) -> SingleSampleSteps:
    r"""
    For one transition after the other, ``θ ← θ + α A_i s_i / (λ + ‖s_i‖²)``: the Sherman–Morrison step of a batch of one
    (eq. 4-5 of https://arxiv.org/abs/2601.18626).

    The score of a linear layer's weight is ``δ aᵀ`` and that of its bias δ, so that their norm is ``‖δ‖² (‖a‖² + 1)``: the
    score is never formed, and each parameter is touched once.

    :param plain: policy whose actor's parameters are changed, in place
    :param observations: shape (N, ...)
    :param actions: shape (N, k) for Box actions, (N,) for Discrete ones
    :param advantages: A_i, shape (N,)
    :param step_size: α
    :param damping: λ > 0
    :return: what the steps were
    """
    steps = SingleSampleSteps()
    log_std = plain.policy.log_std.detach().numpy() if plain.is_gaussian else np.zeros(0, np.float32)
    network = plain.actor.arrays()
    features = plain.features(observations).numpy()[:, None]
    for inputs, action, advantage in zip(features, actions.numpy(), advantages.numpy(), strict=True):
        activations = network.activations(inputs)
        output = activations[-1][0]
        delta, log_std_score, log_prob, entropy = (
            _gaussian(output, log_std, action) if plain.is_gaussian else _categorical(output, log_std, action)
        )
        deltas = network.output_gradients(activations, delta[None])
        squared_norm = float(log_std_score @ log_std_score)
        for (_, bias, _), (a,), (d,) in zip(network.layers, activations, deltas, strict=False):
            squared_norm += float((d @ d) * (a @ a + (bias is not None)))
        coefficient = float(step_size * advantage / (damping + squared_norm))
        for (weight, bias, _), a, (d,) in zip(network.layers, activations, deltas, strict=False):
            d = coefficient * d
            weight += d[:, None] * a
            if bias is not None:
                bias += d
        log_std += coefficient * log_std_score
        steps.squared_norms.append(squared_norm)
        steps.log_probs.append(float(log_prob))
        steps.entropies.append(float(entropy))
    return steps


def _gaussian(mean: np.ndarray, log_std: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Score of the mean and of log σ, log-probability and entropy."""
    std = np.exp(log_std)
    normal = (action - mean) / std
    constant = log_std.sum() + 0.5 * len(std) * np.log(2 * np.pi)
    return normal / std, normal**2 - 1, -0.5 * (normal @ normal) - constant, constant + 0.5 * len(std)


def _categorical(logits: np.ndarray, log_std: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
    """Score of the logits, an empty one for log σ, log-probability and entropy."""
    logits = logits - logits.max()
    log_probs = logits - np.log(np.exp(logits).sum())
    probs = np.exp(log_probs)
    delta = -probs
    delta[int(action)] += 1
    return delta, log_std, log_probs[int(action)], -(probs @ log_probs)
