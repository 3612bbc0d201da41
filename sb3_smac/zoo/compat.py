"""
What is broken or missing in RL Zoo 2.9.2 with the releases of its dependencies that pip installs, mended while a command runs.

Each shim says what it is for. When the Zoo no longer needs one, delete it and its entry in :data:`SHIMS`.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import yaml

from sb3_smac import ALGORITHMS
from sb3_smac.envs.tasks import find_task

Shim = AbstractContextManager[Any]


@contextmanager
def task_names() -> Iterator[None]:
    """
    The commands look a task up in Gymnasium's registry by the name that they are given: ``module:name`` and a name without a
    version, which ``gymnasium.make`` takes, are put there.
    """
    _import_packages(_taken("--gym-packages")[0])
    with _registering() as register:
        for name in _taken("--env")[0][:1]:
            register(name)
        yield


def gym_packages() -> Shim:
    """Some commands do not know ``--gym-packages``: imported, and taken out of their arguments."""
    packages, others = _taken("--gym-packages")
    _import_packages(packages)
    return patch.object(sys, "argv", [sys.argv[0], *others])


@contextmanager
def trained_tasks() -> Iterator[None]:
    """The commands that load an agent import the packages that it was trained with before they look its task up."""
    from rl_zoo3 import utils

    get_model_path = utils.get_model_path

    with _registering() as register:

        def get_model_path_and_task(exp_id: int, folder: str, algo: str, env_name: Any, *others: Any) -> tuple[str, str, str]:
            found = get_model_path(exp_id, folder, algo, env_name, *others)
            arguments = Path(found[-1]) / env_name / "args.yml"
            if arguments.is_file():
                recorded = yaml.load(arguments.read_text(), Loader=yaml.UnsafeLoader)  # as the Zoo reads it
                _import_packages(recorded.get("gym_packages") or [], optional=True)
            register(env_name.gym_id)
            return found

        with patch.object(utils, "get_model_path", get_model_path_and_task):
            yield


def _taken(*flags: str) -> tuple[list[str], list[str]]:
    """The values of an option of the command line, and all other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument(*flags, dest="values", nargs="*", default=[])
    options, others = parser.parse_known_args()
    return options.values, others


def _import_packages(packages: Sequence[str], optional: bool = False) -> None:
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError as error:
            message = f"--gym-packages: {package} cannot be imported ({error})"
            if not optional:
                sys.exit(message)
            print(f"The agent was trained with {message}")


@contextmanager
def _registering() -> Iterator[Callable[[str], None]]:
    """Adds names to Gymnasium's registry, and takes them out again; what packages have registered stays."""
    added: list[str] = []

    def register(name: str) -> None:
        if name in gym.registry:
            return
        try:
            gym.registry[name] = find_task(name)
        except ImportError as error:
            sys.exit(f"--env {name}: {error}")
        except gym.error.Error:
            return  # the Zoo says which name is similar
        added.append(name)

    try:
        yield register
    finally:
        for name in added:
            del gym.registry[name]


def yaml_env_kwargs() -> Shim:
    """The commands that show an agent take its environment's ``env_kwargs`` from the command line alone."""
    from rl_zoo3 import utils

    create_test_env = utils.create_test_env

    def create(*args: Any, hyperparams: dict[str, Any], env_kwargs: dict[str, Any], **kwargs: Any) -> Any:
        env_kwargs = {**(hyperparams.get("env_kwargs") or {}), **env_kwargs}
        return create_test_env(*args, hyperparams=hyperparams, env_kwargs=env_kwargs, **kwargs)

    return patch.object(utils, "create_test_env", create)


def python_arguments() -> Shim:
    """``-params`` and ``--env-kwargs`` evaluate their values: what is no Python is to be an error that says which and why."""
    from rl_zoo3 import utils

    class StoreDict(utils.StoreDict):
        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
            collected: dict[str, Any] = {}
            for argument in values:
                name, colon, value = argument.partition(":")
                if not colon:
                    parser.error(f"argument {option_string}: must be name:value, got {argument!r}")
                try:
                    super().__call__(parser, namespace, [argument], option_string)
                except Exception as error:
                    parser.error(
                        f"argument {option_string}: the value of {name} must be Python, got {value} ({type(error).__name__}: "
                        f"{error}); a string has quotes of its own, as in {name}:\"'{value}'\""
                    )
                collected.update(getattr(namespace, self.dest))
            setattr(namespace, self.dest, collected)

    return patch.object(utils, "StoreDict", StoreDict)


def folder_names() -> Shim:
    """The plots look for folders of logs by a part of their names, which have neither module nor slash."""
    from huggingface_sb3 import EnvironmentName

    tasks, others = _taken("-e", "--env")
    names = ["-e", *map(EnvironmentName, tasks)] if tasks else []
    return patch.object(sys, "argv", [sys.argv[0], *others, *names])


