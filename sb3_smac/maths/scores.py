"""The score matrix of a policy on a batch, as a linear operator."""

from collections.abc import Sequence

import torch as th

from sb3_smac.maths.flat import flat_gradient


class Scores:
    """
    The score matrix ``S`` (N, d) of a batch, whose row i is the score ``s_i = ∇_θ log π_θ(a_i | o_i)``.

    It is never formed: each product is a backward pass through the log-probabilities, in O(d) memory.
    The graph of ``log_prob`` stays alive as long as the object.

    :param log_prob: ``log π_θ(a_i | o_i)`` with its graph, shape (N,)
    :param parameters: the actor's parameters θ, with d entries in all
    :raises ValueError: if ``log_prob`` is not a vector
    """

    def __init__(self, log_prob: th.Tensor, parameters: Sequence[th.Tensor]) -> None:
        if log_prob.ndim != 1:
            raise ValueError(f"log_prob must be one-dimensional, got shape {tuple(log_prob.shape)}")
        self.log_prob = log_prob
        self.parameters = parameters
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
        (product,) = th.autograd.grad(weighted_sum @ vector, weights)
        return product
