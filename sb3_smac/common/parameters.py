"""Which parameters are the actor's and which are the critic's: read off the autograd graph, never off names."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_smac.maths import leaf_uses


def split_parameters(policy: ActorCriticPolicy) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """
    Actor and critic parameters of a policy, in the order of ``policy.parameters()``.

    The actor's are those that the log-probability of an action depends on, the critic's those that only the value depends on:
    what both share (a features extractor) is the actor's. Parameters that neither depends on are in neither list.

    :param policy: an actor-critic policy of Stable-Baselines3
    :return: the actor's and the critic's parameters
    :raises ValueError: if either has no parameters of its own
    """
    was_training = policy.training
    policy.set_training_mode(False)  # neither batch statistics nor dropout's random numbers are touched
    space = copy.deepcopy(policy.observation_space)  # sampling must not advance the environment's own generator
    space.seed(0)
    observation, _ = policy.obs_to_tensor(space.sample())
    with th.enable_grad():
        distribution = policy.get_distribution(observation)
        log_prob = distribution.log_prob(distribution.mode())
        values = policy.predict_values(observation)
    with th.no_grad():
        policy.get_distribution(observation)  # the policy keeps its last distribution: not one with a graph
    policy.set_training_mode(was_training)

    of_actor, of_critic = leaf_uses(log_prob), leaf_uses(values)
    actor = [parameter for parameter in policy.parameters() if parameter in of_actor]
    critic = [parameter for parameter in policy.parameters() if parameter in of_critic and parameter not in of_actor]
    for name, own in (("actor", actor), ("critic", critic)):
        if not own:
            raise ValueError(
                f"policy {type(policy).__name__}: the {name} has no parameters of its own; actor and critic each need at "
                "least one that requires a gradient and that the other does not use"
            )
    return actor, critic


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
def restored_on_error(policy: nn.Module, *optimizers: th.optim.Optimizer) -> Iterator[None]:
    """
    Put a policy and its optimizers back as they were if the block raises.

    :param policy: module whose parameters and buffers are restored, in place
    :param optimizers: optimizers whose state is restored
    """
    state = copy.deepcopy(policy.state_dict())
    optimizer_states = [copy.deepcopy(optimizer.state_dict()) for optimizer in optimizers]
    try:
        yield
    except BaseException:
        policy.load_state_dict(state)
        for optimizer, optimizer_state in zip(optimizers, optimizer_states, strict=True):
            optimizer.load_state_dict(optimizer_state)
        raise
