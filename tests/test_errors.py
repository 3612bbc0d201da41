"""Every wrong argument, wherever it is given, ends in a ValueError that names it, what it got and what it accepts."""

import inspect
import io
import math
import re
from collections.abc import Callable, Container
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import NaturalActorCritic
from tests import own_policies
from tests.algorithms import TABLE, TINY, every_algorithm, is_finite, is_same, make, snapshot

WRONG: dict[str, Any] = {
    "string": "nonsense",
    "empty": "",
    "negative": -7,
    "nan": math.nan,
    "inf": math.inf,
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
SKIPPED = {"_init_setup_model"}


def arguments_of(algo: str) -> list[str]:
    return [name for name in inspect.signature(TABLE[algo].cls).parameters if name not in SKIPPED]


# Each argument once: the others have those of the first
CASES = [
    (algo, name)
    for algo in ("smac", "accg", "acadam")
    for name in arguments_of(algo)
    if algo == "smac" or name not in arguments_of("smac")
]


def complaint(name: str, wrong: str, call: Callable[[], Any]) -> str | None:
    """What is wrong with the error of a call; ``None`` if it is a ValueError: the name, what is accepted, what it got."""
    try:
        call()
    except ValueError as error:
        message = str(error)
        is_right = message.startswith(name) and "must be" in message and "got" in message
        return None if is_right else f"{wrong}: {message}"
    except Exception as error:
        return f"{wrong}: {type(error).__name__}: {error}"
    return f"{wrong}: accepted"


def wrong_values(name: str, besides: Container[tuple[str, str]] = ()) -> list[str]:
    return [wrong for wrong in WRONG if (name, wrong) not in ACCEPTED and (name, wrong) not in besides]


@pytest.mark.parametrize(("algo", "name"), [case for case in CASES if case[1] != "env"])
def test_wrong_values_of_every_argument(algo: str, name: str) -> None:
    """When the model is built."""

    def build(value: Any) -> Any:
        return TABLE[algo].cls(**{"policy": "MlpPolicy", "env": "CartPole-v1", **TINY, name: value})

    complaints = [complaint(name, wrong, lambda wrong=wrong: build(WRONG[wrong])) for wrong in wrong_values(name)]
    assert not list(filter(None, complaints))


@pytest.mark.parametrize(
    ("algo", "name"), [case for case in CASES if case[1] not in ("policy", "env", "policy_kwargs", "device")]
)
def test_wrong_values_of_every_argument_on_loading(algo: str, name: str) -> None:
    """The same."""
    file = io.BytesIO()
    make(algo, "CartPole-v1").save(file)

    def load(value: Any) -> Any:
        return TABLE[algo].cls.load(io.BytesIO(file.getvalue()), **{name: value})

    # for what is only to predict, rollouts may have any size
    besides = {("batch_size", "huge"), ("fisher_rank", "huge")}
    complaints = [complaint(name, wrong, lambda wrong=wrong: load(WRONG[wrong])) for wrong in wrong_values(name, besides)]
    assert not list(filter(None, complaints))


@every_algorithm
@pytest.mark.parametrize("name", ["n_step", "target_KL", "learningrate", "clip_range", "vf_coef", "nonsense"])
def test_unknown_arguments_on_loading(algo: str, name: str) -> None:
    """They would be attributes that nobody reads."""
    file = io.BytesIO()
    make(algo).save(file)
    file.seek(0)
    with pytest.raises(ValueError, match=rf"{type(make(algo)).__name__} has no argument '{name}'"):
        TABLE[algo].cls.load(file, **{name: 0.1})


@every_algorithm
def test_all_that_load_takes(algo: str, tmp_path: Path) -> None:
    """Stable-Baselines3's own arguments, by name and by position."""
    make(algo).save(tmp_path / "model")
    env = make(algo).get_env()
    cls = TABLE[algo].cls
    cls.load(tmp_path / "model", env, "cpu", {"learning_rate": 0.5}, False, True)
    loaded = cls.load(
        tmp_path / "model",
        env=env,
        device="cpu",
        custom_objects={"target_kl": 0.5},
        print_system_info=False,
        force_reset=False,
        verbose=0,
        seed=3,
        tensorboard_log=None,
        policy_kwargs={"net_arch": [8]},
        gamma=0.5,
    )
    assert loaded.target_kl == 0.5 and loaded.gamma == 0.5 and loaded.seed == 3
    assert is_finite(loaded.learn(32))
    with pytest.raises(ValueError, match="policy"):
        cls.load(tmp_path / "model", policy_kwargs={"net_arch": [9]})


@every_algorithm
@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"net_archs": [8]}, ["policy_kwargs", "net_archs", "net_arch"]),
        ({"activation": "tanh"}, ["policy_kwargs", "activation"]),
        ({"net_arch": "big"}, ["policy_kwargs", "net_arch"]),
        ({"net_arch": {"actor": [8]}}, ["policy_kwargs"]),
        ({"net_arch": [8.5]}, ["policy_kwargs"]),
        ({"net_arch": [-1]}, ["policy_kwargs"]),
        ({"net_arch": None, "activation_fn": "tanh"}, ["policy_kwargs"]),
        ({"optimizer_class": "adam"}, ["policy_kwargs"]),
        ({"optimizer_kwargs": {"betta": 0.5}}, ["policy_kwargs"]),
        ({"optimizer_kwargs": {"betas": (2, 3)}}, ["beta"]),
        ({"optimizer_kwargs": {"lr": 0.1}}, ["policy_kwargs"]),
        ({"log_std_init": "x"}, ["policy_kwargs"]),
        ({"features_extractor_class": "cnn"}, ["policy_kwargs"]),
        ({"features_extractor_class": sb3_policies.ActorCriticPolicy}, ["policy_kwargs"]),
        ({"features_extractor_kwargs": {"features_dim": 3}}, ["policy_kwargs"]),
        ({"observation_space": spaces.Discrete(3)}, ["policy_kwargs"]),
        ({"lr_schedule": 0.1}, ["policy_kwargs"]),
        ({"use_sde": True}, ["policy_kwargs"]),
        ({"normalize_observations": True}, ["policy_kwargs"]),
        ({"normalize_returns": False}, ["policy_kwargs"]),
        ({3: 4}, ["policy_kwargs"]),
    ],
)
def test_policy_kwargs(algo: str, kwargs: dict[Any, Any], names: list[str]) -> None:
    """Named, with what is wrong in them."""
    with pytest.raises(ValueError) as error:
        make(algo, policy_kwargs=kwargs)
    for name in names:
        assert name in str(error.value)


