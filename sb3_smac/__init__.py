"""SMAC, AC-CG, AC-SGD and AC-Adam: natural-gradient actor-critics for Stable-Baselines3."""

from importlib.metadata import PackageNotFoundError, version

from sb3_smac.ac_adam import ACAdam
from sb3_smac.ac_cg import ACCG
from sb3_smac.ac_sgd import ACSGD
from sb3_smac.common.checks import NonFiniteError
from sb3_smac.common.natural_actor_critic import NaturalActorCritic
from sb3_smac.smac import SMAC

try:
    __version__ = version("sb3_smac")
except PackageNotFoundError:  # a checkout on PYTHONPATH
    __version__ = "0+unknown"

ALGORITHMS: dict[str, type[SMAC | ACCG | ACSGD | ACAdam]] = {cls.__name__.lower(): cls for cls in (SMAC, ACCG, ACSGD, ACAdam)}
"""Every algorithm under the name that the command line, the RL Zoo and the YAML files use."""

__all__ = ["ACCG", "ACSGD", "ALGORITHMS", "SMAC", "ACAdam", "NaturalActorCritic", "NonFiniteError"]
