"""Networks, optimizers and policy classes of the user's own."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from torch import nn

from sb3_smac import NaturalActorCritic
from sb3_smac.maths import flatten
from tests.algorithms import is_finite, make

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
