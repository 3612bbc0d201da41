"""Imports point one way: maths ← common, fast ← envs, algorithms ← zoo ← benchmark."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sb3_smac

ROOT = Path(sb3_smac.__file__).parent
FILES = {".".join(("sb3_smac", *path.relative_to(ROOT).with_suffix("").parts)): path for path in sorted(ROOT.rglob("*.py"))}

FOLDERS = {".".join(name.split(".")[:2]) for name in FILES if name.count(".") > 1}

ALGORITHM, PACKAGE, COMMAND_LINE = 2, 3, 6
LAYERS = {"maths": 0, "common": 1, "fast": 1, "envs": 2, "zoo": 4, "benchmark": 5}
"""Which layer a folder is in; any other folder is an algorithm's. The package names them all, its command line runs them."""
ONE_LAYER = ("sb3_smac.common", "sb3_smac.fast")
"""Folders that may import each other."""


def layer(module: str) -> int:
    folder = ".".join(module.split(".")[:2])
    if folder in FOLDERS:
        return LAYERS.get(folder.split(".")[1], ALGORITHM)
    return PACKAGE if folder in ("sb3_smac", "sb3_smac.__init__") else COMMAND_LINE


def imported(module: str, source: str) -> Iterator[str]:
    """Full names of the modules, or of the names in modules, that a source file imports anywhere in its code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(module: str, source: str) -> list[str]:
    """What a module imports of the package and may not: what is above it, or another algorithm."""
    bad = []
    for name in imported(module, source):
        if name.split(".")[0] != "sb3_smac":
            continue
        target = name if ".".join(name.split(".")[:2]) in FOLDERS else "sb3_smac"
        folder, target_folder = (".".join(each.split(".")[:2]) for each in (module, target))
        is_one = folder == target_folder or (folder in ONE_LAYER and target_folder in ONE_LAYER)
        above, beside = (layer(target) > layer(module), layer(target) == layer(module) and not is_one)
        if above or beside:
            bad.append(name)
    return bad


def test_the_layers_are_there() -> None:
    """The checks below look at something: each folder of the lower layers, and one for each algorithm."""
    folders = {name.split(".")[1] for name in FOLDERS}
    assert {"maths", "common", "fast"} <= folders
    assert len(folders - LAYERS.keys()) == len(sb3_smac.ALGORITHMS)


def test_imports_point_one_way() -> None:
    assert {module: found for module, path in FILES.items() if (found := violations(module, path.read_text()))} == {}


def test_the_maths_knows_only_torch_and_numpy() -> None:
    """No environment, no Stable-Baselines3."""
    files = {module: path for module, path in FILES.items() if module.startswith("sb3_smac.maths")}
    packages = {name.split(".")[0] for module, path in files.items() for name in imported(module, path.read_text())}
    assert packages - sys.stdlib_module_names == {"numpy", "torch", "sb3_smac"}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("sb3_smac.maths.flat", "def f():\n    import sb3_smac.smac.smac", ["sb3_smac.smac.smac"]),
        ("sb3_smac.maths.flat", "from ..common import checks", ["sb3_smac.common.checks"]),
        ("sb3_smac.maths.flat", "from . import scores\nfrom sb3_smac.maths.scores import Scores", []),
        ("sb3_smac.common.checks", "from sb3_smac.maths import x\nfrom sb3_smac.fast.plain_policy import PlainPolicy", []),
        ("sb3_smac.common.checks", "from sb3_smac import SMAC\nimport sb3_smac", ["sb3_smac.SMAC", "sb3_smac"]),
        ("sb3_smac.smac.smac", "from sb3_smac.ac_cg import ACCG", ["sb3_smac.ac_cg.ACCG"]),
        ("sb3_smac.zoo.__main__", "from sb3_smac import ALGORITHMS\nfrom sb3_smac.zoo import x", []),
        ("sb3_smac.__init__", "from sb3_smac.smac import SMAC\nfrom sb3_smac.zoo import x", ["sb3_smac.zoo.x"]),
    ],
)
def test_the_check_finds_them(module: str, source: str, found: list[str]) -> None:
    """Absolute and relative, at the top and within functions."""
    assert violations(module, source) == found
