"""Every wrong argument, wherever it is given, ends in a ValueError that names it, what it got and what it accepts."""

import inspect
import io
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import SMAC, NaturalActorCritic
from tests import own_policies
from tests.algorithms import TABLE, TINY, is_finite, is_same, make, reloaded, snapshot

NAN, INF = math.nan, math.inf

WRONG: dict[str, Any] = {
    "string": "nonsense",
    "empty": "",
    "negative": -7,
    "nan": NAN,
    "inf": INF,
    "list": [1, 2],
    "tuple": (),
    "dict": {"a": 1},
    "array": np.array([1.0, 2.0]),
    "empty array": np.array([]),
    "array of one": np.array([0.5]),
    "tensor": th.tensor([1.0, 2.0]),
    "complex": 1 + 2j,
    "bytes": b"1",
    "object": object(),
    "huge": 10**400,
    "minus huge": -(10**400),
    "function": lambda: 1,
    "function of a string": lambda progress: "0.1",
    "class": int,
    "decimal": Decimal("NaN"),
    "space": spaces.Discrete(2),
}
# What is a right value of some arguments
ACCEPTED = {
    *[("tensorboard_log", name) for name in ("string", "empty")],  # a path
    *[(name, "dict") for name in ("policy_kwargs", "rollout_buffer_kwargs")],  # refused by what is in it
    *[(name, "huge") for name in ("n_steps", "n_critic_updates", "cg_max_steps", "critic_batch_size")],  # integers
    *[(name, "huge") for name in ("sde_sample_freq", "verbose", "stats_window_size")],
    # a schedule is called, and what it gives is made a number
    *[(name, "class") for name in ("learning_rate", "critic_learning_rate", "target_kl")],
    *[(name, "function of a string") for name in ("learning_rate", "critic_learning_rate", "target_kl")],
    *[(name, "array of one") for name in ("learning_rate", "critic_learning_rate", "target_kl")],  # a number to Python
}
# Besides what is wrong for any
OUT_OF_RANGE: dict[str, Sequence[Any]] = {
    "learning_rate": (-INF, "0.001", "lin_", "lin_x", "lin_-1", "lin_nan", True, [0.1], None, lambda _: -1.0),
    "critic_learning_rate": (-0.1, None),
    "target_kl": (0, "lin_0", lambda _: 0.0, lambda _: NAN),  # None is the fixed step
    "n_steps": (0, 2.5, "3", True, None),
    "batch_size": (0, 2.5, "8", True),
    "gamma": (-0.01, 1.01, "0.9", True, None),
    "gae_lambda": (1.01, None),
    "critic_optimizer": ("Adam", None, 1),
    "critic_damping": (0, 1e-31, None),
    "n_critic_updates": (0, None),
    "critic_batch_size": (0, 2.5),
    "critic_target": ("GAE", None),
    "ent_coef": (-0.01, None),
    "max_grad_norm": (0,),
    "line_search": (2,),
    "normalize_advantage": (2, None),
    "normalize_observations": (2,),
    "stats_window_size": (2.5,),
    "damping": (0, 1e31),
    "accg's damping": (None,),
    "fisher_rank": (0, 1.5, "half", None),
    "cg_max_steps": (0, 2.5, None),
    "cg_tolerance": (-1e-9, None),
}


def arguments_of(algo: str) -> list[str]:
    return [name for name in inspect.signature(TABLE[algo].cls).parameters if name not in ("env", "_init_setup_model")]


# Each argument once: the others have those of the first
CASES = [("smac", name) for name in arguments_of("smac")]
CASES += [("accg", name) for name in arguments_of("accg") if name not in arguments_of("smac")] + [("accg", "damping")]


def complaint(name: str, value: Any, call: Callable[[], Any]) -> str | None:
    """What is wrong with the error of a call; ``None`` if it is a ValueError: the name, what is accepted, what it got."""
    try:
        call()
    except ValueError as error:
        message = str(error)
        return None if message.startswith(name) and "must be" in message and "got" in message else f"{value!r}: {message}"
    except Exception as error:
        return f"{value!r}: {type(error).__name__}: {error}"
    return f"{value!r}: accepted"


