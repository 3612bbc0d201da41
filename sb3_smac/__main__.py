"""Train an agent from the command line, or show a trained one: ``python -m sb3_smac --env Hopper-v4``."""

import argparse
import math
import sys
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_smac import ALGORITHMS
from sb3_smac.envs.tasks import find_task, policy_for
from sb3_smac.zoo.wrappers import ends


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    :param arguments: command-line arguments; ``None``: those of the process
    :return: the options, checked
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_smac", description="Train an agent with the default hyperparameters.")
    parser.add_argument("--algo", default="smac", type=str.lower, choices=ALGORITHMS, help="algorithm (default: %(default)s)")
    parser.add_argument(
        "--env",
        default="Hopper-v4",
        help="Gymnasium's name of an environment: [module:][namespace/]name[-v(version)] (default: %(default)s)",
    )
    parser.add_argument("-n", "--steps", default=1_000_000, type=whole_number, help="timesteps (default: %(default)s)")
    parser.add_argument("--seed", default=0, type=whole_number, help="random seed (default: %(default)s)")
    parser.add_argument("--output", default=Path("runs"), type=Path, help="folder of models and logs (default: %(default)s)")
    parser.add_argument("--show", metavar="MODEL", type=Path, help="train nothing: play 10 episodes with this saved model")
    parser.add_argument("--render", action="store_true", help="with --show: in a window")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"argument -n/--steps: must be at least 1, got {options.steps}")
    if not 0 <= options.seed < 2**32:
        parser.error(f"argument --seed: must be between 0 and 2**32 - 1, got {options.seed}")
    if options.show and not options.show.is_file():
        parser.error(f"argument --show: there is no file {options.show}")
    if options.render and not options.show:
        parser.error("argument --render: goes with --show")
    if not options.show and any(path.exists() and not path.is_dir() for path in (options.output, *options.output.parents)):
        parser.error(f"argument --output: {options.output} is no folder, and cannot become one")
    try:
        find_task(options.env)
    except (gym.error.Error, ImportError) as error:
        parser.error(f"argument --env: {options.env!r}: {error}")
    return options


def whole_number(text: str) -> int:
    """
    :param text: an integer, perhaps written as ``1e6``
    :return: the integer
    :raises argparse.ArgumentTypeError: if it is none
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value.is_integer():
        raise argparse.ArgumentTypeError(f"must be an integer, such as 100000 or 1e5, got {text!r}")
    return int(value)


def train(options: argparse.Namespace) -> None:
    """
    Train with a progress bar, SB3's console table and a TensorBoard log; save the model; say where both are.

    :param options: algorithm, environment, timesteps, seed and output folder
    """
    progress_bar = all(find_spec(package) for package in ("tqdm", "rich"))
    if not progress_bar:
        print("No progress bar: it needs tqdm and rich (the extra [extra])")
    env = gym.make(options.env)
    name = f"{options.algo}_{options.env.replace('/', '-').replace(':', '-')}_seed{options.seed}"
    try:
        model = ALGORITHMS[options.algo](
            policy_for(env.observation_space),
            env,
            tensorboard_log=str(options.output / "tensorboard"),
            seed=options.seed,
            verbose=1,
        )
    except (AssertionError, NotImplementedError, ValueError) as error:  # a space that Stable-Baselines3 does not take
        sys.exit(f"{options.env} with {env.observation_space} and {env.action_space}: {error}")
    model.learn(options.steps, tb_log_name=name, progress_bar=progress_bar)
    path = options.output / f"{name}.zip"
    model.save(path)
    returns = [info["r"] for info in model.ep_info_buffer or ()]
    if returns:
        print(f"Mean return of the last {len(returns)} training episodes: {np.mean(returns):.1f} ± {np.std(returns):.1f}")
    print(f"Model:         {path}")
    print(f"TensorBoard:   {model.logger.get_dir()}")
    print(f"See the model: python -m sb3_smac --algo {options.algo} --env {options.env} --show {path} --render")
    print(f"See the log:   tensorboard --logdir {options.output / 'tensorboard'}")


def show(options: argparse.Namespace) -> None:
    """
    Play 10 episodes with a saved model and print their returns.

    :param options: algorithm, environment, seed, model file, and whether to open a window
    """
    env = ends(Monitor(gym.make(options.env, render_mode="human" if options.render else None)))
    env.reset(seed=options.seed)
    try:
        model = ALGORITHMS[options.algo].load(options.show, env=env)
    except ValueError as error:  # another task's model, or no model
        sys.exit(f"{options.show} does not fit --algo {options.algo} and --env {options.env}: {error}")
    returns, _ = evaluate_policy(model, env, n_eval_episodes=10, return_episode_rewards=True)
    print("Returns:    ", ", ".join(f"{episode_return:.1f}" for episode_return in np.atleast_1d(returns)))
    print(f"Mean return: {np.mean(returns):.1f} ± {np.std(returns):.1f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Train, or show a trained model.

    :param arguments: command-line arguments; ``None``: those of the process
    """
    options = parse_arguments(arguments)
    th.set_num_threads(1)  # on networks this small, more threads only wait for each other
    warnings.filterwarnings("ignore", message=".*is out of date.*", category=DeprecationWarning)  # the paper's tasks are v4
    try:
        (show if options.show else train)(options)
    except (gym.error.Error, ImportError) as error:  # a simulator or a renderer that is not installed
        sys.exit(f"{options.env}: {error}")


if __name__ == "__main__":
    main()
