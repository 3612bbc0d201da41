"""A setting is read when it is used, and a schedule never leaves its range."""

import inspect
import io
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import SMAC, NaturalActorCritic
from tests.algorithms import TABLE, every_algorithm, is_finite, is_same, make, snapshot

STEPS = 16


class Fixed(gym.Env):
    """Observations and rewards that depend on nothing but the step: a policy's rollouts can be made again."""

    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (2,))

    def __init__(self) -> None:
        self.steps = 0

    def _observation(self) -> np.ndarray:
        return np.sin(self.steps * np.array([1.0, 1.7, 2.9])).astype(np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return (self._observation(), float(action[0] * self._observation()[0]), False, self.steps % 7 == 0, {})


# Each argument with a value that changes what an update does, and what makes it count
CHANGED: dict[str, Any] = {
    "learning_rate": 0.003,
    "batch_size": 5,
    "target_kl": 0.002,
    "line_search": True,
    "critic_learning_rate": 0.03,
    "critic_optimizer": "gauss_newton",
    "critic_damping": 3.0,
    "n_critic_updates": 5,
    "critic_batch_size": 3,
    "critic_target": "monte_carlo",
    "ent_coef": 0.3,
    "max_grad_norm": 0.01,
    "normalize_advantage": False,
    "damping": 0.017,
    "fisher_rank": 2,
    "cg_max_steps": 1,
    "cg_tolerance": 0.9,
    # of the rollout
    "gamma": 0.3,
    "gae_lambda": 0.2,
    "n_steps": 9,
    "sde_sample_freq": 2,
}
NEEDS: dict[str, dict[str, Any]] = {
    "learning_rate": {"target_kl": None},
    "max_grad_norm": {"target_kl": None},
    "fisher_rank": {"policy_kwargs": {"log_std_init": 0.0}},  # what the whole batch's starts with is the policy's
    "critic_damping": {"critic_optimizer": "gauss_newton"},
    "critic_target": {"gae_lambda": 0.5},
    "normalize_advantage": {"target_kl": None},
    "sde_sample_freq": {"use_sde": True},
}
# What a model is built from; documented to be read once
BUILT = {
    *("policy", "env", "policy_kwargs", "use_sde", "rollout_buffer_class", "rollout_buffer_kwargs", "device", "seed"),
    *("normalize_observations", "normalize_returns", "stats_window_size", "tensorboard_log", "verbose"),
    "_init_setup_model",
}


def arguments_of(algo: str) -> list[str]:
    return [name for name in inspect.signature(TABLE[algo].cls).parameters if name not in BUILT]


EVERY = [(algo, name) for algo in TABLE for name in arguments_of(algo)]


def build(algo: str, **arguments: Any) -> NaturalActorCritic:
    return make(algo, Fixed(), **{"n_steps": STEPS, "target_kl": 0.02, **arguments})


def test_every_argument_is_tried() -> None:
    """A new one needs a value here."""
    assert {name for _, name in EVERY} == CHANGED.keys()


class Set(BaseCallback):
    """Sets an attribute at the end of a rollout, or at its start."""

    def __init__(self, name: str, value: Any, at: str) -> None:
        super().__init__()
        self.name, self.value, self.at = name, value, at

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.at == "rollout start" and self.model.num_timesteps == 0:
            setattr(self.model, self.name, self.value)

    def _on_rollout_end(self) -> None:
        if self.at == "rollout end" and self.model.num_timesteps == STEPS:
            setattr(self.model, self.name, self.value)


def prepared(algo: str, name: str, **arguments: Any) -> NaturalActorCritic:
    return build(algo, **{**NEEDS.get(name, {}), **arguments})


def learned(model: NaturalActorCritic, n_steps: int = STEPS, **arguments: Any) -> NaturalActorCritic:
    model.set_random_seed(7)
    (env,) = model.get_env().envs  # type: ignore[union-attr]
    env.unwrapped.steps = 0
    model._last_obs = None
    return model.learn(n_steps, **arguments)


@pytest.mark.parametrize(("algo", "name"), [pair for pair in EVERY if pair[1] not in ("gamma", "gae_lambda", "n_steps")])
@pytest.mark.parametrize("how", ["attribute", "rollout start", "rollout end", "load"])
def test_an_argument_that_is_changed_is_the_argument(algo: str, name: str, how: str) -> None:
    """The next update is, to the last bit, that of a new model with this argument from the beginning."""
    if name == "sde_sample_freq" and how.startswith("rollout"):
        return  # noise of the rollout that is running
    value = CHANGED[name]
    expected = learned(prepared(algo, name, **{name: value}))
    model = prepared(algo, name)
    if how == "attribute":
        setattr(model, name, value)
        learned(model)
    elif how == "load":
        model = learned(reloaded(model, env=DummyVecEnv([Fixed]), **{name: value}))
    else:
        learned(model, callback=Set(name, value, how))
    assert is_same(snapshot(expected)["policy"], snapshot(model)["policy"])
    if name == "line_search":  # which finds nothing to halve here
        assert "train/line_search_halvings" in model.logger.name_to_value
    else:
        unchanged = learned(prepared(algo, name))
        assert not is_same(snapshot(expected)["policy"], snapshot(unchanged)["policy"])


def reloaded(model: NaturalActorCritic, **arguments: Any) -> NaturalActorCritic:
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    return type(model).load(file, device="cpu", **arguments)


@every_algorithm
@pytest.mark.parametrize("name", ["gamma", "gae_lambda", "n_steps"])
@pytest.mark.parametrize("how", ["attribute", "load", "between"])
def test_arguments_of_the_rollout(algo: str, name: str, how: str) -> None:
    """They count from the next rollout on."""
    value = CHANGED[name]
    n_steps = value if name == "n_steps" else STEPS
    expected, model = build(algo, **{name: value}), build(algo)
    if how == "between":
        for one in (expected, model):
            one.policy.load_state_dict(build(algo).learn(STEPS).policy.state_dict())
        model.learn(STEPS)
        model.policy.load_state_dict(expected.policy.state_dict())
        setattr(model, name, value)
        learned(expected, n_steps)
        learned(model, n_steps)
        assert is_same(expected.rollout_buffer.returns, model.rollout_buffer.returns)
        return
    if how == "load":
        model = reloaded(model, env=DummyVecEnv([Fixed]), **{name: value})
    else:
        setattr(model, name, value)
    learned(expected, n_steps)
    learned(model, n_steps)
    assert model.rollout_buffer.buffer_size == n_steps
    assert is_same(expected.rollout_buffer.returns, model.rollout_buffer.returns)
    assert is_same(snapshot(expected)["policy"], snapshot(model)["policy"])


@every_algorithm
def test_rollouts_of_a_class_of_the_users_are_made_anew(algo: str) -> None:
    """With all that Stable-Baselines3 gives the buffer at its creation."""

    class Buffer(RolloutBuffer):
        def __init__(self, *args: Any, extra: int = 0, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.extra, self.given = extra, kwargs

    model = build(algo, rollout_buffer_class=Buffer, rollout_buffer_kwargs={"extra": 3})
    given = model.rollout_buffer.given
    model.n_steps = 8
    model.learn(8)
    assert model.rollout_buffer.buffer_size == 8 and model.rollout_buffer.extra == 3
    assert model.rollout_buffer.given == given


@every_algorithm
@pytest.mark.parametrize("name", ["target_kl", "critic_learning_rate", "learning_rate"])
@pytest.mark.parametrize("value", ["lin_0.01", lambda progress: 0.001 + 0.01 * progress])
def test_schedules_that_are_put_in_later(algo: str, name: str, value: Any) -> None:
    """Where training stands, and not from its beginning."""
    needs = {"target_kl": None} if name == "learning_rate" else {}
    model = build(algo, **needs)
    model.learn(4 * STEPS, callback=Set(name, value, "rollout end"))
    keys = {"learning_rate": "train/step_size", "critic_learning_rate": "train/critic_learning_rate"}
    expected = 0.0 if isinstance(value, str) else 0.001
    if name in keys:
        assert model.logger.name_to_value[keys[name]] == pytest.approx(expected)
    else:
        assert model.logger.name_to_value["train/approx_kl"] == pytest.approx(expected, rel=0.25, abs=1e-6)


@every_algorithm
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("target_kl", value) for value in (-1.0, 0.0, float("nan"), "0.1", [0.1])],
        *[("critic_learning_rate", value) for value in (-1.0, None, float("inf"), "fast")],
        *[("learning_rate", value) for value in (-1.0, None, float("nan"))],
        *[("gamma", 1.5), ("batch_size", 0), ("batch_size", 2.5), ("n_critic_updates", 0), ("ent_coef", -1.0)],
        *[("critic_optimizer", "sgd"), ("critic_target", "td"), ("max_grad_norm", 0), ("line_search", "yes")],
    ],
)
@pytest.mark.parametrize("how", ["attribute", "rollout end"])
def test_wrong_values_are_refused_when_they_are_set(algo: str, name: str, value: Any, how: str) -> None:
    """At the next update, which does not happen."""
    model = build(algo)
    before = snapshot(model)
    callback = None
    if how == "attribute":
        setattr(model, name, value)
    else:
        callback = Set(name, value, how)
    with pytest.raises(ValueError, match=f"^{name} must be"):
        model.learn(STEPS, callback=callback)
    assert is_same(before["policy"], snapshot(model)["policy"])


