"""
How long things take, as ratios against Stable-Baselines3's A2C and PPO and sb3-contrib's TRPO, in one process and by turns.

python benchmarks/speed.py                               # everything, in under ten minutes on two cores
python benchmarks/speed.py --only actor learn --out /tmp/speed
python benchmarks/speed.py --only gpu --device cuda:1
"""

import argparse
import copy
import csv
import json
import math
import os
import platform
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import gymnasium as gym
import matplotlib
import numpy as np
import torch as th
from gymnasium import spaces
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sb3_contrib import TRPO
from sb3_contrib.common.utils import conjugate_gradient_solver
from simulators import measure
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_smac import ACCG, ACSGD, SMAC, ACAdam
from sb3_smac.common.actor_batch import make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.common.natural_actor_critic import NaturalActorCritic
from sb3_smac.common.policies import NormalizingPolicy
from sb3_smac.envs import EnvPoolVecEnv
from sb3_smac.fast.plain_policy import PlainPolicy, plain_forward
from sb3_smac.maths import assign, flat_gradient, flatten

RESULTS = Path(__file__).parent / "results" / "speed"
Row = dict[str, Any]
Action = Callable[[], object]
Algorithm = tuple[type[NaturalActorCritic], dict[str, Any]]

# Size of observations and actions, and widths of the hidden layers
NETWORKS = {"Hopper, 64x64": (11, 3, (64, 64)), "Humanoid, 256x256": (376, 17, (256, 256))}
STEPS: dict[str, Algorithm] = {
    "AC-SGD": (ACSGD, {}),
    "SMAC": (SMAC, {}),
    "SMAC, rank 128": (SMAC, {"fisher_rank": 128}),
    "SMAC, full": (SMAC, {"fisher_rank": "full"}),
    "AC-CG": (ACCG, {"cg_max_steps": 10, "cg_tolerance": 0}),
    "AC-Adam": (ACAdam, {}),
}
# So small that the policy is the same after all repeats
STEP_SIZE = 1e-6

LEARN_TASKS = ("Hopper-v4", "HalfCheetah-v4", "CartPole-v1")
LEARNERS: dict[str, tuple[type[BaseAlgorithm], dict[str, Any]]] = {
    **{name: STEPS[name] for name in ("SMAC", "SMAC, full", "AC-SGD", "AC-Adam")},
    "AC-CG": (ACCG, {}),
    "SMAC, one critic step": (SMAC, {"n_critic_updates": 1, "critic_batch_size": None}),
    "A2C": (A2C, {}),
    "PPO": (PPO, {}),
    "TRPO": (TRPO, {}),
}

GROWING = ("SMAC", "SMAC, rank 128", "SMAC, full", "AC-CG", "AC-SGD")
PARAMETERS = (1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7)
TRANSITIONS = (250, 500, 1000, 2048, 4096, 8192, 16384)
# The fastest that time and memory are expected to grow: what would take longer or more than there is, is left out
TIME_EXPONENT = {"d": 1, "N": 3}
MEMORY_EXPONENT = {"d": 1, "N": 2}
LONGEST = 90.0
"""Seconds of one update."""
SLOW = 1.0
"""Seconds from which an update is measured once."""
# Okabe and Ito's colours, which the colour-blind tell apart
STYLES = {
    "SMAC": {"color": "#D55E00", "marker": "o"},
    "SMAC, rank 128": {"color": "#E69F00", "marker": "s"},
    "SMAC, full": {"color": "#CC79A7", "marker": "^"},
    "AC-CG": {"color": "#0072B2", "marker": "D", "linestyle": "--"},
    "AC-SGD": {"color": "#000000", "marker": "v", "linestyle": ":"},
}


class Table(NamedTuple):
    """
    What a section found.

    :param name: of its CSV file
    :param caption: what was measured
    :param rows: column names to values
    """

    name: str
    caption: str
    rows: list[Row]


# Measuring


