"""A policy is trained by the method that agrees with how it acts; where none does, training says so."""

import math
from typing import Any

import pytest
import torch as th
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_smac import SMAC
from sb3_smac.common.evaluation import Evaluation, Evaluator, agreeing_evaluator, is_same_log_prob, is_same_value
from sb3_smac.common.policies import MlpPolicy
from tests.algorithms import make
from tests.dense_reference import behaviour, collect, evaluate, every_space, kl, make_model, transitions
from tests.own_policies import DISCRETE, ForwardOnly, OwnValues, Temperature, ValuesOfForwardOnly


def acted(policy: type[ActorCriticPolicy]) -> tuple[ActorCriticPolicy, Any]:
    """A policy and its rollout."""
    model = make("smac", DISCRETE(), policy)
    collect(model)
    return model.policy, next(model.rollout_buffer.get())


@pytest.mark.parametrize(
    ("policy", "expected"), [(MlpPolicy, (True, True)), (Temperature, (False, True)), (OwnValues, (False, False))]
)
def test_which_methods_are_asked(policy: type[ActorCriticPolicy], expected: tuple[bool, bool]) -> None:
    acting, rollout = acted(policy)
    evaluator, evaluation = agreeing_evaluator(acting, rollout)
    assert (evaluator.by_distribution, evaluator.by_values) == expected
    assert is_same_log_prob(evaluation.log_prob, rollout.old_log_prob)


@pytest.mark.parametrize("policy", [ForwardOnly, ValuesOfForwardOnly])
def test_what_nobody_can_train_is_refused(policy: type[ActorCriticPolicy]) -> None:
    name = policy.__name__
    with pytest.raises(ValueError, match=f"policy {name}: neither {name}.get_distribution nor {name}.evaluate_actions gives"):
        agreeing_evaluator(*acted(policy))


def test_a_policy_that_was_changed_after_it_acted_is_taken_as_it_is() -> None:
    """With a warning: the rollout's log-probabilities are not its own."""
    policy, rollout = acted(MlpPolicy)
    policy.action_net.bias.data += th.tensor([0.5, 0.0, 0.0])
    with pytest.warns(UserWarning, match="no longer those of the policy"):
        evaluator, evaluation = agreeing_evaluator(policy, rollout)
    assert (evaluator.by_distribution, evaluator.by_values) == (True, True)
    log_prob = policy.evaluate_actions(rollout.observations, rollout.actions.flatten())[1]
    assert is_same_log_prob(evaluation.log_prob, log_prob) and not is_same_log_prob(log_prob, rollout.old_log_prob)


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
