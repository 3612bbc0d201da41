"""The Gram matrix of the scores, from layers and from formed scores, against the dense matrix."""

import warnings
from collections.abc import Callable

import pytest
import torch as th
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from sb3_smac.maths import LayerRecorder, Scores, scores
from tests.dense_reference import assert_close, jacobian

N = 6


class Scale(nn.Module):
    """A layer of unknown kind."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(th.tensor([0.5, -1.0, 2.0, 1.5]))
        self.exponent = nn.Parameter(th.tensor(0.3))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs * self.factor * self.exponent.exp()


class Twice(nn.Module):
    """A layer that runs twice: its score is no single outer product."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.layer(self.layer(inputs).tanh())


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.second(self.first(inputs).tanh())


class TiedBias(nn.Module):
    """Two layers with one bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.bias = self.first.bias

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.second(self.first(inputs).tanh())


class OverTime(nn.Module):
    """A linear layer that sees two vectors per sample."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.layer(inputs.view(-1, 2, 2)).flatten(start_dim=1)


class Elsewhere(nn.Module):
    """A linear layer whose weight is used without running the layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.layer(inputs).tanh() @ self.layer.weight / self.layer.bias.norm()


class OutputUnused(nn.Module):
    """A linear layer that runs for nothing, and whose weight is used without it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        self.layer(inputs)
        return inputs @ self.layer.weight


class ByName(nn.Module):
    """A linear layer that takes its input by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.layer(input=inputs)


def hooked() -> nn.Linear:
    layer = nn.Linear(4, 4)
    layer.register_forward_hook(lambda module, inputs, output: 3 * output.sin())
    return layer


def own_forward() -> nn.Linear:
    layer = nn.Linear(4, 4)
    layer.forward = lambda inputs: 2 * nn.Linear.forward(layer, inputs)
    return layer


def frozen(layer: nn.Linear, name: str) -> nn.Linear:
    getattr(layer, name).requires_grad_(False)
    return layer


def convolution(**arguments: object) -> Callable[[], nn.Module]:
    # 4 inputs as two channels of a 1 × 2 image
    return lambda: nn.Sequential(
        nn.Unflatten(1, (2, 1, 2)),
        nn.Conv2d(2, 4, **{"kernel_size": 3, "padding": 1, **arguments}),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 4),
    "without_bias": lambda: nn.Linear(4, 4, bias=False),
    "frozen_weight": lambda: frozen(nn.Linear(4, 4), "weight"),
    "frozen_bias": lambda: frozen(nn.Linear(4, 4), "bias"),
    "overwritten_output": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)),
    "overwritten_by_itself": lambda: nn.Sequential(nn.Linear(4, 4), nn.ELU(inplace=True), nn.Linear(4, 4), nn.Tanh()),
    "used_elsewhere": Elsewhere,
    "output_unused": OutputUnused,
    "by_name": ByName,
    "hooked": hooked,
    "own_forward": own_forward,
    "weight_norm": lambda: weight_norm(nn.Linear(4, 4)),
    "spectral_norm": lambda: spectral_norm(nn.Linear(4, 4)),
    "parametrized": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "unknown": Scale,
    "twice": Twice,
    "tied": Tied,
    "tied_bias": TiedBias,
    "over_time": OverTime,
    "normalisation": lambda: nn.LayerNorm(4),
    "convolution": convolution(),
    "strided_convolution": convolution(stride=2, bias=False),
    "dilated_grouped_convolution": convolution(dilation=2, padding=2, groups=2),
    "circular_convolution": convolution(padding_mode="circular", kernel_size=(1, 3), padding=(0, 1)),
    "same_convolution": convolution(padding="same", kernel_size=2),
}


@pytest.fixture(params=LAYERS)
def network(request: pytest.FixtureRequest) -> nn.Sequential:
    th.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), LAYERS[request.param](), nn.Tanh(), nn.Linear(4, 5))
    network(th.zeros(N, 3))  # lazy layers take their shape
    return network.double()


def log_probability(network: nn.Module) -> th.Tensor:
    """Log-probabilities of random actions of a categorical policy, (N,)."""
    th.manual_seed(1)
    logits = network(th.randn(N, 3, dtype=th.float64))
    return logits.log_softmax(dim=1)[th.arange(N), th.randint(5, (N,))]


@pytest.mark.parametrize("recorded", [True, False])
def test_gram_matrix_is_that_of_the_dense_scores(network: nn.Sequential, recorded: bool) -> None:
    """By layers or by formed scores, a layer of any kind."""
    with LayerRecorder(network.modules() if recorded else ()) as recorder:
        log_prob = log_probability(network)
    moving = [parameter for parameter in network.parameters() if parameter.requires_grad]
    dense = jacobian(log_prob, moving)
    assert_close(Scores(log_prob, list(network.parameters()), recorder.calls).gram(), dense @ dense.T, relative=1e-12)


@pytest.mark.parametrize("samplewise", [True, False])
def test_sums_and_products_are_those_of_the_dense_scores(network: nn.Sequential, samplewise: bool) -> None:
    """By layers where they are recorded and samples are independent, by backward passes otherwise."""
    parameters = list(network.parameters())
    with LayerRecorder(network.modules()) as recorder:
        log_prob = log_probability(network)
    columns = [jacobian(log_prob, [each]) if each.requires_grad else th.zeros(N, each.numel()) for each in parameters]
    dense = th.cat(columns, dim=1)  # (N, d)
    operator = Scores(log_prob, parameters, recorder.calls, samplewise)
    weights, direction = th.randn(N).double(), th.randn(dense.shape[1]).double()
    for _ in range(2):  # nothing that is kept is changed
        assert_close(operator.mean(), dense.mean(dim=0), relative=1e-12)
        assert_close(operator.weighted_sum(weights), dense.T @ weights, relative=1e-12)
        assert_close(operator.product(direction), dense @ direction, relative=1e-12)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_layer_of_which_a_part_is_not_the_actors(name: str) -> None:
    """A parameter that was frozen when the actor's were found, and is not any more, is none of theirs."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 5)).double()
    with LayerRecorder(network.modules()) as recorder:
        log_prob = log_probability(network)
    parameters = [parameter for parameter in network.parameters() if parameter is not getattr(network[0], name)]
    dense, operator = jacobian(log_prob, parameters), Scores(log_prob, parameters, recorder.calls)
    weights, direction = th.randn(N).double(), th.randn(dense.shape[1]).double()
    assert_close(operator.weighted_sum(weights), dense.T @ weights, relative=1e-12)
    assert_close(operator.product(direction), dense @ direction, relative=1e-12)
    assert_close(operator.gram(), dense @ dense.T, relative=1e-12)


