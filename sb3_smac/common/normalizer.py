"""Running statistics inside the policy: observations and critic targets of unit scale, saved with the model."""

import torch as th
from gymnasium import spaces
from torch import nn

# Both as in Stable-Baselines3's VecNormalize
EPSILON = 1e-8
CLIP = 10.0


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
        self.register_buffer("count", th.zeros((), dtype=th.int64))

    @property
    def std(self) -> th.Tensor:
        """Standard deviation, kept off 0."""
        return (self.var + EPSILON).sqrt()

    @th.no_grad()
    def update(self, samples: th.Tensor) -> None:
        """
        Add samples, by the pairwise formula of Chan, Golub and LeVeque: exact however the samples come in batches.

        :param samples: shape (N, *shape)
        """
        samples = samples.double()
        total = self.count + len(samples)
        share = len(samples) / total.double()  # of the new samples in all; 1 the first time, and the initial values are gone
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


class ReturnNormalizer(RunningMoments):
    """
    ``mean + std * v``: makes a value out of a critic's output v, whose own targets then have mean 0 and deviation 1.

    This is the output layer of PopArt (van Hasselt et al., 2016, https://arxiv.org/abs/1602.07714; here with the statistics of
    all targets rather than of recent ones: they need no time scale, and each new rollout moves them less). Values keep the
    environment's units wherever anyone sees them, so that bootstrapping, advantages, logs and callbacks know nothing of it.
    """

    def forward(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: of the critic's last layer, any shape
        :return: values in the units of the return, same shape and type
        """
        return self.mean + self.std * outputs

    def inverse(self, values: th.Tensor) -> th.Tensor:
        """
        :param values: in the units of the return, any shape
        :return: what the critic's last layer puts out for them, same shape and type
        """
        return (values - self.mean) / self.std

    @th.no_grad()
    def update_preserving(self, returns: th.Tensor, head: nn.Module) -> None:
        """
        Add returns, and correct the critic's last layer so that every value stays what it was (PopArt's second half).

        The first time there is nothing worth keeping: values of an untrained critic are lifted to the returns' own scale. A
        last layer that is not affine is left alone, and its values move with the statistics; one that the user has frozen
        freezes the statistics too.

        :param returns: targets of the critic, shape (N,)
        :param head: the critic's last layer
        """
        if not all(parameter.requires_grad for parameter in head.parameters()):
            return
        is_first, mean, std = self.count == 0, self.mean.clone(), self.std
        self.update(returns)
        if not is_first and isinstance(head, nn.Linear) and head.bias is not None:
            head.weight.mul_(std / self.std)
            head.bias.mul_(std / self.std).add_((mean - self.mean) / self.std)


def is_vector(space: spaces.Space | None) -> bool:
    """
    :param space: observation space
    :return: whether its observations can be normalised: a one-dimensional Box
    """
    return isinstance(space, spaces.Box) and len(space.shape) == 1
