"""
What the direction of each rung of the ladder is, and what it is worth: two measurements on rollouts of AC-CG's policy.

``cosines``: the cosine between a direction and the exact damped natural gradient ``(F + λI)⁻¹ g`` (AC-CG run to convergence).
Beside the package's rungs stands one that did not make it: the true Fisher in sample space. With the outputs' Fisher written
as ``H_i = L_i L_iᵀ``, the rows of ``L_iᵀ J_i`` of n states take the place of the scores, and the Gram matrix is solved by one
Cholesky factorisation, as for the empirical Fisher. On all states it is exact and slow; on a subset as close to the exact
direction as ten iterations of conjugate gradient it costs as much or more.

``gains``: what a step is worth on transitions that it has not seen: the correlation between the advantages and the changes of
the log-probabilities along the direction x,

    gain(x) = mean(A_i s_iᵀx) / √mean((s_iᵀx)²)

A small step along x of KL divergence δ raises the surrogate objective by gain · √(2δ) standard deviations of the advantages.
On its own batch that is large, and the larger the less damped the step is, because d parameters fit the noise of N advantages;
what counts is the rest of the policy's transitions. Every rollout of a fixed policy gives a direction, which is judged on all
the others.

    python benchmarks/directions.py cosines
    python benchmarks/directions.py gains          # a quarter of an hour
    python benchmarks/directions.py gains --table  # of the results that are there
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch as th

from sb3_smac import ACCG, ACSGD, SMAC, NaturalActorCritic
from sb3_smac.common.actor_batch import ActorBatch, make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.maths import LayerRecorder, Scores, flatten, unflatten
from sb3_smac.maths.woodbury import cholesky_solve

RESULTS = Path(__file__).parent / "results"
TASKS = {"cosines": ("Hopper-v4", "Walker2d-v4"), "gains": ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4")}
DAMPING = 0.1
EXACT = {"cg_max_steps": 1000, "cg_tolerance": 1e-6}
SUBSETS = (100, 250, 500, 1000)
SIZES = (1000, 2000)
DAMPINGS = (0.01, 0.1, 1.0, 10.0)
CHECKPOINTS = {"cosines": range(10_000, 60_000, 10_000), "gains": (40_000, 120_000, 200_000)}
COMMON = {"policy": "MlpPolicy", "policy_kwargs": {"log_std_init": 0.0}, "seed": 0, "device": "cpu"}

Rollout = tuple[th.Tensor, th.Tensor, th.Tensor]


def collect(learner: NaturalActorCritic) -> Rollout:
    """:return: observations, actions and normalized advantages of a rollout from which the learner does not learn"""
    timesteps = learner.num_timesteps
    with mock.patch.object(learner, "train"):
        learner.learn(learner.n_steps, reset_num_timesteps=False)
    learner.num_timesteps = timesteps
    rollout = next(learner.rollout_buffer.get())  # shuffled
    advantages = (rollout.advantages - rollout.advantages.mean()) / rollout.advantages.std()
    return rollout.observations.clone(), rollout.actions.clone(), advantages.clone()


def batch_of(model: NaturalActorCritic, rollout: Rollout) -> ActorBatch:
    """:return: the rollout as the model's algorithm sees it"""
    return make_actor_batch(Evaluator(model.policy), model.actor_parameters, *rollout)