def timed(function: Action, calls: int = 1) -> float:
    """
    :param function: what to call
    :param calls: how often
    :return: seconds per call
    """
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def interleaved(functions: Mapping[str, Action], seconds: float, turn: float = 0.05) -> dict[str, list[float]]:
    """
    Call functions by turns, after a warm-up: whatever else the machine does in a round, it does to all of them.

    :param functions: by name
    :param seconds: for all rounds together; at least three are made, or one if it is 0
    :param turn: a fast function is called several times in its turn, until it has taken about as many seconds
    :return: seconds per call of each function, one number per round
    """
    calls = {name: max(1, round(turn / min(timed(function), timed(function)))) for name, function in functions.items()}
    times: dict[str, list[float]] = {name: [] for name in functions}
    shuffler, order, start = random.Random(0), list(functions), time.perf_counter()
    rounds = 3 if seconds else 1
    while len(times[order[0]]) < rounds or time.perf_counter() - start < seconds:
        shuffler.shuffle(order)  # nobody always runs after the same one
        for name in order:
            times[name].append(timed(functions[name], calls[name]))
    return {name: times[name] for name in functions}


def ratio(times: Sequence[float], reference: Sequence[float]) -> float:
    """
    :param times: of a function, one per round
    :param reference: of another one
    :return: the median of the rounds' ratios
    """
    return median(a / b for a, b in zip(times, reference, strict=True))


