"""Running statistics inside the policy: observations and critic targets of unit scale, saved with the model."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch as th
from gymnasium import spaces
from torch import nn

# Both as in Stable-Baselines3's VecNormalize
EPSILON = 1e-8
CLIP = 10.0
# Beyond this the squares of returns leave float32
LARGEST_RETURN = 1e15
# Two ways to the same value differ by less than this, in units of the values' scale
ROUNDING = 1e-3


class RunningMoments(nn.Module):
    """
    Mean and variance of every sample seen so far, in float64; 0 and 1 before the first.

    They are buffers: part of the ``state_dict``, moved with the module, and no optimizer's business.

    :param shape: shape of one sample
    """

    mean: th.Tensor
    var: th.Tensor
    count: th.Tensor

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.register_buffer("mean", th.zeros(shape, dtype=th.float64))
        self.register_buffer("var", th.ones(shape, dtype=th.float64))
        self.register_buffer("count", th.zeros((), dtype=th.float64))

    @property
    def std(self) -> th.Tensor:
        """Standard deviation, kept off 0."""
        return (self.var + EPSILON).sqrt()

    @th.no_grad()
    def update(self, samples: th.Tensor, weight: float = 1.0) -> None:
        """
        Add samples, by the pairwise formula of Chan, Golub and LeVeque: exact however the samples come in batches.

        :param samples: shape (N, *shape)
        :param weight: what one of them counts, > 0
        """
        samples = samples.double()
        total = self.count + weight * len(samples)
        share = weight * len(samples) / total  # of the new samples in all; 1 the first time, and the initial values are gone
        var, mean = th.var_mean(samples, dim=0, correction=0)
        delta = mean - self.mean
        self.var.copy_((1 - share) * self.var + share * var + share * (1 - share) * delta.square())
        self.mean.add_(share * delta)
        self.count.copy_(total)


class ObservationNormalizer(RunningMoments):
    """
    ``clip((o - mean) / std, -10, 10)``, as VecNormalize does it, with statistics that only :meth:`update` changes.

    Before the first update the observation is only clipped.
    """

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: shape (N, *shape), of any type
        :return: in float32, same shape
        """
        # Through float32, as Stable-Baselines3 casts observations, whatever type the buffer keeps: all see the same to the bit
        return ((observations.float() - self.mean) / self.std).clamp(-CLIP, CLIP).float()

    @th.no_grad()
    def fold(self, before: "ObservationNormalizer", share: float, layers: list[nn.Linear]) -> None:
        """
        Correct the layers that take normalised observations for a part of the change of the statistics.

        A dimension whose deviation has grown more than tenfold is left alone: what the layers took of it was clipped, and one
        that was constant before has taught them nothing.

        :param before: the statistics as they were
        :param share: part of the change that the layers do not make up for: 0, they put out what they did before; 1, they are
            left alone
        :param layers: all layers that normalised observations go into, each with a bias
        """
        std = before.std * (self.std / before.std) ** share
        mean = before.mean + share * (self.mean - before.mean)
        folded = self.std <= CLIP * before.std
        scale = th.where(folded, self.std / std, 1.0).flatten()
        shift = th.where(folded, (self.mean - mean) / std, 0.0).flatten()
        for layer in layers:
            weight = layer.weight.double()
            layer.bias.add_(weight @ shift)
            layer.weight.copy_(weight * scale)


class ReturnNormalizer(RunningMoments):
    """
    Statistics of the critic's targets, by which the critic is fitted to targets of mean 0 and deviation 1.

    This is PopArt (van Hasselt et al., 2016, https://arxiv.org/abs/1602.07714; here with the statistics of all targets rather
    than of recent ones: they need no time scale, and each new rollout moves them less). The critic's last layer puts out
    values in the environment's units at all times but while it is fitted (:func:`unit_scale`): nobody else knows of it.
    """


@contextmanager
def unit_scale(
    head: nn.Linear | None,
    moments: RunningMoments | None,
    returns: th.Tensor,
    values: Callable[[], th.Tensor],
    is_untrained: bool,
) -> Iterator[tuple[th.Tensor, float]]:
    """
    While the block runs, the critic's last layer puts out values of unit scale: ``(V - mean) / std``.

    Values of an untrained critic are lifted to the returns' own scale. A last layer that the user has frozen freezes the
    statistics, too. Returns whose squares leave float32 are scaled in any case.

    :param head: the critic's last layer; ``None``: it is not known, and nothing is scaled
    :param moments: statistics of all returns, which are updated; ``None``: values are fitted as they are
    :param returns: the critic's targets, shape (N,)
    :param values: of some observations, as the critic gives them
    :param is_untrained: whether the critic is as it was built
    :return: targets in the units of the last layer, shape (N,), and what its unit is worth in units of the return
    """
    largest = returns.abs().max().item()
    if head is None or (moments is None and largest < LARGEST_RETURN) or not _is_affine_in(head, values):
        yield returns, 1.0
        return
    frozen = not all(parameter.requires_grad for parameter in head.parameters())
    if moments is None:
        mean, std = returns.new_zeros((), dtype=th.float64), returns.new_tensor(largest, dtype=th.float64)
    else:
        if not frozen:
            moments.update(returns)
        mean, std = moments.mean if head.bias is not None else th.zeros_like(moments.mean), moments.std
    originals = [parameter.detach().clone() for parameter in head.parameters()]
    if frozen or not is_untrained:
        _rescale(head, 1 / std, -mean / std)
    yield ((returns - mean) / std).to(returns.dtype), std.item()
    _rescale(head, std, mean)
    with th.no_grad():
        for parameter, original in zip(head.parameters(), originals, strict=True):
            if not parameter.requires_grad:  # but for rounding, it is that already
                parameter.copy_(original)


@th.no_grad()
def _rescale(head: nn.Linear, factor: th.Tensor, offset: th.Tensor) -> None:
    """Change an affine layer so that it puts out ``factor * output + offset``; the offset needs a bias."""
    head.weight.copy_(head.weight.double() * factor)
    if head.bias is not None:
        head.bias.copy_(head.bias.double() * factor + offset)


@th.no_grad()
def _is_affine_in(head: nn.Linear, values: Callable[[], th.Tensor]) -> bool:
    """Whether the values are what the layer puts out: halving the layer halves them."""
    originals = [parameter.detach().clone() for parameter in head.parameters()]
    before = values()
    for parameter in head.parameters():
        parameter.mul_(0.5)
    after = values()
    for parameter, original in zip(head.parameters(), originals, strict=True):
        parameter.copy_(original)
    return bool(((after - before / 2).abs() <= ROUNDING * before.abs().max()).all())


def last_linear(module: nn.Module | None) -> nn.Linear | None:
    """
    :param module: the critic's output layer, or several of them in a row; ``None``: there is none
    :return: the last one, if it is a ``Linear`` layer
    """
    while isinstance(module, nn.Sequential) and len(module) > 0:
        module = module[-1]
    return module if type(module) is nn.Linear else None


def is_vector(space: spaces.Space | None) -> bool:
    """
    :param space: observation space
    :return: whether its observations can be normalised: a one-dimensional Box
    """
    return isinstance(space, spaces.Box) and len(space.shape) == 1
