"""The RL Zoo's experiment manager, for this package's algorithms."""

import argparse
import copy
import importlib
import inspect
import runpy
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import optuna
import torch as th
import yaml
from huggingface_sb3 import EnvironmentName
from optuna.trial import TrialState
from rl_zoo3 import exp_manager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from sqlalchemy.exc import DBAPIError
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_smac import ALGORITHMS
from sb3_smac.common import checks
from sb3_smac.envs import EnvPoolVecEnv
from sb3_smac.envs.tasks import policy_for
from sb3_smac.zoo import HYPERPARAMS, settings
from sb3_smac.zoo.hyperparams_opt import sampler, searched
from sb3_smac.zoo.wrappers import TIME_LIMIT, ends

ERROR = "error"
"""User attribute of a trial that failed."""


class _TrialNumber(int):
    """The Zoo takes the number 0 for "no trial" and would train the default hyperparameters instead of the first trial's."""

    def __bool__(self) -> bool:
        return True


class ExperimentManager(exp_manager.ExperimentManager):
    """
    The Zoo's, that also finds this package's YAML files, explains what is wrong in an entry, fits an entry for all tasks to
    the one at hand, and lets a study survive failures.

    :param args: the command's arguments
    :param algo: algorithm's key
    :param other: everything else, as in the Zoo
    :param config: YAML file; ``None``: the algorithm's own
    :param trial_id: trial of a study whose hyperparameters are used
    """

    vec_env_class: Any  # what the Zoo gives to SB3's make_vec_env
    env_wrapper: Any
    env_name: EnvironmentName
    normalize_kwargs: dict[str, Any]
    _is_atari: bool

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
        self._policy_is_open = False  # whether the task's observations decide it
        self._study: optuna.Study | None = None
        number = None if trial_id is None else _TrialNumber(trial_id)
        super().__init__(args, algo, *other, config=config, trial_id=number, **kwargs)
        checks.integer("--eval-episodes", self.n_eval_episodes, minimum=1)
        checks.integer("--n-eval-envs", self.n_eval_envs, minimum=1)
        if trial_id is not None and not (self.storage and self.study_name):
            raise ValueError(f"--trial-id must come with --storage and --study-name, got {trial_id} alone")

    def read_hyperparameters(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """
        Read the task's entry: under its name as it was given, or as Gymnasium has it (without module, with version).

        :return: hyperparameters, and those that are saved
        :raises ValueError: if the file has no entries
        """
        entries = _entries(self.config)
        gym_id, self._is_atari = self.env_name.gym_id, self._is_atari and "atari" in entries
        name = gym_id if gym_id in entries else gym.spec(gym_id).id
        # An entry for all tasks cannot know what they observe
        self._policy_is_open = self.algo in ALGORITHMS and name not in entries
        given, self.env_name = self.env_name, EnvironmentName(name)
        try:
            hyperparams, saved = super().read_hyperparameters()
        finally:
            self.env_name = given
        if "policy" in (self.custom_hyperparams or {}):
            self._policy_is_open = False
        for entry in (hyperparams, saved):
            if self.algo in ALGORITHMS:
                entry.update({name: settings.number(value) for name, value in entry.items()})
            if self.n_timesteps > 0:
                entry.setdefault("n_timesteps", self.n_timesteps)  # the Zoo, and its benchmark, must find it
        return hyperparams, saved

    def load_trial(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As the Zoo's, and a ``ValueError`` if there is no such study or trial."""
        try:
            return super().load_trial(*args, **kwargs)
        except (IndexError, KeyError) as error:
            raise ValueError(
                f"--trial-id {self.trial_id}: study {self.study_name!r} in {self.storage} has no such trial, or is no study "
                f"of {self.algo} ({type(error).__name__}: {error})"
            ) from error

    def _preprocess_hyperparams(self, hyperparams: dict[str, Any]) -> tuple[dict[str, Any], Any, list, Any]:
        hyperparams = settings.check(self.algo, hyperparams, f"{self.env_name} in {self.config}, or -params")
        if "n_timesteps" not in hyperparams:
            raise ValueError(f"n_timesteps is neither in {self.env_name}'s entry of {self.config} nor given (-n)")
        vec_env = hyperparams.pop("vec_env", None)
        if vec_env == "envpool":
            self._pool_options = _pool_options(hyperparams)
        elif vec_env is not None:  # else that of the command line, --vec-env
            self.vec_env_class = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}[vec_env]
        processed = super()._preprocess_hyperparams(hyperparams)
        if self._eval_env_kwargs_args is None:  # the Zoo leaves a YAML file's to the training
            self.eval_env_kwargs = self.env_kwargs
        return processed

    def _preprocess_schedules(self, hyperparams: dict[str, Any]) -> dict[str, Any]:
        # Our constructors read "lin_x" themselves, and say what is wrong with it
        return hyperparams if self.algo in ALGORITHMS else super()._preprocess_schedules(hyperparams)

    def _preprocess_action_noise(
        self, hyperparams: dict[str, Any], saved_hyperparams: dict[str, Any], env: VecEnv
    ) -> dict[str, Any]:
        policy = policy_for(env.observation_space)
        if "policy" not in hyperparams or (
            self._policy_is_open and hyperparams["policy"] in set(settings.POLICIES) - {policy}
        ):
            print(f"Using {policy} for {env.observation_space}")
            hyperparams["policy"] = saved_hyperparams["policy"] = policy
        if self.optimize_hyperparameters and self.algo in ALGORITHMS:
            # What is wrong here would be wrong in every trial
            fixed = {name: value for name, value in hyperparams.items() if name not in searched(self.algo)}
            ALGORITHMS[self.algo](env=env, device=self.device, normalize_advantage=False, **fixed)
        return super()._preprocess_action_noise(hyperparams, saved_hyperparams, env)

    def _maybe_normalize(self, env: VecEnv, eval_env: bool) -> VecEnv:
        if self.normalize:
            self.normalize_kwargs = settings.normalizable(env.observation_space, self.normalize_kwargs)
        return super()._maybe_normalize(env, eval_env)

    def create_envs(self, n_envs: int, eval_env: bool = False, no_log: bool = False) -> VecEnv:
        """
        Create environments: with ``vec_env: envpool``, those of training in EnvPool, those of evaluation in Gymnasium. Every
        episode of an evaluation ends.

        :param n_envs: number of environments
        :param eval_env: whether they are for evaluation
        :param no_log: whether to leave their episodes out of the log folder
        :return: the environments, wrapped
        """
        manager = copy.copy(self)  # trials that run in threads (--n-jobs) share this one
        if eval_env:
            wrap = self.env_wrapper
            manager.env_wrapper = lambda env: ends(env if wrap is None else wrap(env))
        elif self._pool_options is not None:
            options = {**self._pool_options, **self.env_kwargs, "monitor_dir": None if no_log else self.save_path}
            task = gym.spec(self.env_name.gym_id).id
            # SB3's make_vec_env calls it as a VecEnv class; what would make Gymnasium's environments is not called
            manager.vec_env_class = lambda env_fns: EnvPoolVecEnv(task, len(env_fns), **options)
        return super(ExperimentManager, manager).create_envs(n_envs, eval_env, no_log)

    def hyperparameters_optimization(self) -> None:
        """
        Search hyperparameters, perhaps together with other processes.

        :raises ValueError: if no trial came to its end
        """
        if self.storage is not None and not self.storage.endswith(".log"):
            _create_tables(self.storage)
        samplers = {}
        if self.algo in ALGORITHMS:
            n_steps = inspect.signature(ALGORITHMS[self.algo]).parameters["n_steps"].default
            rollout_size = self.n_envs * self._hyperparams.get("n_steps", n_steps)
            samplers[self.algo] = sampler(self.algo, rollout_size)
        try:
            with patch.dict(HYPERPARAMS_SAMPLER, samplers):
                super().hyperparameters_optimization()
        except ValueError as error:
            # At its end the Zoo asks for the best trial
            if self._study is None or self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
                raise
            raise ValueError(_why_none_completed(self._study)) from error

    def objective(self, trial: optuna.Trial) -> float:
        """
        Train and evaluate one trial.

        :param trial: trial of the study
        :return: its last mean reward
        :raises optuna.TrialPruned: if it is bad, or fails numerically
        """
        self._study = trial.study
        try:
            try:
                return super().objective(trial)
            # The Zoo prunes on a ValueError of training, not of the constructor
            except (ArithmeticError, ValueError, th.linalg.LinAlgError) as error:
                print(error)
                raise optuna.TrialPruned from error
        except optuna.TrialPruned as pruned:
            if pruned.__cause__ is not None:  # it was not the pruner
                trial.set_user_attr(ERROR, f"{type(pruned.__cause__).__name__}: {pruned.__cause__}")
            raise


def _entries(config: str) -> dict[str, Any]:
    """What a file of hyperparameters holds, of any kind that the Zoo reads."""
    if config.endswith((".yml", ".yaml")):
        entries = settings.read_yaml(Path(config), yaml.SafeLoader)  # as the Zoo does
    elif config.endswith(".py"):
        entries = runpy.run_path(config).get("hyperparams")
    else:
        entries = getattr(importlib.import_module(config), "hyperparams", None)
    if not isinstance(entries, dict):
        raise ValueError(f"{config} must have an entry for each environment, got {entries!r}")
    for name, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError(f"{name} in {config} must have hyperparameters as name: value, got {entry!r}")
    return entries


def _why_none_completed(study: optuna.Study) -> str:
    states = Counter(trial.state.name.lower() for trial in study.trials)
    message = f"No trial completed ({', '.join(f'{number} {state}' for state, number in states.items())})."
    failed = next((trial for trial in study.trials if ERROR in trial.user_attrs), None)
    if failed is None:
        return f"{message} None failed: the pruner stopped them (--pruner none lets them go on), or they were interrupted."
    return f"{message} The first error was that of trial {failed.number}: {failed.user_attrs[ERROR]}"


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