def peak_memory(function: Action, device: str) -> int:
    """
    :param function: what to call
    :param device: where its tensors are
    :return: bytes of all tensors that were alive at once, beyond those from before
    """
    if th.device(device).type == "cuda":
        before = th.cuda.memory_allocated(device)
        th.cuda.reset_peak_memory_stats(device)
        function()
        return th.cuda.max_memory_allocated(device) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler reports its starts and stops otherwise
    with th.profiler.profile(activities=[th.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["name"] == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    return int(np.cumsum([0, *(event["args"]["Bytes"] for event in events)]).max())


def free_memory(device: str) -> int:
    """
    :param device: of the measurement
    :return: bytes
    """
    if th.device(device).type == "cuda":
        return th.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


# The actor's step


class Spaces(gym.Env):
    """
    Spaces without a simulator.

    :param observation_size: of a vector
    :param action_size: of a vector
    """

    def __init__(self, observation_size: int, action_size: int) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (observation_size,))
        self.action_space = spaces.Box(-1, 1, (action_size,))


class Data(NamedTuple):
    """
    A random rollout.

    :param observations: shape (N, observation size)
    :param actions: shape (N, action size)
    :param advantages: shape (N,)
    """

    observations: th.Tensor
    actions: th.Tensor
    advantages: th.Tensor

    @classmethod
    def random(cls, size: int, observation_size: int, action_size: int, device: str = "cpu") -> "Data":
        """N transitions of normally distributed numbers."""
        th.manual_seed(0)
        shapes = (size, observation_size), (size, action_size), (size,)
        return cls(*(th.randn(shape).to(device) for shape in shapes))


def build(algorithm: Algorithm, env: gym.Env, size: int, hidden: Sequence[int], device: str = "cpu", **kwargs: Any) -> Any:
    """
    A model whose actor's step is α x with a fixed α, without normalisers, which not all have.

    :param algorithm: class and arguments
    :param env: for its spaces
    :param size: N
    :param hidden: widths of the actor's layers
    :param device: of the model
    :param kwargs: more arguments
    :return: the model
    """
    cls, arguments = algorithm
    return cls(
        "MlpPolicy",
        env,
        n_steps=size,
        target_kl=None,
        line_search=False,
        normalize_observations=False,
        normalize_returns=False,
        policy_kwargs={"net_arch": {"pi": list(hidden), "vf": [8]}, "ortho_init": False},  # slow for wide layers
        seed=0,
        device=device,
        **arguments,
        **kwargs,
    )


def actor_step(model: NaturalActorCritic, data: Data) -> None:
    """One step of ours: the batch with its policy gradient, the direction, the move."""
    batch = make_actor_batch(Evaluator(model.policy), model.actor_parameters, *data)
    direction = model.actor_direction(batch)
    assign(batch.parameters, flatten(batch.parameters), direction, STEP_SIZE)
    if direction.is_cuda:
        th.cuda.synchronize(direction.device)


def autograd_step(model: NaturalActorCritic, data: Data) -> None:
    """The same as AC-SGD's, by a forward and a backward pass of torch's and nothing else."""
    model.policy.set_training_mode(True)
    log_prob = model.policy.get_distribution(data.observations).log_prob(data.actions)
    gradient = flat_gradient((data.advantages * log_prob).mean(), model.actor_parameters)
    assign(model.actor_parameters, flatten(model.actor_parameters), gradient, STEP_SIZE)


def trpo_step(model: TRPO, data: Data, old_log_prob: th.Tensor) -> None:
    """What sb3-contrib's ``TRPO.train`` does until its line search, by its own functions."""
    model.policy.set_training_mode(True)
    with th.no_grad():
        old_distribution = copy.copy(model.policy.get_distribution(data.observations))
    distribution = model.policy.get_distribution(data.observations)
    ratios = th.exp(distribution.log_prob(data.actions) - old_log_prob)
    objective = (data.advantages * ratios).mean()
    kl = kl_divergence(distribution, old_distribution).mean()
    parameters, gradient, kl_gradient, _ = model._compute_actor_grad(kl, objective)
    product = partial(model.hessian_vector_product, parameters, kl_gradient)
    direction = conjugate_gradient_solver(product, gradient, max_iter=model.cg_max_steps)
    largest = math.sqrt(2 * model.target_kl / float(direction @ product(direction, retain_graph=False)))
    assign(parameters, flatten(parameters), direction, STEP_SIZE * largest)


class MaterialisedSolve:
    """
    The step of ``SMAC(fisher_rank="full")`` with the N x d matrix of scores formed.

    :param model: ``SMAC(fisher_rank="full")`` with a Gaussian policy
    """

    def __init__(self, model: Any) -> None:
        policy = model.policy
        network = nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)
        self.damping = model._damping_of(1, 1)
        self.parameters = {**dict(network.named_parameters()), "log_std": policy.log_std}

        def log_prob(parameters: dict[str, th.Tensor], observation: th.Tensor, action: th.Tensor) -> th.Tensor:
            weights = {name: value for name, value in parameters.items() if name != "log_std"}
            normal = (action - th.func.functional_call(network, weights, (observation,))) / parameters["log_std"].exp()
            return -(0.5 * normal.square() + parameters["log_std"]).sum()  # and a constant

        self._scores = th.func.vmap(th.func.grad(log_prob), in_dims=(None, 0, 0))

    def direction(self, data: Data) -> th.Tensor:
        """``x = Sᵀ (S Sᵀ + λ N I)⁻¹ A``, in the order of :attr:`parameters`."""
        parameters = {name: value.detach() for name, value in self.parameters.items()}
        per_sample = self._scores(parameters, data.observations, data.actions)
        scores = th.cat([per_sample[name].flatten(start_dim=1) for name in parameters], dim=1)  # (N, d)
        gram = scores @ scores.T
        gram.diagonal().add_(self.damping * len(gram))
        return scores.T @ th.cholesky_solve(data.advantages[:, None], th.linalg.cholesky(gram))[:, 0]

    def step(self, data: Data) -> None:
        """Move the parameters."""
        parameters = list(self.parameters.values())
        assign(parameters, flatten(parameters), self.direction(data), STEP_SIZE)


