"""
Speed and memory beside Stable-Baselines3's A2C and PPO and sb3-contrib's TRPO.

python benchmarks/speed                                    # everything, in under ten minutes on two cores
python benchmarks/speed --only actor learn --out /tmp/speed
python benchmarks/speed --only gpu --device cuda:1
"""

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch as th

if not __package__:  # a folder that is run is no package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from sb3_smac.fast.threads import threads_of_torch
from speed.actor import measure_actor
from speed.gpu import measure_gpu
from speed.growth import measure_growth
from speed.learn import measure_learn
from speed.memory import measure_memory
from speed.report import Row, Table, machine, markdown, write_csv
from speed.rollout import measure_rollout
from speed.simulators import measure_simulators
from speed.summary import summary
from speed.update import measure_update

RESULTS = Path(__file__).resolve().parent.parent / "results" / "speed"

SECTIONS: dict[str, Callable[[argparse.Namespace], list[Table]]] = {
    "learn": measure_learn,
    "update": measure_update,
    "actor": measure_actor,
    "memory": measure_memory,
    "rollout": measure_rollout,
    "simulators": measure_simulators,
    "growth": measure_growth,
    "gpu": measure_gpu,
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="sections (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results; its speed.md is replaced")
    parser.add_argument("--device", default="cuda", help="the GPU, if there is one (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="see that everything runs: the numbers mean nothing")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*is out of date.*", category=DeprecationWarning)
    warnings.filterwarnings("ignore", message="You have specified a mini-batch size", category=UserWarning)  # 64 of 1000
    warnings.filterwarnings("ignore", message="You are trying to run .* on the GPU", category=UserWarning)
    for message in ("Mean of empty slice", "invalid value encountered in scalar"):  # TRPO without critic has no losses
        warnings.filterwarnings("ignore", message=message, category=RuntimeWarning)
    th.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    report = options.out / "speed.md"
    report.write_text("")

    def publish(text: str) -> None:
        print(text, flush=True)
        with report.open("a") as file:
            file.write(text + "\n")

    start = time.time()
    publish(f"`python benchmarks/speed`: {machine()}\n")
    found: dict[str, list[Row]] = {}

    def add(table: Table) -> None:
        if table.rows:
            write_csv(table, options.out)
        found[table.name] = [*table.rows]
        publish(markdown(table))

    with threads_of_torch():  # parts of an update are measured outside of it
        for name in options.only:
            for table in SECTIONS[name](options):
                add(table)
            print(f"{name}: {time.time() - start:.0f} seconds since the start\n", file=sys.stderr, flush=True)
    if (in_short := summary(found)).rows:
        add(in_short)


if __name__ == "__main__":
    main()