def true_fisher_direction(model: NaturalActorCritic, batch: ActorBatch, n_states: int) -> th.Tensor:
    """
    ``(F_n + λI)⁻¹ g`` of a Gaussian policy, F_n the true Fisher of n random states, in sample space.

    For means the rows of ``L_iᵀ J_i`` are the gradients of ``μ_k(o_i) / σ_k``; the block of log σ is the diagonal 2.

    :param model: whose policy it is
    :param batch: the actor batch
    :param n_states: n
    :return: shape (d,)
    """
    policy, dimensions = model.policy, model.action_space.shape[0]  # type: ignore[index]  # a Box has a shape
    states = th.randperm(len(batch.scores))[:n_states]
    observations = batch.observations[states].repeat_interleave(dimensions, dim=0)  # type: ignore[index]  # no Dict
    with LayerRecorder(policy.modules()) as recorder:
        gaussian = policy.get_distribution(observations).distribution
    rows = (gaussian.mean / gaussian.stddev.detach())[th.arange(len(observations)), th.arange(dimensions).repeat(n_states)]
    networks = [parameter for parameter in batch.parameters if parameter is not policy.log_std]
    jacobian = Scores(rows, networks, recorder.calls)
    gradients = dict(zip(batch.parameters, unflatten(batch.gradient, batch.parameters), strict=True))
    gradient = flatten(gradients[parameter] for parameter in networks)
    weights, shift = cholesky_solve(jacobian.gram(), jacobian.product(gradient), n_states * DAMPING)
    direction = (gradient - jacobian.weighted_sum(weights)) / (shift / n_states)
    solved = dict(zip(networks, unflatten(direction, networks), strict=True))
    solved[policy.log_std] = gradients[policy.log_std] / (2 + DAMPING)
    return flatten(solved[parameter] for parameter in batch.parameters)


def cosines(task: str, n_rollouts: int) -> pd.DataFrame:
    """
    :param task: a task with Box actions
    :param n_rollouts: number of rollouts at each checkpoint
    :return: a row per rung: mean cosine and its smallest
    """
    models: dict[str, NaturalActorCritic] = {
        "AC-SGD": ACSGD(env=task, **COMMON),
        "SMAC rank 1": SMAC(env=task, damping=DAMPING, **COMMON),
    }
    for rank in (32, 128, 500):  # groups of m: the same strength of damping is λ/m
        models[f"SMAC rank {rank}"] = SMAC(env=task, fisher_rank=rank, damping=DAMPING * rank / 1000, **COMMON)
    models["SMAC full"] = SMAC(env=task, fisher_rank="full", damping=DAMPING, **COMMON)
    models["AC-CG, 10 iterations"] = ACCG(env=task, damping=DAMPING, cg_tolerance=0.0, **COMMON)
    directions: dict[str, tuple[NaturalActorCritic, Callable[[ActorBatch], th.Tensor]]]
    directions = {name: (model, model.actor_direction) for name, model in models.items()}
    model = models["SMAC rank 1"]
    for n in SUBSETS:
        directions[f"true Fisher of {n} states"] = model, lambda batch, n=n: true_fisher_direction(model, batch, n)
    learner, exact = ACCG(env=task, damping=DAMPING, **COMMON), ACCG(env=task, damping=DAMPING, **EXACT, **COMMON)
    rows = []
    for checkpoint in CHECKPOINTS["cosines"]:
        learner.learn(checkpoint - learner.num_timesteps, reset_num_timesteps=False)
        for each in (exact, *models.values()):
            each.policy.load_state_dict(learner.policy.state_dict())
        for rollout in (collect(learner) for _ in range(n_rollouts)):
            target = exact.actor_direction(batch_of(exact, rollout))
            for name, (model, direction) in directions.items():
                cosine = th.cosine_similarity(direction(batch_of(model, rollout)), target, dim=0).item()
                rows.append({"task": task, "direction": name, "cosine": cosine})
    table = pd.DataFrame(rows).groupby(["task", "direction"], sort=False)["cosine"]
    return table.agg(mean_cosine="mean", least_cosine="min").round(4).reset_index()