def actor_steps(env: gym.Env, hidden: Sequence[int], data: Data) -> dict[str, Action]:
    """
    :param env: for its spaces
    :param hidden: widths of the layers
    :param data: the batch
    :return: every algorithm's actor step
    """
    size = len(data.advantages)
    models = {name: build(algorithm, env, size, hidden) for name, algorithm in STEPS.items()}
    steps: dict[str, Action] = {name: partial(actor_step, model, data) for name, model in models.items()}
    steps["plain autograd"] = partial(autograd_step, build(STEPS["AC-SGD"], env, size, hidden), data)
    arch = {"net_arch": {"pi": list(hidden), "vf": [8]}}
    trpo = TRPO("MlpPolicy", env, n_steps=size, batch_size=size, cg_max_steps=10, policy_kwargs=arch, seed=0, device="cpu")
    with th.no_grad():
        old_log_prob = trpo.policy.get_distribution(data.observations).log_prob(data.actions)
    steps["TRPO (sb3-contrib)"] = partial(trpo_step, trpo, data, old_log_prob)
    steps["materialised scores"] = partial(MaterialisedSolve(build(STEPS["SMAC, full"], env, size, hidden)).step, data)
    return steps


def measure_actor(options: argparse.Namespace) -> list[Table]:
    """The actor's step at N = 1000, and a rollout of single-sample steps."""
    size = 256 if options.quick else 1000
    rows = []
    for network, (observation_size, action_size, hidden) in list(NETWORKS.items())[: 1 if options.quick else None]:
        data = Data.random(size, observation_size, action_size)
        times = interleaved(actor_steps(Spaces(observation_size, action_size), hidden, data), 0 if options.quick else 15)
        rows += [
            {"network": network, "actor step": name, "ms": 1e3 * median(of_name), "/ AC-SGD": ratio(of_name, times["AC-SGD"])}
            for name, of_name in times.items()
        ]
    caption = (
        f"Actor step at N = {size}: policy gradient, direction and move, as a ratio to AC-SGD's. AC-CG and TRPO make 10 "
        "iterations of conjugate gradient; TRPO's step goes up to its line search, and no critic is fitted. Plain autograd is "
        "a forward and a backward pass of torch's; materialised scores are SMAC's full step with the N x d matrix from "
        "`torch.func.vmap(grad)`."
    )
    return [Table("actor", caption, rows), single_sample(options.quick)]


class SingleSampleRun:
    """
    A rollout of single-sample steps, from the same parameters each time.

    :param steps: ``_actor_steps`` of a class
    :param model: SMAC with ``batch_size=1``
    :param data: the rollout
    """

    def __init__(self, steps: Callable[..., object], model: NaturalActorCritic, data: Data) -> None:
        self.steps, self.model, self.advantages = steps, model, data.advantages
        unused = th.zeros_like(data.advantages)
        self.rollout = RolloutBufferSamples(data.observations, data.actions, unused, unused, data.advantages, unused)
        self.start = flatten(model.actor_parameters)
        self.evaluator = Evaluator(model.policy)
        self.acted = self.evaluator.as_it_acts(data.observations, data.actions)

    def __call__(self) -> None:
        assign(self.model.actor_parameters, self.start)
        self.model._metrics.clear()
        self.steps(self.model, self.evaluator, self.rollout, self.advantages, self.acted)

    @property
    def move(self) -> th.Tensor:
        """How far the last run has gone, shape (d,)."""
        return flatten(self.model.actor_parameters) - self.start


