"""
The README's figure: learning curves of the study ``ladder``, drawn from its stored results.

    python docs/figures.py

The other images of the pages are those of `python -m sb3_smac.benchmark report <study>` and of `python benchmarks/speed.py`.
"""

from pathlib import Path

from sb3_smac.benchmark import figures
from sb3_smac.benchmark.store import Store
from sb3_smac.benchmark.study import RESULTS, find, load
from sb3_smac.benchmark.tables import Results

LABELS = {
    "smac tuned": "SMAC, tuned",
    "smac full": "SMAC, full Fisher",
    "smac rank 1": "SMAC, rank 1",
    "trpo": "TRPO",
    "ppo": "PPO",
}
STYLES = {
    "SMAC, tuned": {"color": figures.VERMILION, "linestyle": figures.SOLID, "linewidth": 2.0},
    "SMAC, full Fisher": {"color": figures.ORANGE, "linestyle": figures.DASHED},
    "SMAC, rank 1": {"color": figures.BLACK, "linestyle": figures.DOTTED},
    "TRPO": {"color": figures.BLUE, "linestyle": figures.SOLID},
    "PPO": {"color": figures.GREEN, "linestyle": figures.DASH_DOTTED},
}


def main() -> None:
    study = load(find("ladder"))
    store = Store(RESULTS / study.name)
    keys = {job.key for job in study.jobs}
    runs = store.runs(key for key in store.finished() if key in keys)
    curves = Results(study, [*runs]).curves("episodes", "return")
    chosen = {task: {LABELS[label]: lines[label] for label in LABELS} for task, lines in curves.items()}
    figure = figures.curves_figure(chosen, STYLES, "training return")
    figure.savefig(Path(__file__).parent / "pages" / "images" / "curves.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
