"""
The recorded search behind the default hyperparameters.

Every candidate changes the base settings of its algorithm and trains on every task under VecNormalize, with the
same seeds. Finished runs are rows of a CSV file; running the search again adds only what is missing:

    python benchmarks/search_defaults.py --workers 2
    python benchmarks/search_defaults.py --workers 2 --defaults  # what came out of it: longer, more seeds
    python benchmarks/search_defaults.py --table
"""

import argparse
import json
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import csv_rows
import numpy as np

RESULTS = Path(__file__).parent / "results" / "search_defaults.csv"
FIELDS = ["algo", "candidate", "env", "seed", "timesteps", "final_return", "mean_return", "best_return", "seconds"]
FINAL_STEPS = 30_000
TASKS = {"Hopper-v4": 200_000, "HalfCheetah-v4": 200_000, "Walker2d-v4": 200_000, "Pendulum-v1": 100_000}
SEEDS = (0, 1)
BASE = {
    "smac": {"target_kl": 0.05, "damping": 0.1, "gae_lambda": 0.9},
    "accg": {"target_kl": 0.05, "damping": 0.1, "gae_lambda": 0.9},
    "acsgd": {"learning_rate": 0.1, "gae_lambda": 0.9},
    "acadam": {"learning_rate": 1e-3, "gae_lambda": 0.9},
}
CANDIDATES: list[tuple[str, dict[str, Any]]] = [
    ("smac", {}),
    ("smac", {"target_kl": 0.1, "gae_lambda": 0.95}),
    ("smac", {"gae_lambda": 0.95}),
    ("smac", {"target_kl": 0.03, "gae_lambda": 0.95}),
    ("smac", {"gae_lambda": 0.95, "normalize_advantage": False}),
    ("accg", {"gae_lambda": 0.95}),
    ("acsgd", {"gae_lambda": 0.95}),
    ("acadam", {"gae_lambda": 0.95}),
    ("acsgd", {"learning_rate": 0.3, "gae_lambda": 0.95}),
    ("acadam", {"learning_rate": 3e-3, "gae_lambda": 0.95}),
    ("accg", {"target_kl": 0.02, "gae_lambda": 0.95}),
    ("acsgd", {"learning_rate": 1.0, "gae_lambda": 0.95}),
]


# The constructor's own defaults, and the candidate that came closest
DEFAULTS = "defaults"
FINALISTS = (DEFAULTS, json.dumps({"gae_lambda": 0.95, "normalize_advantage": False}))
DEFAULTS_TASKS = {"Hopper-v4": 300_000, "HalfCheetah-v4": 300_000}
DEFAULTS_SEEDS = (0, 1, 2)


def settings(algo: str, candidate: str) -> dict[str, Any]:
    """The algorithm's base settings with the candidate's changes, or nothing: the constructor's defaults."""
    if candidate == DEFAULTS:
        return {}
    return {**BASE[algo], **json.loads(candidate)}


def run(algo: str, candidate: str, env_id: str, timesteps: int, seed: int) -> dict[str, Any]:
    """Train once; the returns are undiscounted training returns, final over the last 30k steps."""
    import torch as th
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    from sb3_smac import ALGORITHMS

    warnings.filterwarnings("ignore")
    th.set_num_threads(1)
    start = time.time()
    env = VecNormalize(make_vec_env(env_id, seed=seed), gamma=0.99)
    model = ALGORITHMS[algo]("MlpPolicy", env, seed=seed, stats_window_size=10**6, **settings(algo, candidate))
    model.learn(timesteps, log_interval=10**6)
    assert model.ep_info_buffer is not None
    returns = np.array([info["r"] for info in model.ep_info_buffer])
    ends = np.cumsum([info["l"] for info in model.ep_info_buffer])
    tenths = [returns[(ends > timesteps * i / 10) & (ends <= timesteps * (i + 1) / 10)] for i in range(10)]
    row = [
        returns[ends > timesteps - FINAL_STEPS].mean(),
        returns.mean(),
        max(tenth.mean() for tenth in tenths if len(tenth)),
        time.time() - start,
    ]
    return dict(zip(FIELDS, [algo, candidate, env_id, seed, timesteps, *(round(float(x), 1) for x in row)], strict=True))


def print_table() -> None:
    """Mean final return over the seeds (and its standard deviation) of each candidate on each task, as Markdown."""
    rows = csv_rows.read(RESULTS)
    tasks = list(dict.fromkeys((row["env"], row["timesteps"]) for row in rows))
    names = [f"{env_id}, {int(timesteps) // 1000}k" for env_id, timesteps in tasks]
    print("| algorithm | candidate |", " | ".join(names), "|\n|", " | ".join(["---"] * (2 + len(tasks))), "|")
    for algo, candidate in dict.fromkeys((row["algo"], row["candidate"]) for row in rows):
        cells = []
        for task in tasks:
            finals = [
                float(row["final_return"])
                for row in rows
                if (row["algo"], row["candidate"], (row["env"], row["timesteps"])) == (algo, candidate, task)
            ]
            spread = f" ± {statistics.pstdev(finals):.0f}" if len(finals) > 1 else ""
            cells.append(f"{statistics.mean(finals):.0f}{spread} ({len(finals)})" if finals else "")
        print(
            f"| {algo} | `{json.dumps(settings(algo, candidate)) if candidate != DEFAULTS else DEFAULTS}` |",
            " | ".join(cells),
            "|",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2, help="processes, one torch thread each")
    parser.add_argument(
        "--defaults", action="store_true", help="run the finalists (the constructor's defaults among them), longer"
    )
    parser.add_argument("--table", action="store_true", help="print the finished runs as a table, run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_table()
        return
    if arguments.defaults:
        jobs = [
            ("smac", finalist, *task, seed)
            for task in DEFAULTS_TASKS.items()
            for seed in DEFAULTS_SEEDS
            for finalist in FINALISTS
        ]
    else:
        jobs = [
            (algo, json.dumps(candidate), *task, seed)
            for seed in SEEDS
            for algo, candidate in CANDIDATES
            for task in TASKS.items()
        ]
    done = {
        (row["algo"], row["candidate"], row["env"], int(row["timesteps"]), int(row["seed"])) for row in csv_rows.read(RESULTS)
    }
    jobs = [job for job in jobs if job not in done]
    with ProcessPoolExecutor(arguments.workers) as pool:
        for finished in as_completed([pool.submit(run, *job) for job in jobs]):
            if finished.exception():  # the other runs go on; this one is missing and is tried again the next time
                print(repr(finished.exception()), flush=True)
                continue
            row = finished.result()
            csv_rows.append(RESULTS, row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
