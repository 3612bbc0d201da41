"""One run: a model trained once, with its learning curve recorded."""

import argparse
import copy
import io
import os
import platform
import re
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, sync_envs_normalization

import sb3_smac
from sb3_smac.benchmark import settings
from sb3_smac.benchmark.store import CURVES, Run, curve
from sb3_smac.benchmark.study import Job

PACKAGES = ("stable-baselines3", "sb3-contrib", "rl_zoo3", "torch", "numpy", "gymnasium", "mujoco")
# Updates that come more often share a row: the files stay small
RESOLUTION = 500
# Evaluation episodes are not those of training
EVALUATION_SEED = 1_000_000
# Evaluations step this many environments together, so that the policy is called less often
EVALUATION_ENVS = 10


def run(job: Job) -> Run:
    """
    Train once, in one thread. Nothing that goes wrong in training is raised: it is the run's traceback.

    :param job: what to run
    :return: the run, finished or failed
    """
    th.set_num_threads(1)
    start, failure = time.perf_counter(), None
    with warnings.catch_warnings(record=True) as caught, ExitStack() as envs:
        warnings.simplefilter("default")
        try:
            model, callbacks, evaluation_env = build(job, envs)
            recorder = Recorder(model, evaluation_env, job.evaluation or {}, start)
            model.learn(job.budget, callback=[*callbacks, recorder], log_interval=10**9)
            if model.num_timesteps < job.budget:
                failure = f"A callback ended the training after {model.num_timesteps} of {job.budget} timesteps."
        except Exception:
            failure = traceback.format_exc()
    total = time.perf_counter() - start
    messages = sorted({str(warning.message) for warning in caught})
    if failure is not None:
        return failed(job, failure, total, messages)
    duration = {"total": total, "update": recorder.update_time, "evaluation": recorder.evaluation_time}
    return Run(job.key, {**_info(job, "finished", duration), "warnings": messages}, **recorder.curves())


def failed(job: Job, reason: str, seconds: float, messages: list[str] | None = None) -> Run:
    """
    :param job: what was run
    :param reason: what went wrong, such as a traceback
    :param seconds: how long it took
    :param messages: warnings that came before
    :return: the failed run
    """
    info = {**_info(job, "failed", {"total": seconds}), "warnings": messages or [], "traceback": reason}
    return Run(job.key, info, **{name: curve(name) for name in CURVES})


def check(job: Job) -> None:
    """
    Make the environment and the model, and train nothing.

    :param job: what would be run
    :raises ValueError: if that fails
    """
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(), ExitStack() as envs:  # what the Zoo prints
            warnings.simplefilter("ignore")
            build(job, envs)
    except Exception as error:
        raise ValueError(f"{job.label} on {job.task}: {error}") from error


def build(job: Job, envs: ExitStack) -> tuple[BaseAlgorithm, list[BaseCallback], VecEnv | None]:
    """
    Make environment and model as the RL Zoo does, without its folders.

    :param job: what to run
    :param envs: closes the environments
    :return: the model, the callbacks of its Zoo entry, and the environment of the evaluations if there are any
    """
    cls = settings.algorithms()[job.algorithm]
    from sb3_smac.zoo.exp_manager import ExperimentManager

    options: dict[str, Any] = {
        "n_timesteps": job.budget,
        "eval_freq": -1,
        "seed": job.seed,
        "verbose": 0,
        "config": "the study",
    }
    manager = ExperimentManager(argparse.Namespace(), job.algorithm, job.task, "", **options)
    chosen = {**copy.deepcopy(job.hyperparameters), "n_timesteps": job.budget}
    hyperparameters, manager.env_wrapper, callbacks, manager.vec_env_wrapper = manager._preprocess_hyperparams(chosen)
    env = manager.create_envs(manager.n_envs, no_log=True)
    envs.callback(env.close)
    hyperparameters = manager._preprocess_action_noise(hyperparameters, {}, env)
    model = cls(env=env, seed=job.seed, verbose=0, device="cpu", **hyperparameters)
    if job.evaluation is None:
        return model, callbacks, None
    manager.seed = job.seed + EVALUATION_SEED
    evaluation_env = manager.create_envs(min(EVALUATION_ENVS, job.evaluation["episodes"]), eval_env=True)
    envs.callback(evaluation_env.close)
    return model, callbacks, evaluation_env


