"""The policy's forward pass as rollouts are collected."""

import argparse
import copy
from functools import partial
from statistics import median
from typing import Any

import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_smac import SMAC
from sb3_smac.fast.plain_policy import PlainPolicy, plain_forward

from .report import Row, Table
from .timing import interleaved, ratio

TASKS = ("Hopper-v4", "CartPole-v1")


def measure_rollout(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: microseconds of SB3's forward pass and of ours
    """
    seconds = 0 if options.quick else 1
    rows = [measure(task, n_envs, is_on, seconds) for task in TASKS for n_envs in (1, 8) for is_on in (False, True)]
    caption = (
        "Forward pass of the policy (actions, values, log-probabilities) when a rollout is collected: the policy's own, which "
        "is SB3's, and the plain one, with normalisation of observations inside the policy and without."
    )
    return [Table("rollout", caption, rows)]


def measure(task: str, n_envs: int, normalizes: bool, seconds: float) -> Row:
    """
    :param task: name
    :param n_envs: number of environments
    :param normalizes: whether observations are normalised in the policy
    :param seconds: for both together
    :return: microseconds of each
    """
    env = make_vec_env(task, n_envs, seed=0)
    policy: Any = SMAC("MlpPolicy", env, normalize_observations=normalizes, seed=0, device="cpu").policy
    policy.set_training_mode(False)
    observations = th.as_tensor(env.reset())
    env.close()
    if normalizes:
        policy.observation_normalizer.update(th.randn(100, *observations.shape[1:]))
    assert PlainPolicy.of(policy) is not None
    plain = copy.deepcopy(policy)
    with th.no_grad(), plain_forward(plain):
        functions = {"SB3": partial(policy.forward, observations), "plain": partial(plain.forward, observations)}
        times = interleaved(functions, seconds, turn=0.01)
    return {
        "task": task,
        "observations": n_envs,
        "normalised": "yes" if normalizes else "no",
        "SB3, µs": 1e6 * median(times["SB3"]),
        "plain, µs": 1e6 * median(times["plain"]),
        "plain / SB3": ratio(times["plain"], times["SB3"]),
    }
