"""``predict`` acts by an average of the actor over the last updates; training does not see it."""

import copy
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_smac import NaturalActorCritic
from sb3_smac.common.averaging import acting_policy
from sb3_smac.common.checks import NonFiniteError
from sb3_smac.maths import flatten
from tests.algorithms import every_algorithm, is_same, make, reloaded, snapshot


class Actors(BaseCallback):
    """The actor as each update leaves it, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[th.Tensor] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model._n_updates:
            self.seen.append(flatten(self.model.actor_parameters).double())

    def _on_training_end(self) -> None:
        self._on_rollout_start()


def observations(model: NaturalActorCritic) -> np.ndarray:
    return np.stack([model.observation_space.sample() for _ in range(9)])


def acts_by(model: NaturalActorCritic, actor: th.Tensor) -> bool:
    """Whether ``predict`` gives the actions of the actor's parameters."""
    other, batch = copy.deepcopy(model.policy), observations(model)
    parameters = [dict(other.named_parameters())[name] for name in model._names[0]]
    for parameter, value in zip(parameters, actor.split([each.numel() for each in parameters]), strict=True):
        parameter.data.copy_(value.view_as(parameter))
    return np.allclose(model.predict(batch, deterministic=True)[0], other.predict(batch, deterministic=True)[0], atol=1e-5)


@every_algorithm
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_average(algo: str, share: float) -> None:
    """Its formula, in float64; with a share of 1, the mean of all updates."""
    actors = Actors()
    model = make(algo, averaging=share).learn(6 * 32, callback=actors)
    mean = actors.seen[0]
    for count, actor in enumerate(actors.seen):
        mean = mean + (actor - mean) / (1 + share * count)
    assert len(actors.seen) == 6 and acts_by(model, mean) and not acts_by(model, actors.seen[-1])
    if share == 1:
        assert th.allclose(mean, th.stack(actors.seen).mean(0))


