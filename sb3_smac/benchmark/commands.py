"""What the command line does."""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sb3_smac.benchmark import cluster, executor
from sb3_smac.benchmark.run import check
from sb3_smac.benchmark.settings import known
from sb3_smac.benchmark.store import Run, Store
from sb3_smac.benchmark.study import RESULTS, Job, Study, find, load
from sb3_smac.benchmark.tune import without

T = TypeVar("T")


def run(options: argparse.Namespace) -> int:
    """
    Run what is missing of a study.

    :param options: command-line options
    :return: exit status: 1 if a run has failed
    """
    study, store = _study(options), _store(options)
    store.clean()
    execute(study.jobs, store, options)
    missing = [job for job in study.jobs if job.key not in set(store.finished())]
    print(f"{study.name}: {len(study.jobs) - len(missing)} of {len(study.jobs)} runs are finished, in {store.root}")
    if missing:
        print("`--retry-failed` runs the others once more; their tracebacks are in run.json.")
    return 1 if missing else 0


def execute(jobs: Sequence[Job], store: Store, options: argparse.Namespace) -> None:
    """
    Run what is missing of some jobs, and keep each run as it ends, with a live bar and one line per run.

    :param jobs: runs that are wanted
    :param store: where they are kept
    :param options: ``workers``, ``ray``, ``retry_failed``
    :raises ValueError: if a model cannot be made, before anything is run
    """
    done = {*store.finished(), *(() if options.retry_failed else store.failed())}
    jobs = [job for job in jobs if job.key not in done]
    for job in {(job.label, job.task): job for job in jobs}.values():
        check(job)
    if not jobs:
        return
    if options.ray:
        events = cluster.execute(jobs, options.ray)
    else:
        events = executor.execute(jobs, options.workers)
    console = Console()
    bar = Progress(
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} steps"),
        BarColumn(),
        TextColumn("{task.fields[runs]} of {task.fields[all_runs]} runs, time left"),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=3600,
    )
    steps = dict.fromkeys((job.key for job in jobs), 0)
    budgets = {job.key: job.budget for job in jobs}
    with bar, closing(events):
        task = bar.add_task("", total=sum(budgets.values()), runs=0, all_runs=len(jobs))
        runs = 0
        for event in events:
            if isinstance(event, Run):
                store.write(event)
                runs += 1
                steps[event.key] = budgets[event.key]
                console.print(_line(event), highlight=False, markup=False)
            else:
                steps[event.job.key] = min(event.timesteps, event.job.budget)
            bar.update(task, completed=sum(steps.values()), runs=runs)


def _line(run: Run) -> str:
    name = f"{run.label} on {run.task}, seed {run.seed}"
    if not run.finished:
        return f"{name}: FAILED after {run.info['duration']['total']:.0f} s: {run.info['traceback'].strip().splitlines()[-1]}"
    last = run.episodes[run.episodes["timestep"] > 0.9 * run.info["budget"]]["return"]
    text = f"return {last.mean():.1f} over the last tenth" if len(last) else "no episode ended in the last tenth"
    return f"{name}: {text} ({run.info['duration']['total']:.0f} s)"


def status(options: argparse.Namespace) -> int:
    """
    Print how many runs of each algorithm and task are finished, failed and missing.

    :param options: command-line options
    :return: exit status
    """
    study, store = _study(options), _store(options)
    finished, failed = set(store.finished()), set(store.failed())
    width = max(map(len, study.entries))
    for task in study.tasks:
        print(task)
        for label in study.entries:
            keys = [job.key for job in study.jobs if (job.task, job.label) == (task, label)]
            counts = {"finished": len(finished & set(keys)), "failed": len(failed & set(keys))}
            counts["missing"] = len(keys) - sum(counts.values())
            print(f"  {label:<{width}}  {', '.join(f'{count} {name}' for name, count in counts.items() if count)}")
    keys = [job.key for job in study.jobs]
    others = len(finished - set(keys))
    print(f"{study.name}: {len(finished & set(keys))} of {len(keys)} runs are finished, in {store.root}")
    if others:
        print(f"{others} finished runs there are of another configuration")
    return 0


def report(options: argparse.Namespace) -> int:
    """
    Write tables and figures of the finished runs.

    :param options: command-line options
    :return: exit status
    """
    from sb3_smac.benchmark.report import write_report

    study, store = _study(options), _store(options)
    keys = {job.key for job in study.jobs}
    runs = store.runs(key for key in store.finished() if key in keys)
    if not runs:
        raise ValueError(f"{study.name} has no finished run in {store.root}")
    folder = options.output or store.root / "report"
    write_report(study, runs, folder)
    print(f"{len(runs)} of {len(keys)} runs, reported in {folder}")
    return 0


def merge(options: argparse.Namespace) -> int:
    """
    Take finished runs from other folders of results.

    :param options: command-line options
    :return: exit status: 1 if two runs of one configuration disagree
    """
    store = _store(options)
    store.clean()
    conflicts = 0
    for folder in options.folders:
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a folder")
        taken, conflicting = store.merge(Store(folder))
        conflicts += len(conflicting)
        print(f"{folder}: {len(taken)} runs taken")
        for key in conflicting:
            print(f"  {key} is here with another learning curve: the one that was here is kept")
    return 1 if conflicts else 0


def tune(options: argparse.Namespace) -> int:
    """
    Search the step sizes of a study.

    :param options: command-line options
    :return: exit status
    """
    from sb3_smac.benchmark.tune import tune

    study = _study(options)
    store = Store(options.results or RESULTS / f"{study.name}-tune")
    store.clean()
    tune(study, store, lambda jobs: execute(jobs, store, options))
    return 0


def _study(options: argparse.Namespace) -> Study:
    study = load(find(options.study))
    tasks = _chosen(f"task in {study.name}", getattr(options, "task", None), study.tasks)
    entries = _chosen(f"algorithm in {study.name}", getattr(options, "algorithm", None), study.entries)
    return replace(study, tasks=tasks, entries=entries, tune=without(study.tune, study.entries.keys() - entries.keys()))


def _chosen(what: str, names: Sequence[str] | None, there: Mapping[str, T]) -> dict[str, T]:
    for name in names or ():
        known(what, name, there)
    return {name: value for name, value in there.items() if not names or name in names}


def _store(options: argparse.Namespace) -> Store:
    return Store(options.results or RESULTS / load(find(options.study)).name)
