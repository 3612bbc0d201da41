"""
What the package must compute, written out densely in float64: explicit matrices, one backward pass for each of their rows.

Nothing here calls the package's maths. Everything goes through ``policy.evaluate_actions`` or the policy's distributions.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import settings
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import nn

from sb3_smac import NaturalActorCritic
from sb3_smac.common.policies import MlpPolicy
from tests.algorithms import NormalEnv

# The same examples each time: a run that passes here passes everywhere
properties = settings(deadline=None, max_examples=60, derandomize=True)


@dataclass(frozen=True)
class Case:
    """An action space, with what a policy on it takes."""

    action_space: spaces.Space
    use_sde: bool = False
    policy_kwargs: dict[str, Any] = field(default_factory=dict)


BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
CASES = {
    "box": Case(BOX),
    "discrete": Case(spaces.Discrete(3)),
    "multi_discrete": Case(spaces.MultiDiscrete([2, 3])),
    "multi_binary": Case(spaces.MultiBinary(2)),
    "gsde": Case(BOX, use_sde=True),
    "squashed_gsde": Case(BOX, use_sde=True, policy_kwargs={"squash_output": True}),
}
every_space = pytest.mark.parametrize("space", CASES)


class DoubleFlatten(FlattenExtractor):
    """Stable-Baselines3 casts observations to float32: cast them back before the first layer."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(observations).double()


