"""What the command line does: each command takes its options, and gives its exit status."""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TypeVar

from sb3_smac.benchmark import executor, settings
from sb3_smac.benchmark.run import check
from sb3_smac.benchmark.store import Run, Store
from sb3_smac.benchmark.study import RESULTS, Job, Study, find, load
from sb3_smac.zoo.settings import known

T = TypeVar("T")


def run(options: argparse.Namespace) -> int:
    """Run what is missing of a study, and pack it, however this ends; 1 if a run has failed."""
    study, store = _study(options)
    jobs = study.jobs
    try:
        _execute(jobs, store, options)
    finally:
        store.pack()
    finished = {*store.finished()}
    missing = [job for job in jobs if job.key not in finished]
    print(f"{study.name}: {len(jobs) - len(missing)} of {len(jobs)} runs are finished, in {store.root}")
    if missing:
        print(f"`--retry-failed` runs the others once more; their tracebacks are in {store.root / 'runs.jsonl'}.")
    return 1 if missing else 0


def _execute(jobs: Sequence[Job], store: Store, options: argparse.Namespace) -> None:
    """Run what is missing, and keep each run as it ends; a model that cannot be made is an error before anything is run."""
    done = {*store.finished(), *(() if options.retry_failed else store.failed())}
    jobs = [job for job in jobs if job.key not in done]
    for job in {(job.label, job.task): job for job in jobs}.values():
        check(job)
    if not jobs:
        return
    runs = executor.execute_on_ray(jobs, options.ray) if options.ray else executor.execute(jobs, options.workers)
    with closing(runs):
        for count, result in enumerate(runs, 1):
            store.write(result)
            print(f"[{count}/{len(jobs)}] {_line(result)}", flush=True)


def _line(run: Run) -> str:
    name, seconds = f"{run.label} on {run.task}, seed {run.seed}", run.info["duration"]["total"]
    if not run.finished:
        return f"{name}: FAILED after {seconds:.0f} s: {run.info['traceback'].strip().splitlines()[-1]}"
    last = run.episodes[run.episodes["timestep"] > 0.9 * run.info["budget"]]["return"]
    text = f"return {last.mean():.1f} over the last tenth" if len(last) else "no episode ended in the last tenth"
    return f"{name}: {text} ({seconds:.0f} s)"


def status(options: argparse.Namespace) -> int:
    """Print how many runs of each algorithm and task are finished, failed and missing."""
    study, store = _study(options)
    jobs, finished, failed = study.jobs, store.finished(), store.failed()
    states = {**dict.fromkeys(finished, "finished"), **dict.fromkeys(failed, "failed")}
    width = max(map(len, study.algorithms))
    for task in study.tasks:
        print(task)
        for label in study.algorithms:
            counts = Counter(states.get(job.key, "missing") for job in jobs if (job.task, job.label) == (task, label))
            texts = [f"{counts[state]} {state}" for state in ("finished", "failed", "missing") if counts[state]]
            print(f"  {label:<{width}}  {', '.join(texts)}")
    keys = {job.key for job in jobs}.intersection(finished)
    print(f"{study.name}: {len(keys)} of {len(jobs)} runs are finished, in {store.root}")
    if others := len(finished) - len(keys):
        print(f"{others} finished runs there are of another configuration")
    for name, count in sorted(_other_defaults(store.runs(keys)).items()):
        print(f"{count} of them were made with another default of {name} than today's")
    return 0


def _other_defaults(runs: Sequence[Run]) -> Counter[str]:
    """Constructors' defaults are no part of a key: those that a release has changed since, and of how many runs."""
    return Counter(
        f"{run.algorithm}'s {name}"
        for run in runs
        for name, value in settings.defaults(run.algorithm).items()
        if settings.canonical(run.info["defaults"].get(name, value)) != settings.canonical(value)
    )


def report(options: argparse.Namespace) -> int:
    """Write tables and figures of the finished runs."""
    from sb3_smac.benchmark.report import write_report

    study, store = _study(options)
    keys = {job.key for job in study.jobs}
    runs = store.runs(key for key in store.finished() if key in keys)
    if not runs:
        raise ValueError(f"{study.name} has no finished run in {store.root}")
    folder = options.output or store.root / "report"
    write_report(study, runs, folder)
    print(f"{len(runs)} of {len(keys)} runs, reported in {folder}")
    return 0


def pack(options: argparse.Namespace) -> int:
    """Move the runs that have ended from scratch into the few files that are kept."""
    _, store = _study(options)
    print(f"{store.pack()} runs packed in {store.root}")
    return 0


def merge(options: argparse.Namespace) -> int:
    """Take finished runs from other folders of results, and pack them; 1 if two runs of one configuration disagree."""
    study, store = _study(options)
    wanted = {job.key for job in study.jobs}
    conflicts = []
    for folder in options.folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        taken, conflicting = store.merge(Store(folder).runs())
        conflicts += conflicting
        others = len(set(taken) - wanted)
        print(f"{folder}: {len(taken)} runs taken" + (f", {others} of them of another configuration" if others else ""))
        for key in conflicting:
            print(f"  {key} is here with another learning curve: the one that was here is kept")
    store.pack()
    return 1 if conflicts else 0


def _study(options: argparse.Namespace) -> tuple[Study, Store]:
    """The study, with what the options choose of it, and its results."""
    study = load(find(options.study))
    tasks = _chosen(f"task in {study.name}", getattr(options, "task", None), study.tasks)
    algorithms = _chosen(f"algorithm in {study.name}", getattr(options, "algorithm", None), study.algorithms)
    seeds = _chosen(f"seed in {study.name}", getattr(options, "seed", None), {str(seed): seed for seed in study.seeds})
    chosen = study.model_copy(update={"tasks": tasks, "algorithms": algorithms, "seeds": [*seeds.values()]})
    return chosen, Store(options.results or RESULTS / study.name)


def _chosen(what: str, names: Sequence[str] | None, there: Mapping[str, T]) -> dict[str, T]:
    known(what, names or (), there)
    return {name: value for name, value in there.items() if not names or name in names}
