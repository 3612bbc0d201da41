"""A perceptron's derivatives, written out, against autograd in float64."""

from collections.abc import Callable

import numpy as np
import pytest
import torch as th
from torch import nn
from torch.nn.utils import parametrizations, prune

from sb3_smac.maths import Mlp, has_hooks, unflatten
from sb3_smac.maths.mlp import LARGE
from tests.dense_reference import assert_close, jacobian, vector
from tests.maths.test_layers import tied

N = 5

NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
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
    expected = th.autograd.grad((weights * network(inputs)).sum(), [*linear_outputs, *network.parameters()])
    arrays, found = mlp.arrays(), [np.empty(parameter.shape) for parameter in mlp.parameters]
    activations = arrays.activations(inputs.numpy())
    deltas = arrays.output_gradients(activations, weights.numpy())
    arrays.parameter_gradients(activations, deltas, found)
    for gradient, reference in zip(tensors([*deltas, *found]), expected, strict=True):
        assert gradient.shape == reference.shape
        assert_close(gradient, reference, relative=1e-13)


def test_directional_derivative(network: nn.Sequential) -> None:
    """J v with the dense Jacobian; activations, which serve again, stay as they are."""
    inputs, mlp = th.randn(N, 3).double(), plain(network)
    direction, arrays = th.randn_like(vector(mlp.parameters)), mlp.arrays()
    activations = arrays.activations(inputs.numpy())
    before = [each.copy() for each in activations]
    tangents = [each.numpy() for each in unflatten(direction, mlp.parameters)]
    derivative = th.from_numpy(arrays.directional_derivative(activations, tangents))
    assert_close(derivative, (jacobian(network(inputs), mlp.parameters) @ direction).view(N, 2), relative=1e-13)
    assert all(map(np.array_equal, activations, before))


@th.no_grad()
def test_relu_has_the_slope_that_autograd_gives_it_at_0() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    network[0].weight.zero_(), network[0].bias.zero_()
    arrays = plain(network).arrays()
    activations = arrays.activations(np.ones((1, 2), np.float32))
    deltas = arrays.output_gradients(activations, np.ones((1, 1), np.float32))
    with th.enable_grad():
        expected = th.autograd.grad(network(th.ones(1, 2)).sum(), list(network.parameters()))
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
    for change in (
        lambda: network[0].weight.mul_(1.5),
        lambda: setattr(network[0], "weight", nn.Parameter(th.randn_like(network[0].weight))),
        lambda: network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()}),
    ):
        before = mlp(inputs)
        change()
        assert th.equal(mlp(inputs), network(inputs)) and not th.equal(mlp(inputs), before)
        assert_close(th.from_numpy(mlp.arrays().activations(inputs.numpy())[-1]), network(inputs), relative=1e-14)


UNKNOWN: dict[str, list[nn.Module]] = {
    "another_activation": [nn.Linear(3, 4), nn.ELU()],
    "dropout": [nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.0)],
    "leading_activation": [nn.Tanh(), nn.Linear(3, 4)],
    "two_activations": [nn.Linear(3, 4), nn.Tanh(), nn.ReLU()],
    "nested": [nn.Sequential(nn.Linear(3, 4))],
    "linear_subclass": [type("Own", (nn.Linear,), {})(3, 4)],
    "activation_subclass": [nn.Linear(3, 4), type("Own", (nn.Tanh,), {})()],
    "parametrized": [parametrizations.weight_norm(nn.Linear(3, 4))],
    "pruned": [prune.random_unstructured(nn.Linear(3, 4), "weight", 0.5)],
    "tied_weight": [*tied("weight")],
    "tied_bias": [*tied("bias")],
    "layer_twice": 2 * [nn.Linear(3, 3)],
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_networks_are_refused(name: str) -> None:
    assert Mlp.of(UNKNOWN[name]) is None


def nothing(*_: object) -> None:
    """A hook that only looks on."""


OF_MODULES: dict[str, Callable[[nn.Module], object]] = {
    "forward": lambda module: module.register_forward_hook(nothing),
    "forward_with_kwargs": lambda module: module.register_forward_hook(nothing, with_kwargs=True),
    "forward_pre": lambda module: module.register_forward_pre_hook(nothing),
    "full_backward": lambda module: module.register_full_backward_hook(nothing),
    "full_backward_pre": lambda module: module.register_full_backward_pre_hook(nothing),
}
OF_PARAMETERS: dict[str, Callable[[nn.Module], object]] = {
    "weight": lambda module: module.weight.register_hook(nothing),
    "bias": lambda module: module.bias.register_hook(nothing),
    "accumulated": lambda module: module.weight.register_post_accumulate_grad_hook(nothing),
}


@pytest.mark.parametrize("hook", {**OF_MODULES, **OF_PARAMETERS})
def test_hooks_are_seen_until_they_are_removed(hook: str) -> None:
    """Of layers and, as far as they have any, of activations."""
    layer, activation = nn.Linear(3, 4), nn.Tanh()
    for module in (layer, activation) if hook in OF_MODULES else (layer,):
        assert not has_hooks(module) and Mlp.of([layer, activation]) is not None
        handle = {**OF_MODULES, **OF_PARAMETERS}[hook](module)
        assert has_hooks(module) and Mlp.of([layer, activation]) is None
        handle.remove()  # type: ignore[attr-defined]
    assert Mlp.of([layer, activation]) is not None
