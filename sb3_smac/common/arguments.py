"""Checks of the constructor's arguments: each error names the argument, what it got and what it accepts."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch as th
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import MlpExtractor

from sb3_smac.common import checks
from sb3_smac.common.normalizer import is_vector
from sb3_smac.common.policies import NormalizingPolicy
from sb3_smac.common.schedules import to_schedule

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic

# NumPy's
LARGEST_SEED = 2**32 - 1

NORMALIZATION = ("normalize_observations", "normalize_returns")


class PolicyError(ValueError, AssertionError):
    """A policy that does not fit its environment or its arguments. (Stable-Baselines3 raises an AssertionError.)"""


def check(model: NaturalActorCritic) -> None:
    """
    :param model: the algorithm, with its arguments set
    :raises ValueError: if an argument is out of its range
    """
    to_schedule(model.learning_rate, "learning_rate")
    checks.integer("n_steps", model.n_steps, minimum=1)
    checks.integer("batch_size", model.batch_size, minimum=1, besides=(None,))
    checks.number("gamma", model.gamma, minimum=0, maximum=1)
    checks.number("gae_lambda", model.gae_lambda, minimum=0, maximum=1)
    if model._target_kl is not None:
        to_schedule(model._target_kl, "target_kl", exclusive=True)
    checks.choice("line_search", model.line_search, (None, False, True))
    to_schedule(model.critic_learning_rate, "critic_learning_rate")
    checks.choice("critic_optimizer", model.critic_optimizer, ("adam", "gauss_newton"))
    checks.damping("critic_damping", model.critic_damping)
    checks.integer("n_critic_updates", model.n_critic_updates, minimum=1)
    checks.integer("critic_batch_size", model.critic_batch_size, minimum=1, besides=(None,))
    checks.choice("critic_target", model.critic_target, ("gae", "monte_carlo"))
    checks.number("ent_coef", model.ent_coef, minimum=0)
    checks.number("max_grad_norm", model.max_grad_norm, minimum=0, exclusive=True, optional=True)
    checks.choice("use_sde", model.use_sde, (False, True))
    checks.integer("sde_sample_freq", model.sde_sample_freq, minimum=-1)
    checks.choice("normalize_advantage", model.normalize_advantage, (False, True))
    for name in NORMALIZATION:
        value = getattr(model, name)
        checks.choice(name, value, (None, False, True))
        if value and not issubclass(model.policy_class, NormalizingPolicy):
            raise ValueError(
                f"{name} must be None or False unless the policy is a subclass of sb3_smac's, got {value!r} with "
                f"{model.policy_class.__name__}"
            )
        if value is not None and hasattr(model, "policy") and value != model._normalizes[name]:
            raise ValueError(f"{name} must be what the model was built with, {model._normalizes[name]!r}, got {value!r}")
    checks.number("averaging", model.averaging, minimum=0, maximum=1, optional=True)
    checks.number("final_log_std", model.final_log_std, minimum=-20, maximum=2, optional=True)
    checks.integer("stats_window_size", model._stats_window_size, minimum=1)


def check_rollout_size(model: NaturalActorCritic) -> None:
    """
    :param model: the algorithm, with its environments
    :raises ValueError: if the rollout is too small for ``batch_size`` or ``normalize_advantage``
    """
    rollout_size = model.n_steps * model.n_envs
    if model.batch_size is not None and model.batch_size > rollout_size:
        raise ValueError(f"batch_size must be None or between 1 and {rollout_size} (n_steps * n_envs), got {model.batch_size}")
    if model.normalize_advantage and rollout_size < 2:
        raise ValueError(
            f"normalize_advantage=True needs n_steps * n_envs of at least 2, got n_steps={model.n_steps} and "
            f"n_envs={model.n_envs}"
        )


def normalization(model: NaturalActorCritic) -> dict[str, bool]:
    """
    What is left to us is on where nothing else normalises. A model keeps what it was built with, also when it is loaded.

    :param model: the algorithm
    :return: ``normalize_observations`` and ``normalize_returns``, decided
    """
    # A loaded model has a schedule already: if it does not know these arguments, it was trained without them
    possible = issubclass(model.policy_class, NormalizingPolicy) and not hasattr(model, "lr_schedule")
    wrapper = model._vec_normalize_env
    unset = {
        "normalize_observations": possible
        and is_vector(model.observation_space)
        and not (wrapper is not None and wrapper.norm_obs),
        "normalize_returns": possible and not (wrapper is not None and wrapper.norm_reward),
    }
    unset = getattr(model, "_normalizes", unset)
    return {name: unset[name] if getattr(model, name) is None else getattr(model, name) for name in NORMALIZATION}


def for_loading(algorithm: type[NaturalActorCritic], arguments: Mapping[str, Any], of_load: Iterable[str]) -> dict[str, Any]:
    """
    :param algorithm: an algorithm
    :param arguments: what its ``load`` is given by name
    :param of_load: names of the arguments of Stable-Baselines3's ``load``; all others are the constructor's
    :return: the same, as a loaded model keeps them
    :raises ValueError: if there is no such argument, or one is of another type than it accepts
    """
    known = [name for name in _arguments_of(algorithm) if name not in ("policy", "env")]
    for name in set(arguments) - set(of_load):
        if name not in known:
            raise ValueError(f"{algorithm.__name__} has no argument {name!r}{_hint(name, known)}")
    check_types(arguments, algorithm.policy_aliases)
    renamed = {"stats_window_size": "_stats_window_size"}  # the one argument that is kept under another name
    values = {renamed.get(name, name): value for name, value in arguments.items()}
    if values.get("rollout_buffer_kwargs", {}) is None:
        values["rollout_buffer_kwargs"] = {}
    return values


def check_types(arguments: Mapping[str, Any], policy_aliases: Iterable[str]) -> None:
    """
    Check what Stable-Baselines3 takes without a look.

    :param arguments: some of those of the constructor
    :param policy_aliases: names of policies
    :raises ValueError: if one is of another type than it accepts
    """
    policy = arguments.get("policy", ActorCriticPolicy)
    is_class = isinstance(policy, type) and issubclass(policy, ActorCriticPolicy)
    if not is_class and not (isinstance(policy, str) and policy in policy_aliases):
        names = ", ".join(map(repr, policy_aliases))
        raise ValueError(f"policy must be one of {names} or a subclass of SB3's ActorCriticPolicy, got {policy!r}")
    for name in ("policy_kwargs", "rollout_buffer_kwargs"):
        if not isinstance(arguments.get(name), dict | None):
            raise ValueError(f"{name} must be None or a dict of arguments, got {arguments[name]!r}")
    for name in NORMALIZATION:
        if name in (arguments.get("policy_kwargs") or {}):
            raise ValueError(
                f"policy_kwargs must not hold {name!r}, which is an argument of the algorithm, got "
                f"{arguments['policy_kwargs'][name]!r}"
            )
    buffer_class = arguments.get("rollout_buffer_class")
    if buffer_class is not None and not (isinstance(buffer_class, type) and issubclass(buffer_class, RolloutBuffer)):
        raise ValueError(f"rollout_buffer_class must be None or a subclass of SB3's RolloutBuffer, got {buffer_class!r}")
    checks.choice("use_sde", arguments.get("use_sde", False), (False, True))
    checks.integer("verbose", arguments.get("verbose", 0), minimum=0, besides=(False, True))
    checks.integer("seed", arguments.get("seed"), minimum=0, maximum=LARGEST_SEED, besides=(None,))
    if not isinstance(arguments.get("tensorboard_log"), str | os.PathLike | None):
        raise ValueError(f"tensorboard_log must be None or a path, got {arguments['tensorboard_log']!r}")
    device = arguments.get("device", "auto")
    try:
        th.device("cpu" if isinstance(device, str) and device == "auto" else device)
    except (OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"device must be 'auto' or a device of PyTorch's, got {device!r}: {error}") from error


@contextmanager
def named_in_errors(model: NaturalActorCritic) -> Iterator[None]:
    """
    While the block builds a policy and a rollout buffer, name the dictionary whose argument neither of them takes.

    :param model: the algorithm
    """
    try:
        yield
    except AssertionError as error:
        raise PolicyError(f"policy {model.policy_class.__name__} and its policy_kwargs do not fit: {error}") from error
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
        buffer_class = model.rollout_buffer_class or DictRolloutBuffer
        for name, taker in (("policy_kwargs", model.policy_class), ("rollout_buffer_kwargs", buffer_class)):
            known = _arguments_of(taker)
            for key in getattr(model, name):
                if key not in known:
                    raise ValueError(f"{name}: {taker.__name__} has no argument {key!r}{_hint(key, known)}") from error
        if not model.policy_kwargs and not model.rollout_buffer_kwargs:
            raise
        given = {name: value for name, value in model.policy_kwargs.items() if name not in NORMALIZATION}
        raise ValueError(
            f"policy_kwargs and rollout_buffer_kwargs must be what {model.policy_class.__name__} and {buffer_class.__name__} "
            f"accept, got {given!r} and {model.rollout_buffer_kwargs!r}: {error}"
        ) from error
    net_arch = model.policy_kwargs.get("net_arch")
    if isinstance(net_arch, dict) and type(model.policy.mlp_extractor) is MlpExtractor and not net_arch.keys() <= {"pi", "vf"}:
        raise ValueError(f"policy_kwargs: net_arch must be a list or a dict of 'pi' and 'vf', got {net_arch!r}")


def _arguments_of(cls: type) -> list[str]:
    """Names of the arguments of a class's constructor, those that it hands to its base classes included."""
    known: list[str] = []
    for base in inspect.getmro(cls):
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        known += [
            parameter.name
            for parameter in list(parameters)[1:]  # not self
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        ]
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return known


def _hint(name: object, known: Iterable[str]) -> str:
    similar = checks.most_similar(name, known)
    return f"; it has {', '.join(known)}" if similar is None else f": did you mean {similar!r}?"
