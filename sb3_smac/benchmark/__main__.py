"""Command line: ``python -m sb3_smac.benchmark <command> <study>``."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

NEEDS = ("rl_zoo3", "pandas", "pyarrow", "pydantic", "rliable", "tabulate")
COMMANDS = {
    "run": "run what is missing of a study",
    "status": "say how far a study is",
    "report": "write the tables and figures of a study's finished runs",
    "pack": "move finished runs from scratch into the files that are kept (`run` does it at its end)",
    "merge": "take finished runs from other folders of results",
}


def main(arguments: Sequence[str] | None = None) -> int | str:
    """
    Run a study, or say how far it is, or write its report.

    :param arguments: command-line arguments; ``None``: those of the process
    :return: exit status, or the message of an error
    """
    options = _parser().parse_args(arguments)
    for package in NEEDS:
        if find_spec(package) is None:
            return f"{package} is not installed: pip install '.[benchmark]' in a checkout of sb3_smac"
    if getattr(options, "ray", None) and find_spec("ray") is None:
        return "--ray: Ray is not installed: pip install '.[ray]' in a checkout of sb3_smac"
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        from sb3_smac.benchmark import commands

        return getattr(commands, options.command)(options)
    except ValueError as error:
        return str(error)
    except KeyboardInterrupt:
        return "Stopped. The same command goes on with what is missing."
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*arguments: object) -> NoReturn:
    """A batch system ends a job by SIGTERM: as Ctrl-C does, with what is finished packed."""
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sb3_smac.benchmark", description="Grids of runs under one protocol.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, description in COMMANDS.items():
        command = commands.add_parser(name, help=description, description=description.capitalize() + ".")
        command.add_argument("study", help="path of a YAML file, or the name of one in benchmarks/studies")
        command.add_argument("--results", type=Path, help="folder of the results (default: benchmarks/results/<study>)")
        if name in ("run", "status"):
            command.add_argument("--task", action="append", metavar="ID", help="this task only (may be repeated)")
            command.add_argument("--algorithm", action="append", metavar="LABEL", help="this entry only (may be repeated)")
            command.add_argument("--seed", action="append", help="this seed only (may be repeated)")
        if name == "run":
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
            command.add_argument("--workers", type=_positive, default=cores, help="processes (default: %(default)s)")
            command.add_argument("--ray", metavar="ADDRESS", help="run on this Ray cluster instead, such as auto")
            command.add_argument("--retry-failed", action="store_true", help="run what failed before once more")
        if name == "merge":
            command.add_argument("folders", nargs="+", type=Path, metavar="folder", help="folder of results")
        if name == "report":
            command.add_argument("--output", type=Path, help="folder of the report (default: report, in the results')")
    return parser


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