def single_sample(quick: bool) -> Table:
    """A rollout of the paper's single-sample steps, against as many steps by autograd."""
    size = 100 if quick else 1000
    rows = []
    for network, (observation_size, action_size, hidden) in list(NETWORKS.items())[: 1 if quick else None]:
        data = Data.random(size, observation_size, action_size)
        runs = {}
        for name, steps in {"plain": SMAC._actor_steps, "autograd": NaturalActorCritic._actor_steps}.items():
            env = Spaces(observation_size, action_size)
            model = build(STEPS["SMAC"], env, size, hidden, batch_size=1, learning_rate=0.01)
            runs[name] = SingleSampleRun(steps, model, data)
        times = interleaved(runs, 0 if quick else 5)
        row = {"network": network, "plain, ms": 1e3 * median(times["plain"]), "autograd, ms": 1e3 * median(times["autograd"])}
        row["plain / autograd"] = ratio(times["plain"], times["autograd"])
        row["largest difference"] = (runs["plain"].move - runs["autograd"].move).abs().max().item()
        row["largest move"] = runs["plain"].move.abs().max().item()
        rows.append(row)
    caption = (
        f"Single-sample SMAC: the {size} steps of a rollout against as many separate steps by autograd, and by how much the "
        "parameters differ after them."
    )
    return Table("single_sample", caption, rows)


# The rollout


def measure_forward(options: argparse.Namespace) -> list[Table]:
    """The policy's forward pass as rollouts are collected."""
    rows = []
    for task in ("Hopper-v4", "CartPole-v1"):
        for n_envs in (1, 8):
            for normalized in (False, True):
                env = make_vec_env(task, n_envs, seed=0)
                policy = SMAC("MlpPolicy", env, normalize_observations=normalized, seed=0, device="cpu").policy
                assert isinstance(policy, NormalizingPolicy)
                policy.set_training_mode(False)
                observations = th.as_tensor(env.reset())
                env.close()
                if normalized:
                    policy.observation_normalizer.update(th.randn(100, *observations.shape[1:]))
                assert PlainPolicy.of(policy) is not None
                plain = copy.deepcopy(policy)
                functions = {"SB3": partial(policy.forward, observations), "plain": partial(plain.forward, observations)}
                with th.no_grad(), plain_forward(plain):
                    times = interleaved(functions, 0 if options.quick else 1, turn=0.01)
                row = {"task": task, "observations": n_envs, "normalised": "yes" if normalized else "no"}
                rows.append(
                    {
                        **row,
                        "SB3, µs": 1e6 * median(times["SB3"]),
                        "plain, µs": 1e6 * median(times["plain"]),
                        "plain / SB3": ratio(times["plain"], times["SB3"]),
                    }
                )
    caption = (
        "Forward pass of the policy (actions, values, log-probabilities) when a rollout is collected: the policy's own, which "
        "is SB3's, and the plain one, with normalisation of observations inside the policy and without."
    )
    return [Table("forward", caption, rows)]


# Whole trainings


