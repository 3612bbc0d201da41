"""A policy is trained by the method that agrees with how it acts; where none does, training says so."""

import math
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_smac import SMAC
from sb3_smac.common.evaluation import Evaluation, Evaluator, agreeing_evaluator, is_same_log_prob, is_same_value
from sb3_smac.common.policies import MlpPolicy
from sb3_smac.maths import flatten
from tests.algorithms import SampleEnv, every_algorithm, is_finite, make, snapshot
from tests.dense_reference import behaviour, collect, evaluate, every_space, kl, make_model, transitions

BOX = spaces.Box(-1.0, 1.0, (3,))


class Doubled(MlpPolicy):
    """Acts and is evaluated with means twice as far out; ``get_distribution`` does not know."""

    value_factor = 1

    def _twice(self, obs: th.Tensor) -> tuple[Any, th.Tensor]:
        distribution = super().get_distribution(obs)
        distribution.proba_distribution(2 * distribution.distribution.mean, self.log_std)
        return distribution, self.value_factor * super().predict_values(obs)

    def forward(self, obs: th.Tensor, deterministic: bool = False) -> Any:
        distribution, values = self._twice(obs)
        actions = distribution.get_actions(deterministic=deterministic)
        return actions, values, distribution.log_prob(actions)

    def evaluate_actions(self, obs: th.Tensor, actions: th.Tensor) -> Any:
        distribution, values = self._twice(obs)
        return values, distribution.log_prob(actions), distribution.entropy()


class DoubledValues(Doubled):
    """And values twice as large, of which ``predict_values`` does not know."""

    value_factor = 2


class ActsAlone(Doubled):
    """Nothing but ``forward`` knows what it does."""

    def evaluate_actions(self, obs: th.Tensor, actions: th.Tensor) -> Any:
        return MlpPolicy.evaluate_actions(self, obs, actions)


def sample_model(algo: str, policy: Any, **arguments: Any) -> Any:
    env = make_vec_env(lambda: SampleEnv(BOX, spaces.Box(-1, 1, (2,))), n_envs=2)
    return make(algo, env, policy, **{"policy_kwargs": {"net_arch": [8], "ortho_init": False}, **arguments})


def evaluator_of(model: Any) -> Evaluator:
    collect(model)
    return agreeing_evaluator(model.policy, next(model.rollout_buffer.get()))[0]


def test_which_methods_are_asked() -> None:
    for policy, expected in (("MlpPolicy", (True, True)), (Doubled, (False, True)), (DoubledValues, (False, False))):
        evaluator = evaluator_of(sample_model("smac", policy))
        assert (evaluator.by_distribution, evaluator.by_values) == expected


@every_algorithm
@pytest.mark.parametrize("target_kl", [None, 0.02])
def test_what_acts_is_what_is_trained(algo: str, target_kl: float | None) -> None:
    """The same step as that of a policy whose every method knows."""

    class Knows(Doubled):
        def get_distribution(self, obs: Any) -> Any:
            return self._twice(obs)[0]

    steps = []
    for policy in (Doubled, Knows):
        # AC-CG has no expectation of the one's Fisher matrix: with much damping the direction is the gradient
        damping = {"damping": 1e6, "learning_rate": 1e5} if algo == "accg" else {"learning_rate": 0.01}
        model = sample_model(algo, policy, target_kl=target_kl, normalize_returns=False, n_steps=16, **damping)
        start = flatten(model.actor_parameters)
        model.learn(32)
        assert is_finite(model)
        steps.append(flatten(model.actor_parameters) - start)
    assert th.nn.functional.cosine_similarity(*steps, dim=0) > 0.999
    assert steps[0].norm().item() == pytest.approx(steps[1].norm().item(), rel=1e-3 if target_kl is None else 0.3)


@every_algorithm
def test_what_nobody_can_train_is_refused(algo: str) -> None:
    model = sample_model(algo, ActsAlone)
    before = snapshot(model)["policy"]
    message = "policy ActsAlone: neither ActsAlone.get_distribution nor ActsAlone.evaluate_actions gives the log-prob"
    with pytest.raises(ValueError, match=message):
        model.learn(64)
    assert all(th.equal(value, model.policy.state_dict()[name]) for name, value in before.items())


@every_algorithm
def test_a_policy_that_was_changed_after_it_acted_is_trained_as_it_is(algo: str) -> None:
    """With a warning: the rollout's log-probabilities are not its own."""

    class Change(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.policy.action_net.bias.data += 0.5

    model = sample_model(algo, "MlpPolicy", target_kl=0.01, normalize_observations=False)
    with pytest.warns(UserWarning, match="no longer those of the policy"):
        model.learn(64, callback=Change())
    assert 0 < model.logger.name_to_value["train/approx_kl"] < 0.02


@every_space
def test_the_divergence_is_the_policys(space: str) -> None:
    """Of the distributions in closed form; from log-probabilities alone an estimate, which is never negative."""
    model = make_model(SMAC, space, n_steps=500)
    collect(model)
    policy, rollout = model.policy, transitions(model)
    evaluator = Evaluator(policy)
    old, before = evaluator.as_it_acts(rollout.observations, rollout.actions), behaviour(policy, rollout.observations)
    with th.no_grad():
        for parameter in model.actor_parameters:
            parameter.add_(0.02 * th.randn_like(parameter))
    new = evaluator.as_it_acts(rollout.observations, rollout.actions)
    real = kl(before, behaviour(policy, rollout.observations))
    assert real > 1e-5
    if space != "squashed_gsde":
        assert old.kl(new) == pytest.approx(real, rel=1e-6)
    if "gsde" not in space:  # whose few noise matrices are no sample of this size
        by_samples = Evaluation(old.log_prob, None, None).kl(Evaluation(new.log_prob, None, None))
        assert by_samples == pytest.approx(real, rel=0.5)
    assert old.kl(old) == pytest.approx(0, abs=1e-12) and math.isnan(old.kl(None))
    for log_prob in (old.log_prob - 1, old.log_prob + 1, old.log_prob + th.randn(len(old.log_prob))):
        assert Evaluation(old.log_prob, None, None).kl(Evaluation(log_prob, None, None)) > 0


@every_space
def test_entropy_without_a_formula_is_estimated_from_the_actions(space: str) -> None:
    model = make_model(SMAC, space)
    collect(model)
    rollout = transitions(model)
    evaluation = Evaluator(model.policy).evaluate(rollout.observations, rollout.actions)
    log_prob, entropy = evaluate(model.policy, rollout.observations, rollout.actions)
    assert evaluation.log_prob.tolist() == pytest.approx(log_prob.tolist())
    assert evaluation.mean_entropy.item() == pytest.approx(entropy.mean().item())


def test_what_is_the_same_but_for_rounding() -> None:
    """Each log-probability relative to its own size, values relative to the largest; infinities only to themselves."""
    numbers = th.tensor([1.0, -300.0, 1e-3])
    assert is_same_log_prob(numbers, numbers + th.tensor([5e-4, 0.2, 5e-4]))
    assert not is_same_log_prob(numbers, numbers + th.tensor([2e-3, 0.0, 0.0]))
    assert is_same_log_prob(th.tensor([-math.inf]), th.tensor([-math.inf]))
    assert not is_same_log_prob(th.tensor([-math.inf]), th.tensor([0.0]))
    assert not is_same_log_prob(th.tensor([math.nan]), th.tensor([0.0]))
    assert is_same_value(numbers, numbers + th.tensor([0.2, 0.2, 0.2]))
    assert not is_same_value(numbers, numbers + th.tensor([0.0, 0.0, 0.4]))
