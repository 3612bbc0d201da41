"""Which parameters are the actor's and which the critic's, whatever they are called; and that each is trained by its own."""

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_smac import ACCG, ACSGD, SMAC, ACAdam
from sb3_smac.common.parameters import restored_on_error, split_parameters
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_smac.common.steps import ActorStep
from tests.dense_reference import actor, collect, critic, every_space, make_model, make_policy, train

VECTOR = spaces.Box(-1.0, 1.0, (3,), np.float32)
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
every_algorithm = pytest.mark.parametrize("algorithm", [SMAC, ACCG, ACSGD, ACAdam])


class LinearExtractor(BaseFeaturesExtractor):
    """A features extractor with parameters, and with dropout and batch statistics that must not be stirred."""

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, features_dim=4)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(observations)


class SharedExtractor(BaseFeaturesExtractor):
    """A features extractor that training changes only through its parameters."""

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__(observation_space, features_dim=4)
        self.layer = nn.Linear(3, 4)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.tanh(self.layer(observations))


class MisleadingExtractor(nn.Module):
    """The actor's layers have "value" in their name, the critic's have "actor", "policy" and "pi"."""

    latent_dim_pi = latent_dim_vf = 2

    def __init__(self) -> None:
        super().__init__()
        self.value_of_each_action = nn.Linear(3, 2)
        self.actor_value_thing = nn.Linear(3, 2)
        self.policy_pi = nn.Linear(2, 2)

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.value_of_each_action(features)

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.policy_pi(self.actor_value_thing(features))


class MisleadingPolicy(MlpPolicy):
    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = MisleadingExtractor()


class UnusedPolicy(MlpPolicy):
    """Has a parameter that nothing uses, and a layer that no longer learns."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.unused = nn.Parameter(th.ones(2))
        self.mlp_extractor.policy_net[0].requires_grad_(False)
        self.mlp_extractor.value_net[0].requires_grad_(False)


class First(nn.Module):
    """The first of what comes in."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs[:, :1]


