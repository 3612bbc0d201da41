"""After an update the policy is the one that the update measured: its statistics included."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import NaturalActorCritic
from sb3_smac.common.evaluation import Evaluation
from sb3_smac.common.trust_region import frozen, mean_kl
from tests.algorithms import NormalEnv, every_algorithm, is_finite, is_same, make
from tests.own_policies import CASES

TARGET = 0.02
STEPS = 32


class Drifting(NormalEnv):
    """
    Observations whose offset and scale are the test's to change; a reward for following the first one.

    :param discrete: whether actions are
    """

    def __init__(self, discrete: bool = False) -> None:
        action_space = spaces.Discrete(3) if discrete else spaces.Box(-1, 1, (2,))
        super().__init__(action_space, np.zeros(3), np.ones(3))

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return (self.observation(), float(np.ravel(action)[0]), self.steps % 10 == 0, False, {})


DRIFTS: dict[str, tuple[Any, Any]] = {
    "none": (0.0, 1.0),
    "offset": (5.0, 1.0),
    "large offset": (1e6, 1.0),
    "scale": (0.0, 5.0),
    "large scale": (0.0, 1e4),
    "small scale": (0.0, 1e-4),
    "one dimension": ([0.0, 100.0, 0.0], [1.0, 30.0, 1.0]),
    "constant": (2.0, 0.0),
}


def drift(model: NaturalActorCritic, name: str) -> None:
    """Change what the environment shows, from its next observation on."""
    offset, scale = DRIFTS[name]
    (env,) = model.get_env().envs  # type: ignore[union-attr]
    env.unwrapped.offset, env.unwrapped.scale = np.ones(3) * offset, np.ones(3) * scale


def build(algo: str, discrete: bool = False, **arguments: Any) -> NaturalActorCritic:
    return make(algo, Drifting(discrete), **{"n_steps": STEPS, "target_kl": TARGET, **arguments})


@th.no_grad()
def distribution_of(model: NaturalActorCritic, observations: th.Tensor) -> Distribution:
    """What the policy does, in evaluation mode."""
    model.policy.set_training_mode(False)
    return frozen(model.policy.get_distribution(observations))


class Measure(BaseCallback):
    """What each update logs as its KL divergence, and what it was, measured on the rollout that it was made of."""

    def _init_callback(self) -> None:
        self.logged: list[float] = []
        self.measured: list[float] = []
        self._train = self.model.train
        self.model.train = self._measured  # type: ignore[method-assign]

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        del self.model.train

    def _measured(self) -> None:
        model = self.model
        observations = th.as_tensor(model.rollout_buffer.observations).reshape(-1, *model.observation_space.shape)
        before = distribution_of(model, observations)
        self._train()
        after = distribution_of(model, observations)
        self.measured.append(mean_kl(before, after).item())
        self.logged.append(model.logger.name_to_value["train/approx_kl"])


@every_algorithm
@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("change", DRIFTS)
def test_the_divergence_that_is_logged_is_the_one_of_the_update(algo: str, discrete: bool, change: str) -> None:
    """Also when a trained policy gets to see something else; and it is that of the actor's step."""
    model = build(algo, discrete)
    first, then = Measure(), Measure()
    model.learn(4 * STEPS, callback=first)
    assert np.allclose(first.measured, first.logged, rtol=1e-3, atol=1e-5)
    drift(model, change)
    model.learn(4 * STEPS, callback=then, reset_num_timesteps=False)
    assert np.allclose(then.measured, then.logged, rtol=1e-3, atol=1e-5)
    assert max([*first.measured[1:], *then.measured]) <= 2.5 * TARGET
    assert is_finite(model)


@every_algorithm
@pytest.mark.parametrize("change", ["offset", "scale", "one dimension", "small scale"])
def test_a_policy_that_was_trained_on_other_statistics(algo: str, change: str) -> None:
    """Its parameters in a new model, whose own first update is then no first one: nothing is forgotten."""
    trained = build(algo).learn(4 * STEPS)
    with th.no_grad():
        for parameter in trained.policy.parameters():
            parameter.mul_(2)  # much is learned
    model = build(algo)
    model.policy.load_state_dict(trained.policy.state_dict())
    drift(model, change)
    model.env.reset()  # type: ignore[union-attr]
    measure = Measure()
    model.learn(3 * STEPS, callback=measure)
    assert np.allclose(measure.measured, measure.logged, rtol=1e-3, atol=1e-5)
    assert max(measure.measured) <= 2.5 * TARGET


@every_algorithm
@pytest.mark.parametrize(
    ("change", "limit"),
    # Observations beyond ten deviations were clipped: nothing is known there but what the policy does at the limit
    [("none", 1e-5), ("offset", 1e-4), ("scale", 1e-4), ("one dimension", TARGET)],
)
def test_without_a_step_nothing_moves(algo: str, change: str, limit: float) -> None:
    """At a step size of 0 a trained policy keeps its function, where it was before, too."""
    model = build(algo).learn(3 * STEPS)
    model.target_kl, model.learning_rate = None, 0.0
    drift(model, change)
    observations = th.as_tensor(np.random.default_rng(0).normal(size=(50, 3)), dtype=th.float32)
    before = distribution_of(model, observations)
    model.learn(5 * STEPS, reset_num_timesteps=False)
    assert mean_kl(before, distribution_of(model, observations)).item() < limit
    assert model.logger.name_to_value["train/approx_kl"] < 1e-5


