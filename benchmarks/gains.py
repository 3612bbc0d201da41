"""
What a natural step is worth on transitions that it has not seen, by the rung of the ladder, the damping and the size N of its
batch: the correlation between the advantages and the changes of the log-probabilities along the direction x,

    gain(x) = mean(A_i s_iᵀx) / √mean((s_iᵀx)²)

A small step along x of KL divergence δ raises the surrogate objective by gain · √(2δ) standard deviations of the advantages.
On its own batch that is large, and the larger the less damped the step is, because d parameters fit the noise of N advantages;
what counts is the rest of the policy's transitions. Every rollout of a fixed policy gives a direction, which is judged on all
the others.

    python benchmarks/gains.py                            # the table of the README: a quarter of an hour
    python benchmarks/gains.py --task HalfCheetah-v4 --rollouts 10
"""

import argparse
import csv
import warnings
from pathlib import Path
from statistics import mean, stdev
from unittest import mock

import numpy as np
import torch as th

from sb3_smac import ACCG, ACSGD, SMAC
from sb3_smac.common.natural_actor_critic import NaturalActorCritic

RESULTS = Path(__file__).parent / "results" / "gains.csv"
TASKS = ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4")
SIZES = (1000, 2000)
DAMPINGS = (0.01, 0.1, 1.0, 10.0)


def rungs(task: str) -> dict[tuple[str, float | None], NaturalActorCritic]:
    """:return: for each rung and damping λ a model that computes its direction"""
    common = {"policy": "MlpPolicy", "env": task, "seed": 0, "device": "cpu"}
    ladder: dict[tuple[str, float | None], NaturalActorCritic] = {
        ("AC-SGD", None): ACSGD(**common),
        ("SMAC rank 1", 0.1): SMAC(damping=0.1, **common),
    }
    for damping in DAMPINGS:
        # means of eight scores are weaker by that factor
        ladder["SMAC rank N/8", damping] = SMAC(damping=damping / 8, fisher_rank=SIZES[0] // 8, **common)
        ladder["SMAC full", damping] = SMAC(damping=damping, fisher_rank="full", **common)
        ladder["AC-CG", damping] = ACCG(damping=damping, **common)
    return ladder


def collect(learner: NaturalActorCritic) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """:return: observations, actions and normalized advantages of a rollout from which the learner does not learn"""
    with mock.patch.object(learner, "train"):
        learner.learn(learner.n_steps, reset_num_timesteps=False)
    rollout = next(learner.rollout_buffer.get())  # shuffled
    advantages = (rollout.advantages - rollout.advantages.mean()) / rollout.advantages.std()
    return rollout.observations.clone(), rollout.actions.clone(), advantages.clone()


def measure(task: str, checkpoints: list[int], n_rollouts: int) -> list[dict[str, object]]:
    """
    :param task: a task with Box actions
    :param checkpoints: after how many timesteps of training (by AC-CG) to measure
    :param n_rollouts: number of rollouts at each, of the largest size
    :return: a row per checkpoint, size, rung and damping: mean gain on the own batch and on the others, and the latter's
        standard error over the directions
    """
    learner = ACCG("MlpPolicy", task, n_steps=max(SIZES), target_kl=0.1, seed=0, device="cpu")
    ladder, rows = rungs(task), []
    for checkpoint in checkpoints:
        learner.learn(checkpoint - learner.num_timesteps, reset_num_timesteps=False)
        timesteps = learner.num_timesteps
        rollouts = [collect(learner) for _ in range(n_rollouts)]
        learner.num_timesteps = timesteps
        for model in ladder.values():
            model.policy.load_state_dict(learner.policy.state_dict())
        batches = [learner._actor_batch(*rollout) for rollout in rollouts]
        advantages = th.stack([batch.advantages for batch in batches])  # (rollouts, N)
        for size in SIZES:
            for (name, damping), model in ladder.items():
                if name == "SMAC rank N/8":
                    model.fisher_rank = size // 8
                own, unseen = [], []
                for index, rollout in enumerate(rollouts):
                    x = model.actor_direction(model._actor_batch(*(tensor[:size] for tensor in rollout)))
                    changes = th.stack([batch.scores.product(x) for batch in batches])
                    products, squares = (advantages * changes).mean(dim=1), changes.square().mean(dim=1)
                    others = [other for other in range(n_rollouts) if other != index]
                    seen = changes[index, :size]
                    own.append(((advantages[index, :size] * seen).mean() / seen.square().mean().sqrt()).item())
                    unseen.append((products[others].mean() / squares[others].mean().sqrt()).item())
                rows.append(
                    {
                        "task": task,
                        "timesteps": timesteps,
                        "N": size,
                        "direction": name,
                        "damping": damping,
                        "own": round(mean(own), 4),
                        "unseen": round(mean(unseen), 5),
                        "standard_error": round(stdev(unseen) / len(unseen) ** 0.5, 5),
                    }
                )
                print(*rows[-1].values(), flush=True)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """
    :param rows: of :func:`measure`, or of the file
    :return: a Markdown table of the percentages on unseen transitions, means over the checkpoints; in brackets the own batch's
    """
    columns = list(dict.fromkeys((row["task"], int(str(row["N"]))) for row in rows))
    lines = [
        "| direction | λ | " + " | ".join(f"{task}, N = {size}" for task, size in columns) + " |",
        "| --- | ---: |" + " ---: |" * len(columns),
    ]
    for name, damping in dict.fromkeys((row["direction"], row["damping"]) for row in rows):
        cells = []
        for task, size in columns:
            chosen = [
                row
                for row in rows
                if (row["task"], int(str(row["N"])), row["direction"], row["damping"]) == (task, size, name, damping)
            ]
            own, unseen, error = (
                100 * mean(float(str(row[key])) for row in chosen) for key in ("own", "unseen", "standard_error")
            )
            cells.append(f"{unseen:.1f} ± {error / len(chosen) ** 0.5:.1f} ({own:.0f})")
        lines.append(f"| {name} | {damping or ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", action="append", help=f"task with Box actions (default: {', '.join(TASKS)})")
    parser.add_argument("--rollouts", type=int, default=20, help="rollouts of 2000 at each checkpoint (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table of the results that are there")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    th.set_num_threads(1)
    np.random.seed(0)
    if options.table:
        with RESULTS.open(newline="") as file:
            print(table(list(csv.DictReader(file))))
        return
    rows: list[dict[str, object]] = []
    for task in options.task or TASKS:
        rows += measure(task, [40_000, 120_000, 200_000], options.rollouts)
        with RESULTS.open("w", newline="") as file:  # what there is so far
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    print(table(rows))


if __name__ == "__main__":
    main()
