"""
The images of the README and of the pages, drawn from the stored results.

    python docs/figures.py            # a minute
    python docs/figures.py --readme   # the README's only
"""

import shutil
import sys
import tempfile
from pathlib import Path

from sb3_smac.benchmark import figures
from sb3_smac.benchmark.report import write_report
from sb3_smac.benchmark.store import Run, Store
from sb3_smac.benchmark.study import RESULTS, Study, find, load
from sb3_smac.benchmark.tables import Results

IMAGES = Path(__file__).parent / "pages" / "images"
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
REPORTED = {
    "ladder": {
        "learning_curves": "ladder",
        "performance_profiles": "ladder_profiles",
        "log_probability": "ladder_log_probability",
    },
    "hopper": {"learning_curves": "hopper"},
    "one_line": {"learning_curves": "one_line"},
    "million": {"evaluations": "million"},
    "elsewhere": {"evaluations": "elsewhere"},
    "paper": {"learning_curves": "paper", "log_probability": "paper_log_probability"},
    "paper_kl": {"learning_curves": "paper_kl"},
    "batch_size": {"learning_curves": "batch_size"},
}
"""For each study the figures of its report, and the names of the images that they become."""


def stored(name: str) -> tuple[Study, list[Run]]:
    """
    :param name: of a study
    :return: the study, and its stored runs
    """
    study = load(find(name))
    store = Store(RESULTS / study.name)
    keys = {job.key for job in study.jobs}
    return study, store.runs(key for key in store.finished() if key in keys)


def draw_readme() -> None:
    """Learning curves of the ladder: SMAC's beside TRPO's and PPO's."""
    curves = Results(*stored("ladder")).curves("episodes", "return")
    chosen = {task: {LABELS[label]: lines[label] for label in LABELS} for task, lines in curves.items()}
    figure = figures.curves_figure(chosen, STYLES, "training return")
    figure.savefig(IMAGES / "curves.png", dpi=110, metadata={"Software": None})


def draw_pages() -> None:
    """The figures of the studies' reports, and the growth of time and memory."""
    for study, images in REPORTED.items():
        with tempfile.TemporaryDirectory() as folder:
            write_report(*stored(study), folder)
            for figure, image in images.items():
                shutil.copyfile(Path(folder) / f"{figure}.png", IMAGES / f"{image}.png")
    shutil.copyfile(RESULTS / "speed" / "growth.png", IMAGES / "growth.png")


if __name__ == "__main__":
    draw_readme()
    if "--readme" not in sys.argv:
        draw_pages()