@every_algorithm
def test_statistics_are_learned(algo: str) -> None:
    """They do not stay behind: after many updates they are those of what was seen."""
    model = build(algo)
    (env,) = model.get_env().envs  # type: ignore[union-attr]
    env.unwrapped.offset = np.array([3.0, -2.0, 0.0])
    env.unwrapped.scale = np.array([2.0, 1.0, 0.1])
    model.env.reset()  # type: ignore[union-attr]
    model._last_obs = None
    model.learn(8 * STEPS)
    normalizer = model.policy.observation_normalizer
    assert normalizer.count == 8 * STEPS
    assert np.allclose(normalizer.mean, [3.0, -2.0, 0.0], atol=0.5)
    assert np.allclose(normalizer.std, [2.0, 1.0, 0.1], rtol=0.25)


OWN = [name for name, case in CASES.items() if case.policy not in ("CnnPolicy",) and case.is_deterministic]


@pytest.mark.parametrize("algo", ["smac", "smac_full", "accg"])
@pytest.mark.parametrize("case", OWN)
def test_any_policy(algo: str, case: str) -> None:
    """By the log-probabilities that it acts by, whatever lies between observations and actions."""
    chosen = CASES[case]
    arguments = {"n_steps": STEPS, "target_kl": TARGET, **chosen.arguments}
    model = make(algo, DummyVecEnv([chosen.env]), chosen.policy, policy_kwargs={"net_arch": [8], **chosen.kwargs}, **arguments)
    model.learn(2 * STEPS)
    normalizer = getattr(model.policy, "observation_normalizer", None)
    if hasattr(normalizer, "mean"):  # statistics of somewhere else
        with th.no_grad():
            normalizer.mean.sub_(2.0)
            normalizer.var.mul_(4.0)
    train = model.train
    observed: list[float] = []

    def measured() -> None:
        rollout = next(copy.deepcopy(model.rollout_buffer).get())
        actions = rollout.actions.long().flatten() if isinstance(model.action_space, spaces.Discrete) else rollout.actions
        train()
        model.policy.set_training_mode(False)
        with th.no_grad():
            _, log_prob, _ = model.policy.evaluate_actions(rollout.observations, actions)
        before, after = (Evaluation(value, None, None) for value in (rollout.old_log_prob, log_prob))
        observed.append(before.kl(after))

    model.train = measured  # type: ignore[method-assign]
    model.learn(2 * STEPS, reset_num_timesteps=False)
    assert max(observed) < 5 * TARGET  # of a few actions: an estimate
    assert model.logger.name_to_value["train/approx_kl"] < 2.5 * TARGET


@every_algorithm
@pytest.mark.parametrize("frozen_part", ["actor", "first layer", "critic"])
def test_what_is_frozen_is_not_made_to_make_up(algo: str, frozen_part: str) -> None:
    """Frozen parameters stay to the bit, and the policy stays what it is all the same."""
    model = build(algo).learn(3 * STEPS)
    parameters = {
        "actor": model.actor_parameters,
        "first layer": list(model.policy.mlp_extractor.policy_net[0].parameters()),
        "critic": model.critic_parameters,
    }[frozen_part]
    for parameter in parameters:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in parameters]
    drift(model, "one dimension")
    measure = Measure()
    model.learn(3 * STEPS, callback=measure, reset_num_timesteps=False)
    assert is_same(before, parameters)
    assert np.allclose(measure.measured, measure.logged, rtol=1e-3, atol=1e-5)
    assert max(measure.measured) <= (1e-4 if frozen_part == "actor" else 2.5 * TARGET)


@every_algorithm
def test_a_dimension_that_was_constant(algo: str) -> None:
    """It has taught nothing, and when it begins to vary it does not throw the policy over."""
    model = build(algo)
    (env,) = model.get_env().envs  # type: ignore[union-attr]
    env.unwrapped.scale = np.array([1.0, 0.0, 1.0])
    model.env.reset()  # type: ignore[union-attr]
    model._last_obs = None
    model.learn(4 * STEPS)
    env.unwrapped.scale = np.ones(3)
    measure = Measure()
    model.learn(6 * STEPS, callback=measure, reset_num_timesteps=False)
    assert np.allclose(measure.measured, measure.logged, rtol=1e-3, atol=1e-5)
    assert max(measure.measured) <= 2.5 * TARGET


@every_algorithm
def test_values_do_not_move_either(algo: str) -> None:
    """With a critic that does not learn, values stay while statistics of observations and returns change."""
    model = build(algo).learn(3 * STEPS)
    model.critic_learning_rate, model.target_kl, model.learning_rate = 0.0, None, 0.0
    drift(model, "offset")
    observations = th.as_tensor(np.random.default_rng(0).normal(size=(50, 3)), dtype=th.float32)
    before = model.policy.predict_values(observations).detach()
    model.learn(3 * STEPS, reset_num_timesteps=False)
    after = model.policy.predict_values(observations).detach()
    assert th.allclose(before, after, rtol=1e-3, atol=1e-3 * float(before.abs().max()))


@every_algorithm
def test_adams_moments_follow_the_folded_layers(algo: str) -> None:
    """After a fold training goes on without a jump: the next steps have the size that they are meant to have."""
    model = build(algo, target_kl=None, learning_rate=1e-3).learn(4 * STEPS)
    drift(model, "scale")
    measure = Measure()
    model.learn(6 * STEPS, callback=measure, reset_num_timesteps=False)
    assert max(measure.measured) < 0.05
