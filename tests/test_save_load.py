"""What is saved is all that training and prediction need."""

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_smac import NaturalActorCritic
from sb3_smac.maths import flatten
from tests import own_policies
from tests.algorithms import TABLE, every_algorithm, is_same, make, reloaded, snapshot

POLICIES: dict[str, own_policies.Case] = {
    "MlpPolicy": own_policies.Case("MlpPolicy", lambda: gym.make("Pendulum-v1")),
    "CnnPolicy": own_policies.CASES["Cnn"],
    "MultiInputPolicy": own_policies.CASES["Dict"],
}
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "schedules": {"target_kl": None, "learning_rate": "lin_0.05", "critic_learning_rate": "lin_0.01"},
    "scheduled_kl": {"target_kl": lambda progress: 0.01 + 0.02 * progress},
    "minibatches": {"batch_size": 12, "target_kl": 0.01},
    "sde": {"use_sde": True},
    "monte_carlo": {"critic_target": "monte_carlo", "ent_coef": 0.01, "max_grad_norm": 0.5},
}


def make_with(policy: str, algo: str = "smac", policy_kwargs: dict[str, Any] | None = None, **arguments: Any) -> Any:
    case = POLICIES[policy]
    kwargs = {"net_arch": [8], **case.kwargs, **(policy_kwargs or {})}
    return make(algo, case.env(), policy, **{"n_steps": 16, "policy_kwargs": kwargs, **arguments})


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Put the global random generators back: loading a model seeds them."""
    states = random.getstate(), np.random.get_state(), th.get_rng_state()
    yield
    random.setstate(states[0])
    np.random.set_state(states[1])
    th.set_rng_state(states[2])


def through_a_file(model: NaturalActorCritic) -> NaturalActorCritic:
    with generators_kept():
        return reloaded(model, env=model.get_env(), force_reset=False)


def everything(model: NaturalActorCritic) -> dict[str, Any]:
    """Parameters, optimizer states, counters, and the last rollout."""
    buffer = model.rollout_buffer
    return {
        **snapshot(model),
        "counters": (model.num_timesteps, model._n_updates, model._current_progress_remaining),
        "rollout": (buffer.actions.copy(), buffer.advantages.copy(), buffer.returns.copy()),
    }


@pytest.mark.parametrize(
    ("algo", "case"), [*[(algo, "default") for algo in TABLE], *[("smac", case) for case in CASES if case != "default"]]
)
def test_training_goes_on_as_if_nothing_had_happened(algo: str, case: str) -> None:
    """Training, saving, loading and training again is training twice, bit for bit, on the same environment state."""

    def twice(between: Callable[[NaturalActorCritic], NaturalActorCritic]) -> dict[str, Any]:
        model = make(algo, make_vec_env("Pendulum-v1", n_envs=2), **CASES[case]).learn(128)
        return everything(between(model).learn(128, reset_num_timesteps=False))

    assert is_same(twice(lambda model: model), twice(through_a_file))


@pytest.mark.parametrize(
    ("algo", "policy"), [*[(algo, "MlpPolicy") for algo in TABLE], ("smac", "CnnPolicy"), ("smac", "MultiInputPolicy")]
)
def test_loaded_model_is_the_same(algo: str, policy: str, tmp_path: Path) -> None:
    """Parameters, optimizer states, predictions and arguments, without an environment."""
    arguments = {"n_steps": 16, "batch_size": 8, "target_kl": 0.01, "critic_learning_rate": 0.01, "learning_rate": 0.02}
    arguments.update(TABLE[algo].options)
    model = make_with(policy, algo, **arguments).learn(16)
    model.save(tmp_path / "model")
    loaded = TABLE[algo].cls.load(tmp_path / "model.zip")
    assert loaded.get_env() is None
    assert is_same(snapshot(model), snapshot(loaded))
    observations = model.get_env().reset()
    assert is_same(model.predict(observations, deterministic=True), loaded.predict(observations, deterministic=True))
    assert {name: getattr(loaded, name) for name in arguments} == arguments
    assert (loaded.num_timesteps, loaded._n_updates) == (16, 1)


def test_custom_objects() -> None:
    """As the RL Zoo loads a model to watch it: schedules replaced by ones that need no unpickling."""
    model = make("smac", target_kl=None, learning_rate=lambda progress: 1e-2, normalize_observations=False).learn(32)
    custom_objects = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    loaded = reloaded(model, custom_objects=custom_objects, env=make_vec_env("Pendulum-v1"))
    observations = model.get_env().reset()
    assert is_same(model.predict(observations, deterministic=True), loaded.predict(observations, deterministic=True))
    assert loaded.learning_rate == 0.0 and not hasattr(loaded, "clip_range")
    actor = flatten(loaded.actor_parameters)
    loaded.learn(32)
    assert th.equal(actor, flatten(loaded.actor_parameters))


def test_fewer_environments_than_in_training() -> None:
    """A model whose batches are larger than the new rollout predicts; only training with it is refused."""
    model = make("smac", make_vec_env("Pendulum-v1", n_envs=4), n_steps=8, batch_size=32).learn(32)
    loaded = reloaded(model, env=make_vec_env("Pendulum-v1"))
    assert loaded.n_envs == 1
    assert loaded.predict(loaded.get_env().reset())[0].shape == (1, 1)
    with pytest.raises(ValueError, match=r"batch_size.*8.*32"):
        loaded.learn(8)
    more = reloaded(model, env=make_vec_env("Pendulum-v1", n_envs=5)).learn(40)
    assert more.rollout_buffer.n_envs == 5


@pytest.mark.parametrize("algo", ["smac", "acadam"])
def test_parameters(algo: str) -> None:
    """``get_parameters`` holds every optimizer; ``set_parameters`` puts all back and refuses what does not fit."""
    model = make(algo).learn(32)
    saved = snapshot(model)
    optimizers = {name for name, value in vars(model).items() if isinstance(value, th.optim.Optimizer)}
    assert saved.keys() == {"policy", "policy.optimizer"} | optimizers and len(optimizers) == (algo == "acadam")
    model.learn(32, reset_num_timesteps=False)
    assert not is_same(saved, snapshot(model))
    model.set_parameters(saved)
    assert is_same(saved, snapshot(model))

    with pytest.raises(ValueError, match="no_such_object"):
        model.set_parameters({**saved, "no_such_object": {}}, exact_match=False)
    with pytest.raises(ValueError, match=r"policy\.optimizer"):
        model.set_parameters({"policy": saved["policy"]})
    model.set_parameters({"policy": saved["policy"]}, exact_match=False)
    with pytest.raises(RuntimeError, match="Missing key"):
        model.set_parameters({**saved, "policy": dict(list(saved["policy"].items())[1:])})


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("share", [None, False, True])
def test_policy_alone(policy: str, share: bool | None, tmp_path: Path) -> None:
    """
    A policy that is saved without its algorithm acts as before. It remembers whether actor and critic share their features
    extractor, which Stable-Baselines3 does not save.
    """
    model = make_with(policy, policy_kwargs={"share_features_extractor": share}).learn(16)
    model.policy.save(tmp_path / "policy.pkl")
    loaded = type(model.policy).load(tmp_path / "policy.pkl")
    assert is_same(model.policy.state_dict(), loaded.state_dict())
    assert loaded.share_features_extractor == model.policy.share_features_extractor
    assert (loaded.pi_features_extractor is loaded.vf_features_extractor) == loaded.share_features_extractor
    observations = model.get_env().reset()
    assert is_same(model.policy.predict(observations, deterministic=True), loaded.predict(observations, deterministic=True))


@every_algorithm
def test_file_is_portable(algo: str, tmp_path: Path) -> None:
    """No caches, closures or networks among the pickled attributes: they are rebuilt, or saved as tensors."""
    model = make(algo).learn(32)
    model.save(tmp_path / "model")
    data, parameters, variables = load_from_zip_file(tmp_path / "model")
    assert data is not None
    tensors = [name for name, value in data.items() if isinstance(value, th.Tensor | th.nn.Module | th.optim.Optimizer)]
    lists = [name for name, value in data.items() if isinstance(value, list) and any(map(th.is_tensor, value))]
    assert tensors == [] and lists == []
    assert parameters.keys() == model.get_parameters().keys() and bool(variables) == (model._share_averaged > 0)
    assert not {"env", "rollout_buffer", "actor_parameters", "critic_parameters", "_metrics"} & data.keys()
