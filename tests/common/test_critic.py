"""The critic's two ways of fitting, in whole updates."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import FakeImageEnv
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_smac import SMAC, NaturalActorCritic
from sb3_smac.common.critic import fit_critic
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.maths import GaussNewtonStep, gauss_newton_step
from tests.algorithms import TINY, SampleEnv, every_algorithm, make
from tests.dense_reference import collect, critic, vector


def fit(model: NaturalActorCritic, rollout: Any) -> None:
    """As an update fits the critic of a policy that has been trained before."""
    fit_critic(model, Evaluator(model.policy), rollout, is_untrained=False)


@every_algorithm
@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_gauss_newton_never_raises_the_loss(algo: str, env: str) -> None:
    """Of the whole rollout, at each of many updates; and it lowers it most of the time."""
    model = make(algo, env, critic_optimizer="gauss_newton", critic_damping=1e-3)
    drops = []
    for _ in range(6):
        collect(model)
        rollout = next(model.rollout_buffer.get())
        before = loss(model, rollout)
        fit(model, rollout)
        drops.append(1 - loss(model, rollout) / before)
    assert min(drops) >= 0 and sum(drop > 0.01 for drop in drops) >= 4


class Extractor(BaseFeaturesExtractor):
    """A module of unknown kind: sums of its scores take backward passes."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space, 8)
        self.layer = nn.Linear(3, 8)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layer(observations).tanh()


@pytest.mark.parametrize(
    ("policy", "env", "policy_kwargs"),
    [
        ("CnnPolicy", partial(FakeImageEnv, screen_height=36, screen_width=36), None),
        ("MlpPolicy", partial(gym.make, "Pendulum-v1"), {"features_extractor_class": Extractor}),
    ],
    ids=["cnn", "own_extractor"],
)
def test_gauss_newton_steps_that_are_not_taken(
    policy: str, env: Callable[[], gym.Env], policy_kwargs: dict | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With next to no damping first steps raise the loss; the next try has the scores of the parameters before it."""
    model = SMAC(
        policy, env(), n_steps=50, critic_optimizer="gauss_newton", critic_damping=1e-9, policy_kwargs=policy_kwargs, seed=0
    )
    dampings = []

    def step(*arguments: Any) -> GaussNewtonStep:
        outcome = gauss_newton_step(*arguments)
        dampings.append(outcome.damping)
        return outcome

    monkeypatch.setattr("sb3_smac.common.critic.gauss_newton_step", step)
    for _ in range(4):
        collect(model)
        rollout = next(model.rollout_buffer.get())
        before = loss(model, rollout)
        fit(model, rollout)
        assert loss(model, rollout) <= before * (1 + 1e-6)
    assert max(dampings) > 1e-8


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
    model = make("acsgd", **arguments, critic_optimizer="gauss_newton", critic_damping=1e-5)
    collect(model)
    rollout = next(model.rollout_buffer.get())
    fit(model, rollout)
    design = th.cat([rollout.observations, th.ones(len(rollout.observations), 1)], dim=1).double()
    solution = th.linalg.lstsq(design, rollout.returns.double()[:, None]).solution
    residual = (design @ solution).flatten() - rollout.returns
    assert loss(model, rollout) == pytest.approx(residual.square().mean().item(), rel=1e-3)


def test_gauss_newton_leaves_the_actor_and_frozen_parameters_alone() -> None:
    model = make("smac", critic_optimizer="gauss_newton")
    frozen = model.policy.mlp_extractor.value_net[0].bias.requires_grad_(False)
    collect(model)
    before, theirs, still = vector(model.actor_parameters), vector(critic(model.policy)), frozen.clone()
    fit(model, next(model.rollout_buffer.get()))
    assert th.equal(vector(model.actor_parameters), before)
    assert th.equal(frozen, still) and not th.equal(vector(critic(model.policy)), theirs)


@pytest.mark.parametrize("policy, observation", [("CnnPolicy", "image"), ("MultiInputPolicy", "dict")])
def test_any_policy(policy: str, observation: str) -> None:
    """Convolutions and Dict observations take the general route through the critic's Jacobian."""
    image = spaces.Box(0, 255, (3, 36, 36), "uint8")
    space = image if observation == "image" else spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)})
    env = SampleEnv(space, spaces.Discrete(2))
    model = make("smac", env, policy, n_steps=8, critic_optimizer="gauss_newton", n_critic_updates=2)
    collect(model)
    rollout = next(model.rollout_buffer.get())
    before = loss(model, rollout)
    fit(model, rollout)
    assert loss(model, rollout) < before