def gains(task: str, n_rollouts: int) -> pd.DataFrame:
    """
    :param task: a task with Box actions
    :param n_rollouts: number of rollouts at each checkpoint, of the largest size
    :return: a row per checkpoint, size, rung and damping: mean gain on the own batch and on the others, and the latter's
        standard error over the directions
    """
    ladder: dict[tuple[str, float | None], NaturalActorCritic] = {
        ("AC-SGD", None): ACSGD(env=task, **COMMON),
        ("SMAC rank 1", 0.1): SMAC(env=task, damping=0.1, **COMMON),
    }
    for damping in DAMPINGS:  # means of eight scores are weaker by that factor
        ladder["SMAC rank N/8", damping] = SMAC(env=task, damping=damping / 8, fisher_rank=SIZES[0] // 8, **COMMON)
        ladder["SMAC full", damping] = SMAC(env=task, damping=damping, fisher_rank="full", **COMMON)
        ladder["AC-CG", damping] = ACCG(env=task, damping=damping, **COMMON)
    learner, rows = ACCG(env=task, n_steps=max(SIZES), target_kl=0.1, **COMMON), []
    for checkpoint in CHECKPOINTS["gains"]:
        learner.learn(checkpoint - learner.num_timesteps, reset_num_timesteps=False)
        rollouts = [collect(learner) for _ in range(n_rollouts)]
        for model in ladder.values():
            model.policy.load_state_dict(learner.policy.state_dict())
        batches = [batch_of(learner, rollout) for rollout in rollouts]
        advantages = th.stack([batch.advantages for batch in batches])  # (rollouts, N)
        for size in SIZES:
            for (name, damping), model in ladder.items():
                if name == "SMAC rank N/8":
                    model.fisher_rank = size // 8
                own, unseen = [], []
                for index, rollout in enumerate(rollouts):
                    x = model.actor_direction(batch_of(model, tuple(tensor[:size] for tensor in rollout)))
                    changes = th.stack([batch.scores.product(x) for batch in batches])
                    products, squares = (advantages * changes).mean(dim=1), changes.square().mean(dim=1)
                    others = [other for other in range(n_rollouts) if other != index]
                    seen = changes[index, :size]
                    own.append(((advantages[index, :size] * seen).mean() / seen.square().mean().sqrt()).item())
                    unseen.append((products[others].mean() / squares[others].mean().sqrt()).item())
                key = {"task": task, "timesteps": learner.num_timesteps, "N": size, "direction": name, "damping": damping}
                error = np.std(unseen, ddof=1) / np.sqrt(n_rollouts)
                rows.append({**key, "own": np.mean(own), "unseen": np.mean(unseen), "standard_error": error})
    return pd.DataFrame(rows).round({"own": 4, "unseen": 5, "standard_error": 5})


def gains_text(rows: pd.DataFrame) -> pd.DataFrame:
    """
    :param rows: of :func:`gains`, or of the file
    :return: the percentages on unseen transitions, means over the checkpoints; in brackets the own batch's
    """
    rows = rows.assign(damping=rows["damping"].fillna(""), column=rows["task"] + ", N = " + rows["N"].astype(str))
    keys = ["direction", "damping", "column"]
    means = 100 * rows.groupby(keys)[["own", "unseen", "standard_error"]].mean()
    means["standard_error"] /= np.sqrt(rows["timesteps"].nunique())
    texts = {row.Index: f"{row.unseen:.1f} ± {row.standard_error:.1f} ({row.own:.0f})" for row in means.itertuples()}
    columns = rows["column"].unique()
    directions = rows[["direction", "damping"]].drop_duplicates().itertuples(index=False, name=None)
    cells = [(*direction, *(texts[(*direction, column)] for column in columns)) for direction in directions]
    return pd.DataFrame(cells, columns=["direction", "λ", *columns])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measurement", choices=("cosines", "gains"))
    parser.add_argument("--task", action="append", help="task with Box actions (default: those of the published table)")
    parser.add_argument("--rollouts", type=int, help="rollouts at each checkpoint (default: 1 for cosines, 20 for gains)")
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    th.set_num_threads(1)
    np.random.seed(0)
    path = RESULTS / ("directions.csv" if options.measurement == "cosines" else "gains.csv")
    if options.table:
        table = pd.read_csv(path)
    else:
        measure, rollouts = (cosines, 1) if options.measurement == "cosines" else (gains, 20)
        tasks = options.task or TASKS[options.measurement]
        table = pd.concat([measure(task, options.rollouts or rollouts) for task in tasks], ignore_index=True)
        table.to_csv(path, index=False)
    print((table if options.measurement == "cosines" else gains_text(table)).to_markdown(index=False))


if __name__ == "__main__":
    main()
