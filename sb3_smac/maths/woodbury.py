"""The damped empirical Fisher of group means, inverted in sample space."""

import math

import torch as th
from torch.nn import functional as F

# A solution may lose this factor of its precision to the condition number, or it is computed in float64
PRECISION = 1e4
# Rows of such a multiple lie in the same few lines of a processor's cache: a Cholesky factor takes twice the time
CACHE_STRIDE, PADDING = 128, 8


def random_groups(n_samples: int, rank: int) -> th.Tensor:
    """
    Split N samples at random into k groups, as equal as can be.

    :param n_samples: N
    :param rank: k, between 1 and N
    :return: the group of each sample, integers from 0 to k - 1, shape (N,)
    :raises ValueError: if there are not that many samples
    """
    if not 1 <= rank <= n_samples:
        raise ValueError(f"rank must be between 1 and the number of samples, {n_samples}, got {rank!r}")
    # on the CPU: a seed gives the same groups on every device
    return (th.arange(n_samples, device="cpu") % rank)[th.randperm(n_samples, device="cpu")]


class GroupMeans:
    """
    The averaging matrix ``P`` (k, N), whose row j holds 1/m_j at the m_j samples of group j, never formed.

    :param groups: the group of each sample, every integer from 0 to k - 1 at least once, shape (N,)
    """

    def __init__(self, groups: th.Tensor) -> None:
        self.groups = groups
        self.sizes = groups.bincount()  # (k,)

    def product(self, matrix: th.Tensor) -> th.Tensor:
        """
        :param matrix: M, shape (N, ...)
        :return: ``P M``, shape (k, ...)
        """
        sums = matrix.new_zeros(len(self.sizes), *matrix.shape[1:]).index_add_(0, self.groups, matrix)
        return sums / self.sizes.view(-1, *[1] * (matrix.ndim - 1))

    def transposed_product(self, vector: th.Tensor) -> th.Tensor:
        """
        :param vector: v, shape (k,)
        :return: ``Pᵀ v``, shape (N,)
        """
        return (vector / self.sizes)[self.groups]


def woodbury_weights(gram: th.Tensor, score_products: th.Tensor, groups: th.Tensor, damping: float) -> tuple[th.Tensor, float]:
    r"""
    Solve ``(λI + (1/k) Σ_j u_j u_jᵀ) x = g`` for k group means ``u_j`` of scores, in sample space.

    With P the averaging matrix (k, N), S the scores (N, d) and ``U = P S`` the group means, the Woodbury formula gives

    .. math::

        x = \frac{1}{\lambda} \left( g - U^\top (k \lambda I + U U^\top)^{-1} U g \right)

    so x is the gradient minus a weighted sum of scores, and nothing of size d is needed to find the weights. One group is the
    Sherman–Morrison formula, N groups the empirical Fisher of every score. (ASDL, https://arxiv.org/abs/2305.04684, RAT,
    https://arxiv.org/abs/2605.18591, and MinSR, https://arxiv.org/abs/2302.01941, invert Fishers in sample space too.)

    :param gram: ``S Sᵀ``, shape (N, N)
    :param score_products: ``S g``, shape (N,)
    :param groups: the group of each sample, as :func:`random_groups` makes them, shape (N,)
    :param damping: λ > 0
    :return: weights ``w = Pᵀ (kλI + P S Sᵀ Pᵀ)⁻¹ P S g``, shape (N,), with which ``x = (g − Sᵀ w) / λ``, and the damping λ
        that was used: where rounding needs more, :func:`cholesky_solve` raises it
    """
    means = GroupMeans(groups)
    rank = len(means.sizes)
    group_gram = means.product(means.product(gram).T)  # P S Sᵀ Pᵀ, (k, k)
    # float64: with little damping, w nearly cancels the gradient's own weights
    solution, shift = cholesky_solve(group_gram.double(), means.product(score_products).double(), rank * damping)
    return means.transposed_product(solution), shift / rank


def ridge_weights(gram: th.Tensor, weights: th.Tensor, damping: float) -> tuple[th.Tensor, float]:
    r"""
    Solve ``(λI + (1/N) SᵀS) x = Sᵀ c`` in sample space, by the push-through identity:

    .. math::

        x = S^\top w, \qquad w = (S S^\top / N + \lambda I)^{-1} c

    :func:`woodbury_weights` with a group for every sample, for a right-hand side that is a weighted sum of the scores. The
    residuals of a least-squares problem and its Jacobian may take the place of c and S: then x is a damped Gauss–Newton step.

    :param gram: ``S Sᵀ``, of which only the lower triangle is read, shape (N, N)
    :param weights: c, shape (N,)
    :param damping: λ > 0
    :return: w, shape (N,), and the damping λ that was used: :func:`cholesky_solve` raises it where rounding needs more
    """
    size = len(gram)
    solution, shift = cholesky_solve(gram, size * weights, size * damping)
    return solution, shift / size


def cholesky_solve(matrix: th.Tensor, vector: th.Tensor, shift: float, max_tries: int = 20) -> tuple[th.Tensor, float]:
    """
    Solve ``(M + σI) x = v``; where rounding has made the matrix indefinite, σ is raised to the rounding of M, ``ε ‖M‖``, and
    multiplied by 10 until it is not.

    It works in the precision of M, or in float64 where ``σ < 10⁴ ε ‖M‖``: the digits that the condition number would cost are
    too many.

    :param matrix: M, symmetric and positive semi-definite up to rounding, shape (k, k); only its lower triangle is read
    :param vector: v, shape (k,)
    :param shift: σ > 0
    :param max_tries: how often to multiply
    :return: x, shape (k,), and the σ that was used
    :raises FloatingPointError: if no σ helps: the matrix is not finite
    """
    size = len(matrix)
    norm = th.linalg.vector_norm(matrix).item()
    if not 0 < norm < math.inf:  # its squares leave float32
        norm = th.linalg.vector_norm(matrix, dtype=th.float64).item()
    if shift < PRECISION * th.finfo(matrix.dtype).eps * norm:
        matrix, vector = matrix.double(), vector.double()
    padding = PADDING if size % CACHE_STRIDE == 0 else 0
    for _ in range(max_tries):
        shifted = th.eye(size + padding, dtype=matrix.dtype, device=matrix.device)
        shifted[:size, :size] = matrix
        shifted.diagonal()[:size].add_(shift)
        factor, failure = th.linalg.cholesky_ex(shifted)
        if failure.item() == 0 and th.isfinite(factor.diagonal()).all():
            half_solved = th.linalg.solve_triangular(factor, F.pad(vector, (0, padding))[:, None], upper=False)
            return th.linalg.solve_triangular(factor.mT, half_solved, upper=True)[:size, 0], shift
        shift = 10 * max(shift, th.finfo(matrix.dtype).eps * norm)
    raise FloatingPointError("the Gram matrix of the scores is not finite")
