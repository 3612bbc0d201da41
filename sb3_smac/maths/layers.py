"""Per-sample gradients of layers in factored form: what they need is kept while the network runs forward."""

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import torch as th
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from sb3_smac.maths.mlp import has_hooks

RECORDED_LAYERS = (nn.Linear, nn.Conv2d)


class LayerCall(NamedTuple):
    """
    One run of a layer.

    :param layer: the layer
    :param inputs: its input, shape (N, ...)
    :param output: where its output is in the graph, whether or not it is overwritten later; ``None`` if it is in none
    :param size: how many numbers its output has
    """

    layer: nn.Linear | nn.Conv2d
    inputs: th.Tensor
    output: GradientEdge | None
    size: int

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The layer's parameters that require a gradient."""
        return _trainable(self.layer)

    def is_factored(self, n_samples: int) -> bool:
        """
        :param n_samples: N
        :return: whether the score of sample i is a product of the i-th input and the i-th output gradient alone
        """
        n_dimensions = 2 if isinstance(self.layer, nn.Linear) else 4
        return (
            self.layer.weight.requires_grad
            and self.output is not None
            and self.inputs.ndim == n_dimensions
            and len(self.inputs) == n_samples
        )

    def scores(self, output_gradients: th.Tensor) -> "LinearScores | Conv2dScores":
        """
        :param output_gradients: gradient of the log-probabilities with respect to the output, shape (N, ...)
        :return: the scores of the layer's parameters
        """
        if isinstance(self.layer, nn.Conv2d):
            return Conv2dScores(self.layer, self.inputs, output_gradients)
        return LinearScores(self.layer, self.inputs, output_gradients)


class ScaleCall(NamedTuple):
    """
    A parameter that every sample sees alike, as the exponential ``exp(ρ)``: the logarithm of a standard deviation.

    :param parameter: ρ, shape (k,)
    :param values: ``exp(ρ)`` with its graph, one row per sample, shape (N, k)
    """

    parameter: nn.Parameter
    values: th.Tensor

    @property
    def output(self) -> GradientEdge | None:
        """Where the values are in the graph."""
        return gradient_edge(self.values)

    @property
    def trainable(self) -> list[nn.Parameter]:
        """The parameter, if it requires a gradient."""
        return [self.parameter] if self.parameter.requires_grad else []

    def is_factored(self, n_samples: int) -> bool:
        """
        :param n_samples: N
        :return: whether the score of sample i comes from the i-th row of the values alone
        """
        return self.values.requires_grad and len(self.values) == n_samples

    def scores(self, output_gradients: th.Tensor) -> "DenseScores":
        """
        :param output_gradients: gradient of the log-probabilities with respect to the output, shape (N, k)
        :return: the scores of the parameter, by the chain rule through exp
        """
        return DenseScores(self.parameter, output_gradients * self.values.detach())


class LinearScores:
    """
    Scores of a ``Linear`` layer, factored: with input a_i and output gradient δ_i of sample i, the score of the weight is
    ``δ_i a_iᵀ`` and that of the bias ``δ_i``.

    :param layer: the layer, whose weight requires a gradient
    :param inputs: a, shape (N, in)
    :param deltas: δ, shape (N, out)
    """

    def __init__(self, layer: nn.Linear, inputs: th.Tensor, deltas: th.Tensor) -> None:
        self.has_bias = _is_trainable(layer.bias)
        self.parameters = _trainable(layer)
        self.inputs = inputs
        self.deltas = deltas

    def add_gram(self, block: th.Tensor, rows: slice, columns: slice) -> None:
        """
        Add a block of the Gram matrix, ``(a aᵀ + 1) ∘ (δ δᵀ)`` (without the 1 if there is no bias).

        :param block: shape (rows, columns), changed in place
        :param rows: some of the samples
        :param columns: some of the samples
        """
        of_inputs = self.inputs[rows] @ self.inputs[columns].T
        if self.has_bias:
            of_inputs += 1
        of_deltas = self.deltas[rows] @ self.deltas[columns].T
        block.addcmul_(of_inputs.to(block), of_deltas.to(block))  # log-probabilities may be more precise

    def weighted_sum(self, weights: th.Tensor, out: Sequence[th.Tensor]) -> None:
        """
        ``Σ c_i s_i``.

        :param weights: c, shape (N,)
        :param out: where the results go, shaped as :attr:`parameters`
        """
        weights = weights.to(self.deltas)
        th.mm((self.deltas * weights[:, None]).T, self.inputs, out=out[0])
        if self.has_bias:
            th.mv(self.deltas.T, weights, out=out[1])

    def product(self, vectors: Sequence[th.Tensor]) -> th.Tensor:
        """
        ``s_iᵀ v``.

        :param vectors: v, shaped as :attr:`parameters`
        :return: shape (N,)
        """
        moved = self.inputs @ vectors[0].T
        if self.has_bias:
            moved += vectors[1]
        return moved.mul_(self.deltas).sum(dim=1)


