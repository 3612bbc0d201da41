"""Multilayer perceptrons with their derivatives written out: what autograd computes, without its bookkeeping."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch as th
from torch import nn
from torch.nn import functional as F

FUNCTIONS: dict[type[nn.Module], Callable[[th.Tensor], th.Tensor]] = {nn.Tanh: th.tanh, nn.ReLU: th.relu}

# So many numbers are worth two calls of PyTorch
LARGE = 2**12


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
        return [parameter for own, _ in self._plan for parameter in own.values() if parameter is not None]

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

    def arrays(self) -> "ArrayMlp":
        """The same network in NumPy, on the memory of the parameters as they are now."""
        return ArrayMlp(
            [
                (layer.weight.detach().numpy(), None if layer.bias is None else layer.bias.detach().numpy(), type(activation))
                for layer, activation in self.layers
            ]
        )


class ArrayMlp:
    """
    An :class:`Mlp` on the CPU with its derivatives written out in NumPy, whose calls cost less than PyTorch's.

    Changes in place of the parameters are seen.

    :param layers: weight, bias (or ``None``) and class of the activation module (or of ``None``) of each layer
    """

    def __init__(self, layers: Sequence[tuple[np.ndarray, np.ndarray | None, type]]) -> None:
        self.layers = layers

    def activations(self, inputs: np.ndarray) -> list[np.ndarray]:
        """
        Forward: equal to calling the network up to rounding.

        :param inputs: a_0, shape (N, in)
        :return: the input a_l of every layer and, last, the network's output
        """
        activations = [inputs]
        for weight, bias, activation in self.layers:
            output = activations[-1] @ weight.T
            if bias is not None:
                output += bias
            if activation is nn.Tanh:
                _tanh(output)
            elif activation is nn.ReLU:
                np.maximum(output, 0, out=output)
            activations.append(output)
        return activations

    def output_gradients(self, activations: Sequence[np.ndarray], gradient: np.ndarray) -> list[np.ndarray]:
        """
        Backpropagation: from the derivative of a number with respect to the network's output, its derivatives
        ``δ_l = ∂/∂z_l`` with respect to the output of each linear layer.

        :param activations: as :meth:`activations` gives them
        :param gradient: shape (N, out)
        :return: δ_l of each layer, shape (N, out_l)
        """
        deltas: list[np.ndarray] = []
        for (weight, _, activation), output in zip(reversed(self.layers), reversed(activations), strict=False):
            deltas.append(_times_slope(gradient, activation, output))
            if len(deltas) < len(self.layers):
                # a matrix product of one term each is slower than its definition
                gradient = deltas[-1] * weight if len(weight) == 1 else deltas[-1] @ weight
        return deltas[::-1]

    def parameter_gradients(
        self, activations: Sequence[np.ndarray], deltas: Sequence[np.ndarray], out: Sequence[np.ndarray]
    ) -> None:
        """
        Gradients with respect to weight and bias (if any) of each layer, summed over samples.

        :param activations: as :meth:`activations` gives them
        :param deltas: as :meth:`output_gradients` gives them
        :param out: where the results go, shaped as :attr:`Mlp.parameters`
        """
        remaining, ones = iter(out), np.ones(len(activations[0]), activations[0].dtype)
        for (_, bias, _), inputs, delta in zip(self.layers, activations, deltas, strict=False):
            np.matmul(delta.T, inputs, out=next(remaining))
            if bias is not None:
                np.matmul(ones, delta, out=next(remaining))

    def directional_derivative(self, activations: Sequence[np.ndarray], tangents: Sequence[np.ndarray]) -> np.ndarray:
        """
        ``J v``: how fast the output of each sample changes when the parameters move along v.

        :param activations: as :meth:`activations` gives them
        :param tangents: v, shaped as :attr:`Mlp.parameters`
        :return: shape (N, out)
        """
        remaining = iter(tangents)
        moved: np.ndarray | None = None
        for (weight, bias, activation), inputs, output in zip(self.layers, activations, activations[1:], strict=False):
            tangent = inputs @ next(remaining).T
            if bias is not None:
                tangent += next(remaining)
            if moved is not None:
                tangent += moved @ weight.T
            moved = _times_slope(tangent, activation, output)
        assert moved is not None
        return moved


def _times_slope(array: np.ndarray, activation: type, output: np.ndarray) -> np.ndarray:
    """``σ'(z)`` times an array, from the activation's output."""
    if activation is nn.Tanh:
        slope = output * output
        np.subtract(1, slope, out=slope)
        slope *= array
        return slope
    return np.where(output > 0, array, 0) if activation is nn.ReLU else array


def _tanh(array: np.ndarray) -> None:
    """tanh in place: if it is large as ``2 σ(2z) − 1``, in half the time, because PyTorch's sigmoid is that much faster."""
    if array.size < LARGE:
        np.tanh(array, out=array)
        return
    array *= 2
    th.sigmoid_(th.from_numpy(array))
    array *= 2
    array -= 1


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
    for parameter in module._parameters.values():  # may be None
        hooks += [getattr(parameter, name, None) for name in ("_backward_hooks", "_post_accumulate_grad_hooks")]
    return any(hooks)
