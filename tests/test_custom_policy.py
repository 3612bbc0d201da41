"""Networks, optimizers and policy classes of the user's own."""

import copy
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_smac import NaturalActorCritic
from sb3_smac.ac_cg import MlpPolicy
from sb3_smac.maths import flatten
from tests.algorithms import every_algorithm, is_finite, is_same, make

NET_ARCHS: dict[str, Any] = {
    "none": [],
    "one": [4],
    "two": [4, 4],
    "actor_only": {"pi": [4], "vf": []},
    "critic_only": {"pi": [], "vf": [4]},
    "different": {"pi": [4, 4], "vf": [6]},
    "unnamed_critic": {"pi": [4]},
}


def names(model: NaturalActorCritic, parameters: list[nn.Parameter]) -> set[str]:
    """Of some parameters of the policy."""
    chosen = {id(parameter) for parameter in parameters}
    return {name for name, parameter in model.policy.named_parameters() if id(parameter) in chosen}


def learn_and_check(model: NaturalActorCritic) -> None:
    """Each parameter of actor and critic moves, in the actor's step or the critic's."""
    before = {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}
    model.learn(64)
    assert is_finite(model)
    owned = names(model, [*model.actor_parameters, *model.critic_parameters])
    moved = {name for name, parameter in model.policy.named_parameters() if not th.equal(before[name], parameter)}
    assert moved == owned


@every_algorithm
@pytest.mark.parametrize("net_arch", NET_ARCHS)
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_network_sizes(algo: str, net_arch: str, env: str) -> None:
    """Without hidden layers too, for actor, critic or both."""
    model = make(algo, env, policy_kwargs={"net_arch": NET_ARCHS[net_arch]}, target_kl=0.01)
    actor, critic = names(model, model.actor_parameters), names(model, model.critic_parameters)
    assert actor | critic == dict(model.policy.named_parameters()).keys()
    assert not actor & critic
    assert {name for name in critic if not name.startswith("mlp_extractor.value_net")} == {
        "value_net.weight",
        "value_net.bias",
    }
    learn_and_check(model)


@every_algorithm
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.SiLU])
@pytest.mark.parametrize("ortho_init", [True, False])
def test_activations(algo: str, activation: type[nn.Module], ortho_init: bool) -> None:
    learn_and_check(
        make(
            algo,
            policy_kwargs={"net_arch": [8], "activation_fn": activation, "ortho_init": ortho_init, "log_std_init": -0.5},
            target_kl=0.01,
        )
    )


@every_algorithm
@pytest.mark.parametrize(
    ("optimizer", "arguments"),
    [
        (th.optim.SGD, {"momentum": 0.9}),
        (th.optim.AdamW, {"weight_decay": 0.01}),
        (RMSpropTFLike, {"alpha": 0.9}),
        (th.optim.Adam, None),
    ],
    ids=["SGD", "AdamW", "RMSpropTFLike", "Adam"],
)
def test_the_optimizer_is_the_critics(
    algo: str, optimizer: type[th.optim.Optimizer], arguments: dict[str, Any] | None
) -> None:
    """It holds the critic's parameters and learning rate; the actor's step is the same whatever it is."""

    def first_update(**policy_kwargs: Any) -> NaturalActorCritic:
        return make(algo, policy_kwargs={"net_arch": [8], **policy_kwargs}, critic_learning_rate=0.01).learn(32)

    model, default = (first_update(optimizer_class=optimizer, optimizer_kwargs=arguments), first_update())
    assert type(model.policy.optimizer) is optimizer
    (group,) = model.policy.optimizer.param_groups
    assert group["lr"] == 0.01
    assert {name: group[name] for name in arguments or {}} == (arguments or {})
    assert list(map(id, group["params"])) == list(map(id, model.critic_parameters))
    assert th.equal(flatten(model.actor_parameters), flatten(default.actor_parameters))
    assert th.equal(flatten(model.critic_parameters), flatten(default.critic_parameters)) == (arguments is None)


class CustomExtractor(BaseFeaturesExtractor):
    """Features of the user's own, with weights."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 5) -> None:
        super().__init__(observation_space, features_dim)
        self.linear = nn.Linear(observation_space.shape[0], features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.linear(observations).tanh()


@every_algorithm
@pytest.mark.parametrize("share", [None, False, True])
def test_features_extractor(algo: str, share: bool | None) -> None:
    """One for each by default; a shared one is the actor's."""
    policy_kwargs = {
        "net_arch": [8],
        "features_extractor_class": CustomExtractor,
        "features_extractor_kwargs": {"features_dim": 7},
        "share_features_extractor": share,
    }
    model = make(algo, policy_kwargs=policy_kwargs, target_kl=0.01)
    actor, critic = names(model, model.actor_parameters), names(model, model.critic_parameters)
    assert {name for name in critic if "features_extractor" in name} == (
        set() if share else {"vf_features_extractor.linear.weight", "vf_features_extractor.linear.bias"}
    )
    assert sum("features_extractor" in name for name in actor) == 2
    learn_and_check(model)


