"""Products with the Fisher matrix of a policy, the expectation over actions taken in closed form."""

from collections.abc import Sequence

import torch as th

from sb3_smac.maths.flat import flat_gradient


class FisherVectorProduct:
    """
    ``v ↦ F v``, with ``F`` (d, d) the Fisher matrix, never formed.

    ``F`` is the Hessian of ``KL(π_old ‖ π_θ)`` at ``π_θ = π_old``; its product with a vector is a second backward pass through
    the gradient (B. Pearlmutter, "Fast exact multiplication by the Hessian", 1994; used for policies by TRPO,
    https://arxiv.org/abs/1502.05477).

    :param kl: mean KL divergence from the frozen policy to the current one, with its graph in θ, a scalar
    :param parameters: the actor's parameters θ, with d entries in all
    """

    def __init__(self, kl: th.Tensor, parameters: Sequence[th.Tensor]) -> None:
        self.parameters = parameters
        self._kl_gradient = flat_gradient(kl, parameters, create_graph=True)  # (d,)

    def __call__(self, vector: th.Tensor) -> th.Tensor:
        """
        :param vector: v, shape (d,)
        :return: F v, shape (d,)
        """
        return flat_gradient(self._kl_gradient @ vector, self.parameters, retain_graph=True)
