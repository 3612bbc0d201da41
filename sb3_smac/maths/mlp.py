"""Multilayer perceptrons with their derivatives written out: what autograd computes, without its bookkeeping."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

FUNCTIONS: dict[type[nn.Module], Callable[[th.Tensor], th.Tensor]] = {nn.Tanh: th.tanh, nn.ReLU: th.relu}


class Mlp:
    """
    Linear layers with tanh, ReLU or nothing after each: ``a_{l+1} = σ(z_l)``, ``z_l = W_l a_l + b_l``.

    It reads the layers' parameters each time that it runs: a change of theirs is seen. N is the number of samples.

    :param layers: ``Linear`` modules, each with the activation module that follows it, or ``None``
    """

    def __init__(self, layers: Sequence[tuple[nn.Linear, nn.Module | None]]) -> None:
        self.layers = layers
        # Modules look their parameters up slowly: longer than it takes to multiply small matrices
        self._plan: list[tuple[dict[str, Any], Callable[[th.Tensor], th.Tensor] | None]] = [
            (layer._parameters, None if activation is None else FUNCTIONS[type(activation)]) for layer, activation in layers
        ]

    @classmethod
    def of(cls, modules: Iterable[nn.Module]) -> "Mlp | None":
        """
        :param modules: modules that run one after the other
        :return: the same network, or ``None`` if it has other than ``Linear``, ``Tanh`` and ``ReLU`` modules, if any has
            hooks, or if layers share a parameter, whose gradient would be a sum
        """
        layers: list[tuple[nn.Linear, nn.Module | None]] = []
        for module in modules:
            if has_hooks(module):
                return None
            if type(module) is nn.Linear:
                layers.append((module, None))
            elif type(module) in FUNCTIONS and layers and layers[-1][1] is None:
                layers[-1] = (layers[-1][0], module)
            else:
                return None
        network = cls(layers)
        return network if len(set(network.parameters)) == len(network.parameters) else None

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weight and bias (if any) of each layer, in order."""
        return [parameter for layer, _ in self.layers for parameter in layer.parameters()]

    def __call__(self, inputs: th.Tensor) -> th.Tensor:
        """
        :param inputs: shape (N, in)
        :return: output of the last layer, shape (N, out)
        """
        for parameters, activation in self._plan:
            inputs = F.linear(inputs, parameters["weight"], parameters["bias"])
            if activation is not None:
                inputs = activation(inputs)
        return inputs

    @th.no_grad()
    def activations(self, inputs: th.Tensor) -> list[th.Tensor]:
        """
        Forward, without a graph: equal to calling the network up to rounding.

        :param inputs: a_0, shape (N, in)
        :return: the input a_l of every layer and, last, the network's output
        """
        activations = [inputs]
        for parameters, activation in self._plan:
            output = F.linear(activations[-1], parameters["weight"], parameters["bias"])
            if activation is th.tanh:
                _tanh_(output)
            elif activation is not None:
                output = activation(output)
            activations.append(output)
        return activations

    @th.no_grad()
    def output_gradients(self, activations: Sequence[th.Tensor], gradient: th.Tensor) -> list[th.Tensor]:
        """
        Backpropagation: from the derivative of a number with respect to the network's output, its derivatives
        ``δ_l = ∂/∂z_l`` with respect to the output of each linear layer.

        :param activations: as :meth:`activations` gives them
        :param gradient: shape (N, out)
        :return: δ_l of each layer, shape (N, out_l)
        """
        deltas = []
        for (layer, activation), output in zip(reversed(self.layers), reversed(activations), strict=False):
            delta = _times_slope(gradient, activation, output)
            deltas.append(delta)
            if len(deltas) < len(self.layers):
                gradient = delta @ layer.weight
        return deltas[::-1]

    @th.no_grad()
    def parameter_gradients(
        self, activations: Sequence[th.Tensor], deltas: Sequence[th.Tensor], out: Sequence[th.Tensor] | None = None
    ) -> list[th.Tensor]:
        """
        :param activations: as :meth:`activations` gives them
        :param deltas: as :meth:`output_gradients` gives them
        :param out: where the results go, shaped as :attr:`parameters`
        :return: the gradient of each of :attr:`parameters`, summed over samples
        """
        results = [th.empty_like(parameter) for parameter in self.parameters] if out is None else list(out)
        remaining = iter(results)
        for (layer, _), inputs, delta in zip(self.layers, activations, deltas, strict=False):
            th.mm(delta.T, inputs, out=next(remaining))
            if layer.bias is not None:
                th.sum(delta, dim=0, out=next(remaining))
        return results

    @th.no_grad()
    def directional_derivative(self, activations: Sequence[th.Tensor], tangents: Sequence[th.Tensor]) -> th.Tensor:
        """
        ``J v``: how fast the output of each sample changes when the parameters move along v.

        :param activations: as :meth:`activations` gives them
        :param tangents: v, shaped as :attr:`parameters`
        :return: shape (N, out)
        """
        remaining = iter(tangents)
        moved: th.Tensor | None = None
        for (layer, activation), inputs, output in zip(self.layers, activations, activations[1:], strict=False):
            tangent = inputs @ next(remaining).T
            if layer.bias is not None:
                tangent += next(remaining)
            if moved is not None:
                tangent.addmm_(moved, layer.weight.T)
            moved = _times_slope(tangent, activation, output)
        assert moved is not None
        return moved


def _times_slope(tensor: th.Tensor, activation: nn.Module | None, output: th.Tensor) -> th.Tensor:
    """``σ'(z)`` times a tensor, from the activation's output."""
    if activation is None:
        return tensor
    if type(activation) is nn.Tanh:
        return th.ops.aten.tanh_backward(tensor, output)
    return th.ops.aten.threshold_backward(tensor, output, 0)


def _tanh_(tensor: th.Tensor) -> None:
    """tanh in place. On the CPU by NumPy, whose vectorised one takes a fifth of the time of PyTorch's."""
    if tensor.device.type == "cpu":
        np.tanh(tensor.numpy(), out=tensor.numpy())
    else:
        tensor.tanh_()


def forward_hooks(module: nn.Module) -> list[dict[int, Any]]:
    """
    :param module: any module
    :return: where the hooks of its forward pass are kept, those of all modules included
    """
    of_all = [nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks]
    return [module._forward_hooks, module._forward_pre_hooks, *of_all]


def has_hooks(module: nn.Module) -> bool:
    """
    :param module: any module
    :return: whether anything of the user's runs with its forward or backward pass, or with the gradient of a parameter of its
    """
    hooks: list[Any] = [*forward_hooks(module), module._backward_hooks, module._backward_pre_hooks]
    hooks += [nn.modules.module._global_backward_hooks, nn.modules.module._global_backward_pre_hooks]
    for parameter in module.parameters(recurse=False):
        hooks += [parameter._backward_hooks, getattr(parameter, "_post_accumulate_grad_hooks", None)]
    return any(hooks)