class MisleadingNames(nn.Module):
    """Both networks with names that say the opposite of what they are."""

    def __init__(self, features_dim: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 6
        self.value_like_actor = nn.Linear(features_dim, 6)
        self.policy_like_critic = nn.Linear(features_dim, 6)

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.value_like_actor(features).tanh()

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.policy_like_critic(features).tanh()


class MisleadingPolicy(MlpPolicy):
    """Splitting parameters by name, as TRPO does, gets this one wrong."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = MisleadingNames(self.features_dim)


class SharedTrunk(MisleadingNames):
    """Actor and critic on one hidden layer, and a layer that nobody uses."""

    def __init__(self, features_dim: int) -> None:
        super().__init__(features_dim)
        self.unused = nn.Linear(2, 2)

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.forward_actor(features)


class SharedTrunkPolicy(MlpPolicy):
    """Only the two heads are apart."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = SharedTrunk(self.features_dim)


@every_algorithm
def test_names_do_not_matter(algo: str) -> None:
    model = make(algo, policy=MisleadingPolicy, policy_kwargs={}, target_kl=0.01)
    hidden = {f"mlp_extractor.value_like_actor.{name}" for name in ("weight", "bias")}
    assert names(model, model.actor_parameters) == hidden | {"action_net.weight", "action_net.bias", "log_std"}
    learn_and_check(model)


@every_algorithm
def test_shared_trunk_and_unused_layers(algo: str) -> None:
    """What both use is the actor's, what none uses is left alone, and all of it survives saving."""
    model = make(algo, policy=SharedTrunkPolicy, policy_kwargs={}, target_kl=0.01)
    assert names(model, model.critic_parameters) == {"value_net.weight", "value_net.bias"}
    assert "mlp_extractor.value_like_actor.weight" in names(model, model.actor_parameters)
    unowned = dict(model.policy.named_parameters()).keys() - names(model, [*model.actor_parameters, *model.critic_parameters])
    assert {name.split(".")[1] for name in unowned} == {"unused", "policy_like_critic"}
    learn_and_check(model)


@every_algorithm
def test_policies_of_sb3_itself(algo: str) -> None:
    """Its class, rather than its name, is accepted: what it shares is the actor's."""
    model = make(algo, policy=sb3_policies.ActorCriticPolicy, target_kl=0.01)
    assert type(model.policy) is sb3_policies.ActorCriticPolicy
    learn_and_check(model)


class Zero(nn.Module):
    """A constant."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return th.zeros(len(inputs), 1)


class NothingToLearn(MlpPolicy):
    """A constant critic."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.value_net = Zero()


@every_algorithm
def test_a_critic_without_parameters_is_refused(algo: str) -> None:
    """With the name of the policy, and what it needs."""
    with pytest.raises(ValueError, match=r"NothingToLearn.*critic has no parameters of its own"):
        make(algo, policy=NothingToLearn)


@every_algorithm
@pytest.mark.parametrize("trained", [False, True])
def test_frozen_parameters_stay(algo: str, trained: bool) -> None:
    """A layer whose gradient the user turned off keeps its values, whatever optimizers remember; the rest learns."""
    model = make(algo, policy_kwargs={"net_arch": [8, 8]}, target_kl=0.01)
    if trained:
        model.learn(32)
    frozen = [*model.policy.mlp_extractor.policy_net[0].parameters(), *model.policy.mlp_extractor.value_net[0].parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in frozen]
    actor, critic = flatten(model.actor_parameters), flatten(model.critic_parameters)
    model.learn(64, reset_num_timesteps=False)
    assert is_same(before, frozen)
    assert not th.equal(actor, flatten(model.actor_parameters))
    assert not th.equal(critic, flatten(model.critic_parameters))


@every_algorithm
@pytest.mark.parametrize("trained", [False, True])
def test_policies_can_be_copied(algo: str, trained: bool) -> None:
    """As Stable-Baselines3's can before training: no distribution is left behind with a graph that ``deepcopy`` refuses."""
    model = make(algo)
    if trained:
        model.learn(32)
    assert is_same(copy.deepcopy(model.policy).state_dict(), model.policy.state_dict())


@every_algorithm
def test_building_a_model_draws_nothing_from_its_spaces(algo: str) -> None:
    """The parameters are found on an observation of the space, whose own generator stays as it was."""
    model = make(algo, "CartPole-v1")
    space = model.observation_space
    space.seed(3)
    first = space.sample()
    space.seed(3)
    type(model)("MlpPolicy", model.get_env(), policy_kwargs={"net_arch": [4]}, device="cpu")
    assert is_same(first, space.sample())
