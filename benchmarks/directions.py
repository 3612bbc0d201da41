"""
What each rung of the ladder computes, and at what cost: on rollouts of a policy, the cosine between its direction and the
exact damped natural gradient ``(F + λI)⁻¹ g`` (AC-CG run to convergence), and its time in multiples of AC-SGD's actor step.

Beside the package's rungs stands one that did not make it: the true Fisher in sample space. With the outputs' Fisher written
as ``H_i = L_i L_iᵀ``, the rows of ``L_iᵀ J_i`` of n states take the place of the scores, and the Gram matrix is solved by
one Cholesky factorisation, as for the empirical Fisher. On all states it is exact and slow; on a subset as close to the exact
direction as ten iterations of conjugate gradient it costs as much or more (and see variants.py).

    python benchmarks/directions.py                       # the table of the README
    python benchmarks/directions.py --task HalfCheetah-v4 --timesteps 20000
"""

import argparse
import csv
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median
from unittest import mock

import numpy as np
import torch as th

from sb3_smac import ACCG, ACSGD, SMAC
from sb3_smac.common.actor_batch import ActorBatch, make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.common.natural_actor_critic import NaturalActorCritic
from sb3_smac.maths import LayerRecorder, Scores, flatten, unflatten
from sb3_smac.maths.woodbury import cholesky_solve

RESULTS = Path(__file__).parent / "results" / "directions.csv"
DAMPING = 0.1
EXACT = {"cg_max_steps": 1000, "cg_tolerance": 1e-6}
SUBSETS = (100, 250, 500, 1000)


def batch_of(model: NaturalActorCritic, *data: th.Tensor) -> ActorBatch:
    """Observations, actions and advantages as the model's actor batch."""
    return make_actor_batch(Evaluator(model.policy), model.actor_parameters, *data)


def true_fisher_direction(model: NaturalActorCritic, batch: ActorBatch, n_states: int, damping: float) -> th.Tensor:
    """
    ``(F_n + λI)⁻¹ g`` of a Gaussian policy, F_n the true Fisher of n random states, in sample space.

    For means the rows of ``L_iᵀ J_i`` are the gradients of ``μ_k(o_i) / σ_k``; the block of log σ is the diagonal 2.

    :param model: whose policy it is
    :param batch: the actor batch
    :param n_states: n
    :param damping: λ > 0
    :return: shape (d,)
    """
    policy, dimensions = model.policy, model.action_space.shape[0]  # type: ignore[index]  # a Box has a shape
    states = th.randperm(len(batch.scores))[:n_states]
    observations = batch.observations[states].repeat_interleave(dimensions, dim=0)
    with LayerRecorder(policy.modules()) as recorder:
        gaussian = policy.get_distribution(observations).distribution
    rows = (gaussian.mean / gaussian.stddev.detach())[th.arange(len(observations)), th.arange(dimensions).repeat(n_states)]
    networks = [parameter for parameter in batch.parameters if parameter is not policy.log_std]
    jacobian = Scores(rows, networks, recorder.calls)
    pieces = dict(zip(batch.parameters, unflatten(batch.gradient, batch.parameters), strict=True))
    gradient = flatten(pieces[parameter] for parameter in networks)
    weights, shift = cholesky_solve(jacobian.gram(), jacobian.product(gradient), n_states * damping)
    direction = (gradient - jacobian.weighted_sum(weights)) / (shift / n_states)
    solved = dict(zip(networks, unflatten(direction, networks), strict=True))
    solved[policy.log_std] = pieces[policy.log_std] / (2 + damping)
    return flatten(solved[parameter] for parameter in batch.parameters)