def learner(name: str, env: VecEnv, size: int) -> Action:
    """
    :param name: of :data:`LEARNERS`
    :param env: environments of its own
    :param size: N
    :return: a function that goes on learning for one rollout and update
    """
    cls, arguments = LEARNERS[name]
    model = cls("MlpPolicy", env, n_steps=size // env.num_envs, seed=0, device="cpu", **arguments)  # type: ignore[call-arg]
    return partial(model.learn, size, reset_num_timesteps=False)


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
        for each in actions:
            env.step(each)

    return run


def measure_learn(options: argparse.Namespace) -> list[Table]:
    """``learn()`` on one and eight environments."""
    size = 128 if options.quick else 1000
    rows = []
    for task in LEARN_TASKS[-1:] if options.quick else LEARN_TASKS:
        for n_envs in (1, 8):
            envs = {name: make_vec_env(task, n_envs, seed=0) for name in (*LEARNERS, "random actions")}
            functions = {name: learner(name, envs[name], size) for name in LEARNERS}
            functions["random actions"] = random_stepping(envs["random actions"], size)
            times = interleaved(functions, 0 if options.quick else 12, turn=0)
            for env in envs.values():
                env.close()
            for name, of_name in times.items():
                row = {"task": task, "environments": n_envs, "algorithm": name, "frames/s": size / median(of_name)}
                row["/ A2C"] = ratio(times["A2C"], of_name)
                row["/ random actions"] = ratio(times["random actions"], of_name)
                rows.append(row)
    caption = (
        f"`learn()` with SB3's DummyVecEnv: frames per second, a rollout of {size} transitions and its update at a time. All "
        "with their defaults (ours normalise observations in the policy; PPO: minibatches of 64, 10 epochs) but the same N. "
        "Random actions: the same environments stepped with actions that were sampled before."
    )
    return [Table("learn", caption, rows)]


def measure_simulators(options: argparse.Namespace) -> list[Table]:
    """Vectorised simulators: stepped with random actions, and learned in."""
    if find_spec("envpool") is None:
        return [Table("simulators", "EnvPool is not installed (`pip install '.[envpool]'`): simulators left out.", [])]
    tasks = ("CartPole-v1",) if options.quick else ("CartPole-v1", "Hopper-v4", "HalfCheetah-v4", "Humanoid-v4")
    rows = []
    for task in tasks:
        for n_envs in (2,) if options.quick else (1, 8):
            rates = measure(task, n_envs, *((0.05, 1) if options.quick else (0.25, 3)))
            of_envpool = {f"EnvPool / {name}": rates["EnvPool"] / rates[name] for name in ("DummyVecEnv", "SubprocVecEnv")}
            rows.append({"task": task, "environments": n_envs, **rates, **of_envpool})
    caption = "Random actions, sampled before: frames per second (`benchmarks/simulators.py` measures more)."
    return [Table("simulators", caption, rows), learn_in_simulators(tasks, options.quick)]


def learn_in_simulators(tasks: Iterable[str], quick: bool) -> Table:
    """SMAC's ``learn()`` in EnvPool and in DummyVecEnv."""
    size = 128 if quick else 1000
    rows = []
    for task in tasks:
        envs = {"DummyVecEnv": make_vec_env(task, 8, seed=0), "EnvPool": EnvPoolVecEnv(task, 8, seed=0)}
        times = interleaved({name: learner("SMAC", env, size) for name, env in envs.items()}, 0 if quick else 3, turn=0)
        for env in envs.values():
            env.close()
        rates = {name: size / median(of_name) for name, of_name in times.items()}
        rows.append({"task": task, **rates, "EnvPool / DummyVecEnv": ratio(times["DummyVecEnv"], times["EnvPool"])})
    return Table("learn_simulators", f"SMAC's `learn()`, 8 environments, N = {size}: frames per second.", rows)


# Growth


def hidden_width(n_parameters: float, observation_size: int, action_size: int) -> int:
    """The width of two equal hidden layers with which a Gaussian actor has about as many parameters."""
    linear = observation_size + action_size + 2
    return round((math.sqrt(linear**2 + 4 * n_parameters) - linear) / 2)


def measure_update(name: str, size: int, width: int, device: str) -> Row:
    """
    :param name: algorithm
    :param size: N
    :param width: of the two hidden layers
    :param device: where
    :return: milliseconds and bytes of its actor's step
    """
    observation_size, action_size, _ = NETWORKS["Hopper, 64x64"]
    model = build(STEPS[name], Spaces(observation_size, action_size), size, (width, width), device)
    data = Data.random(size, observation_size, action_size, device)
    step = partial(actor_step, model, data)
    if th.device(device).type == "cuda":
        step()  # libraries are loaded
    start = time.perf_counter()
    peak = peak_memory(step, device)
    seconds = time.perf_counter() - start
    if seconds < SLOW:
        seconds = median(interleaved({name: step}, seconds=0.2)[name])
    n_parameters = sum(each.numel() for each in model.actor_parameters)
    itemsize = th.float32.itemsize
    return {
        "algorithm": name,
        "d": n_parameters,
        "N": size,
        "ms": 1e3 * seconds,
        "peak, MB": peak / 1e6,
        "in vectors of size d": peak / itemsize / n_parameters,
        "in matrices N x d": peak / itemsize / n_parameters / size,
    }


def grow(axis: str, sizes: Sequence[tuple[int, int]], device: str) -> tuple[list[Row], list[str]]:
    """
    :param axis: "d" or "N"
    :param sizes: N and the width of the hidden layers, growing
    :param device: where
    :return: a row per algorithm and size, and what was left out
    """
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    last: dict[str, tuple[Row, int]] = {}
    for size, width in sizes:
        for name in GROWING:
            if name in last:
                row, last_width = last[name]
                larger = size / row["N"] if axis == "N" else (width / last_width) ** 2
                seconds = row["ms"] / 1e3 * larger ** TIME_EXPONENT[axis]
                memory = row["peak, MB"] * 1e6 * larger ** MEMORY_EXPONENT[axis]
                if name not in left_out and (seconds > LONGEST or memory > free_memory(device) / 2):
                    expected = f"{seconds:.0f} s, {memory / 1e9:.1f} GB expected"
                    left_out[name] = f"{name} from N = {size}, width {width} on ({expected})"
            if name not in left_out:
                last[name] = {"grows": axis, **measure_update(name, size, width, device)}, width
                rows.append(last[name][0])
    return rows, list(left_out.values())


def exponent(rows: Sequence[Row], axis: str, quantity: str) -> float:
    """Slope of log(quantity) against log(axis), over the larger half of the sizes."""
    upper = rows[len(rows) // 2 :]
    return float(np.polyfit(np.log([row[axis] for row in upper]), np.log([row[quantity] for row in upper]), 1)[0])


def growth(name: str, quick: bool, device: str) -> tuple[list[Table], list[Row]]:
    """
    :param name: of the tables
    :param quick: small sizes
    :param device: where
    :return: fitted exponents and the table of all measurements, and the rows of the latter
    """
    observation_size, action_size, _ = NETWORKS["Hopper, 64x64"]
    widths = [hidden_width(d, observation_size, action_size) for d in (PARAMETERS[:3] if quick else PARAMETERS)]
    size, sizes = (256, (128, 256, 512)) if quick else (1000, TRANSITIONS)
    against_d, left_out_d = grow("d", [(size, width) for width in widths], device)
    against_n, left_out_n = grow("N", [(each, 64) for each in sizes], device)
    exponents = []
    for algorithm in GROWING:
        of_d, of_n = ([row for row in rows if row["algorithm"] == algorithm] for rows in (against_d, against_n))
        few = measure_update(algorithm, 128, widths[-1], device)
        exponents.append(
            {
                "algorithm": algorithm,
                "time ~ d^": exponent(of_d, "d", "ms"),
                "time ~ N^": exponent(of_n, "N", "ms"),
                "memory ~ d^": exponent(of_d, "d", "peak, MB"),
                "memory ~ N^": exponent(of_n, "N", "peak, MB"),
                "vectors of size d": few["in vectors of size d"],
                "matrices N x d": of_d[-1]["in matrices N x d"],
            }
        )
    left_out = "; ".join(left_out_d + left_out_n) or "nothing"
    caption = (
        f"Growth of the actor's step on {device} with the width of two hidden layers (N = {size}) and with N (64x64): "
        "exponents fitted to the larger half of the sizes; peak memory of its tensors in parameter-sized "
        "vectors (largest d, N = 128, so that activations are few) and in matrices of N x d (largest d, "
        f"N = {size}). Left out: {left_out}."
    )
    all_rows = against_d + against_n
    return [Table(f"{name}_exponents", caption, exponents), Table(name, f"Every measurement on {device}.", all_rows)], all_rows


def plot_growth(rows: Sequence[Row], path: Path) -> None:
    """
    :param rows: of :func:`growth`
    :param path: of the figure, without its ending
    """
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    panels = figure.subplots(2, 2, sharey="row", sharex="col")
    for line, quantity in zip(panels, ("ms", "peak, MB"), strict=True):
        for axes, axis in zip(line, ("d", "N"), strict=True):
            plot_panel(axes, [row for row in rows if row["grows"] == axis], axis, quantity)
    panels[0, 0].set_ylabel("time of an actor's step, ms")
    panels[1, 0].set_ylabel("peak memory of its tensors, MB")
    panels[1, 0].set_xlabel("actor parameters d (N = 1000)")
    panels[1, 1].set_xlabel("transitions N (64x64)")
    panels[0, 0].legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sb3_smac"}):  # the same data give the same file
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    figure.savefig(path.with_suffix(".png"), dpi=150)


def plot_panel(axes: Axes, rows: Sequence[Row], axis: str, quantity: str) -> None:
    """One quantity against one size, a line per algorithm."""
    for name in GROWING:
        own = [row for row in rows if row["algorithm"] == name]
        axes.loglog([row[axis] for row in own], [row[quantity] for row in own], label=name, markersize=4, **STYLES[name])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def measure_growth(options: argparse.Namespace) -> list[Table]:
    """Time and memory of the updates on the CPU against d and N."""
    tables, rows = growth("growth", options.quick, "cpu")
    plot_growth(rows, options.out / "growth")
    return tables


def measure_gpu(options: argparse.Namespace) -> list[Table]:
    """The same on a GPU."""
    if not th.cuda.is_available():
        return [Table("gpu", "No GPU: its measurements left out.", [])]
    tables, rows = growth("gpu", options.quick, options.device)
    plot_growth(rows, options.out / "gpu")
    return tables


# Report


def machine() -> str:
    """Processor, cores, versions, threads and load, on one line."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        processor = platform.processor() or platform.machine()
    packages = ("torch", "stable_baselines3", "sb3_contrib", "gymnasium", "mujoco", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    gpu = f"; {th.cuda.get_device_name()}" if th.cuda.is_available() else ""
    return (
        f"{processor}, {os.cpu_count()} cores{gpu}; {platform.system()}, Python {platform.python_version()}, {versions}; "
        f"{th.get_num_threads()} torch thread; load before the start {os.getloadavg()[0]:.1f}; {date.today()}"
    )


def shown(value: object) -> str:
    """A cell of a Markdown table."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def markdown(table: Table) -> str:
    """The caption, and the rows as a Markdown table."""
    if not table.rows:
        return table.caption + "\n"
    columns = list(table.rows[0])
    kinds = [" --- |" if isinstance(table.rows[0][column], str) else " ---: |" for column in columns]
    lines = ["| " + " | ".join(columns) + " |", "|" + "".join(kinds)]
    lines += ["| " + " | ".join(shown(row[column]) for column in columns) + " |" for row in table.rows]
    return table.caption + "\n\n" + "\n".join(lines) + "\n"


def write_csv(table: Table, folder: Path) -> None:
    """Its rows, floats with six digits."""
    with (folder / f"{table.name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table.rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in table.rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


SECTIONS: dict[str, Callable[[argparse.Namespace], list[Table]]] = {
    "actor": measure_actor,
    "forward": measure_forward,
    "learn": measure_learn,
    "simulators": measure_simulators,
    "growth": measure_growth,
    "gpu": measure_gpu,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results; its speed.md is replaced")
    parser.add_argument("--device", default="cuda", help="of the section gpu (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="see that everything runs: the numbers mean nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*is out of date.*", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="You have specified a mini-batch size", category=UserWarning)  # PPO's 64 of 1000
    th.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    report = options.out / "speed.md"
    report.write_text("")

    def publish(text: str) -> None:
        print(text, flush=True)
        with report.open("a") as file:
            file.write(text + "\n")

    start = time.time()
    publish(f"`python benchmarks/speed.py`: {machine()}\n")
    for name in options.only:
        for table in SECTIONS[name](options):
            if table.rows:
                write_csv(table, options.out)
            publish(markdown(table))
    print(f"{time.time() - start:.0f} seconds")


if __name__ == "__main__":
    main()
