"""Training runs, with every argument, and every argument does something."""

import inspect
import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

import sb3_smac
from sb3_smac import ALGORITHMS, NaturalActorCritic
from sb3_smac.maths import flatten
from tests.algorithms import TABLE, every_algorithm, is_finite, is_same, make, snapshot

# SB3 keeps ``stats_window_size`` under a private name, the policy and the environment under others
NOT_ATTRIBUTES = {"policy", "env", "_init_setup_model", "stats_window_size"}

# What is changed, and from what: an argument is only proven to matter where it is in use
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "n_steps": ({}, {"n_steps": 16}),
    "learning_rate": ({"target_kl": None}, {"learning_rate": 0.02}),
    "batch_size_one": ({"target_kl": 0.01}, {"batch_size": 1}),
    "batch_size_that_divides": ({"target_kl": 0.01}, {"batch_size": 8}),
    "batch_size_that_does_not": ({"target_kl": 0.01}, {"batch_size": 9}),
    "gamma": ({}, {"gamma": 0.5}),
    "gae_lambda": ({}, {"gae_lambda": 0.5}),
    "target_kl": ({"target_kl": 0.01}, {"target_kl": 0.002}),
    "no_target_kl": ({"target_kl": 0.01}, {"target_kl": None}),
    "target_kl_schedule": ({"target_kl": 0.01}, {"target_kl": "lin_0.01"}),
    "critic_learning_rate": ({}, {"critic_learning_rate": 0.1}),
    "critic_learning_rate_schedule": ({}, {"critic_learning_rate": lambda progress: 1e-3 * progress}),
    "critic_optimizer": ({}, {"critic_optimizer": "gauss_newton"}),
    "critic_damping": ({"critic_optimizer": "gauss_newton"}, {"critic_damping": 10.0}),
    "n_critic_updates": ({}, {"n_critic_updates": 3}),
    "critic_batch_size": ({}, {"critic_batch_size": 8}),
    "critic_batch_size_none": ({}, {"critic_batch_size": None}),
    "critic_target": ({}, {"critic_target": "monte_carlo"}),
    "normalize_advantage": ({"target_kl": None}, {"normalize_advantage": False}),
    "normalize_observations": ({}, {"normalize_observations": False}),
    "normalize_returns": ({}, {"normalize_returns": False}),
    "ent_coef": ({}, {"ent_coef": 0.1}),
    "max_grad_norm": ({"target_kl": None}, {"max_grad_norm": 1e-3}),
    "use_sde": ({}, {"use_sde": True}),
    "sde_sample_freq": ({"use_sde": True}, {"sde_sample_freq": 4}),
    "policy_kwargs": ({}, {"policy_kwargs": {"net_arch": [4]}}),
    "seed": ({}, {"seed": 1}),
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


@cache
def trained(algo: str, arguments: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """State after two rollouts; shared between the options that start from the same arguments."""
    return snapshot(make(algo, **dict(arguments)).learn(64))


def check_option(algo: str, base: dict[str, Any], option: dict[str, Any]) -> None:
    model = make(algo, **{**base, **option}).learn(64)
    assert is_finite(model)
    assert not is_same(snapshot(model), trained(algo, tuple(base.items())))


@every_algorithm
@pytest.mark.parametrize("option", OPTIONS)
def test_every_argument_matters(algo: str, option: str) -> None:
    """Each argument runs, and changes where training ends: none is accepted and then ignored."""
    check_option(algo, *OPTIONS[option])


@pytest.mark.parametrize(("algo", "option"), [(algo, option) for algo in TABLE for option in TABLE[algo].options])
def test_every_argument_of_its_own_matters(algo: str, option: str) -> None:
    check_option(algo, {"target_kl": None}, {option: TABLE[algo].options[option]})


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
    "smac": {"target_kl": 0.05, "line_search": None},
    "accg": {"target_kl": 0.05},
    "acadam": {"learning_rate": 1e-3},
    "acsgd": {},
}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_shared_arguments_are_those_of_the_base_class(algo: str) -> None:
    """Order, annotation and default, but for those listed; only SMAC's ``line_search`` may be ``None``."""
    base = inspect.signature(NaturalActorCritic).parameters
    own = inspect.signature(ALGORITHMS[algo]).parameters
    assert [name for name in own if name in base] == list(base)
    differing = {name: own[name].default for name in base if own[name].default != base[name].default}
    assert differing == OWN_DEFAULTS[algo]
    annotations = {name: own[name].annotation for name in base if own[name].annotation != base[name].annotation}
    assert annotations in ({}, {"line_search": bool})
    assert [name for name in base if own[name].kind != base[name].kind] == []
    assert own.keys() - base.keys() == TABLE[algo].options.keys()  # each of its own is tested below


