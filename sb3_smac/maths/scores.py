"""The score matrix of a policy on a batch, as a linear operator."""

import warnings
from collections import Counter
from collections.abc import Sequence

import torch as th

from sb3_smac.maths.flat import flat_gradient
from sb3_smac.maths.layers import LayerCall

# Scores of a parameter that no recorded layer accounts for are formed: tell the user above this many numbers (64 MB)
LARGE = 2**24


class Scores:
    """
    The score matrix ``S`` (N, d) of a batch, whose row i is the score ``s_i = ∇_θ log π_θ(a_i | o_i)``.

    It is never formed: each product is a backward pass through the log-probabilities, in O(d) memory.
    The graph of ``log_prob`` stays alive as long as the object.

    :param log_prob: ``log π_θ(a_i | o_i)`` with its graph, shape (N,)
    :param parameters: the actor's parameters θ, with d entries in all
    :param layer_calls: what a :class:`~sb3_smac.maths.layers.LayerRecorder` kept of the forward pass; :meth:`gram` needs it to
        be fast
    :raises ValueError: if ``log_prob`` is not a vector
    """

    def __init__(self, log_prob: th.Tensor, parameters: Sequence[th.Tensor], layer_calls: Sequence[LayerCall] = ()) -> None:
        if log_prob.ndim != 1:
            raise ValueError(f"log_prob must be one-dimensional, got shape {tuple(log_prob.shape)}")
        self.log_prob = log_prob
        self.parameters = parameters
        self.layer_calls = layer_calls
        self._mean: th.Tensor | None = None

    def __len__(self) -> int:
        return len(self.log_prob)

    def weighted_sum(self, weights: th.Tensor) -> th.Tensor:
        """
        ``Sᵀ c = Σ c_i s_i``, by one backward pass.

        :param weights: c, shape (N,)
        :return: shape (d,)
        """
        return flat_gradient(self.log_prob, self.parameters, weights.to(self.log_prob), retain_graph=True)

    def mean(self) -> th.Tensor:
        """
        The mean score ``s̄ = (1/N) Σ s_i``, by one backward pass (the first time).

        :return: shape (d,)
        """
        if self._mean is None:
            self._mean = self.weighted_sum(th.full_like(self.log_prob, 1 / len(self)))
        return self._mean

    def product(self, vector: th.Tensor) -> th.Tensor:
        """
        ``S v``: how fast each log-probability changes along ``v``, by two backward passes (``Sᵀ c`` is linear in ``c``, and
        its derivative along ``v`` with respect to ``c`` is ``S v``).

        :param vector: v, shape (d,)
        :return: ``s_iᵀ v``, shape (N,)
        """
        weights = th.zeros_like(self.log_prob, requires_grad=True)
        weighted_sum = flat_gradient(self.log_prob, self.parameters, weights, create_graph=True)  # (d,)
        (product,) = th.autograd.grad(weighted_sum @ vector, weights, materialize_grads=True)
        return product

    def gram(self) -> th.Tensor:
        """
        The Gram matrix ``S Sᵀ``, the sum of those of all parameters.

        For recorded ``Linear`` and ``Conv2d`` layers it comes from their inputs and output gradients (one backward pass for
        all of them); for any other parameter the scores are formed, one parameter at a time. Samples must not depend on each
        other: batch normalisation in training mode makes them.

        :return: shape (N, N)
        """
        gram = self.log_prob.new_zeros(len(self), len(self))
        runs = Counter(call.layer.weight for call in self.layer_calls)  # by weight: layers may share one
        calls = [call for call in self.layer_calls if runs[call.layer.weight] == 1 and call.is_factored(len(self))]
        output_gradients: Sequence[th.Tensor] = ()
        if calls:
            output_gradients = th.autograd.grad(
                self.log_prob.sum(), [call.output for call in calls], retain_graph=True, materialize_grads=True
            )
        accounted: set[th.Tensor] = set()
        for call, output_gradient in zip(calls, output_gradients, strict=True):
            gram += call.gram(output_gradient)
            accounted.update(call.layer.parameters(recurse=False))
        for parameter in self.parameters:
            if parameter.requires_grad and parameter not in accounted:
                scores = self._scores_of(parameter)
                gram.addmm_(scores, scores.T)
        return gram

    def _scores_of(self, parameter: th.Tensor) -> th.Tensor:
        """The columns of S that belong to one parameter, by one backward pass for all samples at once: (N, entries)."""
        if len(self) * parameter.numel() > LARGE:
            warnings.warn(
                f"A parameter of shape {tuple(parameter.shape)} is in no Linear or Conv2d layer: its scores are formed, "
                f"{len(self) * parameter.numel():.1e} numbers. fisher_rank=1 needs none of that.",
                stacklevel=2,
            )
        identity = th.eye(len(self), dtype=self.log_prob.dtype, device=self.log_prob.device)
        (scores,) = th.autograd.grad(
            self.log_prob, parameter, identity, retain_graph=True, is_grads_batched=True, materialize_grads=True
        )
        return scores.reshape(len(self), -1)