def rungs(task: str) -> dict[str, tuple[NaturalActorCritic, Callable[[ActorBatch], th.Tensor]]]:
    """:return: name of each rung, with a model that computes the batch and the function that makes the direction of it"""
    models: dict[str, NaturalActorCritic] = {
        "AC-SGD": ACSGD("MlpPolicy", task, seed=0, device="cpu"),
        "SMAC rank 1": SMAC("MlpPolicy", task, damping=DAMPING, seed=0, device="cpu"),
    }
    for rank in (32, 128, 500):  # groups of m: the same strength of damping is λ/m
        damping = DAMPING * rank / 1000
        models[f"SMAC rank {rank}"] = SMAC("MlpPolicy", task, fisher_rank=rank, damping=damping, seed=0, device="cpu")
    models["SMAC full"] = SMAC("MlpPolicy", task, fisher_rank="full", damping=DAMPING, seed=0, device="cpu")
    models["AC-CG, 10 iterations"] = ACCG("MlpPolicy", task, damping=DAMPING, cg_tolerance=0.0, seed=0, device="cpu")
    directions = {name: (model, model.actor_direction) for name, model in models.items()}
    model = models["SMAC rank 1"]
    for n_states in SUBSETS:
        directions[f"true Fisher of {n_states} states"] = (
            model,
            lambda batch, n_states=n_states: true_fisher_direction(model, batch, n_states, DAMPING),
        )
    return directions


def measure(task: str, timesteps: int, batches: int, repeats: int) -> list[dict[str, object]]:
    """
    :param task: a task with Box actions
    :param timesteps: how long the policy learns (by AC-CG) before each batch of 1000 transitions
    :param batches: number of batches
    :param repeats: how often a direction is timed on each
    :return: a row per rung: mean cosine and its smallest, median time in multiples of AC-SGD's
    """
    learner = ACCG("MlpPolicy", task, damping=DAMPING, seed=0, device="cpu")
    exact = ACCG("MlpPolicy", task, damping=DAMPING, seed=0, device="cpu", **EXACT)
    ladder = rungs(task)
    cosines: dict[str, list[float]] = {name: [] for name in ladder}
    ratios: dict[str, list[float]] = {name: [] for name in ladder}
    for _ in range(batches):
        learner.learn(timesteps, reset_num_timesteps=False)
        with mock.patch.object(learner, "train"):
            learner.learn(1000, reset_num_timesteps=False)
        rollout = next(learner.rollout_buffer.get())
        advantages = (rollout.advantages - rollout.advantages.mean()) / rollout.advantages.std()
        for model in {exact, *(model for model, _ in ladder.values())}:
            model.policy.load_state_dict(learner.policy.state_dict())
        data = (rollout.observations, rollout.actions, advantages)
        target = exact.actor_direction(batch_of(exact, *data))
        for _ in range(repeats):
            seconds = {}
            for name, (model, direction) in random.sample(list(ladder.items()), len(ladder)):
                batch_of(model, *data)  # warms up: whatever ran before has filled the caches with its own
                start = time.perf_counter()
                x = direction(batch_of(model, *data))
                seconds[name] = time.perf_counter() - start
                cosines[name].append(th.cosine_similarity(x, target, dim=0).item())
            for name in ladder:
                ratios[name].append(seconds[name] / seconds["AC-SGD"])
    return [
        {
            "task": task,
            "timesteps": batches * timesteps,
            "direction": name,
            "mean_cosine": round(mean(cosines[name]), 4),
            "least_cosine": round(min(cosines[name]), 4),
            "time": round(median(ratios[name]), 2),
        }
        for name in ladder
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", help="task with Box actions (default: Hopper-v4 and Walker2d-v4)")
    parser.add_argument("--timesteps", type=int, default=10_000, help="training before each batch (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=5, help="number of batches (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="timings per batch (default: %(default)s)")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    th.set_num_threads(1)
    np.random.seed(0)
    random.seed(0)
    rows = [
        row
        for task in options.task or ("Hopper-v4", "Walker2d-v4")
        for row in measure(task, options.timesteps, options.batches, options.repeats)
    ]
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    print("| task | direction | mean cosine | smallest | time, in AC-SGD's |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print("| {task} | {direction} | {mean_cosine:.3f} | {least_cosine:.3f} | {time:.1f} |".format(**row))


if __name__ == "__main__":
    main()