# What is derived from other settings


@pytest.mark.parametrize(
    ("built", "then", "damping"),
    [
        ({}, {"fisher_rank": "full"}, 1.0),
        ({}, {"fisher_rank": 4}, 4 / 16),
        ({"fisher_rank": "full"}, {"fisher_rank": 1}, 0.1),
        ({"fisher_rank": "full"}, {"fisher_rank": 2, "batch_size": 8}, 2 / 8),
        ({"fisher_rank": 4}, {"n_steps": 32}, 4 / 32),
        ({"fisher_rank": 4}, {"batch_size": 8}, 4 / 8),
        ({"fisher_rank": 4, "damping": 0.3}, {"batch_size": 8}, 0.3),
    ],
)
@pytest.mark.parametrize("how", ["attribute", "load"])
def test_the_default_damping_is_that_of_the_settings_now(
    built: dict[str, Any], then: dict[str, Any], damping: float, how: str
) -> None:
    """Nothing that was derived at construction is left; what the user set stays."""
    model = build("smac", **built)
    assert model.damping == built.get("damping")
    if how == "load":
        model = reloaded(model, env=DummyVecEnv([Fixed]), **then)
    else:
        for name, value in then.items():
            setattr(model, name, value)
    given = model.damping
    new = build("smac", **{**built, **then})
    same = build("smac", **{**built, **then, "damping": damping})
    for one in (model, new, same):
        learned(one, one.n_steps)
    assert model.damping == given == built.get("damping")
    assert is_same(snapshot(new)["policy"], snapshot(model)["policy"])
    assert is_same(snapshot(new)["policy"], snapshot(same)["policy"])


