"""The RL Zoo's experiment manager, for this package's algorithms."""

import argparse
import copy
import difflib
import inspect
import time
from typing import Any

import optuna
import torch as th
from rl_zoo3 import exp_manager
from sqlalchemy.exc import DBAPIError
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_smac import ALGORITHMS
from sb3_smac.common import checks
from sb3_smac.envs import EnvPoolVecEnv
from sb3_smac.zoo import HYPERPARAMS

TIME_LIMIT = "sb3_smac.zoo.wrappers.time_limit"


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

    vec_env_class: Any  # what the Zoo gives to SB3's make_vec_env

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
        self._pool_options: dict[str, Any] | None = None  # of EnvPool's environments, where it makes them
        number = None if trial_id is None else _TrialNumber(trial_id)
        super().__init__(args, algo, *other, config=config, trial_id=number, **kwargs)

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list, Any]:
        vec_env = hyperparams.pop("vec_env", None)
        checks.choice("vec_env", vec_env, (None, "dummy", "subproc", "envpool"))
        if vec_env == "envpool":
            self._pool_options = _pool_options(hyperparams)
        elif vec_env is not None:  # else that of the command line, --vec-env
            self.vec_env_class = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[vec_env]
        processed = super()._preprocess_hyperparams(hyperparams)
        if self.algo in ALGORITHMS:
            self._check_names(processed[0])
        return processed

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """
        Create environments: with ``vec_env: envpool``, those of training in EnvPool, those of evaluation in Gymnasium.

        :param n_envs: number of environments
        :param eval_env: whether they are for evaluation
        :param no_log: whether to leave their episodes out of the log folder
        :return: the environments, wrapped
        """
        if eval_env or self._pool_options is None:
            return super().create_envs(n_envs, eval_env, no_log)
        options = {**self._pool_options, **self.env_kwargs, "monitor_dir": None if no_log else self.save_path}
        manager = copy.copy(self)  # trials that run in threads (--n-jobs) share this one
        # SB3's make_vec_env calls it as a VecEnv class; what would make Gymnasium's environments is not called
        manager.vec_env_class = lambda env_fns: EnvPoolVecEnv(self.env_name.gym_id, len(env_fns), **options)
        return super(ExperimentManager, manager).create_envs(n_envs, eval_env, no_log)

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


def _pool_options(hyperparams: dict[str, Any]) -> dict[str, Any]:
    """EnvPool's counterpart of the ``env_wrapper``, or an error where it has none."""
    if hyperparams.get("monitor_kwargs"):
        raise ValueError(f"monitor_kwargs must be empty with vec_env: envpool, got {hyperparams['monitor_kwargs']!r}")
    wrappers = hyperparams.get("env_wrapper") or []
    options: dict[str, Any] = {}
    for wrapper in wrappers if isinstance(wrappers, list) else [wrappers]:
        if not isinstance(wrapper, dict) or list(wrapper) != [TIME_LIMIT]:
            raise ValueError(
                f"env_wrapper must be none or {TIME_LIMIT} with vec_env: envpool, whose environments are C++ objects; "
                f"got {wrapper!r}"
            )
        options.update(wrapper[TIME_LIMIT])
    return options


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
