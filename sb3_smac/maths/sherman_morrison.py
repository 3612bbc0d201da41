"""The damped rank-1 Fisher and its inverse."""

import torch as th


def sherman_morrison_solve(vector: th.Tensor, update: th.Tensor, damping: float) -> th.Tensor:
    r"""
    Solve ``(λ I + u uᵀ) x = v`` by the Sherman–Morrison formula, in O(d) time and memory:

    .. math::

        (\lambda I + u u^\top)^{-1} v = \frac{1}{\lambda} \left( v - u \, \frac{u^\top v}{\lambda + u^\top u} \right)

    With ``u`` the mean score of a batch and ``v`` the policy gradient, ``x`` is the natural gradient of SMAC
    (eq. 4-5 and §5.1 of https://arxiv.org/abs/2601.18626). The damping λ keeps the rank-1 matrix invertible: every direction
    orthogonal to ``u`` is scaled by 1/λ, the direction ``u`` itself by 1/(λ + ‖u‖²).

    :param vector: right-hand side v, shape (d,)
    :param update: rank-1 factor u, shape (d,)
    :param damping: λ > 0
    :return: the solution x, shape (d,)
    :raises ValueError: if λ is not positive, or if v and u are not vectors of one length
    """
    if not damping > 0:
        raise ValueError(f"damping must be greater than 0, got {damping!r}")
    if vector.ndim != 1 or vector.shape != update.shape:
        raise ValueError(
            f"vector and update must be one-dimensional and equally long, got shapes {tuple(vector.shape)} "
            f"and {tuple(update.shape)}"
        )
    # one new vector, whatever d
    return th.addcmul(vector, update, recentring_baseline(vector, update, damping), value=-1).div_(damping)


def recentring_baseline(gradient: th.Tensor, mean_score: th.Tensor, damping: float) -> th.Tensor:
    """
    The scalar ``b = s̄ᵀg / (λ + ‖s̄‖²)`` that the rank-1 Fisher subtracts from every advantage.

    Because ``s̄ = (1/N) Σ s_i`` and ``g = (1/N) Σ A_i s_i``, the rank-1 natural gradient is the policy gradient of re-centred
    advantages: ``F̂⁻¹ g = (1/λ) (1/N) Σ (A_i − b) s_i``.

    :param gradient: policy gradient g, shape (d,)
    :param mean_score: mean score s̄, shape (d,)
    :param damping: λ > 0
    :return: the baseline b, a scalar tensor
    """
    return mean_score.dot(gradient) / (damping + mean_score.dot(mean_score))
