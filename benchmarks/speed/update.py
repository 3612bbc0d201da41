"""The whole of ``train()``."""

import argparse
import copy
from statistics import median
from typing import Any
from unittest import mock

import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from .models import ALGORITHMS, NETWORKS, Network
from .report import Row, Table
from .timing import interleaved, ratio

N_ENVS = 8
SIZE = 1000
NAMES = ("AC-SGD", "SMAC", "SMAC, rank 128", "SMAC, full", "AC-CG", "AC-Adam", "TRPO", "PPO")


class Update:
    """
    ``train()`` of an algorithm with its defaults, as often as one likes from the same parameters on the same rollout.

    :param name: of the algorithm
    :param env: environments, of which three rollouts are collected
    :param size: N
    :param hidden: widths of the hidden layers of actor and critic
    :param device: of the model
    """

    def __init__(
        self, name: str, env: VecEnv, size: int, hidden: tuple[int, ...] = (64, 64), device: th.device | str = "cpu"
    ) -> None:
        cls, arguments = ALGORITHMS[name]
        self.model: Any = cls(
            *("MlpPolicy", env),
            n_steps=size // env.num_envs,
            policy_kwargs={"net_arch": list(hidden)},
            seed=0,
            device=device,
            **arguments,
        )
        # Two updates: statistics, Adam's moments and the last step's KL divergence are there, as in the middle of a training
        self.model.learn(2 * size)
        with mock.patch.object(self.model, "train"):
            self.model.learn(size, reset_num_timesteps=False)
        self._parameters = copy.deepcopy(self.model.get_parameters())
        self._rollout = copy.deepcopy(self.model.rollout_buffer)
        self._step = copy.deepcopy(getattr(self.model, "_step", None))

    def restore(self) -> None:
        """Make everything as it was after the last rollout."""
        self.model.set_parameters(copy.deepcopy(self._parameters))
        self.model.rollout_buffer = copy.deepcopy(self._rollout)
        self.model._step = copy.deepcopy(self._step)
        th.manual_seed(0)

    def __call__(self) -> None:
        """One update."""
        self.model.train()
        if self.model.device.type == "cuda":
            th.cuda.synchronize(self.model.device)


def updates(network: Network, size: int, names: tuple[str, ...] = NAMES) -> dict[str, Update]:
    """
    :param network: and its task
    :param size: N
    :param names: of the algorithms
    :return: their updates
    """
    found = {}
    for name in names:
        env = make_vec_env(network.task, N_ENVS, seed=0)
        found[name] = Update(name, env, size, network.hidden)
        env.close()
    return found


def measure_update(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: seconds of ``train()``
    """
    size = 128 if options.quick else SIZE
    rows: list[Row] = []
    for label, network in list(NETWORKS.items())[: 1 if options.quick else None]:
        by_name = updates(network, size)
        prepare = {name: update.restore for name, update in by_name.items()}
        times = interleaved(by_name, 0 if options.quick else 20, turn=0, prepare=prepare)
        for name, of_name in times.items():
            of_peers = {f"/ {peer}": ratio(of_name, times[peer]) for peer in ("AC-SGD", "TRPO", "PPO")}
            rows.append({"network": label, "train()": name, "ms": 1e3 * median(of_name), **of_peers})
    caption = (
        f"`train()` after a rollout of {size} transitions, all with their defaults: the actor, ten passes of the critic, "
        "diagnostics. PPO: ten epochs of minibatches of 64. Each call starts from the same parameters and moments."
    )
    return [Table("update", caption, rows)]
