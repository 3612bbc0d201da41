"""
Variants of the full rank that are not in the package, in the setting of the study ladder. Two of them adapt the damping λ:

- Levenberg-Marquardt: after each step, compare its KL divergence with what the empirical Fisher predicted, ½ α² xᵀF̂x. Over a
  quarter more: λ × 1.5, for the Fisher of a thousand scores does not know the direction x. Less than a tenth more: λ / 1.5.
- cross-validation: the changes of the log-probabilities along the direction are a ridge regression of the advantages on the
  scores, with penalty λ. Every rollout is predicted in four parts, each from the other three, for several λ; the step takes
  the λ whose predictions correlate best with the advantages, averaged over about fifty rollouts.
- true Fisher: that of a hundred random states of the rollout, in sample space, at a fixed λ (see directions.py).

Finished runs are rows of a CSV file; running it again adds what is missing, then prints the table of the README:

    python benchmarks/variants.py                     # two hours
    python benchmarks/variants.py --variant "true Fisher"
"""

import argparse
import warnings
from pathlib import Path
from statistics import geometric_mean, mean, pstdev
from typing import Any

import csv_rows
import numpy as np
import torch as th
from directions import true_fisher_direction
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_smac import SMAC
from sb3_smac.common.natural_actor_critic import ActorBatch
from sb3_smac.maths import ridge_weights

RESULTS = Path(__file__).parent / "results" / "variants.csv"
TASKS = ("Hopper-v4", "HalfCheetah-v4", "Walker2d-v4")
SEEDS = (0, 1, 2)
TIMESTEPS = 500_000
EPISODES = 100
FIELDS = ("variant", "task", "seed", "timesteps", "last_100_episodes", "mean_damping", "min_damping", "max_damping")


class Fixed(SMAC):
    """The λ of the constructor, noted at every step."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dampings: list[float] = []

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        self.dampings.append(self.damping)
        return super().actor_direction(batch)


class LevenbergMarquardt(Fixed):
    """λ by the ratio of the measured KL divergence to the predicted one."""

    FACTOR, LOW, HIGH = 1.5, 1.1, 1.25
    SMALLEST, LARGEST = 1e-3, 1e2

    def _sized_step(self, batch: ActorBatch, direction: th.Tensor, old_distribution: Any, move: Any) -> float:
        step_size = super()._sized_step(batch, direction, old_distribution, move)
        move(step_size)
        measured = self._kl_from(old_distribution, batch.observations)
        predicted = 0.5 * step_size**2 * batch.scores.product(direction).square().mean().item()
        if measured > self.HIGH * predicted:
            self.damping = min(self.damping * self.FACTOR, self.LARGEST)
        elif measured < self.LOW * predicted:
            self.damping = max(self.damping / self.FACTOR, self.SMALLEST)
        return step_size


class CrossValidation(Fixed):
    """λ by how well the advantages of a part of the rollout are predicted from the others."""

    GRID = (0.1, 0.3, 1.0, 3.0, 10.0)
    PARTS = 4
    DECAY = 0.98

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.moments = np.zeros((2, len(self.GRID)))

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        gram, advantages = batch.scores.gram(), batch.advantages
        moments = np.transpose([self._moments(gram, advantages, damping) for damping in self.GRID])
        self.moments = self.DECAY * self.moments + (1 - self.DECAY) * moments
        products, squares = self.moments
        self.damping = self.GRID[int(np.argmax(products / np.sqrt(squares)))]
        return super().actor_direction(batch)

    def _moments(self, gram: th.Tensor, advantages: th.Tensor, damping: float) -> tuple[float, float]:
        """:return: mean product of the predictions with the advantages, and mean square of the predictions"""
        size, product, square = len(gram), 0.0, 0.0
        for part in np.array_split(np.arange(size), self.PARTS):  # the batch is shuffled
            others = np.setdiff1d(np.arange(size), part)
            weights, _ = ridge_weights(gram[np.ix_(others, others)], advantages[others] / len(others), damping)
            prediction = gram[np.ix_(part, others)].to(weights.dtype) @ weights
            product += prediction.dot(advantages[part].to(weights.dtype)).item() / size
            square += prediction.square().sum().item() / size
        return product, square


class TrueFisher(Fixed):
    """The expectation over actions in closed form, on some of the states."""

    STATES = 100

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        self.dampings.append(self.damping)
        return true_fisher_direction(self, batch, self.STATES, self.damping)


VARIANTS = {
    "fixed": Fixed,
    "Levenberg-Marquardt": LevenbergMarquardt,
    "cross-validation": CrossValidation,
    "true Fisher": TrueFisher,
}


def run(variant: str, task: str, seed: int) -> dict[str, Any]:
    """:return: the row of a training"""
    env = VecNormalize(make_vec_env(task, n_envs=8, seed=seed), gamma=0.99)
    model = VARIANTS[variant](
        "MlpPolicy", env, n_steps=125, fisher_rank="full", damping=1.0, target_kl=0.05, seed=seed, stats_window_size=EPISODES
    )
    model.learn(TIMESTEPS, log_interval=10**6)
    assert model.ep_info_buffer is not None
    returns = mean(info["r"] for info in model.ep_info_buffer)
    damping = [f"{value:.3g}" for value in (geometric_mean(model.dampings), min(model.dampings), max(model.dampings))]
    return dict(zip(FIELDS, (variant, task, seed, TIMESTEPS, round(returns, 1), *damping), strict=True))


def table() -> str:
    """:return: mean and standard deviation over the seeds, and in brackets their number and the geometric mean of λ"""
    finished = csv_rows.read(RESULTS)
    lines = [f"| variant | {' | '.join(TASKS)} |", f"| --- |{' ---: |' * len(TASKS)}"]
    for variant in VARIANTS:
        cells = []
        for task in TASKS:
            there = [row for row in finished if (row["variant"], row["task"]) == (variant, task)]
            returns = [float(row["last_100_episodes"]) for row in there]
            damping = geometric_mean(float(row["mean_damping"]) for row in there) if there else 0.0
            cells.append(f"{mean(returns):.0f} ± {pstdev(returns):.0f} ({len(there)}; {damping:.2g})" if there else "")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=VARIANTS, action="append", help="only this one (may be repeated)")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    th.set_num_threads(1)
    for seed in SEEDS:
        for task in TASKS:
            for variant in arguments.variant or VARIANTS:
                if any(
                    (row["variant"], row["task"], row["seed"]) == (variant, task, str(seed)) for row in csv_rows.read(RESULTS)
                ):
                    continue
                row = run(variant, task, seed)
                csv_rows.append(RESULTS, row)
                print(row, flush=True)
    print(table())


if __name__ == "__main__":
    main()
