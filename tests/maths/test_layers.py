"""Sums, products and Gram matrices of scores, by layers and by backward passes, for layers of every kind."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch as th
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from sb3_smac.maths import LayerRecorder, Scores, scores
from tests.maths.test_scores import N, assert_is_dense, log_probability


class Scale(nn.Module):
    """A layer of unknown kind."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(th.tensor([0.5, -1.0, 2.0, 1.5]))
        self.exponent = nn.Parameter(th.tensor(0.3))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs * self.factor * self.exponent.exp()


class Uses(nn.Module):
    """A layer, and what is done with it."""

    def __init__(self, use: Callable[[th.Tensor, Any], th.Tensor], n_inputs: int = 4, bias: bool = True) -> None:
        super().__init__()
        self.use, self.layer = use, nn.Linear(n_inputs, n_inputs, bias)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.use(inputs, self.layer)


def linear(**arguments: Any) -> nn.Linear:
    return nn.Linear(4, 4, **arguments)


def frozen(name: str) -> nn.Linear:
    layer = linear()
    getattr(layer, name).requires_grad_(False)
    return layer


def tied(name: str) -> nn.Sequential:
    """Two layers with one weight, or one bias."""
    first, second = linear(), linear()
    setattr(second, name, getattr(first, name))
    return nn.Sequential(first, nn.Tanh(), second)


def hooked() -> nn.Linear:
    layer = linear()
    layer.register_forward_hook(lambda module, inputs, output: 3 * output.sin())
    return layer


def own_forward() -> nn.Linear:
    layer = linear()
    layer.forward = lambda inputs: 2 * nn.Linear.forward(layer, inputs)
    return layer


def convolution(**arguments: object) -> nn.Sequential:
    """4 inputs as two channels of a 1 × 2 image."""
    layer = nn.Conv2d(2, 4, **{"kernel_size": 3, "padding": 1, **arguments})  # type: ignore[arg-type]
    return nn.Sequential(nn.Unflatten(1, (2, 1, 2)), layer, nn.Flatten(), nn.LazyLinear(4))


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": linear,
    "without_bias": lambda: linear(bias=False),
    "frozen_weight": lambda: frozen("weight"),
    "frozen_bias": lambda: frozen("bias"),
    "overwritten_output": lambda: nn.Sequential(linear(), nn.ReLU(inplace=True)),
    "overwritten_by_itself": lambda: nn.Sequential(linear(), nn.ELU(inplace=True), linear(), nn.Tanh()),
    "used_elsewhere": lambda: Uses(lambda inputs, layer: layer(inputs).tanh() @ layer.weight / layer.bias.norm()),
    "output_unused": lambda: Uses(lambda inputs, layer: (layer(inputs), inputs @ layer.weight)[1], bias=False),
    "by_name": lambda: Uses(lambda inputs, layer: layer(input=inputs)),
    "twice": lambda: Uses(lambda inputs, layer: layer(layer(inputs).tanh())),
    "over_time": lambda: Uses(lambda inputs, layer: layer(inputs.view(-1, 2, 2)).flatten(start_dim=1), n_inputs=2),
    "hooked": hooked,
    "own_forward": own_forward,
    "weight_norm": lambda: weight_norm(linear()),
    "spectral_norm": lambda: spectral_norm(linear()),
    "parametrized": lambda: parametrizations.spectral_norm(linear()),
    "unknown": Scale,
    "tied": lambda: tied("weight"),
    "tied_bias": lambda: tied("bias"),
    "normalisation": lambda: nn.LayerNorm(4),
    "convolution": convolution,
    "strided_convolution": lambda: convolution(stride=2, bias=False),
    "dilated_grouped_convolution": lambda: convolution(dilation=2, padding=2, groups=2),
    "circular_convolution": lambda: convolution(padding_mode="circular", kernel_size=(1, 3), padding=(0, 1)),
    "same_convolution": lambda: convolution(padding="same", kernel_size=2),
}


def scores_with(layer: nn.Module, recorded: bool = True, samplewise: bool = True) -> Scores:
    """Of a network with this layer in the middle."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), layer, nn.Tanh(), nn.Linear(4, 5))
    network(th.zeros(N, 3))  # lazy layers take their shape
    with LayerRecorder(network.modules() if recorded else ()) as recorder:
        log_prob = log_probability(network.double())
    return Scores(log_prob, list(network.parameters()), recorder.calls, samplewise)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("recorded", "samplewise", "chunk"),
    [
        (True, True, 10**6),
        (True, False, 10**6),
        (True, True, 1),
        (False, True, 1),
        (False, True, 10 * N),
    ],
)
def test_any_layer(name: str, recorded: bool, samplewise: bool, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By layers or by backward passes; scores that are formed all at once, two samples, or one and one parameter at a time."""
    monkeypatch.setattr(scores, "CHUNK", chunk)
    th.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_is_dense(scores_with(LAYERS[name](), recorded, samplewise))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_layer_of_which_a_part_is_not_the_actors(name: str) -> None:
    """A parameter that was frozen when the actor's were found, and is not any more, is none of theirs."""
    layer = linear()
    of_actor = scores_with(layer)
    of_actor.parameters = [parameter for parameter in of_actor.parameters if parameter is not getattr(layer, name)]
    assert_is_dense(of_actor)


def test_known_layers_never_form_their_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scores, "_scores_of", None)
    scores_with(convolution()).gram()


def test_large_formed_scores_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    of_scale = scores_with(Scale())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        of_scale.gram()
    monkeypatch.setattr(scores, "CHUNK", 5 * N)  # what one sample's backward pass holds: not all at once
    with pytest.warns(UserWarning, match=r"shapes \(4,\), \(\): their scores are formed, up to 2.4e\+01 numbers at a time"):
        of_scale.gram()


def test_recording_ends_with_the_block() -> None:
    network = nn.Linear(3, 5).double()
    with LayerRecorder(network.modules()) as recorder:
        log_probability(network)
    log_probability(network)
    assert len(recorder.calls) == 1