class DoublePolicy(MlpPolicy):
    """The package's ``"MlpPolicy"`` in float64, small, and initialised far enough from uniform to tell formulas apart."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        defaults = {"net_arch": {"pi": [3], "vf": [3]}, "ortho_init": False, "features_extractor_class": DoubleFlatten}
        super().__init__(*args, **{**defaults, **kwargs})
        self.double()


class DoubleRolloutBuffer(RolloutBuffer):
    """A rollout buffer that rounds nothing to float32 (a Bernoulli's log-probability has the precision of its actions)."""

    def reset(self) -> None:
        super().reset()
        for name in ("rewards", "returns", "values", "log_probs", "advantages"):
            setattr(self, name, getattr(self, name).astype(np.float64))

    def _get_samples(self, *arguments: Any) -> RolloutBufferSamples:
        samples = super()._get_samples(*arguments)
        return samples._replace(actions=samples.actions.double())


def make_policy(space: str, seed: int = 0, **arguments: Any) -> DoublePolicy:
    """A float64 policy on an action space of ``CASES``, without an environment."""
    case = CASES[space]
    th.manual_seed(seed)
    return DoublePolicy(
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        case.action_space,
        lambda _: 0.0,
        use_sde=case.use_sde,
        **{**case.policy_kwargs, **arguments},
    )


def make_model(
    algorithm: type[OnPolicyAlgorithm],
    space: str,
    policy: type[ActorCriticPolicy] = DoublePolicy,
    more_policy_kwargs: dict[str, Any] | None = None,
    **arguments: Any,
) -> Any:
    """An algorithm, in float64 unless told otherwise, on ``NormalEnv``: N = 16 transitions of two environments."""
    case = CASES[space]
    defaults = {
        "n_steps": 8,
        "use_sde": case.use_sde,
        "policy_kwargs": {**case.policy_kwargs, **(more_policy_kwargs or {})},
        "rollout_buffer_class": DoubleRolloutBuffer,
        "normalize_advantage": False,
        "seed": 1,
        "device": "cpu",
    }
    if issubclass(algorithm, NaturalActorCritic):  # the references know neither; tests/common/test_normalizer.py has them on
        defaults.update(normalize_observations=False, normalize_returns=False)
    env = make_vec_env(lambda: NormalEnv(case.action_space), n_envs=2)
    return algorithm(policy, env, **{**defaults, **arguments})


def collect(model: OnPolicyAlgorithm) -> None:
    """A rollout as ``learn`` collects it, without the update."""
    with mock.patch.object(model, "train"):
        model.learn(model.n_steps * model.n_envs)


def train(model: OnPolicyAlgorithm) -> None:
    """``model.train()``, with the rollout shuffled as :func:`transitions` shuffles it."""
    np.random.seed(3)
    model.train()


def transitions(model: OnPolicyAlgorithm) -> RolloutBufferSamples:
    """The rollout in the order in which :func:`train` uses it; the model's own buffer stays as it is."""
    buffer = copy.deepcopy(model.rollout_buffer)
    np.random.seed(3)
    return next(buffer.get())


def actor(policy: nn.Module) -> list[nn.Parameter]:
    """The actor's parameters of Stable-Baselines3's own policy, whose layers are named so that this works."""
    return [parameter for name, parameter in policy.named_parameters() if "value" not in name]


def critic(policy: nn.Module) -> list[nn.Parameter]:
    """The critic's parameters of Stable-Baselines3's own policy."""
    return [parameter for name, parameter in policy.named_parameters() if "value" in name]


def vector(parameters: Iterable[th.Tensor]) -> th.Tensor:
    """Parameters as one vector (d,)."""
    return th.cat([parameter.detach().flatten() for parameter in parameters])


@th.no_grad()
def write(parameters: Sequence[th.Tensor], values: th.Tensor) -> None:
    """Put a vector (d,) into parameters."""
    for parameter in parameters:
        parameter.copy_(values[: parameter.numel()].view_as(parameter))
        values = values[parameter.numel() :]


def jacobian(outputs: th.Tensor, parameters: Sequence[th.Tensor]) -> th.Tensor:
    """Row i is the gradient of the i-th entry of ``outputs``: (n, d)."""
    rows = []
    for output in outputs.flatten():
        gradients = th.autograd.grad(output, parameters, retain_graph=True, allow_unused=True)
        pairs = zip(gradients, parameters, strict=True)
        rows.append(th.cat([(th.zeros_like(p) if g is None else g).flatten() for g, p in pairs]))
    return th.stack(rows)


def evaluate(policy: DoublePolicy, observations: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    """Log-probabilities (N,) and entropies (N,), or ``-log_prob`` where the entropy has no closed form, as SB3 has it."""
    if isinstance(policy.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    _, log_prob, entropy = policy.evaluate_actions(observations, actions)
    return log_prob, -log_prob if entropy is None else entropy


class Behaviour(NamedTuple):
    """What a policy does in N states: mean and std (N, D) of a Gaussian, or the log-probability of every action (N, K)."""

    mean: th.Tensor | None
    std: th.Tensor | None
    table: th.Tensor | None


def behaviour(policy: DoublePolicy, observations: th.Tensor) -> Behaviour:
    """The policy's distributions with their graph, the finite spaces written out action by action."""
    space = policy.action_space
    if isinstance(space, spaces.Box):
        gaussian = policy.get_distribution(observations).distribution
        return Behaviour(gaussian.mean, gaussian.stddev, None)
    sizes = {"Discrete": lambda: [space.n], "MultiDiscrete": lambda: space.nvec, "MultiBinary": lambda: [2] * space.n}
    every_action = itertools.product(*(range(size) for size in sizes[type(space).__name__]()))
    columns = [evaluate(policy, observations, th.tensor([action] * len(observations)).double())[0] for action in every_action]
    return Behaviour(None, None, th.stack(columns, dim=1))


def fisher(policy: DoublePolicy, parameters: Sequence[th.Tensor], observations: th.Tensor) -> th.Tensor:
    """The Fisher matrix (d, d), its expectation over actions exact: summed over all of them, or a Gaussian's closed form."""
    mean, std, table = behaviour(policy, observations)
    if table is None:
        variances = std.detach().square().flatten()[:, None]
        of_mean, of_std = jacobian(mean, parameters), jacobian(std, parameters)
        return (of_mean.T @ (of_mean / variances) + 2 * of_std.T @ (of_std / variances)) / len(observations)
    every_score = jacobian(table, parameters)
    return every_score.T @ (table.detach().exp().flatten()[:, None] * every_score) / len(observations)


@th.no_grad()
def kl(old: Behaviour, new: Behaviour) -> float:
    """``KL(old ‖ new)`` of the joint distribution of all action dimensions, averaged over states."""
    if old.table is not None:
        return (old.table.exp() * (old.table - new.table)).sum(dim=1).mean().item()
    squares = (old.std.square() + (old.mean - new.mean).square()) / (2 * new.std.square())
    return ((new.std / old.std).log() + squares - 0.5).sum(dim=1).mean().item()


@dataclass(frozen=True)
class DenseBatch:
    """One actor batch, with everything that a step may be made of."""

    policy: DoublePolicy
    observations: th.Tensor
    actions: th.Tensor
    advantages: th.Tensor

    @property
    def theta(self) -> th.Tensor:
        return vector(actor(self.policy))

    def scores(self) -> th.Tensor:
        """S (N, d)."""
        return jacobian(evaluate(self.policy, self.observations, self.actions)[0], actor(self.policy))

    def gradient(self, ent_coef: float = 0.0, max_grad_norm: float | None = None) -> th.Tensor:
        """g (d,), from the scores one by one."""
        entropy = evaluate(self.policy, self.observations, self.actions)[1]
        bonus = jacobian(entropy, actor(self.policy)).mean(dim=0) if ent_coef else 0.0
        gradient = self.scores().T @ self.advantages / len(self.advantages) + ent_coef * bonus
        if max_grad_norm is not None:  # as torch.nn.utils.clip_grad_norm_ has it
            gradient = gradient * min(1.0, max_grad_norm / (gradient.norm().item() + 1e-6))
        return gradient

    def damped_fisher(self, damping: float) -> th.Tensor:
        """F + λI (d, d)."""
        matrix = fisher(self.policy, actor(self.policy), self.observations)
        return matrix + damping * th.eye(len(matrix), dtype=matrix.dtype)

    def damped_rank_1_fisher(self, damping: float) -> th.Tensor:
        """λI + s̄s̄ᵀ (d, d)."""
        mean_score = self.scores().mean(dim=0)
        return damping * th.eye(len(mean_score), dtype=mean_score.dtype) + th.outer(mean_score, mean_score)


def walk(model: Any, step: Callable[[DenseBatch], th.Tensor], normalize_advantage: bool = False) -> th.Tensor:
    """
    Where ``step`` takes the actor when it is applied to each actor batch in turn. The model itself does not move.

    :param model: a model that has collected a rollout
    :param step: new parameters (d,) after a batch
    :return: the actor's parameters at the end (d,)
    """
    rollout = transitions(model)
    advantages = rollout.advantages
    if normalize_advantage:
        advantages = (advantages - advantages.mean()) / (advantages.var(correction=1).sqrt() + 1e-8)
    parameters = actor(model.policy)
    start = vector(parameters)
    for indices in th.arange(len(advantages)).split(model.batch_size or len(advantages)):
        batch = DenseBatch(model.policy, rollout.observations[indices], rollout.actions[indices], advantages[indices])
        write(parameters, step(batch))
    end = vector(parameters)
    write(parameters, start)
    return end


def assert_close(actual: th.Tensor, expected: th.Tensor, relative: float = 1e-9) -> None:
    """Equal up to ``relative`` times the size of what is expected."""
    error = (actual - expected).norm().item()
    assert error <= relative * expected.norm().item(), f"off by {error:g}, expected norm {expected.norm().item():g}"