class Recorder(BaseCallback):
    """
    Records a learning curve.

    :param model: the model; its ``train`` is measured
    :param evaluation_env: environment of the evaluations; ``None``: no evaluations
    :param evaluation: ``every`` how many timesteps, and ``episodes``
    :param start: when the run started, on the performance counter
    """

    def __init__(self, model: BaseAlgorithm, evaluation_env: VecEnv | None, evaluation: dict[str, int], start: float) -> None:
        super().__init__()
        self.evaluation_env, self.evaluation, self.start = evaluation_env, evaluation, start
        self.next_evaluation = evaluation.get("every", 0)
        self.update_time = self.evaluation_time = 0.0
        self.rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in CURVES}
        self.pending: list[tuple[float, ...]] = []
        self.train: Callable[..., None] = model.train  # type: ignore[attr-defined]  # every algorithm has it
        model.train = self._measured_train  # type: ignore[attr-defined]

    def curves(self) -> dict[str, Any]:
        """
        :return: the curves by name
        """
        self._flush_updates()
        return {name: curve(name, rows) for name, rows in self.rows.items()}

    def _on_step(self) -> bool:
        now = round(time.perf_counter() - self.start, 2)
        episodes = [info["episode"] for info in self.locals["infos"] if "episode" in info]
        self.rows["episodes"] += [(self.num_timesteps, episode["r"], episode["l"], now) for episode in episodes]
        if self.evaluation_env is not None and self.num_timesteps >= self.next_evaluation:
            self._evaluate(self.evaluation_env)
        return True

    def _evaluate(self, env: VecEnv) -> None:
        start = time.perf_counter()
        sync_envs_normalization(self.training_env, env)
        episodes = self.evaluation["episodes"]
        returns = np.array(evaluate_policy(self.model, env, episodes, deterministic=True, return_episode_rewards=True)[0])
        wall_time = start - self.start - self.evaluation_time
        self.rows["evaluations"].append((self.num_timesteps, returns.mean(), returns.std(), len(returns), wall_time))
        self.next_evaluation += self.evaluation["every"]
        self.evaluation_time += time.perf_counter() - start

    def _measured_train(self, *args: Any, **kwargs: Any) -> None:
        log_prob = np.nan
        if isinstance(self.model, OnPolicyAlgorithm):  # of the actions as they were taken, before the policy moves
            log_prob = self.model.rollout_buffer.log_probs.mean()
        start = time.perf_counter()
        self.train(*args, **kwargs)
        seconds = time.perf_counter() - start
        self.update_time += seconds
        kl = self.model.logger.name_to_value.get("train/approx_kl", np.nan)
        self.pending.append((self.model.num_timesteps, log_prob, seconds, kl))
        last_row = self.rows["updates"][-1][0] if self.rows["updates"] else 0
        if self.model.num_timesteps - last_row >= RESOLUTION:
            self._flush_updates()

    def _flush_updates(self) -> None:
        if self.pending:
            timesteps, log_probs, seconds, kls = zip(*self.pending, strict=True)
            self.rows["updates"].append((timesteps[-1], np.mean(log_probs), sum(seconds), np.mean(kls)))
            self.pending.clear()


def _info(job: Job, status: str, duration: dict[str, float]) -> dict[str, Any]:
    unset = settings.defaults(job.algorithm)
    return {
        "status": status,
        "label": job.label,
        **job.configuration,
        "defaults": {name: value for name, value in unset.items() if name not in job.hyperparameters},
        "duration": {name: round(seconds, 3) for name, seconds in duration.items()},
        **_made_with(),
    }


@cache
def _made_with() -> dict[str, Any]:
    """Versions and machine; and the commit of the checkout that the code runs from, ``None`` if it is not one."""
    packages = {"sb3_smac": sb3_smac.__version__, **{name: version(name) for name in PACKAGES}}
    cpuinfo = Path("/proc/cpuinfo")
    models = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    processor = models[0] if models else platform.processor() or platform.machine()
    machine = {"system": platform.platform(), "processor": processor, "cores": os.cpu_count(), "threads": th.get_num_threads()}
    return {"versions": {"python": platform.python_version(), **packages}, "machine": machine, "revision": _revision()}


def _revision() -> dict[str, Any] | None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(sb3_smac.__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # not a checkout that only surrounds an installation
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None
