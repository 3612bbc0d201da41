"""Which parameters are the actor's and which the critic's, whatever they are called; and that each is trained by its own."""

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from sb3_smac import ACCG, ACSGD, SMAC, ACAdam
from sb3_smac.common.parameters import restored_on_error, split_parameters
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_smac.common.steps import ActorStep
from tests.dense_reference import actor, collect, critic, every_space, make_model, make_policy, train
from tests.own_policies import BatchNorm, Dropout, Residual

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
every_algorithm = pytest.mark.parametrize("algorithm", [SMAC, ACCG, ACSGD, ACAdam])


def build(policy_class: type[ActorCriticPolicy] = MlpPolicy, space: spaces.Space = VECTOR, **arguments: Any) -> Any:
    return policy_class(space, VECTOR, lambda _: 1e-3, **arguments)


@every_space
@pytest.mark.parametrize("net_arch", [[], {"pi": [3], "vf": [3]}, {"pi": [], "vf": [3]}], ids=str)
def test_standard_policies_are_parted_without_rest(space: str, net_arch: Any) -> None:
    """In the order of ``policy.parameters()``, so that a saved vector means the same again; also where gradients are off."""
    policy = make_policy(space, net_arch=net_arch)
    with th.no_grad():
        of_actor, of_critic = split_parameters(policy)
    assert list(map(id, of_actor)) == list(map(id, actor(policy)))
    assert list(map(id, of_critic)) == list(map(id, critic(policy)))


def test_found_by_what_they_do() -> None:
    """Here the actor's layers are called ``value_net``, and the critic's ``policy_net``."""
    policy = build()
    networks = policy.mlp_extractor
    networks.forward_actor, networks.forward_critic = networks.forward_critic, networks.forward_actor
    of_actor, of_critic = split_parameters(policy)
    assert {*of_actor} == {policy.log_std, *networks.value_net.parameters(), *policy.action_net.parameters()}
    assert {*of_critic} == {*networks.policy_net.parameters(), *policy.value_net.parameters()}


@pytest.mark.parametrize(
    ("policy_class", "space", "arguments"),
    [
        (MlpPolicy, VECTOR, {"features_extractor_class": BatchNorm}),
        (CnnPolicy, IMAGE, {}),
        (MultiInputPolicy, spaces.Dict({"vector": VECTOR, "image": IMAGE}), {}),
    ],
)
def test_extractors_are_disjoint_unless_shared(policy_class: type, space: spaces.Space, arguments: dict[str, Any]) -> None:
    """Actor and critic each have one of their own, unless it is to be shared: then the actor has it."""
    policy = build(policy_class, space, **arguments)
    shared = build(policy_class, space, share_features_extractor=True, **arguments)
    for each, of_critics in ((policy, policy.vf_features_extractor), (shared, nn.Module())):
        of_actor, of_critic = split_parameters(each)
        assert {*of_actor} > {*each.pi_features_extractor.parameters()} and {*of_critic} > {*of_critics.parameters()}
        assert {*of_actor, *of_critic} == {*each.parameters()} and not {*of_actor} & {*of_critic}


def with_unused_and_frozen(policy: Any) -> Any:
    """The policy with a parameter that nothing uses, and layers of actor and critic that no longer learn."""
    policy.unused = nn.Parameter(th.ones(2))
    for network in (policy.mlp_extractor.policy_net, policy.mlp_extractor.value_net):
        network[0].requires_grad_(False)
        network[2].bias.requires_grad_(False)
    return policy


def test_unused_parameters_are_nobodys_and_frozen_ones_whose_they_are() -> None:
    """Frozen ones may be unfrozen later; looking leaves them frozen."""
    policy = with_unused_and_frozen(build(net_arch=[4, 4]))
    of_actor, of_critic = split_parameters(policy)
    assert {*of_actor} == {*actor(policy)} - {policy.unused} and {*of_critic} == {*critic(policy)}
    assert sum(not parameter.requires_grad for parameter in policy.parameters()) == 6