def test_the_default_damping_with_other_environments() -> None:
    """N is that of the environments that the model is loaded with."""
    saved = SMAC("MlpPolicy", make_vec_env("Pendulum-v1", n_envs=4), n_steps=8, fisher_rank=4, seed=0)
    loaded = reloaded(saved, env=make_vec_env("Pendulum-v1", n_envs=2))
    new = SMAC("MlpPolicy", make_vec_env("Pendulum-v1", n_envs=2), n_steps=8, fisher_rank=4, seed=0)
    assert loaded._damping_of(4, 16) == new._damping_of(4, 16) == 4 / 16
    for model in (loaded, new):
        model.set_random_seed(3)
        model._last_obs = None
        model.learn(16)
    assert is_same(snapshot(new)["policy"], snapshot(loaded)["policy"])


@pytest.mark.parametrize("rank", [1, 3, 7, "full"])
def test_the_short_last_batch(rank: Any) -> None:
    """16 transitions in batches of 7 leave 2: their rank and damping are their own."""
    seen: list[tuple[int, float]] = []
    model = build("smac", fisher_rank=rank, batch_size=7)
    damping_of = model._damping_of
    model._damping_of = lambda rank, size: seen.append((size, damping_of(rank, size))) or damping_of(rank, size)
    model.learn(STEPS)
    expected = {
        1: [(7, 0.1), (7, 0.1), (2, 0.1)],
        3: [(7, 3 / 7), (7, 3 / 7), (2, 1.0)],
        7: [(7, 1.0), (7, 1.0), (2, 1.0)],
        "full": [(7, 1.0), (7, 1.0), (2, 1.0)],
    }
    assert seen == expected[rank]
    assert is_finite(model)


@pytest.mark.parametrize("rank", [1, 3, "full"])
def test_the_default_line_search_is_that_of_the_rank_now(rank: Any) -> None:
    model = build("smac")
    model.fisher_rank = rank
    model.learn(STEPS)
    assert ("train/line_search_halvings" in model.logger.name_to_value) == (rank != 1)
    assert model.line_search is None


