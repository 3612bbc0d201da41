"""Training runs, with every argument, and every argument does something."""

import inspect
import re
from typing import Any

import pytest
import torch as th
from stable_baselines3 import A2C
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

import sb3_smac
from sb3_smac import ALGORITHMS, NaturalActorCritic
from sb3_smac.maths import flatten
from sb3_smac.smac.smac import TargetKL
from tests.algorithms import TABLE, every_algorithm, is_finite, is_same, make, snapshot

# SB3 keeps ``stats_window_size`` under a private name, the policy and the environment under others
NOT_ATTRIBUTES = {"policy", "env", "_init_setup_model", "stats_window_size"}

# What changes a model; tests/test_settings_at_use.py has what changes an update
OPTIONS: dict[str, Any] = {
    "n_steps": 16,
    "gamma": 0.5,
    "gae_lambda": 0.5,
    "normalize_observations": False,
    "normalize_returns": False,
    "use_sde": True,
    "policy_kwargs": {"net_arch": [4]},
    "seed": 1,
}


@every_algorithm
@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_learns_in_whole_rollouts(algo: str, env: str) -> None:
    """Actor and critic both move, stay finite, and are updated once a rollout."""
    model = make(algo, env)
    actor, critic = flatten(model.actor_parameters), flatten(model.critic_parameters)
    model.learn(33)  # one step more than a rollout
    assert (model.num_timesteps, model._n_updates) == (64, 2)
    assert is_finite(model)
    assert not th.equal(actor, flatten(model.actor_parameters))
    assert not th.equal(critic, flatten(model.critic_parameters))
    model.learn(32, reset_num_timesteps=False)
    assert (model.num_timesteps, model._n_updates) == (96, 3)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_argument_matters(name: str) -> None:
    """Each changes where training ends: none is accepted and then ignored."""
    assert not is_same(snapshot(make("smac", **{name: OPTIONS[name]}).learn(64)), snapshot(make("smac").learn(64)))


@every_algorithm
def test_arguments_are_attributes_in_the_order_of_sb3(algo: str) -> None:
    """The RL Zoo sets attributes by the arguments' names, and A2C's users pass them in A2C's order."""
    ours = inspect.signature(TABLE[algo].cls).parameters
    model = make(algo)
    assert [name for name in ours if name not in NOT_ATTRIBUTES and not hasattr(model, name)] == []
    in_sb3 = inspect.signature(OnPolicyAlgorithm).parameters.keys() & inspect.signature(A2C).parameters.keys()
    not_ours = {"vf_coef"}  # actor and critic have losses of their own
    assert in_sb3 - ours.keys() == not_ours
    shared = [name for name in ours if name in inspect.signature(A2C).parameters]
    order = {name: place for place, name in enumerate(inspect.signature(OnPolicyAlgorithm).parameters)}
    known = [order[name] for name in shared if name in order]
    assert known == sorted(known)


# Defaults of its own; AC-SGD has none
OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "smac": {"target_kl": "auto", "line_search": None},
    "accg": {"target_kl": 0.05},
    "acadam": {"learning_rate": 1e-3},
    "acsgd": {},
}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_shared_arguments_are_those_of_the_base_class(algo: str) -> None:
    """Order, annotation and default, but for those listed; SMAC's ``line_search`` may be ``None``, its target ``"auto"``."""
    base = inspect.signature(NaturalActorCritic).parameters
    own = inspect.signature(ALGORITHMS[algo]).parameters
    assert [name for name in own if name in base] == list(base)
    differing = {name: own[name].default for name in base if own[name].default != base[name].default}
    assert differing == OWN_DEFAULTS[algo]
    annotations = {name: own[name].annotation for name in base if own[name].annotation != base[name].annotation}
    assert annotations in ({}, {"line_search": bool}, {"target_kl": TargetKL})
    assert [name for name in base if own[name].kind != base[name].kind] == []
    assert own.keys() - base.keys() == TABLE[algo].options.keys()


def documented(cls: type) -> list[str]:
    return re.findall(r":param (\w+):", cls.__doc__ or "")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_argument_is_documented_once(algo: str) -> None:
    """An algorithm documents its own arguments, and one that means more than in the base class, which has the others."""
    arguments, of_base = inspect.signature(ALGORITHMS[algo]).parameters, documented(NaturalActorCritic)
    assert of_base == list(inspect.signature(NaturalActorCritic).parameters)
    redefined = {"smac": ["target_kl", "line_search", "averaging"]}.get(algo, [])
    own = documented(ALGORITHMS[algo]) if "__init__" in vars(ALGORITHMS[algo]) else []
    assert own == [name for name in arguments if name not in of_base or name in redefined]


def test_registry() -> None:
    """The names of the command line are the classes' own, and each class is public and has its row here."""
    assert list(ALGORITHMS) == ["smac", "accg", "acsgd", "acadam"]
    assert {row.cls for row in TABLE.values()} == set(ALGORITHMS.values())
    for name, cls in ALGORITHMS.items():
        assert cls.__name__.lower() == name
        assert issubclass(cls, OnPolicyAlgorithm)
        assert getattr(sb3_smac, cls.__name__) is cls
        assert cls.__name__ in sb3_smac.__all__


@pytest.mark.parametrize(("algo", "learning_rate"), [("smac", 1e3), ("smac", 1e30), ("acadam", 1e30)])
def test_line_search(algo: str, learning_rate: float) -> None:
    """A step that breaks the policy down does harm: it is halved, and none is made if ten halvings are too few."""
    model = make(algo, target_kl=None, learning_rate=learning_rate, line_search=True).learn(32)
    values = model.logger.name_to_value
    halvings = values["train/line_search_halvings"]
    assert is_finite(model)
    assert 0 < halvings <= 10
    assert values["train/step_size"] == (learning_rate / 2**halvings if halvings < 10 else 0)


def test_runs_without_a_seed() -> None:
    assert is_finite(make("smac", seed=None).learn(32))


def test_rollout_buffer_class() -> None:
    """The user's buffer is the one that is filled, with the user's arguments."""

    class Counting(RolloutBuffer):
        def __init__(self, *args: Any, offset: int = 0, **kwargs: Any) -> None:
            self.added = offset
            super().__init__(*args, **kwargs)

        def add(self, *args: Any, **kwargs: Any) -> None:
            self.added += 1
            super().add(*args, **kwargs)

    model = make("smac", rollout_buffer_class=Counting, rollout_buffer_kwargs={"offset": 1000}).learn(32)
    assert isinstance(model.rollout_buffer, Counting) and model.rollout_buffer.added == 1032
    model.n_steps = 16  # it is made anew
    model.learn(16)
    assert isinstance(model.rollout_buffer, Counting) and model.rollout_buffer.added == 1016
    with pytest.raises(AssertionError, match="DictRolloutBuffer must be used with Dict obs space only"):
        make("smac", rollout_buffer_class=DictRolloutBuffer)


def test_recommends_the_cpu_for_a_small_network() -> None:
    """SB3 warns when a policy without a CNN is trained on a GPU: our MlpPolicy has to be recognised."""
    model = make("smac")
    model.device = th.device("cuda")  # pretend
    with pytest.warns(UserWarning, match="You are trying to run SMAC on the GPU"):
        model._maybe_recommend_cpu()
