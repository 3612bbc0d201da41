"""The critic's Gauss–Newton steps, in whole updates. (Those of its optimizer: ``test_returns.py``.)"""

from typing import Any
from unittest import mock

import pytest
import torch as th
from gymnasium import spaces

from sb3_smac import SMAC, NaturalActorCritic, fast
from sb3_smac.common.critic import fit_critic
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.maths import GaussNewtonStep, gauss_newton_step
from tests.algorithms import SampleEnv, make
from tests.dense_reference import collect, critic, vector
from tests.own_policies import DICT, Residual


def loss(model: NaturalActorCritic, rollout: Any) -> float:
    with th.no_grad():
        return (model.policy.predict_values(rollout.observations).flatten() - rollout.returns).square().mean().item()


def fit(model: NaturalActorCritic) -> tuple[Any, float, float]:
    """As an update fits the critic of a policy that was trained before: its rollout, the loss before and after."""
    collect(model)
    rollout = next(model.rollout_buffer.get())
    before = loss(model, rollout)
    fit_critic(model, Evaluator(model.policy), rollout, is_untrained=False)
    return rollout, before, loss(model, rollout)


CASES: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "box": ("Pendulum-v1", "MlpPolicy", {}),
    "discrete": ("CartPole-v1", "MlpPolicy", {}),
    "image": (SampleEnv(spaces.Box(0, 255, (3, 36, 36), "uint8"), spaces.Discrete(2)), "CnnPolicy", {}),
    "dict": (SampleEnv(DICT, spaces.Discrete(2)), "MultiInputPolicy", {}),
    # a module of unknown kind: sums of its scores take backward passes
    "own_extractor": ("Pendulum-v1", "MlpPolicy", {"features_extractor_class": Residual}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("damping", [1e-3, 1e-9])
def test_gauss_newton_never_raises_the_loss(case: str, damping: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of the whole rollout, at each of many updates; and it lowers it most of the time. With next to no damping first steps raise
    it; the next try has the scores of the parameters before it.
    """
    dampings = []

    def step(*arguments: Any) -> GaussNewtonStep:
        outcome = gauss_newton_step(*arguments)
        dampings.append(outcome.damping)
        return outcome

    monkeypatch.setattr("sb3_smac.common.critic.gauss_newton_step", step)
    env, policy, kwargs = CASES[case]
    arguments = {"critic_optimizer": "gauss_newton", "critic_damping": damping, "policy_kwargs": {"net_arch": [8], **kwargs}}
    model = make("smac", env, policy, **arguments)
    drops = []
    for _ in range(5):
        _, before, after = fit(model)
        drops.append(1 - after / before)
    assert min(drops) >= -1e-6
    assert sum(drop > 0.01 for drop in drops) >= 3 if damping == 1e-3 else max(dampings) > 1e-8


@pytest.mark.parametrize("normalize_returns", [False, True])
def test_one_gauss_newton_step_fits_a_linear_critic(normalize_returns: bool) -> None:
    """With next to no damping, it is the least-squares solution."""
    arguments = {"critic_optimizer": "gauss_newton", "critic_damping": 1e-5, "n_critic_updates": 1}
    policy_kwargs = {"net_arch": {"pi": [4], "vf": []}}
    model = make("acsgd", normalize_returns=normalize_returns, policy_kwargs=policy_kwargs, **arguments)
    rollout, _, after = fit(model)
    design = th.cat([rollout.observations, th.ones(len(rollout.observations), 1)], dim=1).double()
    solution = th.linalg.lstsq(design, rollout.returns.double()[:, None]).solution
    residual = (design @ solution).flatten() - rollout.returns
    assert after == pytest.approx(residual.square().mean().item(), rel=1e-3)


def test_gauss_newton_leaves_the_actor_and_frozen_parameters_alone() -> None:
    model = make("smac", critic_optimizer="gauss_newton")
    frozen = model.policy.mlp_extractor.value_net[0].bias.requires_grad_(False)
    before, theirs, still = vector(model.actor_parameters), vector(critic(model.policy)), frozen.clone()
    fit(model)
    assert th.equal(vector(model.actor_parameters), before)
    assert th.equal(frozen, still) and not th.equal(vector(critic(model.policy)), theirs)


def test_an_optimizer_that_replaces_its_parameters_memory() -> None:
    """Its gradients are those of the parameters as they are now, with and without the written-out ones."""

    class Replacing(th.optim.SGD):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data = parameter.data - 0.01 * parameter.grad

    def learned() -> SMAC:
        policy_kwargs = {"optimizer_class": Replacing}
        return SMAC("MlpPolicy", "Pendulum-v1", n_steps=256, policy_kwargs=policy_kwargs, seed=0, device="cpu").learn(256)

    found = learned().policy.value_net.weight
    with mock.patch.object(fast, "enabled", False):
        th.testing.assert_close(found, learned().policy.value_net.weight, rtol=1e-3, atol=1e-5)
