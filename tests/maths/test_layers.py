"""The Gram matrix of the scores, from layers and from formed scores, against the dense matrix."""

import warnings
from collections.abc import Callable

import pytest
import torch as th
from torch import nn

from sb3_smac.maths import LayerRecorder, Scores, scores
from tests.dense_reference import assert_close, jacobian

N = 6


class Scale(nn.Module):
    """A layer of unknown kind."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(th.tensor([0.5, -1.0, 2.0, 1.5]))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs * self.factor


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


def test_large_formed_scores_are_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    network = nn.Sequential(nn.Linear(3, 4), Scale(), nn.Linear(4, 5)).double()
    with LayerRecorder(network.modules()) as recorder:
        log_prob = log_probability(network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Scores(log_prob, list(network.parameters()), recorder.calls).gram()
    monkeypatch.setattr(scores, "LARGE", 4 * N - 1)
    with pytest.warns(UserWarning, match=r"shape \(4,\) is in no Linear or Conv2d layer"):
        Scores(log_prob, list(network.parameters()), recorder.calls).gram()


def test_recording_ends_with_the_block() -> None:
    network = nn.Sequential(nn.Linear(3, 5)).double()
    with LayerRecorder(network.modules()) as recorder:
        log_probability(network)
    log_probability(network)
    assert len(recorder.calls) == 1