class ValueHeadOnly(MlpPolicy):
    """The value is the actor's own first latent: nothing is left for a critic."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mlp_extractor.value_net = self.mlp_extractor.policy_net
        self.value_net = First()


def build(
    policy_class: type[ActorCriticPolicy] = MlpPolicy,
    observation_space: spaces.Space = VECTOR,
    action_space: spaces.Space = VECTOR,
    **arguments: Any,
) -> ActorCriticPolicy:
    return policy_class(observation_space, action_space, lambda _: 1e-3, **arguments)


def split_names(policy: ActorCriticPolicy) -> tuple[set[str], set[str]]:
    """The modules (first two parts of the names) of the actor's and the critic's parameters."""
    names = {parameter: ".".join(name.split(".")[:2]) for name, parameter in policy.named_parameters()}
    of_actor, of_critic = split_parameters(policy)
    return {names[parameter] for parameter in of_actor}, {names[parameter] for parameter in of_critic}


@every_space
@pytest.mark.parametrize("net_arch", [[], {"pi": [3], "vf": [3]}, {"pi": [], "vf": [3]}], ids=str)
def test_standard_policies_are_parted_without_rest(space: str, net_arch: Any) -> None:
    """In the order of ``policy.parameters()``, so that a saved vector means the same again."""
    policy = make_policy(space, net_arch=net_arch)
    of_actor, of_critic = split_parameters(policy)
    assert list(map(id, of_actor)) == list(map(id, actor(policy)))
    assert list(map(id, of_critic)) == list(map(id, critic(policy)))


@pytest.mark.parametrize(
    ("policy", "of_actor", "of_critic"),
    [
        (
            lambda: build(MisleadingPolicy),
            {"mlp_extractor.value_of_each_action", "action_net.weight", "action_net.bias", "log_std"},
            {"mlp_extractor.actor_value_thing", "mlp_extractor.policy_pi", "value_net.weight", "value_net.bias"},
        ),
        (
            lambda: build(net_arch=[]),
            {"action_net.weight", "action_net.bias", "log_std"},
            {"value_net.weight", "value_net.bias"},
        ),
        (
            lambda: build(net_arch=[], action_space=spaces.Discrete(2)),
            {"action_net.weight", "action_net.bias"},
            {"value_net.weight", "value_net.bias"},
        ),
        (  # what actor and critic share is the actor's
            lambda: build(net_arch=[], features_extractor_class=LinearExtractor, share_features_extractor=True),
            {"features_extractor.layers", "action_net.weight", "action_net.bias", "log_std"},
            {"value_net.weight", "value_net.bias"},
        ),
        (  # and nothing is shared by default
            lambda: build(net_arch=[], features_extractor_class=LinearExtractor),
            {"features_extractor.layers", "action_net.weight", "action_net.bias", "log_std"},
            {"vf_features_extractor.layers", "value_net.weight", "value_net.bias"},
        ),
    ],
    ids=["misleading names", "no hidden layer", "no hidden layer, discrete", "shared extractor", "own extractors"],
)
def test_found_by_what_they_do(policy: Callable, of_actor: set[str], of_critic: set[str]) -> None:
    assert split_names(policy()) == (of_actor, of_critic)


@pytest.mark.parametrize(
    ("policy_class", "observation_space"),
    [(CnnPolicy, IMAGE), (MultiInputPolicy, spaces.Dict({"vector": VECTOR, "image": IMAGE}))],
)
def test_cnn_policies_are_disjoint_by_default(policy_class: type[ActorCriticPolicy], observation_space: spaces.Space) -> None:
    """Each has convolutions of its own, unless they are to be shared: then the actor has them."""
    policy = build(policy_class, observation_space)
    of_actor, of_critic = split_parameters(policy)
    assert {*of_actor, *of_critic} == set(policy.parameters()) and not {*of_actor} & {*of_critic}
    assert any(parameter.ndim == 4 for parameter in of_actor) and any(parameter.ndim == 4 for parameter in of_critic)

    shared = build(policy_class, observation_space, share_features_extractor=True)
    of_actor, of_critic = split_parameters(shared)
    assert set(shared.features_extractor.parameters()) <= {*of_actor}
    assert {*of_actor, *of_critic} == set(shared.parameters()) and not any(parameter.ndim == 4 for parameter in of_critic)


def test_unused_parameters_are_nobodys_and_frozen_ones_whose_they_are() -> None:
    """Frozen ones may be unfrozen later; looking leaves them frozen."""
    policy = build(UnusedPolicy, net_arch=[4, 4])
    of_actor, of_critic = split_parameters(policy)
    assert {*of_actor, *of_critic} == set(policy.parameters()) - {policy.unused}
    frozen = {parameter for parameter in policy.parameters() if not parameter.requires_grad}
    networks = policy.mlp_extractor
    assert frozen == {*networks.policy_net[0].parameters(), *networks.value_net[0].parameters()}
    assert {*networks.policy_net[0].parameters()} <= {*of_actor} and {*networks.value_net[0].parameters()} <= {*of_critic}


@pytest.mark.parametrize(
    ("policy_class", "arguments", "message"),
    [
        (ValueHeadOnly, {}, "policy ValueHeadOnly: the critic has no parameters of its own"),
        (MlpPolicy, {"frozen": "value"}, "the critic has no parameters of its own"),
        (MlpPolicy, {"frozen": ""}, "the actor has no parameters of its own"),
    ],
)
def test_refuses_policies_without_an_actor_or_a_critic(policy_class: type, arguments: dict, message: str) -> None:
    policy = build(policy_class)
    for name, parameter in policy.named_parameters():
        parameter.requires_grad_("frozen" not in arguments or arguments["frozen"] not in name)
    with pytest.raises(ValueError, match=message):
        split_parameters(policy)


@pytest.mark.parametrize("observation_space", [VECTOR, spaces.Discrete(5), spaces.MultiBinary(3)], ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_no_trace(observation_space: spaces.Space, training: bool) -> None:
    """No random generator advances (seeded runs would change), and the policy is as before: mode, statistics, gradients."""
    extractor = {"features_extractor_class": LinearExtractor} if observation_space is VECTOR else {}
    observation_space.seed(5)
    policy = build(observation_space=observation_space, **extractor)
    policy.set_training_mode(training)
    state = copy.deepcopy(policy.state_dict())

    def generators() -> list:
        space_state = policy.observation_space.np_random.bit_generator.state
        return [th.get_rng_state().tolist(), str(np.random.get_state()), random.getstate(), str(space_state)]

    before = generators()
    split_parameters(policy)
    assert generators() == before
    assert policy.training is training and all(module.training is training for module in policy.modules())
    assert all(th.equal(value, state[name]) for name, value in policy.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.parameters())


def test_works_where_gradients_are_off() -> None:
    with th.no_grad():
        of_actor, of_critic = split_parameters(build(net_arch=[]))
    assert (len(of_actor), len(of_critic)) == (3, 2)


def changed(model: Any, before: dict[str, th.Tensor]) -> set[str]:
    """The names of what has moved since."""
    return {name for name, value in model.policy.state_dict().items() if not th.equal(value, before[name])}


@every_algorithm
@pytest.mark.parametrize("resting", ["learning_rate", "critic_learning_rate"])
def test_a_shared_extractor_is_trained_by_the_actor_alone(algorithm: type, resting: str) -> None:
    """Bit for bit: the critic's gradient leaves it as it is."""
    kwargs = {"features_extractor_class": SharedExtractor, "share_features_extractor": True, "net_arch": []}
    model = make_model(algorithm, "discrete", MlpPolicy, kwargs, target_kl=None, **{resting: 0.0})
    collect(model)
    before = copy.deepcopy(model.policy.state_dict())
    train(model)
    assert all(parameter.grad is None for parameter in model.actor_parameters)
    # the three aliases of one module
    extractors = {f"{prefix}features_extractor.layer.{name}" for prefix in ("", "pi_", "vf_") for name in ("weight", "bias")}
    of_critic = {"value_net.weight", "value_net.bias"}
    expected = of_critic if resting == "learning_rate" else {*extractors, "action_net.weight", "action_net.bias"}
    assert changed(model, before) == expected