@every_algorithm
def test_what_is_on_by_default_is_not_stored_as_if_it_was_set(algo: str) -> None:
    """Arguments that were left to their defaults are these defaults after building, training, saving and loading."""
    signature = inspect.signature(TABLE[algo].cls).parameters
    model = TABLE[algo].cls("MlpPolicy", Fixed(), n_steps=STEPS, device="cpu").learn(STEPS)
    for one in (model, reloaded(model, env=DummyVecEnv([Fixed]))):
        for name in arguments_of(algo):
            if name not in ("policy", "env", "n_steps", "device"):
                assert getattr(one, name) == signature[name].default, name


@every_algorithm
def test_stats_window_on_loading(algo: str) -> None:
    """A window that is given on loading is the one that episodes are averaged over."""
    model = reloaded(build(algo), env=DummyVecEnv([Fixed]), stats_window_size=3)
    model.learn(STEPS)
    assert model.ep_info_buffer.maxlen == 3
    with pytest.raises(ValueError, match="stats_window_size must be"):
        reloaded(build(algo), stats_window_size=0)


# Schedules


@every_algorithm
@pytest.mark.parametrize("name", ["target_kl", "learning_rate", "critic_learning_rate"])
@pytest.mark.parametrize(
    ("value", "at_end"), [("lin_0.05", 0.0), (lambda p: 0.05 * p, 0.0), (lambda p: 0.05 * p + 0.001, 0.001)]
)
def test_beyond_the_end(algo: str, name: str, value: Any, at_end: float) -> None:
    """A rollout that does not divide the training: its schedules stay what they are at 0."""
    needs = {"target_kl": None} if name == "learning_rate" else {}
    model = build(algo, **{"normalize_observations": False, **needs, name: value})
    actor = [parameter.detach().clone() for parameter in model.actor_parameters]
    model.learn(STEPS // 2)  # the only rollout ends at twice the total
    assert model._current_progress_remaining == 0
    logged = model.logger.name_to_value
    if name == "critic_learning_rate":
        assert logged["train/critic_learning_rate"] == at_end
        assert model.policy.optimizer.param_groups[0]["lr"] == at_end
    elif name == "learning_rate":
        assert logged["train/step_size"] == pytest.approx(at_end)
    else:
        assert logged["train/approx_kl"] == pytest.approx(at_end, rel=0.25, abs=1e-6)
        assert logged["train/step_size"] >= 0
    if at_end == 0 and name != "critic_learning_rate":
        assert is_same(actor, [parameter.detach() for parameter in model.actor_parameters])
    assert is_finite(model)


class Bandit(gym.Env):
    """The last of four actions pays."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.ones(1, np.float32), float(action == 3), True, False, {}


@every_algorithm
@pytest.mark.parametrize("schedule", ["lin", "function"])
def test_training_beyond_the_end_goes_up_the_gradient(algo: str, schedule: str) -> None:
    """A bandit's best action does not become less likely by an update that comes after the last one."""

    def scheduled(value: float) -> Any:
        return f"lin_{value}" if schedule == "lin" else lambda progress: progress * value

    model = make(
        algo, Bandit(), n_steps=256, target_kl=None, learning_rate=scheduled(2.0), critic_learning_rate=scheduled(0.01)
    )
    observation = th.ones(1, 1)

    def probability() -> float:
        return float(model.policy.get_distribution(observation).distribution.probs[0, 3])

    before = probability()
    model.learn(100)
    assert probability() >= before - 1e-6
    for _ in range(3):
        model.learn(10, reset_num_timesteps=False)
    assert probability() >= before - 1e-6


@every_algorithm
@pytest.mark.parametrize("name", ["target_kl", "learning_rate", "critic_learning_rate"])
@pytest.mark.parametrize(
    "schedule", [lambda p: 0.01 if p == 1 else float("nan"), lambda p: 0.01 if p == 1 else -0.1, lambda p: 0.01 / p]
)
def test_schedules_that_leave_their_range(algo: str, name: str, schedule: Callable) -> None:
    """An error that names the argument, its value and the time; the policy is left as it was."""
    needs = {"target_kl": None} if name == "learning_rate" else {}
    model = build(algo, **{**needs, name: schedule})
    with pytest.raises((ValueError, ZeroDivisionError)) as error:
        model.learn(STEPS)
    if isinstance(error.value, ValueError):
        assert str(error.value).startswith(f"{name} must be")
    assert is_finite(model)
