"""Frames per second of the whole of ``learn()``."""

import argparse
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from stable_baselines3.common.vec_env import VecEnv

from .models import ALGORITHMS, PEERS
from .report import Row, Table
from .simulators import DUMMY, ENVPOOL_1, ENVPOOL_2, SIMULATORS, available, random_stepping
from .timing import Action, interleaved, ratio

RANDOM = "random actions"
OURS = ("SMAC", "SMAC, full")
FRAMES = 1024


class Setting(NamedTuple):
    """
    What takes turns.

    :param task: name
    :param n_envs: number of environments
    :param simulators: in which each algorithm learns
    :param algorithms: their names
    :param seconds: for all of them together
    """

    task: str
    n_envs: int
    simulators: Sequence[str]
    algorithms: Sequence[str]
    seconds: float


ENVPOOL = (ENVPOOL_1, ENVPOOL_2)
SETTINGS = (
    Setting("Hopper-v4", 8, ENVPOOL, (*OURS, *PEERS), 25),
    Setting("Hopper-v4", 8, (DUMMY,), (*OURS, "AC-CG", "AC-SGD", "AC-Adam", *PEERS), 25),
    Setting("Humanoid-v4", 8, ENVPOOL, (*OURS, *PEERS), 25),
    Setting("Humanoid-v4", 8, (DUMMY,), (*OURS, "A2C"), 10),
    Setting("Hopper-v4", 1, (DUMMY, ENVPOOL_1), (*OURS, "A2C"), 10),
    Setting("Hopper-v4", 16, (DUMMY, *ENVPOOL), (*OURS, "A2C"), 10),
    Setting("Humanoid-v4", 1, (ENVPOOL_1,), (*OURS, "A2C"), 8),
    Setting("Humanoid-v4", 16, ENVPOOL, (*OURS, "A2C"), 10),
    Setting("CartPole-v1", 8, (DUMMY,), (*OURS, *PEERS), 5),
)
QUICK = (Setting("CartPole-v1", 8, (DUMMY, ENVPOOL_1), (*OURS, *PEERS), 0),)


def learning(name: str, env: VecEnv, size: int) -> Action:
    """
    :param name: of an algorithm
    :param env: environments of its own
    :param size: N
    :return: a function that goes on learning for one rollout and update
    """
    cls, arguments = ALGORITHMS[name]
    model = cls("MlpPolicy", env, n_steps=size // env.num_envs, seed=0, device="cpu", **arguments)
    return partial(model.learn, size, reset_num_timesteps=False)


def measure(setting: Setting, size: int) -> list[Row]:
    """
    :param setting: what takes turns
    :param size: N
    :return: a row per simulator and algorithm
    """
    names = [
        (simulator, algorithm)
        for simulator in available(setting.simulators, setting.n_envs)
        for algorithm in (*setting.algorithms, RANDOM)
    ]
    if not names:
        return []
    envs = {name: SIMULATORS[name[0]](setting.task, setting.n_envs) for name in names}
    try:
        functions = {
            name: random_stepping(env, size) if name[1] == RANDOM else learning(name[1], env, size)
            for name, env in envs.items()
        }
        times = interleaved(functions, setting.seconds, turn=0.2 if setting.seconds else 0)
    finally:
        for env in envs.values():
            env.close()
    return [
        {
            "task": setting.task,
            "environments": setting.n_envs,
            "simulator": simulator,
            "algorithm": algorithm,
            "frames/s": size / median(seconds),
            "/ random actions": ratio(times[simulator, RANDOM], seconds),
            "/ A2C": ratio(times[simulator, "A2C"], seconds),
        }
        for (simulator, algorithm), seconds in times.items()
    ]


def measure_learn(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: frames per second of whole trainings
    """
    size = 128 if options.quick else FRAMES
    rows = [row for setting in (QUICK if options.quick else SETTINGS) for row in measure(setting, size)]
    caption = (
        f"`learn()`: frames per second, a rollout of {size} transitions and its update at a time. All with their defaults "
        "(ours normalise observations in the policy; PPO: minibatches of 64, 10 epochs) but the same N. Random actions: the "
        "same environments stepped with actions that were sampled before. Ratios are within a simulator; threads are "
        "EnvPool's."
    )
    return [Table("learn", caption, rows)]