def test_refuses_policies_without_an_actor_or_a_critic() -> None:
    """Where the value is made of the actor's own latents, and where all of a part is frozen from the start."""
    actors, without_critic, without_actor = build(net_arch=[]), build(), build()
    actors.value_net = nn.AdaptiveAvgPool1d(1)
    for parameter in [*critic(without_critic), *actor(without_actor)]:
        parameter.requires_grad_(False)
    for policy, part in ((actors, "critic"), (without_critic, "critic"), (without_actor, "actor")):
        with pytest.raises(ValueError, match=f"policy ActorCriticPolicy: the {part} has no parameters of its own"):
            split_parameters(policy)


@pytest.mark.parametrize(
    ("space", "arguments"),
    [
        (VECTOR, {"features_extractor_class": BatchNorm}),
        (VECTOR, {"features_extractor_class": Dropout}),
        (spaces.Discrete(5), {}),
        (spaces.MultiBinary(3), {}),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_no_trace(space: spaces.Space, arguments: dict[str, Any], training: bool) -> None:
    """No random generator advances (seeded runs would change), and the policy is as before: mode, statistics, gradients."""
    space.seed(5)
    policy = build(space=space, **arguments)
    policy.set_training_mode(training)
    state = copy.deepcopy(policy.state_dict())

    def generators() -> list:
        space_state = policy.observation_space.np_random.bit_generator.state
        return [th.get_rng_state().tolist(), str(np.random.get_state()), random.getstate(), str(space_state)]

    before = generators()
    split_parameters(policy)
    assert generators() == before
    assert all(module.training is training for module in policy.modules())
    assert all(th.equal(value, state[name]) for name, value in policy.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.parameters())


def moved_by_training(model: Any) -> set[str]:
    """The names of what an update moves."""
    collect(model)
    before = copy.deepcopy(model.policy.state_dict())
    train(model)
    return {name for name, value in model.policy.state_dict().items() if not th.equal(value, before[name])}


@every_algorithm
@pytest.mark.parametrize("resting", ["learning_rate", "critic_learning_rate"])
def test_a_shared_extractor_is_trained_by_the_actor_alone(algorithm: type, resting: str) -> None:
    """Bit for bit: the critic's gradient leaves it as it is."""
    kwargs = {"features_extractor_class": Residual, "share_features_extractor": True, "net_arch": []}
    model = make_model(algorithm, "discrete", MlpPolicy, kwargs, target_kl=None, **{resting: 0.0})
    moved = moved_by_training(model)
    assert all(parameter.grad is None for parameter in model.actor_parameters)
    of_critic = {"value_net.weight", "value_net.bias"}
    assert moved == (of_critic if resting == "learning_rate" else set(model.policy.state_dict()) - of_critic)


@every_algorithm
@pytest.mark.parametrize("part", ["layers", "actor", "critic"])
@pytest.mark.parametrize("target_kl", [None, 0.01])
def test_unused_and_frozen_parameters_are_not_trained(algorithm: type, part: str, target_kl: float | None) -> None:
    """Frozen after the model was made: some in the middle of the two vectors, or all of one."""
    model = make_model(algorithm, "box", MlpPolicy, {"net_arch": [4, 4]}, target_kl=target_kl)
    policy = with_unused_and_frozen(model.policy)
    for parameter in {"layers": [], "actor": actor(policy), "critic": critic(policy)}[part]:
        parameter.requires_grad_(False)
    still = {"unused", *(name for name, parameter in policy.named_parameters() if not parameter.requires_grad)}
    assert moved_by_training(model) == set(policy.state_dict()) - still


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_restored_on_error(error: type[BaseException]) -> None:
    """All as it was, the step's memory, too, and in place: whoever holds a parameter still holds the policy's."""
    policy, actor_step = build(net_arch=[]), ActorStep()
    optimizer = th.optim.Adam(policy.parameters(), lr=0.1)

    def step(curvature: float) -> None:
        sum(parameter.sum() for parameter in policy.parameters()).backward()
        optimizer.step()
        actor_step.curvature = curvature

    def state() -> tuple[Any, ...]:
        return [*map(id, policy.parameters())], str(policy.state_dict()), str(optimizer.state_dict()), actor_step.curvature

    step(1.0)
    before = state()
    with pytest.raises(error), restored_on_error(policy, actor_step, optimizer):
        step(2.0)
        assert state() != before
        raise error
    assert state() == before
    with restored_on_error(policy, actor_step, optimizer):
        step(2.0)
    assert state()[1] != before[1]
