"""The actor: its whole part of an update, its step by peers' means, and single-sample steps."""

import argparse
import copy
import math
from collections.abc import Sequence
from functools import partial
from statistics import median
from typing import Any

import gymnasium as gym
import torch as th
from sb3_contrib import TRPO
from sb3_contrib.common.utils import conjugate_gradient_solver
from stable_baselines3.common.distributions import kl_divergence
from stable_baselines3.common.type_aliases import RolloutBufferSamples
from torch import nn

from sb3_smac.common.actor_batch import make_actor_batch
from sb3_smac.common.actor_update import move_actor
from sb3_smac.common.evaluation import Evaluator, agreeing_evaluator
from sb3_smac.common.natural_actor_critic import NaturalActorCritic
from sb3_smac.fast.plain_policy import PlainPolicy
from sb3_smac.maths import assign, flat_gradient, flatten

from .models import NETWORKS, Data, RandomTask, build_step
from .report import Row, Table
from .timing import Action, interleaved, ratio
from .update import SIZE, Update, updates

# So small that the policy is the same after all repeats
STEP_SIZE = 1e-6
# Entries of a matrix of scores that is formed
LARGEST_MATRIX = 1e8
OURS = ("AC-SGD", "SMAC", "SMAC, rank 128", "SMAC, full", "AC-CG", "AC-Adam")


def measure_actor(options: argparse.Namespace) -> list[Table]:
    """
    :param options: of the command line
    :return: the actor's part of ``train()``, its step, and a rollout of single-sample steps
    """
    networks = dict(list(NETWORKS.items())[: 1 if options.quick else None])
    size = 128 if options.quick else SIZE
    seconds = 0 if options.quick else 10
    moves: list[Row] = []
    steps: list[Row] = []
    single: list[Row] = []
    for label, network in networks.items():
        functions = {name: ActorUpdate(update) for name, update in updates(network, size, (*OURS, "TRPO")).items()}
        prepare = {name: function.restore for name, function in functions.items()}
        times = interleaved(functions, seconds, turn=0, prepare=prepare)
        moves += rows_of(label, "actor's update", times)
        data = Data.random(size, network.observation_size, network.action_size)
        env = RandomTask(network.observation_size, network.action_size)
        steps += rows_of(label, "actor's step", interleaved(actor_steps(env, network.hidden, data), seconds))
        single.append({"network": label, **single_sample(env, network.hidden, data, seconds / 2)})
    of_moves = (
        f"The actor's part of `train()` after a rollout of {size} transitions, all with their defaults: policy gradient, "
        "direction, KL search, line search and diagnostics. TRPO's is its `train()` without critic."
    )
    of_steps = (
        f"Actor's step at N = {size}: policy gradient, direction and a fixed move. AC-CG and TRPO make 10 iterations of "
        "conjugate gradient; TRPO's step goes up to its line search. Plain autograd is a forward and a backward pass of "
        "torch's; materialised scores are SMAC's full step with the N x d matrix from `torch.func.vmap(grad)` (where it is "
        "not too large)."
    )
    of_single = (
        f"Single-sample SMAC: the {size} steps of a rollout against as many separate steps by autograd, and by how much the "
        "parameters differ after them."
    )
    return [Table("actor", of_moves, moves), Table("actor_step", of_steps, steps), Table("single_sample", of_single, single)]


def rows_of(network: str, column: str, times: dict[str, list[float]]) -> list[Row]:
    """
    :param network: name
    :param column: of the algorithms
    :param times: seconds of each algorithm
    :return: a row for each
    """
    return [
        {"network": network, column: name, "ms": 1e3 * median(seconds), "/ AC-SGD": ratio(seconds, times["AC-SGD"])}
        for name, seconds in times.items()
    ]


