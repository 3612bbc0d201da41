"""
What is broken in RL Zoo 2.9.2 with the releases of its dependencies that pip installs, mended while a command runs.

Each shim says what it is for. When the Zoo no longer needs one, delete it and its entry in :data:`SHIMS`.
"""

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from sb3_smac import ALGORITHMS


@contextmanager
def zoo_subprocesses() -> Iterator[None]:
    """``benchmark`` calls ``python enjoy.py``, ``record_training`` the Zoo's ``record_video``: both are to come back here."""
    call = subprocess.call

    def call_through_here(command: list[str], *args: Any, **kwargs: Any) -> int:
        match command:
            case ["python", "enjoy.py", *rest]:
                command = [sys.executable, "-m", "sb3_smac.zoo", "enjoy", *rest]
            case ["python", "-m", "rl_zoo3.record_video", *rest]:
                command = [sys.executable, "-m", "sb3_smac.zoo", "record_video", *rest]
        return call(command, *args, **kwargs)

    with patch("subprocess.call", call_through_here):
        yield


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


@contextmanager
def single_episode_evaluations() -> Iterator[None]:
    """``all_plots`` squeezes the axis of the episodes away if there is one per evaluation: show it the episode twice."""
    load = np.load

    def load_twice(*args: Any, **kwargs: Any) -> Any:
        log = load(*args, **kwargs)
        return {key: np.repeat(log[key], 2, axis=1) if log[key].shape[1:] == (1,) else log[key] for key in log}

    with patch("numpy.load", load_twice):
        yield


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


@contextmanager
def hub_errors() -> Iterator[None]:
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

    with patch.object(huggingface_sb3, "load_from_hub", load_from_hub):
        yield


Shim = Callable[[], AbstractContextManager[None]]
SHIMS: dict[str, tuple[Shim, ...]] = {
    "enjoy": (hub_errors,),
    "plots": (single_episode_evaluations,),
    "all_plots": (single_episode_evaluations,),
    "benchmark": (zoo_subprocesses, hub_errors),
    "record_training": (zoo_subprocesses, ffmpeg),
    "push_to_hub": (hub_metadata, ffmpeg),
    "load_from_hub": (hub_errors,),
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
