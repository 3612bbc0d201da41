"""Per-sample gradients of layers in factored form: what they need is kept while the network runs forward."""

from collections.abc import Iterable
from types import TracebackType
from typing import Any, NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

RECORDED_LAYERS = (nn.Linear, nn.Conv2d)


class LayerCall(NamedTuple):
    """
    One run of a layer.

    :param layer: the layer
    :param inputs: its input, shape (N, ...)
    :param output: its output with its graph, shape (N, ...)
    :param version: version counter of the output when it left the layer; another one later means that it was overwritten
    """

    layer: nn.Linear | nn.Conv2d
    inputs: th.Tensor
    output: th.Tensor
    version: int

    def is_factored(self, n_samples: int) -> bool:
        """
        :param n_samples: N
        :return: whether the score of sample i is a product of the i-th input and the i-th output gradient alone
        """
        n_dimensions = 2 if isinstance(self.layer, nn.Linear) else 4
        return (
            self.layer.weight.requires_grad
            and self.output.requires_grad
            and self.inputs.ndim == n_dimensions
            and len(self.inputs) == n_samples
            and self.output._version == self.version
        )

    def gram(self, output_gradients: th.Tensor) -> th.Tensor:
        """
        Gram matrix of the scores of the layer's parameters.

        :param output_gradients: gradient of the log-probabilities with respect to the output, shape (N, ...)
        :return: shape (N, N)
        """
        if isinstance(self.layer, nn.Conv2d):
            return conv2d_gram(self.layer, self.inputs, output_gradients)
        return linear_gram(self.inputs, output_gradients, bias=_moves(self.layer.bias))


def _moves(parameter: th.Tensor | None) -> bool:
    return parameter is not None and parameter.requires_grad


class LayerRecorder:
    """
    Keeps inputs and outputs of every ``Linear`` and ``Conv2d`` layer that runs inside its ``with`` block.

    For such layers the score is an outer product: with input a_i and output gradient δ_i of sample i, the score of the weight
    is ``δ_i a_iᵀ`` and that of the bias ``δ_i``. Their Gram matrix therefore never needs the scores themselves.

    :param modules: modules to look through
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.calls: list[LayerCall] = []
        self._layers = [module for module in modules if type(module) in RECORDED_LAYERS]
        self._hooks: list[Any] = []

    def __enter__(self) -> "LayerRecorder":
        self._hooks = [layer.register_forward_hook(self._record) for layer in self._layers]
        return self

    def __exit__(
        self, exception: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _record(self, layer: Any, inputs: tuple[th.Tensor, ...], output: th.Tensor) -> None:
        self.calls.append(LayerCall(layer, inputs[0].detach(), output, output._version))


def linear_gram(inputs: th.Tensor, output_gradients: th.Tensor, bias: bool) -> th.Tensor:
    """
    Gram matrix of the scores of a linear layer, ``(a aᵀ + 1) ∘ (δ δᵀ)`` (without the 1 if there is no bias).

    :param inputs: a, shape (N, in)
    :param output_gradients: δ, shape (N, out)
    :param bias: whether the layer has a bias
    :return: shape (N, N)
    """
    gram = inputs @ inputs.T
    if bias:
        gram += 1
    return gram.mul_(output_gradients @ output_gradients.T)


def conv2d_gram(layer: nn.Conv2d, inputs: th.Tensor, output_gradients: th.Tensor) -> th.Tensor:
    """
    Gram matrix of the scores of a convolution, one output channel at a time: N × (in · kernel) numbers are alive, never N × d.

    :param layer: the layer
    :param inputs: shape (N, in, height, width)
    :param output_gradients: δ, shape (N, out, height', width')
    :return: shape (N, N)
    """
    gradients = output_gradients.flatten(start_dim=2)  # (N, out, P)
    gram = inputs.new_zeros(len(inputs), len(inputs))
    channels_in, channels_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    padding = layer._reversed_padding_repeated_twice
    padded = F.pad(inputs, padding, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    for group in range(layer.groups):
        patches = F.unfold(
            padded[:, group * channels_in : (group + 1) * channels_in], layer.kernel_size, layer.dilation, stride=layer.stride
        )  # (N, in · kernel, P)
        for channel in range(group * channels_out, (group + 1) * channels_out):
            scores = th.einsum("np,nkp->nk", gradients[:, channel], patches)
            gram.addmm_(scores, scores.T)
    if _moves(layer.bias):
        bias_scores = gradients.sum(dim=2)
        gram.addmm_(bias_scores, bias_scores.T)
    return gram