class ActorUpdate:
    """
    The actor's part of an update, as often as one likes.

    :param update: the whole
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self.arguments: tuple[Any, ...] = ()
        if isinstance(update.model, TRPO):
            update.model.n_critic_updates = 0

    def restore(self) -> None:
        """Make everything as it was before the actor moved."""
        self.update.restore()
        model = self.update.model
        if isinstance(model, NaturalActorCritic):
            rollout = next(model.rollout_buffer.get(batch_size=None))
            evaluator, acted = agreeing_evaluator(model.policy, rollout)
            self.arguments = evaluator, rollout, acted

    def __call__(self) -> None:
        """One update of the actor."""
        if self.arguments:
            move_actor(self.update.model, *self.arguments)
        else:
            self.update()


def actor_step(model: NaturalActorCritic, data: Data) -> None:
    """
    One step of ours: the batch with its policy gradient, the direction, the move.

    :param model: the algorithm
    :param data: the batch
    """
    evaluator = Evaluator(model.policy, plain=PlainPolicy.of(model.policy))
    batch = make_actor_batch(evaluator, model.actor_parameters, *data)
    direction = model.actor_direction(batch)
    assign(batch.parameters, flatten(batch.parameters), direction, STEP_SIZE)
    if direction.is_cuda:
        th.cuda.synchronize(direction.device)


def autograd_step(model: NaturalActorCritic, data: Data) -> None:
    """
    The same as AC-SGD's, by a forward and a backward pass of torch's and nothing else.

    :param model: the algorithm
    :param data: the batch
    """
    model.policy.set_training_mode(True)
    log_prob = model.policy.get_distribution(data.observations).log_prob(data.actions)
    gradient = flat_gradient((data.advantages * log_prob).mean(), model.actor_parameters)
    assign(model.actor_parameters, flatten(model.actor_parameters), gradient, STEP_SIZE)


def trpo_step(model: TRPO, data: Data, old_log_prob: th.Tensor) -> None:
    """
    What sb3-contrib's ``TRPO.train`` does until its line search, by its own functions.

    :param model: the algorithm
    :param data: the batch
    :param old_log_prob: of the batch's actions, shape (N,)
    """
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

    :param policy: with Gaussian actions
    :param damping: λ
    """

    def __init__(self, policy: Any, damping: float = 1.0) -> None:
        network = nn.Sequential(*policy.mlp_extractor.policy_net, policy.action_net)
        self.damping = damping
        self.parameters = {**dict(network.named_parameters()), "log_std": policy.log_std}

        def log_prob(parameters: dict[str, th.Tensor], observation: th.Tensor, action: th.Tensor) -> th.Tensor:
            weights = {name: value for name, value in parameters.items() if name != "log_std"}
            normal = (action - th.func.functional_call(network, weights, (observation,))) / parameters["log_std"].exp()
            return -(0.5 * normal.square() + parameters["log_std"]).sum()  # and a constant

        self._scores = th.func.vmap(th.func.grad(log_prob), in_dims=(None, 0, 0))

    def direction(self, data: Data) -> th.Tensor:
        """
        :param data: the batch
        :return: ``x = Sᵀ (S Sᵀ + λ N I)⁻¹ A``, in the order of :attr:`parameters`
        """
        parameters = {name: value.detach() for name, value in self.parameters.items()}
        per_sample = self._scores(parameters, data.observations, data.actions)
        scores = th.cat([per_sample[name].flatten(start_dim=1) for name in parameters], dim=1)  # (N, d)
        gram = scores @ scores.T
        gram.diagonal().add_(self.damping * len(gram))
        return scores.T @ th.cholesky_solve(data.advantages[:, None], th.linalg.cholesky(gram))[:, 0]

    def step(self, data: Data) -> None:
        """
        Move the parameters.

        :param data: the batch
        """
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
    steps: dict[str, Action] = {name: partial(actor_step, build_step(name, env, size, hidden), data) for name in OURS}
    steps["plain autograd"] = partial(autograd_step, build_step("AC-SGD", env, size, hidden), data)
    arch = {"net_arch": {"pi": list(hidden), "vf": [8]}}
    trpo = TRPO("MlpPolicy", env, n_steps=size, batch_size=size, cg_max_steps=10, policy_kwargs=arch, seed=0, device="cpu")
    with th.no_grad():
        old_log_prob = trpo.policy.get_distribution(data.observations).log_prob(data.actions)
    steps["TRPO"] = partial(trpo_step, trpo, data, old_log_prob)
    solve = MaterialisedSolve(build_step("SMAC, full", env, size, hidden).policy)
    if size * sum(parameter.numel() for parameter in solve.parameters.values()) < LARGEST_MATRIX:
        steps["materialised scores"] = partial(solve.step, data)
    return steps


class SingleSampleRun:
    """
    A rollout of single-sample steps, from the same parameters each time.

    :param model: SMAC with ``batch_size=1``
    :param data: the rollout
    :param is_fast: whether by the fast path
    """

    def __init__(self, model: NaturalActorCritic, data: Data, is_fast: bool) -> None:
        self.model = model
        unused = th.zeros_like(data.advantages)
        self.rollout = RolloutBufferSamples(data.observations, data.actions, unused, unused, data.advantages, unused)
        self.start = flatten(model.actor_parameters)
        self.evaluator = Evaluator(model.policy, plain=PlainPolicy.of(model.policy) if is_fast else None)
        self.acted = self.evaluator.as_it_acts(data.observations, data.actions)

    def __call__(self) -> None:
        """The steps."""
        assign(self.model.actor_parameters, self.start)
        move_actor(self.model, self.evaluator, self.rollout, self.acted)

    @property
    def distance(self) -> th.Tensor:
        """How far the last run has gone, shape (d,)."""
        return flatten(self.model.actor_parameters) - self.start


def single_sample(env: gym.Env, hidden: Sequence[int], data: Data, seconds: float) -> Row:
    """
    :param env: for its spaces
    :param hidden: widths of the layers
    :param data: the rollout
    :param seconds: for both together
    :return: milliseconds of the paper's single-sample steps, by the fast path and by autograd
    """
    size = len(data.advantages)
    models = {name: build_step("SMAC", env, size, hidden, batch_size=1, learning_rate=0.01) for name in ("fast", "autograd")}
    runs = {name: SingleSampleRun(model, data, name == "fast") for name, model in models.items()}
    times = interleaved(runs, seconds)
    return {
        **{f"{name}, ms": 1e3 * median(times[name]) for name in runs},
        "fast / autograd": ratio(times["fast"], times["autograd"]),
        "largest difference": (runs["fast"].distance - runs["autograd"].distance).abs().max().item(),
        "largest move": runs["fast"].distance.abs().max().item(),
    }
