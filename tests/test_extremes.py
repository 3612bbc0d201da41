"""Extremes end in a smaller step, no step, or an error that says where; never in a crash of arithmetic."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import NaturalActorCritic, NonFiniteError
from tests.algorithms import ACTION_SPACES, TABLE, NormalEnv, first_entry, is_finite, make

pytestmark = pytest.mark.filterwarnings("ignore:.*no longer those of the policy.*:UserWarning")

# A middle rank besides those of the table; AC-SGD has no direction of its own
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TABLE if name != "acsgd"},
    "smac_rank_2": ("smac", {"fisher_rank": 2}),
}


def build(algo: str, env: Any, **arguments: Any) -> NaturalActorCritic:
    name, own = ALGORITHMS[algo]
    return make(name, env, **{"n_steps": 16, "target_kl": 0.02, **own, **arguments})


def box_env() -> NormalEnv:
    return NormalEnv(ACTION_SPACES["Box"], first_entry)


def learned(model: NaturalActorCritic, n_steps: int = 32, **arguments: Any) -> NaturalActorCritic:
    """
    Trained: nothing crashes, all stays finite, and what is logged is.

    But for the KL divergence of a fixed step, or of several, which is infinite where the probability of a discrete action
    rounds to 0.
    """
    model.learn(n_steps, **arguments)
    assert is_finite(model)
    logged = {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}
    undefined = {"train/explained_variance"}  # of returns that are all equal
    if (model.target_kl is None or model.batch_size is not None) and model.action_space != ACTION_SPACES["Box"]:
        undefined.add("train/approx_kl")
    assert not {key for key, value in logged.items() if not math.isfinite(value)} - undefined, logged
    return model


class SetDeviation(BaseCallback):
    """In mid-rollout."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def _on_step(self) -> bool:
        if self.n_calls == 20:
            self.model.policy.log_std.data.fill_(self.value)
        return True