@every_algorithm
@pytest.mark.parametrize(
    ("kwargs", "names"),
    [
        ({"size": 3}, ["rollout_buffer_kwargs", "size"]),
        ({"handle_timeout_termination": False}, ["rollout_buffer_kwargs", "handle_timeout_termination"]),
        ({"gamma": 0.5}, ["rollout_buffer_kwargs"]),
        ({"n_envs": 3}, ["rollout_buffer_kwargs"]),
        ({3: 3}, ["rollout_buffer_kwargs"]),
    ],
)
def test_rollout_buffer_kwargs(algo: str, kwargs: dict[Any, Any], names: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        make(algo, rollout_buffer_kwargs=kwargs)
    for name in names:
        assert name in str(error.value)


@every_algorithm
def test_errors_of_the_users_own_code_are_not_ours(algo: str) -> None:
    """A bug in a policy of the user's is not blamed on its arguments, and its traceback is there."""

    class Broken(own_policies.OwnNetwork):
        def _build(self, lr_schedule: Any) -> None:
            raise KeyError("the user's own")

    with pytest.raises((KeyError, ValueError)) as error:
        make(algo, policy=Broken, policy_kwargs={})
    assert "the user's own" in str(error.value)


# State dicts


def other_states() -> dict[str, Any]:
    box = own_policies.CONTINUOUS
    build = {
        "width": lambda: make("smac", box(), policy_kwargs={"net_arch": [9]}),
        "depth": lambda: make("smac", box(), policy_kwargs={"net_arch": [8, 8]}),
        "actions": lambda: make("smac", own_policies.DISCRETE()),
        "observations": lambda: make("smac", "Pendulum-v1"),
        "extractor": lambda: make(
            "smac", box(), policy_kwargs={"net_arch": [8], "features_extractor_class": own_policies.Residual}
        ),
        "not normalised": lambda: make("smac", box(), normalize_observations=False),
        "returns not normalised": lambda: make("smac", box(), normalize_returns=False),
        "sde": lambda: make("smac", box(), use_sde=True),
        "own": lambda: make("smac", box(), own_policies.OwnValues),
        "a2c": lambda: A2C("MlpPolicy", box(), policy_kwargs={"net_arch": [8]}, device="cpu"),
    }
    return build


@every_algorithm
@pytest.mark.parametrize("other", other_states())
def test_state_dicts_of_other_policies(algo: str, other: str) -> None:
    """A ValueError that says what does not fit, by the policy's method and by the model's; nothing is half loaded."""
    model = make(algo, own_policies.CONTINUOUS())
    before = snapshot(model)["policy"]
    state = other_states()[other]().policy.state_dict()
    normalized = {"not normalised": "normalize_observations", "returns not normalised": "normalize_returns"}.get(other)
    match = normalized or "must be|state_dict"
    with pytest.raises(ValueError, match=match):
        model.policy.load_state_dict(state)
    with pytest.raises(ValueError, match=match):
        model.set_parameters({**model.get_parameters(), "policy": state})
    if normalized:
        assert is_same(before, snapshot(model)["policy"])


@every_algorithm
@pytest.mark.parametrize("wrong", ["missing", "unexpected", "empty", "list", "shape"])
def test_state_dicts_that_are_none(algo: str, wrong: str) -> None:
    model = make(algo, own_policies.CONTINUOUS())
    state: Any = dict(model.policy.state_dict())
    name = "action_net.weight"
    if wrong == "missing":
        del state[name]
    elif wrong == "unexpected":
        state["nonsense"] = th.zeros(1)
    elif wrong == "empty":
        state = {}
    elif wrong == "list":
        state = list(state.items())
    else:
        state[name] = th.zeros(1, 1)
    with pytest.raises((ValueError, TypeError)) as error:
        model.policy.load_state_dict(state)
    expected = {"missing": name, "unexpected": "nonsense", "shape": name}.get(wrong, "")
    assert expected in str(error.value)
    if wrong in ("missing", "unexpected", "shape"):
        model.policy.load_state_dict({key: value for key, value in state.items() if wrong != "shape"}, strict=False)


@every_algorithm
def test_a_model_of_another_algorithm(algo: str) -> None:
    """Loaded by the wrong class: an error, and not a half-built model."""
    others = {"smac": "acadam", "smac_full": "acadam", "acadam": "smac", "accg": "acadam", "acsgd": "acadam"}
    file = io.BytesIO()
    make(others[algo]).save(file)
    file.seek(0)
    with pytest.raises(ValueError):
        TABLE[algo].cls.load(file)


@every_algorithm
@pytest.mark.parametrize("normalize", ["normalize_observations", "normalize_returns"])
def test_normalisation_is_that_of_the_parameters(algo: str, normalize: str) -> None:
    """It cannot be switched in a model that is built, by an attribute or on loading; the error says so."""
    model = make(algo, own_policies.CONTINUOUS())
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    with pytest.raises(ValueError, match=normalize):
        type(model).load(file, **{normalize: False})
    setattr(model, normalize, False)
    with pytest.raises(ValueError, match=f"{normalize} must be"):
        model.learn(32)


@every_algorithm
@pytest.mark.parametrize(
    "policy",
    [
        *("MLPPolicy", "mlp", "", None, 3, object(), sb3_policies.BasePolicy, th.nn.Linear, NaturalActorCritic),
        *(th.nn.Linear(2, 2), ["MlpPolicy"]),
    ],
    ids=lambda policy: (type(policy).__name__ if not isinstance(policy, str | type) else str(policy)),
)
def test_policies_that_are_none(algo: str, policy: Any) -> None:
    with pytest.raises(ValueError, match=r"^policy must be .*got "):
        make(algo, policy=policy)


@every_algorithm
def test_a_policy_for_other_observations(algo: str) -> None:
    """The name that fits is in the message."""
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        make(algo, own_policies.CASES["Dict"].env(), "MlpPolicy")
    with pytest.raises((ValueError, AssertionError), match=r"CnnPolicy|image|NatureCNN"):
        make(algo, own_policies.CONTINUOUS(), "CnnPolicy")


@every_algorithm
def test_what_is_refused_is_said_truly(algo: str) -> None:
    """Numbers in the message are those of the case."""
    with pytest.raises(ValueError, match=re.escape("batch_size must be None or between 1 and 32 (n_steps * n_envs), got 33")):
        make(algo, batch_size=33)
    env = DummyVecEnv([own_policies.CONTINUOUS] * 3)
    with pytest.raises(ValueError, match=re.escape("between 1 and 96 (n_steps * n_envs), got 97")):
        make(algo, env, batch_size=97)
