"""Networks, optimizers and policy classes of the user's own."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from sb3_smac import NaturalActorCritic
from sb3_smac.ac_cg import MlpPolicy
from sb3_smac.maths import flatten
from tests.algorithms import is_finite, is_same, make
from tests.own_policies import Residual

NETWORKS: dict[str, dict[str, Any]] = {
    "no layers": {"net_arch": []},
    "two layers": {"net_arch": [4, 4], "activation_fn": nn.SiLU, "ortho_init": False, "log_std_init": -0.5},
    "of the actor only": {"net_arch": {"pi": [4], "vf": []}},
    "of the critic only": {"net_arch": {"pi": [], "vf": [4]}, "activation_fn": nn.ReLU},
    "different": {"net_arch": {"pi": [4, 4], "vf": [6]}},
    "unnamed critic": {"net_arch": {"pi": [4]}},
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


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(("algo", "env"), [("smac_full", "CartPole-v1"), ("accg", "Pendulum-v1")])
def test_networks(algo: str, env: str, network: str) -> None:
    """Without hidden layers too, for actor, critic or both."""
    model = make(algo, env, policy_kwargs=NETWORKS[network], target_kl=0.01)
    actor, critic = names(model, model.actor_parameters), names(model, model.critic_parameters)
    assert actor | critic == dict(model.policy.named_parameters()).keys()
    assert not actor & critic
    last_layer = {"value_net.weight", "value_net.bias"}
    assert {name for name in critic if not name.startswith("mlp_extractor.value_net")} == last_layer
    learn_and_check(model)


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
def test_the_optimizer_is_the_critics(optimizer: type[th.optim.Optimizer], arguments: dict[str, Any] | None) -> None:
    """It holds the critic's parameters and learning rate; the actor's step is the same whatever it is."""

    def first_update(**policy_kwargs: Any) -> NaturalActorCritic:
        return make("acadam", policy_kwargs={"net_arch": [8], **policy_kwargs}, critic_learning_rate=0.01).learn(32)

    model, default = (first_update(optimizer_class=optimizer, optimizer_kwargs=arguments), first_update())
    assert type(model.policy.optimizer) is optimizer
    (group,) = model.policy.optimizer.param_groups
    assert group["lr"] == 0.01
    assert {name: group[name] for name in arguments or {}} == (arguments or {})
    assert list(map(id, group["params"])) == list(map(id, model.critic_parameters))
    assert th.equal(flatten(model.actor_parameters), flatten(default.actor_parameters))
    assert th.equal(flatten(model.critic_parameters), flatten(default.critic_parameters)) == (arguments is None)


@pytest.mark.parametrize("share", [None, False, True])
def test_features_extractor(share: bool | None) -> None:
    """One for each by default; a shared one is the actor's."""
    kwargs = {"net_arch": [8], "features_extractor_class": Residual, "share_features_extractor": share}
    model = make("smac", policy_kwargs=kwargs, target_kl=0.01)
    actor, critic = names(model, model.actor_parameters), names(model, model.critic_parameters)
    of_critic = {f"vf_features_extractor.linear.{name}" for name in ("weight", "bias")}
    assert {name for name in critic if "features_extractor" in name} == (set() if share else of_critic)
    assert sum("features_extractor" in name for name in actor) == 2
    learn_and_check(model)


class MisleadingNames(nn.Module):
    """Both networks with names that say the opposite of what they are, and a layer that nobody uses."""

    def __init__(self, features_dim: int) -> None:
        super().__init__()
        self.latent_dim_pi = self.latent_dim_vf = 6
        self.value_like_actor = nn.Linear(features_dim, 6)
        self.policy_like_critic = nn.Linear(features_dim, 6)
        self.unused = nn.Linear(2, 2)

    def forward(self, features: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return self.value_like_actor(features).tanh()

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.policy_like_critic(features).tanh()


class SharedTrunk(MisleadingNames):
    """Actor and critic on one hidden layer."""

    def forward_critic(self, features: th.Tensor) -> th.Tensor:
        return self.forward_actor(features)


@pytest.mark.parametrize(("trunk", "unused"), [(MisleadingNames, {"unused"}), (SharedTrunk, {"unused", "policy_like_critic"})])
def test_names_do_not_matter(trunk: type[MisleadingNames], unused: set[str]) -> None:
    """
    Splitting parameters by name, as TRPO does, gets these wrong. What both networks use is the actor's, what none uses is left
    alone.
    """

    class Policy(MlpPolicy):
        def _build_mlp_extractor(self) -> None:
            self.mlp_extractor = trunk(self.features_dim)

    model = make("smac", policy=Policy, policy_kwargs={}, target_kl=0.01)
    actor, critic = names(model, model.actor_parameters), names(model, model.critic_parameters)
    hidden = {f"mlp_extractor.value_like_actor.{name}" for name in ("weight", "bias")}
    assert actor == hidden | {"action_net.weight", "action_net.bias", "log_std"}
    unowned = dict(model.policy.named_parameters()).keys() - actor - critic
    assert {name.split(".")[1] for name in unowned} == unused
    learn_and_check(model)


def test_policies_of_sb3_itself() -> None:
    """Its class, rather than its name, is accepted: what it shares is the actor's."""
    model = make("smac", policy=sb3_policies.ActorCriticPolicy, target_kl=0.01)
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


def test_a_critic_without_parameters_is_refused() -> None:
    """With the name of the policy, and what it needs."""
    with pytest.raises(ValueError, match=r"NothingToLearn.*critic has no parameters of its own"):
        make("smac", policy=NothingToLearn)


def test_building_a_model_draws_nothing_from_its_spaces() -> None:
    """The parameters are found on an observation of the space, whose own generator stays as it was."""
    model = make("smac", "CartPole-v1")
    space = model.observation_space
    space.seed(3)
    first = space.sample()
    space.seed(3)
    type(model)("MlpPolicy", model.get_env(), policy_kwargs={"net_arch": [4]}, device="cpu")
    assert is_same(first, space.sample())
