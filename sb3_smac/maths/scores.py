"""The score matrix of a policy on a batch, as a linear operator."""

import warnings
from collections.abc import Iterator, Sequence

import torch as th
from torch import nn

from sb3_smac.maths.flat import flat_gradient, leaf_uses, unflatten
from sb3_smac.maths.layers import Conv2dScores, DenseScores, LayerCall, LinearScores, ScaleCall

# Scores of parameters that no recorded layer accounts for are formed in chunks of this many numbers (256 MB)
CHUNK = 2**26
# Rows of the Gram matrix that are computed at once: they fit into a processor's cache
BLOCK = 128


class Scores:
    """
    The score matrix ``S`` (N, d) of a batch, whose row i is the score ``s_i = ∇_θ log π_θ(a_i | o_i)``.

    It is never formed. For recorded ``Linear`` layers one backward pass finds the output gradients of every sample; after
    that each product is a matrix product per layer. All other parameters cost a backward pass per product, in O(d) memory.
    The graph of ``log_prob`` stays alive as long as the object.

    :param log_prob: ``log π_θ(a_i | o_i)`` with its graph, shape (N,)
    :param parameters: the actor's parameters θ, with d entries in all
    :param calls: what a :class:`~sb3_smac.maths.layers.LayerRecorder` kept of the forward pass, and scale parameters
    :param samplewise: whether no sample's log-probability depends on another sample's observation (batch normalisation makes
        it depend); if unknown, say ``False``: sums and products then cost backward passes, and only :meth:`gram` relies on it
    :param factors: the scores of all parameters, if they are known; ``log_prob`` then needs no graph
    :raises ValueError: if ``log_prob`` is not a vector
    """

    def __init__(
        self,
        log_prob: th.Tensor,
        parameters: Sequence[nn.Parameter],
        calls: Sequence[LayerCall | ScaleCall] = (),
        samplewise: bool = True,
        factors: Sequence[LinearScores | DenseScores] | None = None,
    ) -> None:
        if log_prob.ndim != 1:
            raise ValueError(f"log_prob must be one-dimensional, got shape {tuple(log_prob.shape)}")
        self.log_prob = log_prob
        self.parameters = parameters
        self.calls = calls
        self.samplewise = samplewise
        self._factored: list[LinearScores | DenseScores | Conv2dScores] | None = None if factors is None else [*factors]

    def __len__(self) -> int:
        return len(self.log_prob)

    def _factors(self) -> list[LinearScores | DenseScores | Conv2dScores]:
        """Scores of the recorded layers, by one backward pass (the first time) that stops at their outputs."""
        if self._factored is None:
            uses, parameters = leaf_uses(self.log_prob), set(self.parameters)
            calls = [
                call
                for call in self.calls
                # a parameter that something else uses, too, has other scores than the call's
                if all(parameter in parameters and uses[parameter] == 1 for parameter in call.trainable)
                and call.is_factored(len(self))
            ]
            outputs = [call.output for call in calls if call.output is not None]  # as all of these are
            gradients: Sequence[th.Tensor | None] = ()
            if outputs:
                gradients = th.autograd.grad(self.log_prob.sum(), outputs, retain_graph=True, allow_unused=True)
            self._factored = [
                call.scores(gradient) for call, gradient in zip(calls, gradients, strict=True) if gradient is not None
            ]
        return self._factored

    def _split(self) -> tuple[list[LinearScores | DenseScores], list[nn.Parameter]]:
        """Scores that sums and products are taken of, and the parameters whose sums and products take a backward pass."""
        factors = [factor for factor in self._factors() if not isinstance(factor, Conv2dScores)] if self.samplewise else []
        return factors, self._unaccounted(factors)

    def _unaccounted(self, factors: Sequence[LinearScores | DenseScores | Conv2dScores]) -> list[nn.Parameter]:
        """Trainable parameters whose scores are in none of these."""
        accounted = {parameter for factor in factors for parameter in factor.parameters}
        return [parameter for parameter in self.parameters if parameter.requires_grad and parameter not in accounted]

    def _by_parameter(self, vector: th.Tensor) -> dict[th.Tensor, th.Tensor]:
        """The part of a vector of size d that belongs to each parameter, as a view."""
        return dict(zip(self.parameters, unflatten(vector, self.parameters), strict=True))

    def weighted_sum(self, weights: th.Tensor) -> th.Tensor:
        """
        ``Sᵀ c = Σ c_i s_i``.

        :param weights: c, shape (N,)
        :return: shape (d,)
        """
        weights = weights.to(self.log_prob)
        factors, others = self._split()
        if not factors:
            return flat_gradient(self.log_prob, self.parameters, weights, retain_graph=True)
        weighted_sum = self.parameters[0].new_zeros(sum(parameter.numel() for parameter in self.parameters))
        slices = self._by_parameter(weighted_sum)
        for factor in factors:
            factor.weighted_sum(weights, [slices[parameter] for parameter in factor.parameters])
        if others:
            gradients = th.autograd.grad(self.log_prob, others, weights, retain_graph=True, materialize_grads=True)
            for parameter, gradient in zip(others, gradients, strict=True):
                slices[parameter].copy_(gradient)
        return weighted_sum

    def mean(self) -> th.Tensor:
        """
        The mean score ``s̄ = (1/N) Σ s_i``.

        :return: shape (d,)
        """
        return self.weighted_sum(th.full_like(self.log_prob, 1 / len(self)))

    def product(self, vector: th.Tensor) -> th.Tensor:
        """
        ``S v``: how fast each log-probability changes along ``v``.

        :param vector: v, shape (d,)
        :return: ``s_iᵀ v``, shape (N,)
        """
        factors, others = self._split()
        product = th.zeros_like(self.log_prob)
        slices = self._by_parameter(vector)
        for factor in factors:
            product += factor.product([slices[parameter] for parameter in factor.parameters])
        if others:  # Sᵀ c is linear in c, and its derivative along v with respect to c is S v
            weights = th.zeros_like(self.log_prob, requires_grad=True)
            weighted_sum = flat_gradient(self.log_prob, others, weights, create_graph=True)
            directions = th.cat([slices[parameter].flatten() for parameter in others])
            (of_others,) = th.autograd.grad(weighted_sum @ directions, weights, materialize_grads=True)
            product += of_others
        return product

    def gram(self, only_lower: bool = False) -> th.Tensor:
        """
        The Gram matrix ``S Sᵀ``, the sum of those of all parameters.

        For recorded ``Linear`` and ``Conv2d`` layers it comes from their inputs and output gradients; for any other parameter
        the scores are formed, by a backward pass for each sample. Samples must not depend on each other.

        :param only_lower: whether the lower triangle is enough; what is above the diagonal is then anything
        :return: shape (N, N)
        """
        gram = self.log_prob.new_zeros(len(self), len(self))
        blocked = [factor for factor in self._factors() if not isinstance(factor, Conv2dScores)]
        for start in range(0, len(self), BLOCK):
            rows, columns = slice(start, start + BLOCK), slice(0, start + BLOCK)
            block = gram[rows, columns]  # the lower triangle; the other is its mirror image
            for factor in blocked:
                factor.add_gram(block, rows, columns)
            if not only_lower:
                gram[:start, rows] = block[:, :start].T
        for convolution in self._factors():
            if isinstance(convolution, Conv2dScores):
                convolution.add_gram(gram)
        if others := self._unaccounted(self._factors()):
            for scores in self._formed(others):
                gram.addmm_(scores, scores.T)
        return gram

    def _formed(self, parameters: Sequence[nn.Parameter]) -> Iterator[th.Tensor]:
        """The columns of S that belong to some parameters, a few parameters at a time: N backward passes, in chunks."""
        size = len(self)
        widest = max((call.size for call in self.calls if isinstance(call, LayerCall)), default=size)
        chunk = max(1, CHUNK // widest)  # each sample's pass holds a gradient of every sample's activations
        if size > chunk or any(size * parameter.numel() > CHUNK for parameter in parameters):
            shapes = ", ".join(str(tuple(parameter.shape)) for parameter in parameters)
            warnings.warn(
                f"Parameters that not only a Linear or Conv2d layer uses, of shapes {shapes}: their scores are formed, "
                f"up to {size * max(parameter.numel() for parameter in parameters):.1e} numbers at a time, by a backward pass "
                f"through the whole batch for each of its {size} samples. fisher_rank=1 needs none of that.",
                stacklevel=3,
            )
        for group in _groups(parameters, CHUNK // size):
            chunks = [self._scores_of(group, slice(start, start + chunk)) for start in range(0, size, chunk)]
            yield th.cat(chunks)

    def _scores_of(self, parameters: Sequence[nn.Parameter], rows: slice) -> th.Tensor:
        """Some rows of the columns of S that belong to some parameters: shape (rows, entries)."""
        identity = th.eye(len(self), dtype=self.log_prob.dtype, device=self.log_prob.device)[rows]
        scores = th.autograd.grad(
            self.log_prob, parameters, identity, retain_graph=True, is_grads_batched=True, allow_unused=True
        )
        shapes = [(len(identity), parameter.numel()) for parameter in parameters]
        return th.cat(
            [
                identity.new_zeros(shape) if score is None else score.reshape(shape)
                for score, shape in zip(scores, shapes, strict=True)
            ],
            dim=1,
        )


def _groups(parameters: Sequence[nn.Parameter], entries: int) -> Iterator[list[nn.Parameter]]:
    """Parameters in groups with at most so many entries, or of one parameter."""
    group: list[nn.Parameter] = []
    for parameter in parameters:
        if group and sum(member.numel() for member in [*group, parameter]) > entries:
            yield group
            group = []
        group.append(parameter)
    if group:
        yield group