@pytest.mark.parametrize(("algo", "name"), CASES)
def test_wrong_values_of_every_argument(algo: str, name: str) -> None:
    """When the model is built, before any step in the environment."""

    def build(value: Any) -> Any:
        return TABLE[algo].cls(**{"policy": "MlpPolicy", "env": "CartPole-v1", **TINY, name: value})

    values = [value for wrong, value in WRONG.items() if (name, wrong) not in ACCEPTED]
    values += [*OUT_OF_RANGE.get(name, ()), *OUT_OF_RANGE.get(f"{algo}'s {name}", ())]
    assert not list(filter(None, [complaint(name, value, lambda value=value: build(value)) for value in values]))


@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_wrong_values_of_every_argument_on_loading(algo: str) -> None:
    """The same."""
    file = io.BytesIO()
    make(algo, "CartPole-v1").save(file)

    def load(name: str, value: Any) -> Any:
        return TABLE[algo].cls.load(io.BytesIO(file.getvalue()), **{name: value})

    loaded = [name for name in arguments_of(algo) if name not in ("policy", "policy_kwargs", "device")]
    for name in loaded:
        for wrong in ("string", "negative", "list"):
            if (name, wrong) not in ACCEPTED:
                assert complaint(name, wrong, lambda name=name, wrong=wrong: load(name, WRONG[wrong])) is None


AT_THE_LIMIT: dict[str, Sequence[Any]] = {
    "learning_rate": (0, 0.0, 1, np.float32(0.1), "lin_0.1", "lin_1e-3", lambda progress: 0.0),
    "critic_learning_rate": (0, 0.0, np.float64(0.1), "lin_0.1"),
    "target_kl": (None, 1e-6, np.float32(0.01), "lin_0.01"),
    "n_steps": (2, np.int64(4)),
    "batch_size": (None, 1, 16, np.int32(8)),
    "gamma": (0, 1, 0.0, 1.0, np.float32(0.5)),
    "gae_lambda": (0, 1),
    "critic_optimizer": ("adam", "gauss_newton"),
    "critic_damping": (1e-6, 1, np.float32(0.5)),
    "n_critic_updates": (1,),
    "critic_batch_size": (None, 1, 10**6),
    "critic_target": ("gae", "monte_carlo"),
    "ent_coef": (0, 0.0),
    "max_grad_norm": (None, 1e-6, 1e6),
    "line_search": (False, True),
    "normalize_advantage": (False, True, np.bool_(True)),
    "normalize_observations": (None, False, True, np.bool_(True)),
    "normalize_returns": (None, False, True, np.bool_(True)),
}


@pytest.mark.parametrize("name", AT_THE_LIMIT)
def test_at_the_limit(name: str) -> None:
    """The smallest and the largest values accepted, and NumPy's numbers, train."""
    for value in AT_THE_LIMIT[name]:
        assert is_finite(make("smac", **{"n_steps": 16, "learning_rate": 1e-3, "target_kl": 0.01, name: value}).learn(16))


def test_rollouts_are_checked_when_a_model_is_built_and_when_it_learns() -> None:
    """Not hours later: a script that builds its model and then prepares its data should fail at once."""
    with pytest.raises(ValueError, match=r"normalize_advantage=True needs .* at least 2, got n_steps=1"):
        make("smac", n_steps=1)
    model = make("smac")
    model.batch_size = 64
    with pytest.raises(ValueError, match=r"batch_size.*64"):
        model.learn(32)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("arguments", [{"n_steps": 8}, {"n_steps": 64, "batch_size": 8}])
def test_a_rank_above_the_actor_batch(arguments: dict[str, int]) -> None:
    """There are no more groups than transitions."""
    SMAC("MlpPolicy", "CartPole-v1", fisher_rank=8, **arguments)
    with pytest.raises(ValueError, match="fisher_rank must be 'full' or at most the actor batch's 8 transitions, got 9"):
        SMAC("MlpPolicy", "CartPole-v1", fisher_rank=9, **arguments)


