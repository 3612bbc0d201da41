"""A perceptron's derivatives, written out, against autograd in float64."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.nn.utils import parametrizations, prune

from sb3_smac.maths import Mlp, has_hooks, unflatten
from sb3_smac.maths.mlp import LARGE
from tests.dense_reference import assert_close, jacobian, vector, write

N = 5

NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
    "tanh": lambda: [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)],
    "relu": lambda: [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)],
    "mixed": lambda: [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 6), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)],
    "one_layer": lambda: [nn.Linear(3, 2)],
    "ends_with_activation": lambda: [nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2), nn.Tanh()],
    "without_bias": lambda: [nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 2, bias=False)],
    "some_biases": lambda: [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 2)],
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> nn.Sequential:
    th.manual_seed(0)
    return nn.Sequential(*NETWORKS[request.param]()).double()


def plain(network: nn.Sequential) -> Mlp:
    mlp = Mlp.of(network)
    assert mlp is not None
    return mlp


def tensors(arrays: list[np.ndarray]) -> list[th.Tensor]:
    return [th.from_numpy(array) for array in arrays]


def test_output_and_activations(network: nn.Sequential) -> None:
    inputs, mlp = th.randn(N, 3).double(), plain(network)
    assert th.equal(mlp(inputs), network(inputs))
    activations = tensors(mlp.arrays().activations(inputs.numpy()))
    assert th.equal(activations[0], inputs)
    assert_close(activations[-1], network(inputs), relative=1e-14)
    assert len(activations) == 1 + sum(isinstance(module, nn.Linear) for module in network)
    assert [id(each) for each in mlp.parameters] == [id(each) for each in network.parameters()]


def test_float32_output_is_the_same_to_the_last_bit(network: nn.Sequential) -> None:
    network.float()
    for n_samples in (1, 2, 7, 64):
        inputs = th.randn(n_samples, 3)
        assert th.equal(plain(network)(inputs), network(inputs))


def test_gradients_are_those_of_autograd(network: nn.Sequential) -> None:
    """Of the layers' outputs, sample by sample, and of the parameters, summed over samples."""
    inputs, weights, mlp = th.randn(N, 3).double(), th.randn(N, 2).double(), plain(network)
    linear_outputs: list[th.Tensor] = []
    for layer, _ in mlp.layers:
        layer.register_forward_hook(lambda *arguments: linear_outputs.append(arguments[2]))
    loss = (weights * network(inputs)).sum()
    expected = th.autograd.grad(loss, [*linear_outputs, *network.parameters()])

    arrays, found = mlp.arrays(), [np.empty(parameter.shape) for parameter in mlp.parameters]
    activations = arrays.activations(inputs.numpy())
    deltas = arrays.output_gradients(activations, weights.numpy())
    arrays.parameter_gradients(activations, deltas, found)
    for gradient, reference in zip(tensors([*deltas, *found]), expected, strict=True):
        assert gradient.shape == reference.shape
        assert_close(gradient, reference, relative=1e-13)


def test_directional_derivative(network: nn.Sequential) -> None:
    """J v with the dense Jacobian, and as a difference quotient."""
    inputs, mlp = th.randn(N, 3).double(), plain(network)
    theta = vector(mlp.parameters)
    direction = th.randn_like(theta)
    activations = mlp.arrays().activations(inputs.numpy())
    before = [each.copy() for each in activations]
    tangents = [each.numpy() for each in unflatten(direction, mlp.parameters)]
    derivative = th.from_numpy(mlp.arrays().directional_derivative(activations, tangents))
    assert_close(derivative, (jacobian(network(inputs), mlp.parameters) @ direction).view(N, 2), relative=1e-13)
    assert all(map(np.array_equal, activations, before))

    step, moved = 1e-6, []
    for sign in (1, -1):
        write(mlp.parameters, theta + sign * step * direction)
        moved.append(mlp(inputs).detach())
    assert_close(derivative, (moved[0] - moved[1]) / (2 * step), relative=1e-7)


def test_relu_has_the_slope_that_autograd_gives_it_at_0() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with th.no_grad():
        network[0].weight.zero_(), network[0].bias.zero_()
    arrays, inputs = plain(network).arrays(), th.ones(1, 2)
    activations = arrays.activations(inputs.numpy())
    deltas = arrays.output_gradients(activations, np.ones((1, 1), np.float32))
    expected = th.autograd.grad(network(inputs).sum(), list(network.parameters()))
    found = [np.empty(gradient.shape, np.float32) for gradient in expected]
    arrays.parameter_gradients(activations, deltas, found)
    assert all(map(th.equal, tensors(found), expected))


