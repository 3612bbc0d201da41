"""Which parameters are the actor's and which are the critic's: read off the autograd graph, never off names."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import nn

from sb3_smac.common.buffers import select
from sb3_smac.common.evaluation import Evaluator, initial_evaluator
from sb3_smac.common.steps import ActorStep
from sb3_smac.fast.plain_policy import is_samplewise
from sb3_smac.maths import leaf_uses


def split_parameters(
    policy: ActorCriticPolicy, evaluator: Evaluator | None = None, rollout: RolloutBufferSamples | None = None
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """
    Actor and critic parameters of a policy, in the order of ``policy.parameters()``, frozen ones included.

    The actor's are those that the log-probability of an action depends on, the critic's those that only the value depends on:
    what both share (a features extractor) is the actor's. Parameters that neither depends on are in neither list.

    :param policy: an actor-critic policy of Stable-Baselines3
    :param evaluator: how it is evaluated; ``None``: as its ``forward`` shows on a sample of the observation space
    :param rollout: transitions, with the evaluator
    :return: the actor's and the critic's parameters
    :raises ValueError: if either has no parameters of its own; without an evaluator, also if either has only frozen ones
    """
    if evaluator is not None and evaluator.plain is not None:
        of_plain = set(evaluator.plain.actor_parameters)
        others = set(evaluator.plain.critic.parameters) - of_plain
        of_policy = list(policy.parameters())
        return [each for each in of_policy if each in of_plain], [each for each in of_policy if each in others]
    was_training = policy.training
    policy.set_training_mode(False)  # neither batch statistics nor dropout's random numbers are touched
    is_new = evaluator is None or rollout is None
    if evaluator is None or rollout is None:
        space = copy.deepcopy(policy.observation_space)  # sampling must not advance the environment's own generator
        space.seed(0)
        observations, _ = policy.obs_to_tensor(space.sample())
        evaluator, actions = initial_evaluator(policy, observations)
    else:
        # which parameters are used may depend on what is observed (a mixture of experts)
        few = slice(2 if is_samplewise(policy) else None)
        observations, actions = select(rollout.observations, few), rollout.actions[few]
    frozen = [parameter for parameter in policy.parameters() if not parameter.requires_grad and parameter.is_floating_point()]
    try:
        for parameter in frozen:  # may be unfrozen later: whose they are is asked of the graph
            parameter.requires_grad_(True)
        with th.enable_grad():
            of_actor = leaf_uses(evaluator.evaluate(observations, actions).log_prob)
            of_critic = leaf_uses(evaluator.values(observations, actions))
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
    with th.no_grad():
        # the policy keeps its last distribution: not one with a graph
        evaluator.evaluate(select(observations, slice(1)), actions[:1])
    policy.set_training_mode(was_training)

    actor = [parameter for parameter in policy.parameters() if parameter in of_actor]
    critic = [parameter for parameter in policy.parameters() if parameter in of_critic and parameter not in of_actor]
    for name, own in (("actor", actor), ("critic", critic)) if is_new else ():
        if not any(parameter.requires_grad for parameter in own):
            raise ValueError(
                f"policy {type(policy).__name__}: the {name} has no parameters of its own; actor and critic each need at "
                "least one that requires a gradient and that the other does not use"
            )
    return actor, critic


def names_of(policy: nn.Module, *owned: Sequence[nn.Parameter]) -> list[list[str]]:
    """
    :param policy: a policy
    :param owned: parameters of it, in several lists
    :return: their names
    """
    names = {parameter: name for name, parameter in policy.named_parameters()}
    return [[names[parameter] for parameter in parameters] for parameters in owned]


def initial_split(policy: ActorCriticPolicy, names: list[list[str]] | None) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """
    :param policy: a policy
    :param names: of a loaded model: those of actor and critic in its last update, whose states its optimizers hold
    :return: the actor's and the critic's parameters
    :raises ValueError: if either has no parameters of its own
    """
    named = dict(policy.named_parameters())
    if names is None or not {*names[0], *names[1]} <= named.keys():
        return split_parameters(policy)
    return [named[name] for name in names[0]], [named[name] for name in names[1]]


def set_parameters_of(optimizer: th.optim.Optimizer, parameters: Sequence[nn.Parameter]) -> None:
    """
    Make an optimizer that of these parameters: new ones are added to its first group, others leave it with their state.

    :param optimizer: the critic's optimizer
    :param parameters: the critic's parameters
    """
    groups, wanted = optimizer.param_groups, set(parameters)
    held = {parameter for group in groups for parameter in group["params"]}
    for key, state in list(optimizer.state.items()):  # loaded, but not this critic's
        moments = [state[name] for name in ("exp_avg", "exp_avg_sq") if name in state]
        if not th.is_tensor(key) or any(moment.shape != key.shape for moment in moments):
            optimizer.state.pop(key)
    if held == wanted:
        return
    for group in groups:
        group["params"] = [parameter for parameter in group["params"] if parameter in wanted]
    for parameter in held - wanted:
        optimizer.state.pop(parameter, None)
    groups[0]["params"] += [parameter for parameter in parameters if parameter not in held]
    order = {parameter: index for index, parameter in enumerate(parameters)}  # that in which a loaded model finds them
    for group in groups:
        group["params"].sort(key=order.__getitem__)


def checksum(parameters: Iterable[nn.Parameter]) -> float:
    """
    :param parameters: some parameters
    :return: a number that changes when any of them does
    """
    return sum(parameter.detach().double().abs().sum().item() for parameter in parameters)


def make_optimizer(
    optimizer_class: type[th.optim.Optimizer],
    parameters: Sequence[nn.Parameter],
    learning_rate: float,
    optimizer_kwargs: dict[str, Any],
) -> th.optim.Optimizer:
    """
    An optimizer, with torch's fused implementation of Adam unless the user chose one: on small networks it takes a third of
    the time of the others.

    :param optimizer_class: class of the optimizer
    :param parameters: what it optimizes
    :param learning_rate: its step size
    :param optimizer_kwargs: its other arguments
    :return: the optimizer
    """
    implementation: dict[str, Any] = {}
    if optimizer_class in (th.optim.Adam, th.optim.AdamW) and not {"fused", "foreach", "capturable"} & optimizer_kwargs.keys():
        implementation["fused"] = all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)
    return optimizer_class(parameters, lr=learning_rate, **implementation, **optimizer_kwargs)  # type: ignore[call-arg]


@contextmanager
def restored_on_error(policy: nn.Module, step: ActorStep, *optimizers: th.optim.Optimizer) -> Iterator[None]:
    """
    Put a policy, the memory of its step and its optimizers back as they were if the block raises.

    :param policy: module whose parameters and buffers are restored, in place
    :param step: what the next step starts its search from
    :param optimizers: optimizers whose state is restored
    """
    state, curvature = _copied(policy.state_dict()), step.curvature
    optimizer_states = [_copied(optimizer.state_dict()) for optimizer in optimizers]
    try:
        yield
    except BaseException:
        policy.load_state_dict(state)
        step.curvature = curvature
        for optimizer, optimizer_state in zip(optimizers, optimizer_states, strict=True):
            optimizer.load_state_dict(optimizer_state)
        raise


def _copied(state: Any) -> Any:
    """A deep copy of a ``state_dict``, in a tenth of the time of ``copy.deepcopy``."""
    if type(state) is th.Tensor:
        return state.detach().clone()
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    return [_copied(value) for value in state] if type(state) is list else copy.deepcopy(state)
