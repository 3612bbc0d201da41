"""What an entry of a YAML file, or ``-params``, may hold: checked before the Zoo takes it apart."""

import importlib
import inspect
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml
from gymnasium import spaces
from rl_zoo3 import exp_manager
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize

from sb3_smac import ALGORITHMS
from sb3_smac.common import checks

ZOO_KEYS = (
    *("n_envs", "n_timesteps", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper"),
    *("env_kwargs", "monitor_kwargs", "callback", "vec_env"),
)
"""What an entry has besides the arguments of the algorithm's constructor."""

OF_THE_COMMAND = ("env", "seed", "device", "verbose", "tensorboard_log")
"""Arguments of the constructors that the Zoo takes from the command line."""

POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy")
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")


def check(algo: str, hyperparams: dict[str, Any], place: str) -> dict[str, Any]:
    """
    Check an entry; what is the constructor's, the constructor checks.

    :param algo: algorithm's key
    :param hyperparams: the entry
    :param place: where it is from, for the errors
    :return: the entry with Python in strings evaluated
    :raises ValueError: naming the key, what it holds and what is accepted
    """
    hyperparams = dict(hyperparams)
    if algo in ALGORITHMS:
        _check_names(algo, hyperparams, place)
        _check_policy(hyperparams)
    checks.integer("n_envs", hyperparams.get("n_envs", 1), minimum=1)
    checks.integer("frame_stack", hyperparams.get("frame_stack", 1), minimum=1)
    if "n_timesteps" in hyperparams:
        checks.number("n_timesteps", hyperparams["n_timesteps"], minimum=1)
    checks.choice("vec_env", hyperparams.get("vec_env"), (None, "dummy", "subproc", "envpool"))
    for name in ("policy_kwargs", "monitor_kwargs"):
        if hyperparams.get(name) is not None:
            hyperparams[name] = _dictionary(name, hyperparams[name])
    if not isinstance(hyperparams.get("env_kwargs", {}), dict):  # the Zoo evaluates no string here
        raise ValueError(f"env_kwargs must be a dict, got {hyperparams['env_kwargs']!r}")
    if not isinstance(hyperparams.get("normalize", False), bool):
        hyperparams["normalize"] = _dictionary("normalize", hyperparams["normalize"], besides="True, False or ")
        _known_arguments("normalize", VecNormalize, hyperparams["normalize"])
    _known_arguments("monitor_kwargs", Monitor, hyperparams.get("monitor_kwargs") or {}, given=("env", "filename"))
    for name in ("env_wrapper", "vec_env_wrapper", "callback"):
        _check_classes(name, hyperparams.get(name))
    return hyperparams


def normalizable(space: spaces.Space, arguments: dict[str, Any]) -> dict[str, Any]:
    """
    What ``VecNormalize`` can do for a task: observations that are vectors, not indices, bits or images.

    :param space: observation space
    :param arguments: arguments of ``VecNormalize``; ``norm_obs_keys`` are taken at their word
    :return: the same, with ``norm_obs`` and ``norm_obs_keys`` such that they hold for the space
    :raises ValueError: if one of the ``norm_obs_keys`` is no key of the space
    """
    if not arguments.get("norm_obs", True):
        return arguments
    if not isinstance(space, spaces.Dict):
        return arguments if _is_normalizable(space) else {**arguments, "norm_obs": False}
    chosen = arguments.get("norm_obs_keys")
    if chosen is not None:
        known("key of the observations (norm_obs_keys in normalize)", chosen, list(space.spaces))
        return arguments
    keys = [key for key, part in space.spaces.items() if _is_normalizable(part)]
    return {**arguments, "norm_obs_keys": keys} if keys else {**arguments, "norm_obs": False}


def _is_normalizable(space: spaces.Space) -> bool:
    return isinstance(space, spaces.Box) and not is_image_space(space)


def known(kind: str, names: Collection[Any], accepted: Collection[str]) -> None:
    """
    :param kind: what the names should be names of
    :param names: the names
    :param accepted: the names that there are
    :raises ValueError: if one is none of them; the message has the most similar one, or all if they are few
    """
    for name in names:
        if name not in accepted:
            similar = checks.most_similar(name, accepted)
            choice = f"; choose from {', '.join(accepted)}" if len(accepted) <= 20 else ""
            raise ValueError(f"{name!r} is no {kind}" + (choice if similar is None else f"; did you mean {similar!r}?"))


def _known_arguments(
    key: str, function: Callable[..., Any], arguments: dict[str, Any], given: Collection[str] = ("env", "venv")
) -> None:
    """Check arguments of a function or class, which is called with those that are given, too."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of C
        return
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    accepted = [parameter.name for parameter in parameters if parameter.name not in given]
    known(f"argument of {function.__name__} ({key})", arguments, accepted)


def number(value: Any) -> Any:
    """
    :param value: a value of an entry
    :return: a number for ``1e-3`` and the like, which YAML 1.1 takes for strings; all else as it is
    """
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


class Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as everybody means it; YAML 1.1 wants ``1.0e-3``."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"^{EXPONENT.pattern}$"), list("-+0123456789"))


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = Loader) -> Any:
    """
    :param path: a YAML file
    :param loader: how numbers are read
    :return: its content
    :raises ValueError: if it is not YAML
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error


def _check_names(algo: str, hyperparams: dict[str, Any], place: str) -> None:
    # Without this check a typo is a TypeError of the constructor, or goes unnoticed when training continues (`-i`)
    arguments = inspect.signature(ALGORITHMS[algo]).parameters
    accepted = [name for name in (*arguments, *ZOO_KEYS) if name not in OF_THE_COMMAND and not name.startswith("_")]
    for name in hyperparams:
        if name in OF_THE_COMMAND:
            raise ValueError(f"{name!r} is no hyperparameter ({place}): it is the option --{name.replace('_', '-')}")
    known(f"hyperparameter of {algo} ({place})", hyperparams, accepted)


def _check_policy(hyperparams: dict[str, Any]) -> None:
    policy = hyperparams.get("policy")
    if isinstance(policy, str):
        if "." in policy:
            _import("policy", policy)
        elif policy not in POLICIES:
            raise ValueError(f"policy must be one of {', '.join(POLICIES)}, or module.Class of your own, got {policy!r}")


def _dictionary(name: str, value: Any, besides: str = "") -> dict[str, Any]:
    error = ValueError(f"{name} must be {besides}a dict, or Python for one such as 'dict(a=1)', got {value!r}")
    if isinstance(value, str):
        try:
            value = eval(value, vars(exp_manager))  # where the Zoo evaluates it
        except Exception as reason:
            raise ValueError(f"{error} ({type(reason).__name__}: {reason})") from reason
    if not isinstance(value, dict):
        raise error
    return dict(value)


def _check_classes(key: str, value: Any) -> None:
    """Classes or functions by name, each perhaps with arguments: ``name``, ``{name: arguments}``, or a list of these."""
    if value is None:
        return
    for item in value if isinstance(value, list) else [value]:
        name: Any = item
        arguments: dict[str, Any] = {}
        if isinstance(item, dict):
            if len(item) != 1 or not isinstance(next(iter(item.values())), dict):
                raise ValueError(
                    f"{key} must have arguments as name: {{argument: value}} (in YAML: see the indentation), got {item!r}"
                )
            ((name, arguments),) = item.items()
        if isinstance(name, BaseCallback):
            continue
        function = _import(key, name) if isinstance(name, str) else name
        if not callable(function):
            raise ValueError(f"{key} must be a class or function, as module.name, or a list of these; got {item!r}")
        _known_arguments(key, function, arguments)


def _import(key: str, name: str) -> Callable[..., Any]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(f"{key} must be a class or function with its module, as module.name; got {name!r}")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{key}: {name!r} cannot be imported ({error})") from error
    if not hasattr(found, attribute):
        known(f"name in {module} ({key})", [attribute], dir(found))
    return getattr(found, attribute)