class DenseScores:
    """
    Scores of a small parameter, formed.

    :param parameter: the parameter
    :param scores: shape (N, entries)
    """

    def __init__(self, parameter: nn.Parameter, scores: th.Tensor) -> None:
        self.parameters = [parameter]
        self.scores = scores

    def add_gram(self, block: th.Tensor, rows: slice, columns: slice) -> None:
        """
        Add a block of the Gram matrix.

        :param block: shape (rows, columns), changed in place
        :param rows: some of the samples
        :param columns: some of the samples
        """
        scores = self.scores.to(block)
        block.addmm_(scores[rows], scores[columns].T)

    def weighted_sum(self, weights: th.Tensor, out: Sequence[th.Tensor]) -> None:
        """
        ``Σ c_i s_i``.

        :param weights: c, shape (N,)
        :param out: where the result goes, shaped as :attr:`parameters`
        """
        out[0].copy_((weights.to(self.scores) @ self.scores).view_as(out[0]))

    def product(self, vectors: Sequence[th.Tensor]) -> th.Tensor:
        """
        ``s_iᵀ v``.

        :param vectors: v, shaped as :attr:`parameters`
        :return: shape (N,)
        """
        return self.scores @ vectors[0].flatten().to(self.scores)


class Conv2dScores:
    """
    Scores of a ``Conv2d`` layer, known by their Gram matrix alone.

    :param layer: the layer, whose weight requires a gradient
    :param inputs: shape (N, in, height, width)
    :param deltas: output gradients, shape (N, out, height', width')
    """

    def __init__(self, layer: nn.Conv2d, inputs: th.Tensor, deltas: th.Tensor) -> None:
        self.parameters = _trainable(layer)
        self.layer = layer
        self.inputs = inputs
        self.deltas = deltas

    def add_gram(self, gram: th.Tensor) -> None:
        """
        Add the Gram matrix, one output channel at a time: N × (in · kernel) numbers are alive, never N × d.

        :param gram: shape (N, N), changed in place
        """
        layer, gradients = self.layer, self.deltas.flatten(start_dim=2)  # (N, out, P)
        channels_in, channels_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
        padding = layer._reversed_padding_repeated_twice
        padded = F.pad(self.inputs, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
        for group in range(layer.groups):
            patches = F.unfold(
                padded[:, group * channels_in : (group + 1) * channels_in],
                layer.kernel_size,
                layer.dilation,
                stride=layer.stride,
            )  # (N, in · kernel, P)
            for channel in range(group * channels_out, (group + 1) * channels_out):
                scores = th.einsum("np,nkp->nk", gradients[:, channel], patches)
                gram.addmm_(scores, scores.T)
        if _is_trainable(layer.bias):
            bias_scores = gradients.sum(dim=2)
            gram.addmm_(bias_scores, bias_scores.T)


def _trainable(layer: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in layer.parameters(recurse=False) if _is_trainable(parameter)]


def _is_trainable(parameter: th.Tensor | None) -> bool:
    return parameter is not None and parameter.requires_grad


class LayerRecorder:
    """
    Keeps inputs and outputs of every ``Linear`` and ``Conv2d`` layer that runs inside its ``with`` block, but for layers that
    are not what they seem: those with hooks (which may change weights or outputs, as ``weight_norm`` does) and those whose
    weight is not a parameter.

    For such layers the score of a sample is an outer product (or, for convolutions, a sum of some), so that sums and Gram
    matrices of scores never need the scores themselves.

    :param modules: modules to look through
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.calls: list[LayerCall] = []
        self._layers = [module for module in modules if type(module) in RECORDED_LAYERS and _is_ordinary(module)]
        self._hooks: list[Any] = []

    def __enter__(self) -> "LayerRecorder":
        self._hooks = [layer.register_forward_hook(self._record, with_kwargs=True) for layer in self._layers]
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _record(self, layer: Any, args: tuple[th.Tensor, ...], kwargs: Mapping[str, th.Tensor], output: th.Tensor) -> None:
        inputs = args[0] if args else kwargs["input"]
        self.calls.append(LayerCall(layer, inputs.detach(), gradient_edge(output), output.numel()))


def gradient_edge(tensor: th.Tensor) -> GradientEdge | None:
    """
    :param tensor: any tensor
    :return: where it is in the graph; ``None`` if it is in none
    """
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def _is_ordinary(layer: nn.Module) -> bool:
    return isinstance(layer.weight, nn.Parameter) and "forward" not in vars(layer) and not has_hooks(layer)
