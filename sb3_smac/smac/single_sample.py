"""The paper's single-sample variant, a rollout's worth of sequential steps, written out for plain policies."""

from dataclasses import dataclass, field

import numpy as np
import torch as th
from torch import nn

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


def single_sample_steps(
    plain: PlainPolicy, observations: th.Tensor, actions: th.Tensor, advantages: th.Tensor, step_size: float, damping: float
) -> SingleSampleSteps:
    r"""
    For one transition after the other, ``θ ← θ + α A_i s_i / (λ + ‖s_i‖²)``: the Sherman–Morrison step of a batch of one
    (eq. 4-5 of https://arxiv.org/abs/2601.18626).

    The score of a linear layer's weight is ``δ aᵀ`` and that of its bias δ, so that their norm is ``‖δ‖² (‖a‖² + 1)``: the
    score is never formed, and each parameter is touched once. In NumPy, which for a few numbers is faster than torch.

    :param plain: policy whose actor's parameters are changed, in place
    :param observations: shape (N, ...)
    :param actions: shape (N, k) for Box actions, (N,) for Discrete ones
    :param advantages: A_i, shape (N,)
    :param step_size: α
    :param damping: λ > 0
    :return: what the steps were
    """
    network = _Network(plain)
    steps = SingleSampleSteps()
    inputs = plain.features(observations).numpy()
    for features, action, advantage in zip(inputs, actions.numpy(), advantages.numpy(), strict=True):
        activations = network.forward(features)
        delta, log_std_score, log_prob, entropy = (
            network.gaussian(activations[-1], action) if plain.is_gaussian else network.categorical(activations[-1], action)
        )
        deltas = network.backward(activations, delta)
        squared_norm = log_std_score @ log_std_score
        for a, d, layer in zip(activations, deltas, network.layers, strict=False):
            squared_norm += (d @ d) * (a @ a + (layer.bias is not None))
        coefficient = step_size * advantage / (damping + squared_norm)
        network.move(activations, deltas, log_std_score, coefficient)
        steps.squared_norms.append(float(squared_norm))
        steps.log_probs.append(float(log_prob))
        steps.entropies.append(float(entropy))
    return steps


@dataclass
class _Layer:
    """A layer's parameters as arrays that share their memory."""

    weight: np.ndarray
    bias: np.ndarray | None
    activation: type[nn.Module] | None


class _Network:
    """The actor in NumPy: parameters changed here are the policy's."""

    def __init__(self, plain: PlainPolicy) -> None:
        self.layers = [
            _Layer(
                layer.weight.detach().numpy(),
                None if layer.bias is None else layer.bias.detach().numpy(),
                None if activation is None else type(activation),
            )
            for layer, activation in plain.actor.layers
        ]
        self.log_std = plain.policy.log_std.detach().numpy() if plain.is_gaussian else np.zeros(0, np.float32)

    def forward(self, features: np.ndarray) -> list[np.ndarray]:
        """The input of each layer and, last, the output, of one sample."""
        activations = [features]
        for layer in self.layers:
            output = layer.weight @ activations[-1]
            if layer.bias is not None:
                output += layer.bias
            if layer.activation is nn.Tanh:
                np.tanh(output, out=output)
            elif layer.activation is nn.ReLU:
                np.maximum(output, 0, out=output)
            activations.append(output)
        return activations

    def gaussian(self, mean: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Score of the mean and of log σ, log-probability and entropy."""
        std = np.exp(self.log_std)
        normal = (action - mean) / std
        constant = self.log_std.sum() + 0.5 * len(std) * np.log(2 * np.pi)
        return normal / std, normal**2 - 1, -0.5 * (normal @ normal) - constant, constant + 0.5 * len(std)

    def categorical(self, logits: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, float, float]:
        """Score of the logits, an empty one for log σ, log-probability and entropy."""
        logits = logits - logits.max()
        log_probs = logits - np.log(np.exp(logits).sum())
        probs = np.exp(log_probs)
        delta = -probs
        delta[int(action)] += 1
        return delta, self.log_std, log_probs[int(action)], -(probs @ log_probs)

    def backward(self, activations: list[np.ndarray], delta: np.ndarray) -> list[np.ndarray]:
        """From the score of the output, those of the output of each linear layer."""
        deltas = []
        for layer, output in zip(reversed(self.layers), reversed(activations), strict=False):
            if layer.activation is nn.Tanh:
                delta = delta * (1 - output * output)
            elif layer.activation is nn.ReLU:
                delta = delta * (output > 0)
            deltas.append(delta)
            delta = delta @ layer.weight
        return deltas[::-1]

    def move(
        self, activations: list[np.ndarray], deltas: list[np.ndarray], log_std_score: np.ndarray, coefficient: float
    ) -> None:
        """``θ ← θ + c s``, in place."""
        for layer, inputs, delta in zip(self.layers, activations, deltas, strict=False):
            delta = coefficient * delta
            layer.weight += delta[:, None] * inputs
            if layer.bias is not None:
                layer.bias += delta
        self.log_std += coefficient * log_std_score
