"""A setting is read when it is used, and a schedule never leaves its range."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import NaturalActorCritic
from tests.algorithms import ACTION_SPACES, TABLE, NormalEnv, first_entry, is_finite, is_same, make, reloaded, snapshot

STEPS = 16


def env() -> NormalEnv:
    return NormalEnv(ACTION_SPACES["Box"], first_entry)


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
    "sde_sample_freq": 2,
}
# tests/test_averaging.py and tests/test_final_log_std.py
TRIED_ELSEWHERE = {"averaging", "final_log_std"}
OF_THE_ROLLOUT: dict[str, Any] = {"gamma": 0.3, "gae_lambda": 0.2, "n_steps": 9}
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


# Each argument once, and once more where an algorithm's own step uses it
USES = [("smac", name) for name in arguments_of("smac") if name not in TRIED_ELSEWHERE | OF_THE_ROLLOUT.keys()]
USES += [("accg", name) for name in ("damping", "cg_max_steps", "cg_tolerance")] + [("acadam", "learning_rate")]


def build(algo: str = "smac", **arguments: Any) -> NaturalActorCritic:
    return make(algo, env(), **{"n_steps": STEPS, "target_kl": 0.02, **arguments})


def test_every_argument_is_tried() -> None:
    """A new one needs a value here."""
    assert {name for algo in TABLE for name in arguments_of(algo)} == {*CHANGED, *OF_THE_ROLLOUT, *TRIED_ELSEWHERE}
    assert {name for _, name in USES} == CHANGED.keys()


class Set(BaseCallback):
    """Sets an attribute at the end of the first rollout."""

    def __init__(self, name: str, value: Any) -> None:
        super().__init__()
        self.name, self.value = name, value

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        if self.model.num_timesteps == STEPS:
            setattr(self.model, self.name, self.value)


def learned(model: NaturalActorCritic, n_steps: int = STEPS, **arguments: Any) -> NaturalActorCritic:
    """Trained on the same random numbers, whatever went before."""
    model.set_random_seed(7)
    model.get_env().envs[0].unwrapped.steps = 0  # type: ignore[union-attr]
    model._last_obs = None
    return model.learn(n_steps, **arguments)


def changed(model: NaturalActorCritic, how: str, **arguments: Any) -> NaturalActorCritic:
    if how == "load":
        return reloaded(model, env=DummyVecEnv([env]), **arguments)
    for name, value in arguments.items():
        setattr(model, name, value)
    return model


@pytest.mark.parametrize(("algo", "name"), USES)
@pytest.mark.parametrize("how", ["attribute", "rollout end", "load"])
def test_an_argument_that_is_changed_is_the_argument(algo: str, name: str, how: str) -> None:
    """The next update is, to the last bit, that of a new model with this argument from the beginning."""
    if name == "sde_sample_freq" and how == "rollout end":
        return  # noise of the rollout that is running
    value, needs = CHANGED[name], NEEDS.get(name, {})
    expected = learned(build(algo, **{**needs, name: value}))
    if how == "rollout end":
        model = learned(build(algo, **needs), callback=Set(name, value))
    else:
        model = learned(changed(build(algo, **needs), how, **{name: value}))
    assert is_same(snapshot(expected)["policy"], snapshot(model)["policy"])
    if name == "line_search":  # which finds nothing to halve here
        assert "train/line_search_halvings" in model.logger.name_to_value
    elif how == "attribute":
        assert not is_same(snapshot(expected)["policy"], snapshot(learned(build(algo, **needs)))["policy"])


@pytest.mark.parametrize("name", OF_THE_ROLLOUT)
@pytest.mark.parametrize("how", ["attribute", "load"])
def test_arguments_of_the_rollout(name: str, how: str) -> None:
    """They count from the next rollout on, also if another one went before."""
    value = OF_THE_ROLLOUT[name]
    n_steps = value if name == "n_steps" else STEPS
    expected, model = build(**{name: value}), build().learn(STEPS)
    model = changed(model, how, **{name: value})
    model.policy.load_state_dict(expected.policy.state_dict())
    for each in (expected, model):
        learned(each, n_steps)
    assert model.rollout_buffer.buffer_size == n_steps
    assert is_same(expected.rollout_buffer.returns, model.rollout_buffer.returns)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_kl", -1.0),
        ("critic_learning_rate", None),
        ("learning_rate", float("nan")),
        ("batch_size", 2.5),
        ("gamma", 1.5),
    ],
)
def test_wrong_values_are_refused_when_they_are_set(name: str, value: Any) -> None:
    """At the next update, which does not happen."""
    model = build()
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"^{name} must be"):
        model.learn(STEPS, callback=Set(name, value))
    assert is_same(before["policy"], snapshot(model)["policy"])


# What is derived from other settings


@pytest.mark.parametrize(
    ("built", "then", "damping", "how"),
    [
        ({}, {"fisher_rank": "full"}, 0.2, "attribute"),
        ({}, {"fisher_rank": 4}, 4 / 16, "load"),
        ({"fisher_rank": "full"}, {"fisher_rank": 1}, 0.1, "attribute"),
        ({"fisher_rank": "full"}, {"fisher_rank": 2, "batch_size": 8}, 2 / 8, "load"),
        ({"fisher_rank": 4}, {"n_steps": 32}, 4 / 32, "attribute"),
        ({"fisher_rank": 4, "damping": 0.3}, {"batch_size": 8}, 0.3, "load"),
    ],
)
def test_the_default_damping_is_that_of_the_settings_now(
    built: dict[str, Any], then: dict[str, Any], damping: float, how: str
) -> None:
    """Nothing that was derived at construction is left; what the user set stays."""
    wide = NEEDS["fisher_rank"]
    model = changed(build(**wide, **built), how, **then)
    new, same = build(**wide, **{**built, **then}), build(**wide, **{**built, **then, "damping": damping})
    for each in (model, new, same):
        learned(each, each.n_steps)
    assert model.damping == built.get("damping")
    assert is_same(snapshot(new)["policy"], snapshot(model)["policy"])
    assert is_same(snapshot(new)["policy"], snapshot(same)["policy"])


@pytest.mark.parametrize(
    ("rank", "expected"),
    [
        (1, [(7, 0.1), (7, 0.1), (2, 0.1)]),
        (3, [(7, 3 / 7), (7, 3 / 7), (2, 1.0)]),
        ("full", [(7, 0.2), (7, 0.2), (2, 0.2)]),
    ],
)
def test_the_short_last_batch(rank: Any, expected: list[tuple[int, float]]) -> None:
    """16 transitions in batches of 7 leave 2: their rank and damping are their own."""
    seen: list[tuple[int, float]] = []
    model: Any = build(fisher_rank=rank, batch_size=7, **NEEDS["fisher_rank"])
    damping_of = model._damping_of
    model._damping_of = lambda rank, size: seen.append((size, damping_of(rank, size))) or damping_of(rank, size)
    assert is_finite(model.learn(STEPS))
    assert seen == expected


@pytest.mark.parametrize("rank", [1, 3, "full"])
def test_the_default_line_search_is_that_of_the_rank_now(rank: Any) -> None:
    model: Any = build()
    model.fisher_rank = rank
    model.learn(STEPS)
    assert ("train/line_search_halvings" in model.logger.name_to_value) == (rank != 1)
    assert model.line_search is None


@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_what_is_on_by_default_is_not_stored_as_if_it_was_set(algo: str) -> None:
    """Arguments that were left to their defaults are these defaults after building, training, saving and loading."""
    signature = inspect.signature(TABLE[algo].cls).parameters
    model = TABLE[algo].cls("MlpPolicy", env(), n_steps=STEPS, device="cpu").learn(STEPS)
    for each in (model, reloaded(model)):
        assert all(getattr(each, name) == signature[name].default for name in arguments_of(algo) if name != "n_steps")


def test_stats_window_on_loading() -> None:
    """A window that is given on loading is the one that episodes are averaged over."""
    model = reloaded(build(), env=DummyVecEnv([env]), stats_window_size=3).learn(STEPS)
    assert model.ep_info_buffer.maxlen == 3
    with pytest.raises(ValueError, match="stats_window_size must be"):
        reloaded(build(), stats_window_size=0)


# Schedules

every_schedule = pytest.mark.parametrize("name", ["target_kl", "learning_rate", "critic_learning_rate"])


@every_schedule
@pytest.mark.parametrize("is_set_later", [False, True])
@pytest.mark.parametrize(("value", "at_end"), [("lin_0.05", 0.0), (lambda p: 0.05 * p + 0.001, 0.001)])
def test_schedules_at_the_end_and_beyond(name: str, value: Any, at_end: float, is_set_later: bool) -> None:
    """
    A rollout that does not divide the training: its schedules stay what they are at 0. A schedule that is put in later begins
    where training stands, and not from its beginning.
    """
    arguments = {"normalize_observations": False, "target_kl": None if name == "learning_rate" else 0.02}
    model = build(**arguments) if is_set_later else build(**{**arguments, name: value})
    actor = [parameter.detach().clone() for parameter in model.actor_parameters]
    model.learn(STEPS // 2, callback=Set(name, value) if is_set_later else None)  # the only rollout ends at twice the total
    assert model._current_progress_remaining == 0
    logged = model.logger.name_to_value
    if name == "critic_learning_rate":
        assert logged["train/critic_learning_rate"] == model.policy.optimizer.param_groups[0]["lr"] == at_end
    elif name == "learning_rate":
        assert logged["train/step_size"] == pytest.approx(at_end)
    else:
        assert logged["train/approx_kl"] == pytest.approx(at_end, rel=0.25, abs=1e-6)
    if at_end == 0 and name != "critic_learning_rate":
        assert is_same(actor, [parameter.detach() for parameter in model.actor_parameters])
    assert is_finite(model)


@every_schedule
@pytest.mark.parametrize("later", [float("nan"), -0.1])
def test_schedules_that_leave_their_range(name: str, later: float) -> None:
    """An error that names the argument; the policy is left as it was."""
    schedule: Callable[[float], float] = lambda progress: 0.01 if progress == 1 else later  # noqa: E731
    model = build(**{"target_kl": None if name == "learning_rate" else 0.02, name: schedule})
    before = snapshot(model)
    with pytest.raises(ValueError, match=f"^{name} must be"):
        model.learn(STEPS)
    assert is_same(before["policy"], snapshot(model)["policy"])