@every_algorithm
@pytest.mark.parametrize("target_kl", [None, 0.01])
def test_unused_and_frozen_parameters_are_not_trained(algorithm: type, target_kl: float | None) -> None:
    """Also those that are frozen after the model was made, in the middle of the actor's and the critic's vectors."""
    model = make_model(algorithm, "box", UnusedPolicy, {"net_arch": [4, 4]}, target_kl=target_kl)
    for layers in (model.policy.mlp_extractor.policy_net, model.policy.mlp_extractor.value_net):
        layers[2].bias.requires_grad_(False)
    collect(model)
    before = copy.deepcopy(model.policy.state_dict())
    train(model)
    kinds = {"mlp_extractor.policy_net", "mlp_extractor.value_net"}
    still = {"unused"} | {f"{kind}.{name}" for kind in kinds for name in ("0.weight", "0.bias", "2.bias")}
    assert changed(model, before) == set(before) - still


@every_algorithm
@pytest.mark.parametrize("part", [actor, critic], ids=["actor", "critic"])
def test_all_of_a_part_may_be_frozen_later(algorithm: type, part: Callable) -> None:
    """To train a critic for a given actor, or an actor for a given critic."""
    model = make_model(algorithm, "box", target_kl=0.01)
    for parameter in part(model.policy):
        parameter.requires_grad_(False)
    collect(model)
    before = copy.deepcopy(model.policy.state_dict())
    train(model)
    frozen = {name for name, parameter in model.policy.named_parameters() if not parameter.requires_grad}
    assert changed(model, before) == set(before) - frozen


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_restored_on_error(error: type[BaseException]) -> None:
    """All as it was, the step's memory, too, and in place: whoever holds a parameter still holds the policy's."""
    policy = build(net_arch=[])
    optimizer, actor_step = th.optim.Adam(policy.parameters(), lr=0.1), ActorStep()
    actor_step.curvature = 1.0

    def step() -> None:
        sum(parameter.sum() for parameter in policy.parameters()).backward()
        optimizer.step()

    step()
    parameters, before = list(policy.parameters()), copy.deepcopy((policy.state_dict(), optimizer.state_dict()))
    with pytest.raises(error), restored_on_error(policy, actor_step, optimizer):
        step()
        actor_step.curvature = 2.0
        raise error
    assert all(a is b for a, b in zip(parameters, policy.parameters(), strict=True))
    assert str((policy.state_dict(), optimizer.state_dict())) == str(before) and actor_step.curvature == 1.0
    with restored_on_error(policy, actor_step, optimizer):
        step()
    assert str(policy.state_dict()) != str(before[0])
