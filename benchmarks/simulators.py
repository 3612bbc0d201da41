"""
Frames per second of random actions in SB3's DummyVecEnv and SubprocVecEnv and in EnvPool, all with episode statistics.

python benchmarks/simulators.py                                          # all tasks, one and eight environments
python benchmarks/simulators.py --tasks Hopper-v4 --n-envs 8 --seconds 2
"""

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecEnv

from sb3_smac.envs import EnvPoolVecEnv

TASKS = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "Hopper-v4", "HalfCheetah-v4", "Humanoid-v4")
SIMULATORS: dict[str, Callable[[str, int], VecEnv]] = {
    "DummyVecEnv": lambda task, n_envs: make_vec_env(task, n_envs, seed=0),
    "SubprocVecEnv": lambda task, n_envs: make_vec_env(task, n_envs, seed=0, vec_env_cls=SubprocVecEnv),
    "EnvPool": lambda task, n_envs: EnvPoolVecEnv(task, n_envs, seed=0),
}


def measure(task: str, n_envs: int, seconds: float = 1.0, repeats: int = 5) -> dict[str, float]:
    """
    Step the simulators with the same random actions, by turns.

    :param task: a task that Gymnasium and EnvPool have
    :param n_envs: number of environments
    :param seconds: length of one turn
    :param repeats: turns of each simulator
    :return: frames (steps times environments) per second of each: the median over its turns
    """
    environments = {name: make(task, n_envs) for name, make in SIMULATORS.items()}
    space = environments["DummyVecEnv"].action_space
    space.seed(0)
    actions = [np.stack([space.sample() for _ in range(n_envs)]) for _ in range(100)]
    rates: dict[str, list[float]] = {name: [] for name in environments}
    try:
        for env in environments.values():
            env.reset()
            frames_per_second(env, actions, seconds / 4)  # warm-up
        for _ in range(repeats):
            for name, env in environments.items():
                rates[name].append(frames_per_second(env, actions, seconds))
    finally:
        for env in environments.values():
            env.close()
    return {name: median(values) for name, values in rates.items()}


def frames_per_second(env: VecEnv, actions: Sequence[np.ndarray], seconds: float) -> float:
    """
    :param env: environments, reset before
    :param actions: what they do, again and again
    :param seconds: how long
    :return: steps times environments, per second
    """
    steps, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        env.step(actions[steps % len(actions)])
        steps += 1
    return steps * env.num_envs / elapsed


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=TASKS, metavar="TASK")
    parser.add_argument("--n-envs", nargs="+", type=int, default=(1, 8), metavar="N")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="measurements, their median is shown (default: %(default)s)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*is out of date.*", category=DeprecationWarning)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; frames per second\n")
    print("| task | environments | " + " | ".join(SIMULATORS) + " | EnvPool / DummyVecEnv | EnvPool / SubprocVecEnv |")
    print("| --- |" + " ---: |" * (len(SIMULATORS) + 3))
    for task in options.tasks:
        for n_envs in options.n_envs:
            rates = measure(task, n_envs, options.seconds, options.repeats)
            ratios = [f"{rates['EnvPool'] / rates[other]:.1f}" for other in ("DummyVecEnv", "SubprocVecEnv")]
            print("|", " | ".join([task, str(n_envs), *(f"{rate:,.0f}" for rate in rates.values()), *ratios]), "|", flush=True)


if __name__ == "__main__":
    main()
