"""Hyperparameters of an algorithm on a task: where they come from, and which there are."""

import inspect
import json
import re
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_smac import ALGORITHMS
from sb3_smac.common import checks
from sb3_smac.zoo import HYPERPARAMS, register

ENVIRONMENT_KEYS = (
    *("n_envs", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "env_kwargs", "monitor_kwargs"),
    *("callback", "noise_type", "noise_std"),
)
"""What the Zoo takes from an entry besides the constructor's arguments, and a study may therefore change."""

NOT_HYPERPARAMETERS = ("env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")
TIME_LIMIT = "sb3_smac.zoo.wrappers.time_limit"


class Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, as everybody means it; YAML 1.1 wants ``1.0e-3``."""


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> Any:
    """
    :param path: a YAML file
    :return: its content
    :raises ValueError: if it is not YAML
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error


def known(kind: str, name: Any, accepted: Collection[str]) -> None:
    """
    :param kind: what the name should be a name of
    :param name: the name
    :param accepted: names that there are
    :raises ValueError: if it is none of them; the message has the most similar one, or all if they are few
    """
    if name in accepted:
        return
    similar = checks.most_similar(name, accepted)
    hint = "" if similar is None else f"did you mean {similar!r}?"
    if not hint and len(accepted) <= 20:
        hint = f"choose from {', '.join(accepted)}"
    raise ValueError(f"there is no {kind} {name!r}" + (f": {hint}" if hint else ""))


@cache
def algorithms() -> dict[str, type[BaseAlgorithm]]:
    """
    :return: the classes of this package, Stable-Baselines3 and sb3-contrib under the RL Zoo's keys
    """
    register()
    import rl_zoo3

    return rl_zoo3.ALGOS


@cache
def defaults(algorithm: str) -> dict[str, Any]:
    """
    :param algorithm: key of an algorithm
    :return: its hyperparameters and the constructor's defaults; ``policy`` has none
    """
    parameters = inspect.signature(algorithms()[algorithm]).parameters
    return {
        name: None if parameter.default is parameter.empty else parameter.default
        for name, parameter in parameters.items()
        if name not in NOT_HYPERPARAMETERS
    }


def accepts(algorithm: str) -> list[str]:
    """
    :param algorithm: key of an algorithm
    :return: names of all that a study may set
    """
    return [*defaults(algorithm), *ENVIRONMENT_KEYS]


def zoo_entry(algorithm: str, task: str, folder: Path | None) -> dict[str, Any]:
    """
    :param algorithm: key of an algorithm
    :param task: id of an environment
    :param folder: folder of YAML files that come before this package's and the Zoo's; ``None``: there is none
    :return: the task's entry, or the algorithm's default entry
    :raises ValueError: if there is neither
    """
    name = f"{algorithm}.yml"
    paths = [_zoo_folder(algorithm) / name]
    if folder is not None and (folder / name).exists():
        paths.insert(0, folder / name)
    for path in paths:
        entries = read_yaml(path) or {}
        for entry in (task, "default"):
            if entry in entries:
                return {key: value for key, value in entries[entry].items() if key != "n_timesteps"}
    raise ValueError(f"{algorithm} has no Zoo entry for {task} in {paths[-1]}")


def _zoo_folder(algorithm: str) -> Path:
    if algorithm in ALGORITHMS:
        return HYPERPARAMS
    import rl_zoo3

    return Path(rl_zoo3.__file__).parent / "hyperparams"


def with_horizon(hyperparameters: Mapping[str, Any], horizon: int) -> dict[str, Any]:
    """
    :param hyperparameters: hyperparameters as the Zoo writes them
    :param horizon: time limit of every episode, in steps
    :return: the same with this limit in place of any other
    """
    wrappers = hyperparameters.get("env_wrapper") or []
    wrappers = wrappers if isinstance(wrappers, list) else [wrappers]
    others = [wrapper for wrapper in wrappers if not (isinstance(wrapper, dict) and TIME_LIMIT in wrapper)]
    return {**hyperparameters, "env_wrapper": [*others, {TIME_LIMIT: {"max_episode_steps": horizon}}]}


def normalized(value: Any) -> Any:
    """
    :param value: settings, as YAML has them
    :return: the same with one spelling for each number: ``1`` for ``1.0``, and ``True`` stays ``True``
    """
    if isinstance(value, Mapping):
        return {str(name): normalized(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [normalized(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def canonical(value: Any) -> str:
    """
    :param value: settings, as YAML has them
    :return: a text that is the same for the same settings, whatever their order and the spelling of their numbers
    """
    return json.dumps(normalized(value), sort_keys=True, default=str)