def test_known_layers_never_form_their_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), convolution()(), nn.Linear(4, 5))
    network(th.zeros(N, 3))
    with LayerRecorder(network.double().modules()) as recorder:
        log_prob = log_probability(network)
    monkeypatch.setattr(Scores, "_scores_of", None)
    Scores(log_prob, list(network.parameters()), recorder.calls).gram()


@pytest.mark.parametrize("chunk", [1, 2 * 5 * N, 10**6])
def test_chunks_of_formed_scores(network: nn.Sequential, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sample and one parameter at a time, two samples, all at once."""
    monkeypatch.setattr(scores, "CHUNK", chunk)
    with LayerRecorder(network.modules()) as recorder:
        log_prob = log_probability(network)
    dense = jacobian(log_prob, [parameter for parameter in network.parameters() if parameter.requires_grad])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for calls in (recorder.calls, ()):
            assert_close(Scores(log_prob, list(network.parameters()), calls).gram(), dense @ dense.T, relative=1e-12)


def test_large_formed_scores_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(3, 4), Scale(), nn.Linear(4, 5)).double()
    with LayerRecorder(network.modules()) as recorder:
        log_prob = log_probability(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scores(log_prob, list(network.parameters()), recorder.calls).gram()
    monkeypatch.setattr(scores, "CHUNK", 5 * N)  # what one sample's backward pass holds: not all at once
    with pytest.warns(UserWarning, match=r"shapes \(4,\), \(\): their scores are formed, up to 2.4e\+01 numbers at a time"):
        Scores(log_prob, list(network.parameters()), recorder.calls).gram()


def test_recording_ends_with_the_block() -> None:
    network = nn.Sequential(nn.Linear(3, 5)).double()
    with LayerRecorder(network.modules()) as recorder:
        log_probability(network)
    log_probability(network)
    assert len(recorder.calls) == 1