def documented(cls: type) -> list[str]:
    return re.findall(r":param (\w+):", cls.__doc__ or "")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_argument_is_documented_once(algo: str) -> None:
    """An algorithm documents its own arguments, and one that means more than in the base class, which has the others."""
    arguments, of_base = inspect.signature(ALGORITHMS[algo]).parameters, documented(NaturalActorCritic)
    assert of_base == list(inspect.signature(NaturalActorCritic).parameters)
    redefined = {"smac": ["line_search"]}.get(algo, [])
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


@every_algorithm
@pytest.mark.parametrize("learning_rate", [1e3, 1e30])
def test_line_search(algo: str, learning_rate: float) -> None:
    """A step that breaks the policy down does harm: it is halved, and none is made if ten halvings are too few."""
    model = make(algo, target_kl=None, learning_rate=learning_rate, line_search=True).learn(32)
    values = model.logger.name_to_value
    halvings = values["train/line_search_halvings"]
    assert is_finite(model)
    assert 0 < halvings <= 10
    assert values["train/step_size"] == (learning_rate / 2**halvings if halvings < 10 else 0)


@every_algorithm
def test_runs_without_a_seed(algo: str) -> None:
    assert is_finite(make(algo, seed=None).learn(32))


@every_algorithm
def test_one_step_a_rollout(algo: str) -> None:
    """The smallest rollout there is, which only unnormalised advantages can live with."""
    model = make(algo, n_steps=1, normalize_advantage=False, batch_size=1).learn(4)
    assert model._n_updates == 4 and is_finite(model)


@every_algorithm
def test_rollout_buffer_class(algo: str) -> None:
    """The user's buffer is the one that is filled, with the user's arguments."""

    class Counting(RolloutBuffer):
        def __init__(self, *args: Any, offset: int = 0, **kwargs: Any) -> None:
            self.added = offset
            super().__init__(*args, **kwargs)

        def add(self, *args: Any, **kwargs: Any) -> None:
            self.added += 1
            super().add(*args, **kwargs)

    model = make(algo, rollout_buffer_class=Counting, rollout_buffer_kwargs={"offset": 1000}).learn(32)
    assert isinstance(model.rollout_buffer, Counting) and model.rollout_buffer.added == 1032
    with pytest.raises(ValueError, match="rollout_buffer_kwargs: RolloutBuffer has no argument 'no_such_argument'"):
        make(algo, rollout_buffer_kwargs={"no_such_argument": 1})
    with pytest.raises(ValueError, match=r"policy_kwargs: .* has no argument 'net_arhc': did you mean 'net_arch'"):
        make(algo, policy_kwargs={"net_arhc": [8]})
    with pytest.raises(AssertionError, match="DictRolloutBuffer must be used with Dict obs space only"):
        make(algo, rollout_buffer_class=DictRolloutBuffer)


@every_algorithm
def test_recommends_the_cpu_for_a_small_network(algo: str) -> None:
    """SB3 warns when a policy without a CNN is trained on a GPU: our MlpPolicy has to be recognised."""
    model = make(algo)
    model.device = th.device("cuda")  # pretend
    with pytest.warns(UserWarning, match=rf"You are trying to run {type(model).__name__} on the GPU"):
        model._maybe_recommend_cpu()


@every_algorithm
def test_advantages_are_normalised_over_the_rollout(algo: str) -> None:
    """Rewards scaled by a constant then change nothing but the critic."""

    def actor_after_one_update(scale: float) -> np.ndarray:
        model = make(algo, target_kl=None, critic_learning_rate=0.0)
        model._setup_learn(32)
        model.collect_rollouts(model.env, model._init_callback(None), model.rollout_buffer, model.n_steps)
        model.rollout_buffer.advantages *= scale
        model.train()
        return flatten(model.actor_parameters).numpy()

    np.testing.assert_allclose(actor_after_one_update(1.0), actor_after_one_update(100.0), rtol=1e-4, atol=1e-6)
