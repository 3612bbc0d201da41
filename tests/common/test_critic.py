"""The critic's two ways of fitting, in whole updates."""

from typing import Any

import pytest
import torch as th

from sb3_smac import NaturalActorCritic
from tests.algorithms import TINY, every_algorithm, make
from tests.dense_reference import collect, critic, vector


@every_algorithm
@pytest.mark.parametrize("policy, env", [("MlpPolicy", "Pendulum-v1"), ("MlpPolicy", "CartPole-v1")])
def test_gauss_newton_never_raises_the_loss(algo: str, policy: str, env: str) -> None:
    """Of the whole rollout, at each of many updates; and it lowers it most of the time."""
    model = make(algo, env, policy, critic_optimizer="gauss_newton", critic_damping=1e-3)
    drops = []
    for _ in range(6):
        collect(model)
        rollout = next(model.rollout_buffer.get())
        if model.normalize_returns:  # their statistics move before the fit, and values with them, the first time
            model.policy.update_return_statistics(rollout.returns)
        before = loss(model, rollout)
        model._train_critic(rollout)
        drops.append(1 - loss(model, rollout) / before)
    assert min(drops) >= 0 and sum(drop > 0.01 for drop in drops) >= 4


def loss(model: NaturalActorCritic, rollout: Any) -> float:
    with th.no_grad():
        return (model.policy.predict_values(rollout.observations).flatten() - rollout.returns).square().mean().item()


@pytest.mark.parametrize("normalize_returns", [False, True])
def test_one_gauss_newton_step_fits_a_linear_critic(normalize_returns: bool) -> None:
    """With next to no damping, it is the least-squares solution."""
    arguments = {
        **TINY,
        "policy_kwargs": {"net_arch": {"pi": [4], "vf": []}},
        "n_critic_updates": 1,
        "normalize_returns": normalize_returns,
    }
    model = make("acsgd", **arguments, critic_optimizer="gauss_newton", critic_damping=1e-6)
    collect(model)
    rollout = next(model.rollout_buffer.get())
    model._train_critic(rollout)
    design = th.cat([rollout.observations, th.ones(len(rollout.observations), 1)], dim=1).double()
    solution = th.linalg.lstsq(design, rollout.returns.double()[:, None]).solution
    residual = (design @ solution).flatten() - rollout.returns
    assert loss(model, rollout) == pytest.approx(residual.square().mean().item(), rel=1e-3)


def test_gauss_newton_leaves_the_actor_and_frozen_parameters_alone() -> None:
    model = make("smac", critic_optimizer="gauss_newton")
    frozen = model.policy.mlp_extractor.value_net[0].bias.requires_grad_(False)
    collect(model)
    before, theirs, still = vector(model.actor_parameters), vector(critic(model.policy)), frozen.clone()
    model._train_critic(next(model.rollout_buffer.get()))
    assert th.equal(vector(model.actor_parameters), before)
    assert th.equal(frozen, still) and not th.equal(vector(critic(model.policy)), theirs)


@pytest.mark.parametrize("policy, observation", [("CnnPolicy", "image"), ("MultiInputPolicy", "dict")])
def test_any_policy(policy: str, observation: str) -> None:
    """Convolutions and Dict observations take the general route through the critic's Jacobian."""
    from gymnasium import spaces

    from tests.algorithms import SampleEnv

    image = spaces.Box(0, 255, (3, 36, 36), "uint8")
    space = image if observation == "image" else spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})
    env = SampleEnv(space, spaces.Discrete(2))
    model = make("smac", env, policy, n_steps=8, critic_optimizer="gauss_newton", n_critic_updates=2)
    collect(model)
    rollout = next(model.rollout_buffer.get())
    before = loss(model, rollout)
    model._train_critic(rollout)
    assert loss(model, rollout) < before
