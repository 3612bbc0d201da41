"""After an update the policy is the one that the update measured: its statistics included."""

from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution

from sb3_smac import NaturalActorCritic
from sb3_smac.common.trust_region import frozen, mean_kl
from tests.algorithms import ACTION_SPACES, NormalEnv, first_entry, is_finite, is_same, make

TARGET = 0.02
STEPS = 32
# Offset and scale of what the environment shows from then on
DRIFTS: dict[str, tuple[Any, Any]] = {
    "none": (0.0, 1.0),
    "offset": (5.0, 1.0),
    "large offset": (1e6, 1.0),
    "scale": (0.0, 5.0),
    "large scale": (0.0, 1e4),
    "small scale": (0.0, 1e-4),
    "one dimension": (np.array([0.0, 100.0, 0.0]), np.array([1.0, 30.0, 1.0])),
    "constant": (2.0, 0.0),
}


def show(model: NaturalActorCritic, offset: Any = 0.0, scale: Any = 1.0) -> None:
    """Change the environment's observations from its next one on."""
    (env,) = model.get_env().envs  # type: ignore[union-attr]
    env.unwrapped.offset, env.unwrapped.scale = offset, scale


def build(algo: str = "smac", space: str = "Box", **arguments: Any) -> NaturalActorCritic:
    return make(algo, NormalEnv(ACTION_SPACES[space], first_entry), **{"n_steps": STEPS, "target_kl": TARGET, **arguments})


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
        self.measured.append(mean_kl(before, distribution_of(model, observations)).item())
        self.logged.append(model.logger.name_to_value["train/approx_kl"])


def measured(model: NaturalActorCritic, n_updates: int) -> list[float]:
    """KL divergences of the next updates, each of which is what is logged."""
    measure = Measure()
    model.learn(n_updates * STEPS, callback=measure, reset_num_timesteps=False)
    assert np.allclose(measure.measured, measure.logged, rtol=1e-3, atol=1e-5)
    return measure.measured


@pytest.mark.parametrize(
    ("algo", "space", "change"), [*[("smac", "Box", change) for change in DRIFTS], ("accg", "Discrete", "offset")]
)
def test_the_divergence_that_is_logged_is_the_one_of_the_update(algo: str, space: str, change: str) -> None:
    """Also when a trained policy gets to see something else; and it is that of the actor's step."""
    model = build(algo, space)
    first = measured(model, 4)
    show(model, *DRIFTS[change])
    assert max([*first[1:], *measured(model, 4)]) <= 2.5 * TARGET
    assert is_finite(model)


@pytest.mark.parametrize("change", ["offset", "one dimension", "small scale"])
def test_a_policy_that_was_trained_on_other_statistics(change: str) -> None:
    """Its parameters in a new model, whose own first update is then no first one: nothing is forgotten."""
    trained = build().learn(4 * STEPS)
    with th.no_grad():
        for parameter in trained.policy.parameters():
            parameter.mul_(2)  # much is learned
    model = build()
    model.policy.load_state_dict(trained.policy.state_dict())
    show(model, *DRIFTS[change])
    assert max(measured(model, 3)) <= 2.5 * TARGET


@pytest.mark.parametrize(
    ("change", "limit"),
    # Observations beyond ten deviations were clipped: nothing is known there but what the policy does at the limit
    [("none", 1e-5), ("offset", 1e-4), ("scale", 1e-4), ("one dimension", TARGET)],
)
def test_without_a_step_nothing_moves(change: str, limit: float) -> None:
    """At step sizes of 0 a trained policy keeps its actions, and its values, where it was before, too."""
    model = build().learn(3 * STEPS)
    model.target_kl, model.learning_rate, model.critic_learning_rate = None, 0.0, 0.0
    show(model, *DRIFTS[change])
    observations = th.as_tensor(np.random.default_rng(0).normal(size=(50, 3)), dtype=th.float32)
    before, values = distribution_of(model, observations), model.policy.predict_values(observations).detach()
    model.learn(5 * STEPS, reset_num_timesteps=False)
    assert mean_kl(before, distribution_of(model, observations)).item() < limit
    assert model.logger.name_to_value["train/approx_kl"] < 1e-5
    if change != "one dimension":
        now = model.policy.predict_values(observations).detach()
        assert th.allclose(values, now, rtol=1e-3, atol=1e-3 * float(values.abs().max()))


def test_statistics_are_learned() -> None:
    """They do not stay behind: after many updates they are those of what was seen."""
    model = build()
    offset, scale = np.array([3.0, -2.0, 0.0]), np.array([2.0, 1.0, 0.1])
    show(model, offset, scale)
    model.learn(8 * STEPS)
    normalizer = model.policy.observation_normalizer
    assert normalizer.count == 8 * STEPS
    assert np.allclose(normalizer.mean, offset, atol=0.5)
    assert np.allclose(normalizer.std, scale, rtol=0.25)


@pytest.mark.parametrize("part", ["actor", "first layer", "critic"])
def test_what_is_frozen_is_not_made_to_make_up(part: str) -> None:
    """Frozen parameters stay to the bit, and the policy stays what it is all the same."""
    model = build().learn(3 * STEPS)
    first_layer = model.policy.mlp_extractor.policy_net[0].parameters()
    parameters = {"actor": model.actor_parameters, "first layer": list(first_layer), "critic": model.critic_parameters}[part]
    for parameter in parameters:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in parameters]
    show(model, *DRIFTS["one dimension"])
    assert max(measured(model, 3)) <= (1e-4 if part == "actor" else 2.5 * TARGET)
    assert is_same(before, parameters)


def test_a_dimension_that_was_constant() -> None:
    """It has taught nothing, and when it begins to vary it does not throw the policy over."""
    model = build()
    show(model, scale=np.array([1.0, 0.0, 1.0]))
    model.env.reset()  # type: ignore[union-attr]
    model.learn(4 * STEPS)
    show(model)
    assert max(measured(model, 6)) <= 2.5 * TARGET


def test_adams_moments_follow_the_folded_layers() -> None:
    """After a fold training goes on without a jump: the next steps have the size that they are meant to have."""
    model = build("acadam", target_kl=None, learning_rate=1e-3).learn(4 * STEPS)
    show(model, *DRIFTS["scale"])
    assert max(measured(model, 6)) < 0.05
