"""The RL Zoo's experiment manager, for this package's algorithms."""

import argparse
import difflib
import inspect
import time
from typing import Any

import optuna
import torch as th
from rl_zoo3 import exp_manager
from sqlalchemy.exc import DBAPIError

from sb3_smac import ALGORITHMS
from sb3_smac.zoo import HYPERPARAMS


class _TrialNumber(int):
    """The Zoo takes the number 0 for "no trial" and would train the default hyperparameters instead of the first trial's."""

    def __bool__(self) -> bool:
        return True


class ExperimentManager(exp_manager.ExperimentManager):
    """
    The Zoo's, that also finds this package's YAML files, explains unknown hyperparameters and lets a study survive failures.

    :param args: the command's arguments
    :param algo: algorithm's key
    :param other: everything else, as in the Zoo
    :param config: YAML file; ``None``: the algorithm's own
    :param trial_id: trial of a study whose hyperparameters are used
    """

    def __init__(
        self,
        args: argparse.Namespace,
        algo: str,
        *other: Any,
        config: str | None = None,
        trial_id: int | None = None,
        **kwargs: Any,
    ) -> None:
        if config is None and algo in ALGORITHMS:
            config = str(HYPERPARAMS / f"{algo}.yml")
        number = None if trial_id is None else _TrialNumber(trial_id)
        super().__init__(args, algo, *other, config=config, trial_id=number, **kwargs)

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list, Any]:
        processed = super()._preprocess_hyperparams(hyperparams)
        if self.algo in ALGORITHMS:
            self._check_names(processed[0])
        return processed

    def _check_names(self, hyperparams: dict[str, Any]) -> None:
        # Without this check a typo is a TypeError of the constructor, or goes unnoticed when training continues (`-i`)
        known = list(inspect.signature(ALGORITHMS[self.algo]).parameters)
        for name in hyperparams:
            if name not in known:
                similar = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {similar[0]!r}?" if similar else ""
                raise ValueError(
                    f"{self.algo} has no hyperparameter {name!r} ({self.env_name} in {self.config}, or -params){hint}"
                )

    def hyperparameters_optimization(self) -> None:
        """Search hyperparameters, perhaps together with other processes."""
        if self.storage is not None and not self.storage.endswith(".log"):
            _create_tables(self.storage)
        super().hyperparameters_optimization()

    def objective(self, trial: optuna.Trial) -> float:
        """
        Train and evaluate one trial.

        :param trial: trial of the study
        :return: its last mean reward
        :raises optuna.TrialPruned: if it is bad, or fails numerically
        """
        try:
            return super().objective(trial)
        # The Zoo prunes on a ValueError of training, not of the constructor (a batch larger than the rollout)
        except (ArithmeticError, ValueError, th.linalg.LinAlgError) as error:
            print(error)
            raise optuna.TrialPruned from error


def _create_tables(storage: str, attempts: int = 10) -> None:
    """Optuna fails where two processes make the tables of a new database at once; a moment later, they are there."""
    for attempt in range(1, attempts + 1):
        try:
            optuna.storages.RDBStorage(storage)
            return
        except DBAPIError:
            if attempt == attempts:
                raise
            time.sleep(0.5)
