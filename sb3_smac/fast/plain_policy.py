"""Policies that are plain enough for their arithmetic to be done without Modules and torch.distributions."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.distributions import CategoricalDistribution, DiagGaussianDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, MlpExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.distributions import Normal

from sb3_smac import fast
from sb3_smac.common.normalizer import CLIP, ObservationNormalizer, ReturnNormalizer
from sb3_smac.common.policies import FAST_FORWARDS, NormalizingPolicy
from sb3_smac.maths import DenseScores, LinearScores, Mlp, ScaleCall, forward_hooks, has_hooks, unflatten

LOG_SQRT_2PI = math.log(math.sqrt(2 * math.pi))

# A class or an instance that overrides one of these does something of its own
METHODS = (
    "forward",
    "__call__",
    "extract_features",
    "predict_values",
    "get_distribution",
    "_get_action_dist_from_latent",
)

# The same of a module
FORWARDS = {"forward", "forward_actor", "forward_critic"}

# Modules in which no sample of a batch depends on another one, as batch normalisation would make it
SAMPLEWISE = {
    *(nn.Linear, nn.Conv2d, nn.Flatten, nn.Identity, nn.Dropout, nn.LayerNorm, nn.Sequential, nn.ModuleDict, nn.ModuleList),
    *(nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Sigmoid),
    *(FlattenExtractor, NatureCNN, CombinedExtractor, MlpExtractor, ObservationNormalizer, ReturnNormalizer),
}


def has_own_methods(policy: ActorCriticPolicy) -> bool:
    """
    :param policy: any actor-critic policy
    :return: whether it computes its distributions or values in another way than Stable-Baselines3's
    """
    if not isinstance(policy, ActorCriticPolicy):  # a wrapper, such as torch.compile's
        return True
    sb3_classes = (ActorCriticPolicy, NormalizingPolicy)
    return any(
        getattr(type(policy), name) not in [getattr(cls, name) for cls in sb3_classes] or name in vars(policy)
        for name in METHODS
    )


def is_samplewise(policy: ActorCriticPolicy) -> bool:
    """
    :param policy: any actor-critic policy
    :return: whether it is known that no sample of a batch depends on another one, and that layers are only used by being run
    """
    return not has_own_methods(policy) and all(
        (module is policy or type(module) in SAMPLEWISE) and not FORWARDS & vars(module).keys() and not has_hooks(module)
        for module in policy.modules()
    )


def has_plain_log_std(policy: ActorCriticPolicy) -> bool:
    """
    :param policy: any actor-critic policy
    :return: whether its actions are Gaussian with log-deviations that are a parameter with one entry per dimension
    """
    log_std = policy._parameters.get("log_std")
    distribution = policy.action_dist
    return (
        type(distribution) is DiagGaussianDistribution and log_std is not None and log_std.shape == (distribution.action_dim,)
    )


def scale_calls(policy: ActorCriticPolicy, distribution: Distribution) -> list[ScaleCall]:
    """
    :param policy: any actor-critic policy
    :param distribution: its action distribution on a batch, with its graph
    :return: how the standard deviation of Gaussian actions comes from its logarithm; nothing for other policies
    """
    gaussian = distribution.distribution
    if has_own_methods(policy) or not has_plain_log_std(policy) or not policy.log_std.requires_grad:
        return []
    assert isinstance(gaussian, Normal)
    return [ScaleCall(policy.log_std, gaussian.scale)]


class PlainPolicy:
    """
    The same arithmetic as that of an :class:`~stable_baselines3.common.policies.ActorCriticPolicy`, operation by operation,
    without Modules and torch.distributions, which take most of the time where networks are small and batches are few.

    Parameters and statistics are read each time: whoever changes them in the policy changes them here (but for statistics that
    are written to by ``.data``, which counts no version: those are read again with the next rollout).

    :param policy: policy that :meth:`of` has accepted
    :param actor: from observations to means or logits
    :param critic: from observations to values
    """

    def __init__(self, policy: ActorCriticPolicy, actor: Mlp, critic: Mlp) -> None:
        self.policy = policy
        self.actor = actor
        self.critic = critic
        self.is_gaussian = type(policy.action_dist) is DiagGaussianDistribution
        extractor = policy.mlp_extractor
        self._module_dicts = [module._modules for module in (policy, extractor, extractor.policy_net, extractor.value_net)]
        self._modules = [list(modules.values()) for modules in self._module_dicts]
        self._action_dist = policy.action_dist
        self._hooks = [hooks for module in policy.modules() for hooks in forward_hooks(module)]
        self._action_shape = (-1, *(policy.action_space.shape or ()))
        normalizer = getattr(policy, "observation_normalizer", None)
        self._observation_normalizer = normalizer if isinstance(normalizer, ObservationNormalizer) else None
        # where the statistics are that _update_constants() makes its constants of
        self._buffers = (
            []
            if self._observation_normalizer is None
            else [(self._observation_normalizer._buffers, name) for name in ("mean", "var")]
        )
        self._parameters: dict[str, Any] = policy._parameters
        self._state: tuple[object, ...] | None = None
        self._last_features: tuple[tuple[object, ...], th.Tensor, th.Tensor] | None = None

    @classmethod
    def of(cls, policy: ActorCriticPolicy) -> "PlainPolicy | None":
        """
        :param policy: any actor-critic policy
        :return: its plain view; ``None`` unless it is an Mlp policy on the CPU with tanh or ReLU, for vector observations and
            Box or Discrete actions, without gSDE, hooks, or methods or modules of its own, or if fast paths are turned off
        """
        if not fast.enabled or not is_samplewise(policy) or not _is_plain(policy):
            return None
        extractor = policy.mlp_extractor
        actor = Mlp.of([*extractor.policy_net, policy.action_net])
        critic = Mlp.of([*extractor.value_net, policy.value_net])
        return None if actor is None or critic is None else cls(policy, actor, critic)

    def features(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: shape (N, ...)
        :return: what the networks take, shape (N, in): an update asks for those of its rollout several times
        """
        statistics: list[Any] = [buffers[name] for buffers, name in self._buffers]
        tensors = (observations, *statistics)
        state = (observations.shape, *[(tensor.data_ptr(), tensor._version) for tensor in tensors])
        if self._last_features is None or self._last_features[0] != state:
            normalizer = self._observation_normalizer
            features = observations.float() if normalizer is None else normalizer.forward(observations)
            # the observations are kept, so that no others take their place in memory
            self._last_features = state, observations, features.flatten(start_dim=1)
        return self._last_features[2]

    def actor_activations(self, observations: th.Tensor) -> list[np.ndarray]:
        """
        :param observations: shape (N, ...)
        :return: inputs of the actor's layers and, last, means or logits, shape (N, out)
        """
        return self.actor.arrays().activations(self.features(observations).detach().numpy())

    def values(self, observations: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param observations: shape (N, ...)
        :param actions: not used
        :return: values without a graph, shape (N,)
        """
        return th.from_numpy(self.critic.arrays().activations(self.features(observations).detach().numpy())[-1]).flatten()

    def distribution(self, outputs: np.ndarray) -> Distribution:
        """
        :param outputs: means or logits, shape (N, out)
        :return: action distribution without a graph
        :raises ValueError: as torch does, if they make none
        """
        arguments = [th.from_numpy(outputs), *([self.policy.log_std.detach()] if self.is_gaussian else [])]
        return copy.copy(self.policy.action_dist).proba_distribution(*arguments)

    def scores(
        self, distribution: Distribution, activations: Sequence[np.ndarray], actions: th.Tensor
    ) -> list[LinearScores | DenseScores]:
        """
        The scores of all of the actor's parameters: of a Gaussian ``(a − μ) / σ²`` for the means and ``((a − μ) / σ)² − 1``
        for log σ (none if it is not learned), of a categorical distribution ``1_a − p`` for the logits, and from there on
        backpropagation.

        :param distribution: as :meth:`distribution` gives it
        :param activations: as :meth:`actor_activations` gives them
        :param actions: as a distribution's ``log_prob`` takes them
        :return: scores by layer
        """
        of_log_std: list[LinearScores | DenseScores] = []
        gaussian = distribution.distribution
        if isinstance(gaussian, Normal):
            normal = (actions.to(gaussian.loc) - gaussian.loc) / gaussian.scale
            gradient = normal / gaussian.scale
            of_log_std = [] if self.has_fixed_std else [DenseScores(self.policy.log_std, normal.square() - 1)]
        else:
            gradient = -th.from_numpy(activations[-1]).softmax(dim=1)
            gradient.numpy()[np.arange(len(gradient)), actions.numpy()] += 1
        deltas = self.actor.arrays().output_gradients(activations, gradient.numpy())
        layers = zip(self.actor.layers, activations, deltas, strict=False)
        return [*(LinearScores(layer, *map(th.from_numpy, pair)) for (layer, _), *pair in layers), *of_log_std]

    def is_current(self) -> bool:
        """Whether the policy still has the modules that this is a view of, and no hooks."""
        modules = [list(modules.values()) for modules in self._module_dicts]
        is_same = modules == self._modules and self.policy.action_dist is self._action_dist
        return is_same and not any(self._hooks)

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> tuple[th.Tensor, th.Tensor, th.Tensor] | None:
        """
        ``policy.forward``: the same numbers, and the same random numbers drawn.

        :param obs: observations, shape (n_envs, ...)
        :param deterministic: whether to take the mode instead of a sample
        :return: actions, values and log-probabilities; ``None`` if the policy has to do it by itself: for the mode, with
            gradients, or to say what is wrong with parameters or observations
        """
        if deterministic or th.is_grad_enabled() or not self._update_constants():
            return None
        features = self._few_features(obs)
        output = self.actor(features)
        if not np.isfinite(output.numpy()).all():
            return None
        actions, log_prob = self._sample_gaussian(output) if self.is_gaussian else self._sample_categorical(output)
        return actions, self.critic(features), log_prob

    def _update_constants(self) -> bool:
        """Look whether somebody has changed what is the same for all observations; ``False`` if it makes no distribution."""
        statistics: list[Any] = [buffers[name] for buffers, name in self._buffers]
        state = (*map(id, statistics), *[statistic._version for statistic in statistics])
        if self.is_gaussian:  # its bytes: users write to `log_std.data`, which counts no version
            state = (*state, self._parameters["log_std"].detach().numpy().tobytes())
        if state == self._state:
            return True
        if self._observation_normalizer is not None:
            self._observation_mean = self._observation_normalizer.mean.numpy()
            self._observation_std = self._observation_normalizer.std.numpy()
        if self.is_gaussian:
            scale = self.policy.log_std.detach().exp()
            if not (th.isfinite(scale) & (scale > 0)).all():
                return False
            self._scale, self._minus_two_variances = scale.numpy(), (-2 * scale**2).numpy()
            self._log_scale = scale.log().numpy()
        self._state = state
        return True

    # For a few numbers NumPy is faster than torch, and arithmetic on floats is exactly the same in both

    def _few_features(self, observations: th.Tensor) -> th.Tensor:
        """:meth:`features` of a few observations."""
        if self._observation_normalizer is None:
            return observations.float().flatten(start_dim=1)
        normalized = (observations.numpy().astype(np.float32) - self._observation_mean) / self._observation_std
        return th.from_numpy(np.minimum(np.maximum(normalized, -CLIP), CLIP).astype(np.float32))

    def _sample_gaussian(self, means: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """An action of ``torch.distributions.Normal`` per state."""
        mean = means.numpy()
        action = mean + th.empty_like(means).normal_().numpy() * self._scale
        log_prob = np.square(action - mean) / self._minus_two_variances - self._log_scale - LOG_SQRT_2PI
        return th.from_numpy(action).view(self._action_shape), th.from_numpy(log_prob).sum(dim=1)

    def _sample_categorical(self, logits: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """An action of ``torch.distributions.Categorical`` per state."""
        logits = logits - logits.logsumexp(dim=-1, keepdim=True)
        probs = logits.softmax(dim=-1)
        # an exponential race, as torch.multinomial runs it: the i-th is the first to arrive with probability p_i
        actions = (probs.numpy() / th.empty_like(probs).exponential_().numpy()).argmax(axis=1)
        log_prob = logits.numpy()[np.arange(len(actions)), actions]
        return th.from_numpy(actions), th.from_numpy(log_prob)

    def value_gradients(
        self, observations: th.Tensor, targets: th.Tensor, out: Sequence[th.Tensor]
    ) -> Callable[[th.Tensor], float]:
        """
        :param observations: shape (N, ...)
        :param targets: regression targets, shape (N,)
        :param out: where gradients go, shaped as the critic's parameters, whose memory stays where it is
        :return: a function that takes indices of samples, computes the gradients of the critic's mean squared error on them,
            and returns that error
        """
        features, network = self.features(observations).numpy(), self.critic.arrays()
        targets_, out_ = targets.float()[:, None].numpy(), [gradient.numpy() for gradient in out]

        def gradients(indices: th.Tensor) -> float:
            chosen = indices.numpy()
            activations = network.activations(features[chosen])
            residuals = activations[-1] - targets_[chosen]
            deltas = network.output_gradients(activations, residuals * (2 / len(chosen)))
            network.parameter_gradients(activations, deltas, out_)
            return float(np.vdot(residuals, residuals)) / len(chosen)

        return gradients

    @th.no_grad()
    def fisher_vector_product(
        self, observations: th.Tensor, parameters: Sequence[nn.Parameter]
    ) -> Callable[[th.Tensor], th.Tensor]:
        """
        ``v ↦ F v`` with the Fisher matrix ``F = (1/N) Σ J_iᵀ H_i J_i``: J_i the derivatives of the network's outputs for state
        i, and H_i the Fisher matrix of the action distribution in its outputs, ``diag(1/σ²)`` for a Gaussian's means and
        ``diag(p) − p pᵀ`` for logits. A Gaussian's log-σ adds the diagonal 2 for its own parameters (0 if it is not learned).

        It is what two backward passes through the mean KL divergence give, at half their cost or less.

        :param observations: shape (N, ...)
        :param parameters: the actor's parameters, all those of :attr:`actor` and log-σ, d entries in all
        :return: the product, as a function of v of shape (d,)
        """
        network = self.actor.arrays()
        activations = self.actor_activations(observations)
        size, order = len(activations[0]), self.actor_parameters
        if self.is_gaussian:
            inverse_variance = (-2 * self.policy.log_std.detach()).exp().numpy()
        else:
            probs = th.from_numpy(activations[-1]).softmax(dim=1).numpy()

        def product(vector: th.Tensor) -> th.Tensor:
            result = th.empty_like(vector)
            tangents, out = (
                [pieces[parameter] for parameter in order]
                for pieces in (_by_parameter(part, parameters) for part in (vector, result))
            )
            moved = network.directional_derivative(activations, tangents)
            if self.is_gaussian:
                moved *= inverse_variance
                np.multiply(tangents[-1], 0 if self.has_fixed_std else 2, out=out[-1])
            else:
                moved = probs * (moved - (probs * moved).sum(axis=1, keepdims=True))
            moved /= size
            network.parameter_gradients(activations, network.output_gradients(activations, moved), out)
            return result

        return product

    def is_all(self, parameters: Sequence[nn.Parameter]) -> bool:
        """
        :param parameters: parameters of the actor
        :return: whether they are the network's (and log-σ), all of them, and each but log-σ requires a gradient
        """
        is_whole = set(self.actor_parameters) == set(parameters)
        return is_whole and all(parameter.requires_grad for parameter in self.actor.parameters)

    @property
    def has_fixed_std(self) -> bool:
        """Whether σ is not learned."""
        return self.is_gaussian and not self.policy.log_std.requires_grad

    def foldable_input_layers(self) -> list[nn.Linear]:
        """What ``policy.input_layers`` finds: those of actor and critic that can make up for a change of the statistics."""
        layers = dict.fromkeys(network.layers[0][0] for network in (self.actor, self.critic))  # one that both share, once
        return [layer for layer in layers if layer.bias is not None and all(p.requires_grad for p in layer.parameters())]

    @property
    def actor_parameters(self) -> list[nn.Parameter]:
        """The network's and, last, log-σ of a Gaussian."""
        return [*self.actor.parameters, *([self.policy.log_std] if self.is_gaussian else [])]


def _by_parameter(vector: th.Tensor, parameters: Sequence[nn.Parameter]) -> dict[nn.Parameter, np.ndarray]:
    """The part of a vector of size d that belongs to each parameter, as a view."""
    return {parameter: piece.numpy() for parameter, piece in zip(parameters, unflatten(vector, parameters), strict=True)}


def _is_plain(policy: ActorCriticPolicy) -> bool:
    """Whether all but the networks of a policy is what :class:`PlainPolicy` computes."""
    space = policy.observation_space
    is_vector = isinstance(space, spaces.Box) and not (policy.normalize_images and is_image_space(space))
    extractors = (policy.features_extractor, policy.pi_features_extractor, policy.vf_features_extractor)
    normalizers = {getattr(policy, name, None).__class__ for name in ("observation_normalizer", "return_normalizer")}
    return (
        is_vector
        and not policy.use_sde
        and (has_plain_log_std(policy) or type(policy.action_dist) is CategoricalDistribution)
        and type(policy.mlp_extractor) is MlpExtractor
        and type(policy.mlp_extractor.policy_net) is type(policy.mlp_extractor.value_net) is nn.Sequential
        and normalizers <= {type(None), nn.Identity, ObservationNormalizer, ReturnNormalizer}
        and all(type(extractor) is FlattenExtractor for extractor in extractors if extractor is not None)
        and all(parameter.dtype == th.float32 and parameter.device.type == "cpu" for parameter in policy.parameters())
    )


class RolloutForward:
    """
    ``policy.forward`` while a rollout is collected: the plain one as long as there is one. The view is taken at the first
    call, and again when the policy's modules have changed.

    :param policy: any policy
    """

    def __init__(self, policy: ActorCriticPolicy) -> None:
        self.policy = policy
        self.view: PlainPolicy | None = None
        self._is_plain = True

    def __call__(self, obs: PyTorchObs, deterministic: bool) -> tuple[th.Tensor, th.Tensor, th.Tensor] | None:
        """
        :param obs: observations, shape (n_envs, ...)
        :param deterministic: whether to take the mode instead of a sample
        :return: actions, values and log-probabilities; ``None`` if the policy has to do it by itself
        """
        if self._is_plain and (self.view is None or not self.view.is_current()):
            self.view = PlainPolicy.of(self.policy)
            self._is_plain = self.view is not None
        if self.view is None:
            return None
        return self.view.forward(obs, deterministic)  # type: ignore[arg-type]  # a plain policy has no Dict


@contextmanager
def plain_forward(policy: nn.Module) -> Iterator[None]:
    """
    Within the block, a policy of this package computes its ``forward`` by :class:`RolloutForward`.

    :param policy: any policy
    """
    if not isinstance(policy, NormalizingPolicy):  # its class would not ask
        yield
        return
    outer = FAST_FORWARDS.get(policy)  # a callback may collect a rollout within a rollout
    FAST_FORWARDS[policy] = RolloutForward(policy)
    try:
        yield
    finally:
        if outer is None:
            del FAST_FORWARDS[policy]
        else:
            FAST_FORWARDS[policy] = outer
