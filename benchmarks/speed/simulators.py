"""Vectorised simulators, stepped with random actions; all keep episode statistics."""

import argparse
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from statistics import median

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_smac.envs import EnvPoolVecEnv

from .report import Row, Table
from .timing import Action, interleaved

DUMMY, SUBPROC, ENVPOOL_1, ENVPOOL_2 = "DummyVecEnv", "SubprocVecEnv", "EnvPool, 1 thread", "EnvPool, 2 threads"
SIMULATORS: dict[str, Callable[[str, int], VecEnv]] = {
    DUMMY: lambda task, n_envs: make_vec_env(task, n_envs, seed=0),
    SUBPROC: lambda task, n_envs: make_vec_env(task, n_envs, seed=0, vec_env_cls=SubprocVecEnv),
    ENVPOOL_1: lambda task, n_envs: EnvPoolVecEnv(task, n_envs, seed=0, num_threads=1),
    ENVPOOL_2: lambda task, n_envs: EnvPoolVecEnv(task, n_envs, seed=0, num_threads=2),
}
TASKS = ("CartPole-v1", "Hopper-v4", "Humanoid-v4")
FRAMES = 256


def available(simulators: Iterable[str], n_envs: int) -> list[str]:
    """
    :param simulators: names
    :param n_envs: number of environments
    :return: those that are installed and have no more threads than environments
    """
    has_envpool = find_spec("envpool") is not None
    return [name for name in simulators if name in (DUMMY, SUBPROC) or (has_envpool and (n_envs > 1 or name == ENVPOOL_1))]


def random_stepping(env: VecEnv, size: int) -> Action:
    """
    :param env: environments of its own
    :param size: frames
    :return: a function that steps them as often, with actions that were sampled before
    """
    env.reset()
    env.action_space.seed(0)
    actions = [np.stack([env.action_space.sample() for _ in range(env.num_envs)]) for _ in range(size // env.num_envs)]

    def run() -> None:
        for action in actions:
            env.step(action)

    return run


def measure(task: str, n_envs: int, simulators: Iterable[str], seconds: float) -> Row:
    """
    :param task: a task that Gymnasium and EnvPool have
    :param n_envs: number of environments
    :param simulators: names
    :param seconds: for all simulators together
    :return: frames (steps times environments) per second of each simulator
    """
    envs = {name: SIMULATORS[name](task, n_envs) for name in available(simulators, n_envs)}
    try:
        times = interleaved({name: random_stepping(env, FRAMES) for name, env in envs.items()}, seconds)
    finally:
        for env in envs.values():
            env.close()
    rates = {name: FRAMES / median(times[name]) if name in times else float("nan") for name in simulators}
    return {"task": task, "environments": n_envs, **rates}


def measure_simulators(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: frames per second of random actions
    """
    tasks, numbers, names, seconds = TASKS, (1, 8), list(SIMULATORS), 3.0
    if options.quick:  # without subprocesses, which take seconds to start
        tasks, numbers, names, seconds = TASKS[:1], (2,), [DUMMY, ENVPOOL_1], 0.0
    rows = [measure(task, n_envs, names, seconds) for task in tasks for n_envs in numbers]
    return [Table("simulators", "Random actions, sampled before: frames per second.", rows)]
