"""Command line: ``python -m sb3_smac.zoo <command> ...``, also installed as ``sb3-smac-zoo``."""

import importlib.util
import runpy
import sys
import warnings
from collections.abc import Sequence

COMMANDS = {
    "train": ("rl_zoo3.train", "train an agent, or search its hyperparameters (-optimize)"),
    "enjoy": ("rl_zoo3.enjoy", "watch a trained agent, or measure its return (--no-render)"),
    "plots": ("rl_zoo3.plots.all_plots", "the same as all_plots"),
    "all_plots": ("rl_zoo3.plots.all_plots", "compare evaluations of several algorithms: curves and a table"),
    "plot_train": ("rl_zoo3.plots.plot_train", "training curves of one algorithm"),
    "plot_from_file": ("rl_zoo3.plots.plot_from_file", "plots of what all_plots saved (-o), also with rliable"),
    "benchmark": ("rl_zoo3.benchmark", "table of the returns of all trained agents in a folder"),
    "record_video": ("rl_zoo3.record_video", "video of a trained agent"),
    "record_training": ("rl_zoo3.record_training", "one video of all checkpoints of a training"),
    "push_to_hub": ("rl_zoo3.push_to_hub", "upload a trained agent to the Hugging Face Hub"),
    "load_from_hub": ("rl_zoo3.load_from_hub", "download a trained agent from it"),
}
USAGE = "usage: python -m sb3_smac.zoo <command> [options], or sb3-smac-zoo <command> [options]"
HELP = f"""{USAGE}

The RL Zoo (https://rl-baselines3-zoo.readthedocs.io) with --algo smac, accg, acsgd and acadam beside its own algorithms.

commands:
{chr(10).join(f"  {name:<16} {summary}" for name, (_, summary) in COMMANDS.items())}

Every command has --help. For example:
  python -m sb3_smac.zoo train --algo smac --env CartPole-v1
  python -m sb3_smac.zoo enjoy --algo smac --env CartPole-v1 -f logs --no-render
"""


def main(argv: Sequence[str] | None = None) -> int | str:
    """
    Run a command of the RL Zoo with this package's algorithms.

    :param argv: command and its arguments; ``None``: those of the process
    :return: exit status, or the message of an error
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP)
        return 0 if arguments else 2
    command = arguments.pop(0)
    if command not in COMMANDS:
        return f"unknown command {command!r}: choose from {', '.join(COMMANDS)}\n{USAGE}"
    if importlib.util.find_spec("rl_zoo3") is None:
        return "The RL Zoo is not installed: pip install '.[zoo]' in a checkout of sb3_smac"

    from sb3_smac.zoo import register
    from sb3_smac.zoo.compat import shims

    register()
    module, _ = COMMANDS[command]
    sys.argv[1:] = arguments
    with warnings.catch_warnings(), shims(command):
        # `python -m rl_zoo3.plots.all_plots` has it too: the package imports the module before it runs
        warnings.filterwarnings("ignore", message=".*found in sys.modules after import of package", category=RuntimeWarning)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
