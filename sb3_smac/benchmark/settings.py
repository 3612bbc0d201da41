"""Hyperparameters of an algorithm on a task: where they come from, and which there are."""

import inspect
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_smac import ALGORITHMS
from sb3_smac.zoo import HYPERPARAMS, register
from sb3_smac.zoo.settings import read_yaml
from sb3_smac.zoo.wrappers import TIME_LIMIT

ENVIRONMENT_KEYS = (
    *("n_envs", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper", "env_kwargs", "monitor_kwargs"),
    *("callback", "vec_env", "noise_type", "noise_std"),
)
"""What the Zoo takes from an entry besides the constructor's arguments, and a study may therefore change."""

NOT_HYPERPARAMETERS = ("env", "seed", "device", "verbose", "tensorboard_log", "_init_setup_model")


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
    parameters = inspect.signature(algorithms()[algorithm]).parameters.values()
    values = {parameter.name: None if parameter.default is parameter.empty else parameter.default for parameter in parameters}
    return {name: value for name, value in values.items() if name not in NOT_HYPERPARAMETERS}


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
    import rl_zoo3

    own = HYPERPARAMS if algorithm in ALGORITHMS else Path(rl_zoo3.__file__).parent / "hyperparams"
    paths = [there / f"{algorithm}.yml" for there in (folder, own) if there is not None]
    for path in paths:
        entries = (read_yaml(path) or {}) if path.exists() else {}
        for entry in (task, "default"):
            if entry in entries:
                return {key: value for key, value in entries[entry].items() if key != "n_timesteps"}
    raise ValueError(f"{algorithm} has no Zoo entry for {task} in {paths[-1]}")


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


def canonical(value: Any) -> str:
    """
    :param value: settings, as YAML has them
    :return: a text that is the same for the same settings, whatever their order and the spelling of their numbers
    """
    return json.dumps(_normalized(value), sort_keys=True, default=str)


def _normalized(value: Any) -> Any:
    """One spelling for each number: ``1`` for ``1.0``, and ``True`` stays ``True``."""
    if isinstance(value, Mapping):
        return {str(name): _normalized(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_normalized(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