def benchmarked_names() -> Shim:
    """``benchmark`` looks for the folders of logs by a task's name, which may have a module and a slash."""
    from huggingface_sb3 import EnvironmentName
    from rl_zoo3 import utils

    get_trained_models = utils.get_trained_models

    def with_names(folder: str) -> dict[str, tuple[str, str]]:
        return {model: (algo, EnvironmentName(env)) for model, (algo, env) in get_trained_models(folder).items()}

    return patch.object(utils, "get_trained_models", with_names)


def zoo_subprocesses() -> Shim:
    """``benchmark`` calls ``python enjoy.py``, ``record_training`` the Zoo's ``record_video``: both are to come back here."""
    call = subprocess.call

    def call_through_here(command: list[str], *args: Any, **kwargs: Any) -> int:
        command = [getattr(argument, "gym_id", argument) for argument in command]
        match command:
            case ["python", "enjoy.py", *rest]:
                command = [sys.executable, "-m", "sb3_smac.zoo", "enjoy", *rest]
            case ["python", "-m", "rl_zoo3.record_video", *rest]:
                command = [sys.executable, "-m", "sb3_smac.zoo", "record_video", *rest]
        return call(command, *args, **kwargs)

    return patch("subprocess.call", call_through_here)


@contextmanager
def ffmpeg() -> Iterator[None]:
    """``record_training`` and ``push_to_hub`` call ``ffmpeg`` by name, but pip installs it under another (imageio-ffmpeg)."""
    if shutil.which("ffmpeg"):
        yield
        return
    import imageio_ffmpeg

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        with patch.dict(os.environ, PATH=os.pathsep.join((folder, os.environ.get("PATH", os.defpath)))):
            yield


def single_episode_evaluations() -> Shim:
    """``all_plots`` squeezes the axis of the episodes away if there is one per evaluation: show it the episode twice."""
    load = np.load

    def load_twice(*args: Any, **kwargs: Any) -> Any:
        log = load(*args, **kwargs)
        return {key: np.repeat(log[key], 2, axis=1) if log[key].shape[1:] == (1,) else log[key] for key in log}

    return patch("numpy.load", load_twice)


@contextmanager
def hub_metadata() -> Iterator[None]:
    """
    ``push_to_hub`` imports ``generate_metadata``, which huggingface_sb3 3 has renamed, and expects a dict from it.

    The commands on the model's page are made to know this package's algorithms, too.
    """
    from huggingface_hub import repocard

    module = importlib.import_module("huggingface_sb3.push_to_hub")  # the package has a function of this name
    save = repocard.metadata_save

    def generate_metadata(*args: Any) -> dict[str, Any]:
        return module._generate_metadata(*args).to_dict()

    def save_with_our_commands(path: Path, metadata: dict[str, Any]) -> None:
        card, n_commands = re.subn(
            rf"rl_zoo3\.(\w+) (--algo (?:{'|'.join(ALGORITHMS)}) )", r"sb3_smac.zoo \1 \2", path.read_text(encoding="utf-8")
        )
        if n_commands:
            path.write_text(card.replace("pip install rl_zoo3", "pip install 'sb3_smac[zoo]'"), encoding="utf-8")
        save(path, metadata)

    with (
        patch.object(module, "generate_metadata", getattr(module, "generate_metadata", generate_metadata), create=True),
        patch.object(repocard, "metadata_save", save_with_our_commands),
    ):
        yield


def hub_errors() -> Shim:
    """``load_from_hub`` waits for an error of requests where a model has no statistics; huggingface_hub 1 raises its own."""
    import huggingface_sb3
    from huggingface_hub.errors import EntryNotFoundError
    from requests.exceptions import HTTPError

    load = huggingface_sb3.load_from_hub

    def load_from_hub(*args: Any, **kwargs: Any) -> str:
        try:
            return load(*args, **kwargs)
        except EntryNotFoundError as error:
            raise HTTPError(str(error)) from error

    return patch.object(huggingface_sb3, "load_from_hub", load_from_hub)


OF_AN_AGENT = (gym_packages, trained_tasks, yaml_env_kwargs, python_arguments)
SHIMS: dict[str, tuple[Callable[[], Shim], ...]] = {
    "train": (task_names, python_arguments),
    "enjoy": (task_names, trained_tasks, python_arguments, hub_errors),
    "plots": (folder_names, single_episode_evaluations),
    "all_plots": (folder_names, single_episode_evaluations),
    "plot_train": (folder_names,),
    "benchmark": (gym_packages, benchmarked_names, zoo_subprocesses, hub_errors),
    "record_video": OF_AN_AGENT,
    "record_training": (gym_packages, zoo_subprocesses, ffmpeg),
    "push_to_hub": (*OF_AN_AGENT, hub_metadata, ffmpeg),
    "load_from_hub": (gym_packages, hub_errors),
}
"""What each command needs."""


@contextmanager
def shims(command: str) -> Iterator[None]:
    """
    :param command: name of a command; its shims hold inside the block
    """
    with ExitStack() as stack:
        for shim in SHIMS.get(command, ()):
            stack.enter_context(shim())
        yield