def test_tanh_of_many_numbers() -> None:
    """Which is computed in another way."""
    network = nn.Sequential(nn.Linear(1, 1), nn.Tanh())
    network.load_state_dict({"0.weight": th.ones(1, 1), "0.bias": th.zeros(1)})
    inputs = th.cat([th.linspace(-20, 20, 2 * LARGE), th.tensor([-3e38, 3e38, th.inf, -th.inf, 0])])[:, None]
    found = plain(network).arrays().activations(inputs.numpy())[-1]
    th.testing.assert_close(th.from_numpy(found), inputs.tanh(), rtol=0, atol=3e-7)


@th.no_grad()
def test_parameters_are_read_each_time(network: nn.Sequential) -> None:
    """Changed in place, replaced, or read from a file."""
    inputs, mlp = th.randn(N, 3).double(), plain(network)
    outputs = [mlp(inputs)]
    network[0].weight.mul_(1.5)
    outputs.append(mlp(inputs))
    assert th.equal(outputs[-1], network(inputs))
    network[0].weight = nn.Parameter(th.randn_like(network[0].weight))
    outputs.append(mlp(inputs))
    assert th.equal(outputs[-1], network(inputs))
    assert_close(th.from_numpy(mlp.arrays().activations(inputs.numpy())[-1]), network(inputs), relative=1e-14)
    network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()})
    outputs.append(mlp(inputs))
    assert th.equal(outputs[-1], network(inputs))
    assert not any(th.equal(first, second) for first, second in itertools.pairwise(outputs))


class OwnLinear(nn.Linear):
    """Not what it says."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return 2 * super().forward(inputs)


class OwnTanh(nn.Tanh):
    """Not what it says."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return 2 * super().forward(inputs)


def tied(name: str) -> list[nn.Module]:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    setattr(second, name, getattr(first, name))
    return [first, nn.Tanh(), second]


def twice() -> list[nn.Module]:
    layer = nn.Linear(3, 3)
    return [layer, nn.Tanh(), layer]


UNKNOWN: dict[str, Callable[[], list[nn.Module]]] = {
    "another_activation": lambda: [nn.Linear(3, 4), nn.ELU()],
    "dropout": lambda: [nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.0)],
    "normalisation": lambda: [nn.Linear(3, 4), nn.LayerNorm(4)],
    "leading_activation": lambda: [nn.Tanh(), nn.Linear(3, 4)],
    "two_activations": lambda: [nn.Linear(3, 4), nn.Tanh(), nn.ReLU()],
    "nested": lambda: [nn.Sequential(nn.Linear(3, 4))],
    "linear_subclass": lambda: [OwnLinear(3, 4)],
    "activation_subclass": lambda: [nn.Linear(3, 4), OwnTanh()],
    "parametrized": lambda: [parametrizations.weight_norm(nn.Linear(3, 4))],
    "pruned": lambda: [prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5)],
    "tied_weight": lambda: tied("weight"),
    "tied_bias": lambda: tied("bias"),
    "layer_twice": twice,
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_networks_are_refused(name: str) -> None:
    assert Mlp.of(UNKNOWN[name]()) is None


def nothing(*_: object) -> None:
    """A hook that only looks on."""


HOOKS: dict[str, Callable[[nn.Module], object]] = {
    "forward": lambda module: module.register_forward_hook(nothing),
    "forward_with_kwargs": lambda module: module.register_forward_hook(nothing, with_kwargs=True),
    "forward_pre": lambda module: module.register_forward_pre_hook(nothing),
    "full_backward": lambda module: module.register_full_backward_hook(nothing),
    "full_backward_pre": lambda module: module.register_full_backward_pre_hook(nothing),
    "weight": lambda module: module.weight.register_hook(nothing),
    "bias": lambda module: module.bias.register_hook(nothing),
    "accumulated": lambda module: module.weight.register_post_accumulate_grad_hook(nothing),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_are_seen_until_they_are_removed(hook: str) -> None:
    layer = nn.Linear(3, 4)
    assert not has_hooks(layer) and Mlp.of([layer]) is not None
    handle = HOOKS[hook](layer)
    assert has_hooks(layer) and Mlp.of([layer]) is None
    handle.remove()  # type: ignore[attr-defined]
    assert not has_hooks(layer) and Mlp.of([layer]) is not None


@pytest.mark.parametrize("hook", [name for name in HOOKS if name not in ("weight", "bias", "accumulated")])
def test_hooks_of_activations_are_seen(hook: str) -> None:
    activation = nn.Tanh()
    HOOKS[hook](activation)
    assert Mlp.of([nn.Linear(3, 4), activation]) is None
