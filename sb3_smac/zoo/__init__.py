"""
The RL Zoo with this package's algorithms.

``python -m sb3_smac.zoo <command>`` is ``python -m rl_zoo3.<command>`` with ``smac``, ``accg``, ``acsgd`` and ``acadam``
beside the Zoo's own algorithms. In a training script of your own, call :func:`register` before ``rl_zoo3.train`` is imported::

    from sb3_smac import zoo

    zoo.register()

    from rl_zoo3.train import train

    train()
"""

from pathlib import Path

from sb3_smac import ALGORITHMS

HYPERPARAMS = Path(__file__).parent / "hyperparams"
"""Folder of the YAML files, one per algorithm (``zoo_hyperparams`` at the top of the repository)."""


def register() -> None:
    """
    Make the RL Zoo know this package's algorithms, their YAML files and their hyperparameter search.

    The Zoo has no hook for that: its tables are changed in place, and its experiment manager gives way to a subclass.
    """
    import rl_zoo3.exp_manager
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

    from sb3_smac.zoo.exp_manager import ExperimentManager
    from sb3_smac.zoo.hyperparams_opt import convert, sampler

    rl_zoo3.ALGOS.update(ALGORITHMS)
    HYPERPARAMS_SAMPLER.update({algo: sampler(algo) for algo in ALGORITHMS})
    HYPERPARAMS_CONVERTER.update(dict.fromkeys(ALGORITHMS, convert))
    rl_zoo3.exp_manager.ExperimentManager = ExperimentManager


__all__ = ["HYPERPARAMS", "register"]