@dataclass(frozen=True)
class Case:
    """
    What is extreme.

    :param arguments: of the algorithm
    :param space: action space
    :param reward: of an action
    :param offset: of the observations
    :param scale: of the observations
    :param logit: bias of the first output
    :param parameter_scale: factor of the parameters
    :param deviation: standard deviation that is set in mid-rollout
    :param may_be_refused: whether an error may say what is not finite, and leave a finite policy
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    space: str = "Box"
    reward: Callable[[Any], float] = first_entry
    offset: Any = 0.0
    scale: Any = 1.0
    logit: float = 0.0
    parameter_scale: float = 1.0
    deviation: float | None = None
    may_be_refused: bool = False


def times(scale: float) -> Callable[[Any], float]:
    return lambda action: scale * first_entry(action)


def spike(scale: float) -> Callable[[Any], float]:
    """One reward is the size of all others together."""
    return lambda action: scale if first_entry(action) > 0.9 else 1.0


def constant(reward: float) -> Callable[[Any], float]:
    return lambda action: reward


FIXED: dict[str, Any] = {"target_kl": None, "learning_rate": 0.01}
CASES: dict[str, Case] = {
    "rewards of 1e-20": Case(reward=times(1e-20)),
    "rewards of 1e20": Case(reward=times(1e20)),
    "rewards of 1e30": Case({"normalize_returns": False}, "Discrete", times(1e30)),
    "rewards of 1e30, fixed step": Case(FIXED, reward=times(1e30)),
    "one reward of 1e20": Case({"critic_target": "monte_carlo", "max_grad_norm": 0.5}, reward=spike(1e20)),
    "one reward of 1e20, Gauss-Newton": Case({"critic_optimizer": "gauss_newton"}, reward=spike(1e20)),
    "one reward of 1e-20, Gauss-Newton": Case({"critic_optimizer": "gauss_newton"}, reward=spike(1e-20)),
    # advantages that are (nearly) all equal: no step, or a small one
    "equal rewards": Case({"gamma": 0.0}, reward=constant(0.1)),
    "no rewards": Case({"gamma": 0.0, "batch_size": 1}, reward=constant(0.0)),
    "equal rewards of 1e20": Case({"gamma": 0.0, "batch_size": 3}, reward=constant(1e20)),
    "rollouts of one step": Case({"n_steps": 1, "normalize_advantage": False}),
    "rollouts of two steps": Case({"n_steps": 2}, "Discrete"),
    "rollouts of three steps": Case({"n_steps": 3}),
    "batches of one": Case({"batch_size": 1}),
    "batches of one, fixed step": Case({"batch_size": 1, **FIXED}, "Discrete"),
    "a deviation of e^-20": Case({"policy_kwargs": {"log_std_init": -20.0}}, may_be_refused=True),
    "a deviation of e^-5, fixed step": Case(
        {"target_kl": None, "learning_rate": 1e-6, "policy_kwargs": {"log_std_init": -5.0}}, may_be_refused=True
    ),
    "a deviation of e^20": Case({"policy_kwargs": {"log_std_init": 20.0}}, may_be_refused=True),
    "a deviation of e^-20 from mid-rollout": Case(deviation=-20.0),
    "a deviation of e^10 from mid-rollout": Case(deviation=10.0),
    **{
        f"a logit of {logit:g}, {space}": Case({}, space, constant(1.0), logit=logit)
        for logit in (1e2, 1e8)
        for space in ACTION_SPACES
        if space != "Box"
    },
    "a logit of -1e4, entropy bonus": Case({"ent_coef": 0.01}, "Discrete", constant(1.0), logit=-1e4),
    "observations around 1e6": Case(offset=-1e6),
    "observations of 1e-6": Case(scale=1e-6),
    "observations of 0": Case(scale=0.0),
    "observations around 1e30": Case(offset=1e30, scale=1e19),
    "one constant observation, one of 1e8": Case(scale=np.array([1.0, 0.0, 1e8])),
    "raw observations of 1e6": Case({"normalize_observations": False}, scale=1e6, may_be_refused=True),
    "raw observations around 1e30": Case({"normalize_observations": False}, offset=1e30, may_be_refused=True),
    "a target of 1e-30": Case({"target_kl": 1e-30, "line_search": True}),
    "a target of 1e30": Case({"target_kl": 1e30}, "Discrete"),
    "a target of 1e30, line search": Case({"target_kl": 1e30, "line_search": True}),
    "a learning rate of 1e-38": Case({"target_kl": None, "learning_rate": 1e-38}),
    "a learning rate of 1e30": Case({"target_kl": None, "learning_rate": 1e30}, "Discrete", may_be_refused=True),
    "a learning rate of 1e300": Case({"target_kl": None, "learning_rate": 1e300, "max_grad_norm": 0.5}, may_be_refused=True),
    "damping of 1e-30": Case({"damping": 1e-30}),
    "damping of 1e30": Case({"damping": 1e30}, "Discrete"),
    "parameters of 0": Case(parameter_scale=0.0),
    "parameters of 1e-30": Case({}, "Discrete", parameter_scale=1e-30),
    "parameters of 1e10": Case(parameter_scale=1e10),
}


def is_tried(algo: str, name: str) -> bool:
    """Whether the algorithm has code of its own for what is extreme."""
    if algo == "acadam":
        return "reward" in name or "rate" in name
    return algo != "smac_rank_2" or "reward" in name or "rate" in name or "damping" in name


@pytest.mark.parametrize(("algo", "name"), [(algo, name) for algo in ALGORITHMS for name in CASES if is_tried(algo, name)])
def test_training_goes_on(algo: str, name: str) -> None:
    """As A2C's and PPO's does."""
    case = CASES[name]
    arguments = dict(case.arguments)
    if algo == "smac_rank_2" and (arguments.get("batch_size") == 1 or arguments.get("n_steps") == 1):
        arguments["fisher_rank"] = 1
    model = build(algo, NormalEnv(ACTION_SPACES[case.space], case.reward, case.offset, case.scale), **arguments)
    with th.no_grad():
        for parameter_name, parameter in model.policy.named_parameters():
            if parameter_name != "log_std":
                parameter.mul_(case.parameter_scale)
        model.policy.action_net.bias[0] += case.logit
    try:
        learned(model, callback=None if case.deviation is None else SetDeviation(case.deviation))
    except NonFiniteError:
        assert case.may_be_refused and is_finite(model)


@pytest.mark.parametrize(("algo", "n_steps"), [("smac", 2), ("smac_full", 5)])
def test_short_rollouts(algo: str, n_steps: int) -> None:
    """Saturated policies have directions of 1e-34, whose step size is beyond float32."""
    env = make_vec_env("CartPole-v1", n_envs=8)
    learned(build(algo, env, n_steps=n_steps, target_kl=0.05, policy_kwargs=None), 800)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("where", ["reward", "parameter", "advantage"])
def test_what_is_not_finite_is_named(value: float, where: str) -> None:
    """Where it comes from; a parameter that the user broke, too."""
    model = build("smac", NormalEnv(ACTION_SPACES["Box"], constant(value) if where == "reward" else first_entry))
    if where == "parameter":
        model.policy.action_net.bias.data[0] = value
    if where == "advantage":
        compute = model.rollout_buffer.compute_returns_and_advantage

        def broken(*args: Any, **kwargs: Any) -> None:
            compute(*args, **kwargs)
            model.rollout_buffer.advantages[3] = value

        model.rollout_buffer.compute_returns_and_advantage = broken  # type: ignore[method-assign]
    is_named = where != "parameter"
    with pytest.raises(NonFiniteError if is_named else ValueError, match=where if is_named else None):
        model.learn(16)


class Silent(BaseCallback):
    def _on_step(self) -> bool:
        return True


class Collects(BaseCallback):
    """A rollout within a rollout, and before and after one, with the same policy."""

    def _init_callback(self) -> None:
        self.env = DummyVecEnv([box_env])
        self.n_collected = 0

    def _collect(self) -> None:
        model = self.model
        own = model._last_obs, model._last_episode_starts, model.num_timesteps
        model._last_obs, model._last_episode_starts = self.env.reset(), np.ones(1, bool)
        buffer = type(model.rollout_buffer)(4, model.observation_space, model.action_space, device="cpu")
        silent = Silent()
        silent.init_callback(model)
        model.collect_rollouts(self.env, silent, buffer, 4)
        assert buffer.full
        self.n_collected += 1
        model._last_obs, model._last_episode_starts, model.num_timesteps = own

    def _on_step(self) -> bool:
        if self.n_calls % 5 == 0:
            self._collect()
        return True

    _on_rollout_start = _on_rollout_end = _collect


def test_a_rollout_within_a_rollout() -> None:
    """Collected into another buffer: the outer one is what is trained on, as if nothing had been."""
    callback = Collects()
    model = build("smac", box_env())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned(model, callback=callback)
    assert callback.n_collected == 2 + 2 + 6
    assert model.rollout_buffer.buffer_size == 16