def test_unknown_arguments() -> None:
    """When a model is built, and on loading, where they would be attributes that nobody reads."""
    for name in ("vf_coef", "clip_range", "n_epochs", "use_rms_prop"):
        with pytest.raises(TypeError, match=name):
            make("smac", **{name: 1})
    for name, hint in (("n_step", "n_steps"), ("target_KL", "target_kl"), ("nonsense", "")):
        with pytest.raises(ValueError, match=rf"SMAC has no argument '{name}'.*{hint}"):
            reloaded(make("smac"), **{name: 0.1})


def test_all_that_load_takes() -> None:
    """Stable-Baselines3's own arguments, by name and by position."""
    model = make("smac")
    model.save(file := io.BytesIO())
    SMAC.load(io.BytesIO(file.getvalue()), model.get_env(), "cpu", {"learning_rate": 0.5}, False, True)
    of_sb3 = {"custom_objects": {"target_kl": 0.5}, "print_system_info": False, "force_reset": False}
    ours = {
        "verbose": 0,
        "seed": 3,
        "tensorboard_log": None,
        "policy_kwargs": {"net_arch": [8]},
        "rollout_buffer_kwargs": None,
    }
    loaded = reloaded(model, env=model.get_env(), gamma=0.5, **of_sb3, **ours)
    assert loaded.target_kl == 0.5 and loaded.gamma == 0.5 and loaded.seed == 3
    assert is_finite(loaded.learn(32))
    with pytest.raises(ValueError, match="policy"):
        reloaded(model, policy_kwargs={"net_arch": [9]})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"net_archs": [8]}, "policy_kwargs: .* has no argument 'net_archs': did you mean 'net_arch'"),
        ({"activation": "tanh"}, "policy_kwargs.*activation"),
        ({"net_arch": "big"}, "policy_kwargs.*net_arch"),
        ({"net_arch": {"actor": [8]}}, "policy_kwargs"),
        ({"net_arch": [8.5]}, "policy_kwargs"),
        ({"net_arch": None, "activation_fn": "tanh"}, "policy_kwargs"),
        ({"optimizer_kwargs": {"betta": 0.5}}, "policy_kwargs"),
        ({"optimizer_kwargs": {"betas": (2, 3)}}, "beta"),
        ({"optimizer_kwargs": {"lr": 0.1}}, "policy_kwargs"),
        ({"features_extractor_class": sb3_policies.ActorCriticPolicy}, "policy_kwargs"),
        ({"observation_space": spaces.Discrete(3)}, "policy_kwargs"),
        ({"use_sde": True}, "policy_kwargs"),
        ({"normalize_observations": True}, "policy_kwargs"),
        ({3: 4}, "policy_kwargs"),
    ],
    ids=str,
)
def test_policy_kwargs(kwargs: dict[Any, Any], message: str) -> None:
    """Named, with what is wrong in them."""
    with pytest.raises(ValueError, match=message):
        make("smac", policy_kwargs=kwargs)


@pytest.mark.parametrize("kwargs", [{"size": 3}, {"gamma": 0.5}, {"n_envs": 3}, {3: 3}], ids=str)
def test_rollout_buffer_kwargs(kwargs: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match=f"rollout_buffer_kwargs.*{next(iter(kwargs))}"):
        make("smac", rollout_buffer_kwargs=kwargs)


def test_errors_of_the_users_own_code_are_not_ours() -> None:
    """A bug in a policy of the user's is not blamed on its arguments, and its traceback is there."""

    class Broken(own_policies.OwnNetwork):
        def _build(self, lr_schedule: Any) -> None:
            raise KeyError("the user's own")

    with pytest.raises((KeyError, ValueError), match="the user's own"):
        make("smac", policy=Broken, policy_kwargs={})


# State dicts

OTHERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "width": ("must be", lambda: make("smac", own_policies.CONTINUOUS(), policy_kwargs={"net_arch": [9]})),
    "actions": ("must be", lambda: make("smac", own_policies.DISCRETE())),
    "own": ("must be", lambda: make("smac", own_policies.CONTINUOUS(), own_policies.OwnValues)),
    "observations": ("normalize_observations", lambda: make("smac", own_policies.CONTINUOUS(), normalize_observations=False)),
    "returns": ("normalize_returns", lambda: make("smac", own_policies.CONTINUOUS(), normalize_returns=False)),
    "a2c": ("must be", lambda: A2C("MlpPolicy", own_policies.CONTINUOUS(), policy_kwargs={"net_arch": [8]}, device="cpu")),
}


@pytest.mark.parametrize("other", OTHERS)
def test_state_dicts_of_other_policies(other: str) -> None:
    """A ValueError that says what does not fit, by the policy's method and by the model's; nothing is half loaded."""
    model = make("smac", own_policies.CONTINUOUS())
    before = snapshot(model)["policy"]
    message, build = OTHERS[other]
    state = build().policy.state_dict()
    with pytest.raises(ValueError, match=message):
        model.policy.load_state_dict(state)
    with pytest.raises(ValueError, match=message):
        model.set_parameters({**model.get_parameters(), "policy": state})
    if message != "must be":
        assert is_same(before, snapshot(model)["policy"])


def test_state_dicts_that_are_none() -> None:
    """What is missing, or too much, is named, and accepted if it may be."""
    model = make("smac", own_policies.CONTINUOUS())
    state = dict(model.policy.state_dict())
    missing = {name: value for name, value in state.items() if name != "action_net.weight"}
    unexpected = {**state, "nonsense": th.zeros(1)}
    for wrong, name in ((missing, "action_net.weight"), (unexpected, "nonsense")):
        with pytest.raises(ValueError, match=name):
            model.policy.load_state_dict(wrong)
        model.policy.load_state_dict(wrong, strict=False)
    with pytest.raises(ValueError, match=r"action_net\.weight"):
        model.policy.load_state_dict({**state, "action_net.weight": th.zeros(1, 1)})
    for nothing in ({}, list(state.items())):
        with pytest.raises((ValueError, TypeError)):
            model.policy.load_state_dict(nothing)  # type: ignore[arg-type]


@pytest.mark.parametrize(("algo", "other"), [("smac", "acadam"), ("acadam", "smac")])
def test_a_model_of_another_algorithm(algo: str, other: str) -> None:
    """Loaded by the wrong class: an error, and not a half-built model."""
    make(other).save(file := io.BytesIO())
    file.seek(0)
    with pytest.raises(ValueError):
        TABLE[algo].cls.load(file)


@pytest.mark.parametrize("normalize", ["normalize_observations", "normalize_returns"])
def test_normalisation_is_that_of_the_parameters(normalize: str) -> None:
    """It cannot be switched in a model that is built, by an attribute or on loading; nor for a policy that knows of none."""
    model = make("smac", own_policies.CONTINUOUS())
    with pytest.raises(ValueError, match=normalize):
        reloaded(model, **{normalize: False})
    setattr(model, normalize, False)
    with pytest.raises(ValueError, match=f"{normalize} must be what the model was built with, True"):
        model.learn(32)
    with pytest.raises(ValueError, match=f"{normalize} must be None or False unless"):
        make("smac", policy=sb3_policies.ActorCriticPolicy, **{normalize: True})


@pytest.mark.parametrize(
    "policy",
    ["NoSuchPolicy", "", None, object(), sb3_policies.BasePolicy, NaturalActorCritic, th.nn.Linear(2, 2), ["MlpPolicy"]],
    ids=lambda policy: type(policy).__name__,
)
def test_policies_that_are_none(policy: Any) -> None:
    with pytest.raises(ValueError, match=r"^policy must be .*got "):
        make("smac", policy=policy)


def test_what_is_refused_is_said_truly() -> None:
    """Numbers in the message are those of the case."""
    with pytest.raises(ValueError, match=re.escape("batch_size must be None or between 1 and 32 (n_steps * n_envs), got 33")):
        make("smac", batch_size=33)
    env = DummyVecEnv([own_policies.CONTINUOUS] * 3)
    with pytest.raises(ValueError, match=re.escape("between 1 and 96 (n_steps * n_envs), got 97")):
        make("smac", env, batch_size=97)