@every_algorithm
def test_training_does_not_see_it(algo: str) -> None:
    """Not even if somebody predicts in the middle of a rollout."""

    class Predicts(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls % 7 == 0:
                self.model.predict(observations(self.model), deterministic=True)
            return True

    models = [make(algo, averaging=share).learn(4 * 32, callback=Predicts()) for share in (0, 0.5)]
    assert is_same(*(snapshot(model) for model in models))


@pytest.mark.parametrize(("algo", "default"), [("smac", 0), ("smac_full", 0.05), ("accg", 0), ("acsgd", 0), ("acadam", 0)])
def test_the_default(algo: str, default: float) -> None:
    model = make(algo).learn(3 * 32)
    same = make(algo, averaging=default).learn(3 * 32)
    batch = observations(model)
    assert np.array_equal(model.predict(batch, deterministic=True)[0], same.predict(batch, deterministic=True)[0])
    assert acts_by(model, flatten(model.actor_parameters)) == (default == 0)


def test_it_is_saved(tmp_path: Any) -> None:
    model = make("smac", averaging=0.3).learn(4 * 32)
    loaded, batch = reloaded(model, env=model.get_env()), observations(model)
    assert np.array_equal(model.predict(batch, deterministic=True)[0], loaded.predict(batch, deterministic=True)[0])
    for each in (model, loaded):  # and goes on
        each.set_random_seed(5)
        each._last_obs = None
        each.learn(2 * 32, reset_num_timesteps=False)
    assert is_same(vars(model._average), vars(loaded._average)) and loaded._average.count == 6


def test_loaded_without() -> None:
    model = make("smac", averaging=0.3).learn(4 * 32)
    assert acts_by(reloaded(model, averaging=0), flatten(model.actor_parameters))
    assert acts_by(reloaded(make("smac").learn(64), averaging=0.5), flatten(make("smac").learn(64).actor_parameters))


def test_an_actor_that_somebody_else_sets_acts() -> None:
    """And the next update begins a new average."""
    model, other = make("smac", averaging=0.5).learn(4 * 32), make("smac", seed=3).learn(32)
    model.set_parameters(other.get_parameters())
    assert acts_by(model, flatten(other.actor_parameters))
    model.learn(32)
    assert model._average.count == 1 and acts_by(model, flatten(model.actor_parameters))


def test_a_failed_update_leaves_it() -> None:
    model = make("smac", averaging=0.5).learn(4 * 32)
    before, batch = copy.deepcopy(vars(model._average)), observations(model)
    acted = model.predict(batch, deterministic=True)[0]
    with mock.patch.object(type(model), "actor_direction", lambda self, batch: batch.gradient * th.nan):
        with pytest.raises(NonFiniteError):
            model.learn(32)
    assert is_same(before, vars(model._average)) and np.array_equal(acted, model.predict(batch, deterministic=True)[0])


def test_drawn_actions_have_the_averages_mean_and_deviation() -> None:
    model = make("smac", averaging=0.5, policy_kwargs={"log_std_init": -6.0}).learn(4 * 32)
    batch = observations(model)
    drawn, mode = (model.predict(batch, deterministic=each)[0] for each in (False, True))
    assert not np.array_equal(drawn, mode) and np.abs(drawn - mode).max() < 0.05


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_policy_that_acts(share: float) -> None:
    """It can be taken out of the model, whose own policy is the actor before and after."""
    model = make("smac", averaging=share).learn(96)
    batch, actor = observations(model), flatten(model.actor_parameters).clone()
    with acting_policy(model) as policy:
        exported = copy.deepcopy(policy)
    actions = model.predict(batch, deterministic=True)[0]
    assert np.array_equal(exported.predict(batch, deterministic=True)[0], actions)
    assert np.array_equal(model.policy.predict(batch, deterministic=True)[0], actions) == (share == 0)
    assert th.equal(flatten(model.actor_parameters), actor)


def test_acting_gives_the_actor_back() -> None:
    """The same memory, also after an error."""
    model = make("smac", averaging=0.5).learn(3 * 32)
    memory, values = ([f(each) for each in model.policy.parameters()] for f in (th.Tensor.data_ptr, th.Tensor.clone))
    with pytest.raises(KeyError), model._average.acting(model):
        assert not is_same([*model.policy.parameters()], values)
        raise KeyError
    assert [each.data_ptr() for each in model.policy.parameters()] == memory and is_same([*model.policy.parameters()], values)


@every_algorithm
def test_a_frozen_actor(algo: str) -> None:
    """It trains its critic, and freezing changes nothing of how a model acts."""
    model = make(algo, averaging=0.5)
    for parameter in model.actor_parameters:
        parameter.requires_grad_(False)
    assert acts_by(model.learn(2 * 32), flatten(model.actor_parameters))
    model = make(algo, averaging=0.5).learn(3 * 32)
    batch = observations(model)
    acted = model.predict(batch, deterministic=True)[0]
    for parameter in model.policy.parameters():
        parameter.requires_grad_(False)
    assert np.array_equal(acted, model.predict(batch, deterministic=True)[0])


@pytest.mark.parametrize("final", [None, -2.0])
def test_loaded_with_a_deviation_that_is_learned(final: float | None) -> None:
    model = make("smac", averaging=0.5, final_log_std=final).learn(3 * 32)
    batch = observations(model)
    loaded = reloaded(model, final_log_std=None)
    assert np.array_equal(model.predict(batch, deterministic=True)[0], loaded.predict(batch, deterministic=True)[0])


def test_a_module_that_the_user_puts_in_acts_with_the_actor_it_is_put_into() -> None:
    model = make("smac", averaging=0.5).learn(3 * 32)
    model.policy = copy.deepcopy(model.policy)  # which is the same actor
    assert not acts_by(model, flatten(model.actor_parameters))
    model.policy.action_net = th.nn.Linear(8, 1)
    batch = observations(model)
    assert np.array_equal(model.predict(batch, deterministic=True)[0], model.policy.predict(batch, deterministic=True)[0])
