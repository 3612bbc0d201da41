"""What ``-optimize`` searches."""

from collections.abc import Callable
from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_onpolicy_params

Suggest = Callable[[optuna.Trial, str], Any]


def log_uniform(low: float, high: float) -> Suggest:
    """
    :param low: smallest value
    :param high: largest value
    :return: a search between them, uniform in the logarithm
    """
    return lambda trial, name: trial.suggest_float(name, low, high, log=True)


def one_of(*choices: Any) -> Suggest:
    """
    :param choices: the values
    :return: a search among them
    """
    return lambda trial, name: trial.suggest_categorical(name, choices)


COMMON: dict[str, Suggest] = {
    # "alpha": the paper's fixed step size; "kl": steps sized by target_kl
    "step_rule": one_of("alpha", "kl"),
    "target_kl": log_uniform(1e-3, 0.2),
    "critic_learning_rate": log_uniform(1e-4, 1e-2),
    "n_critic_updates": one_of(1, 5, 10, 20),
    "one_minus_gamma": log_uniform(1e-4, 0.03),
    "one_minus_gae_lambda": log_uniform(0.01, 0.2),
    "normalize_advantage": one_of(True, False),
    "net_arch": one_of("tiny", "small", "medium"),
    "activation_fn": one_of("tanh", "relu"),
}
DAMPING = log_uniform(1e-3, 10)
BATCHES = (1, 2, 4, 8)
"""Into how many batches a rollout is divided for the actor: ``batch_size`` is drawn so that it fits, whatever the rollout."""
RANKS = (1, 16, 64, "full")
PAPERS_ROLLOUT = 1000

SEARCH_SPACES: dict[str, dict[str, Suggest]] = {
    "smac": {
        **COMMON,
        "learning_rate": log_uniform(1e-3, 1),
        "damping": DAMPING,
    },
    "accg": {**COMMON, "learning_rate": log_uniform(1e-3, 1), "damping": DAMPING, "cg_max_steps": one_of(5, 10, 20)},
    "acsgd": {**COMMON, "learning_rate": log_uniform(1e-3, 1)},
    "acadam": {**COMMON, "learning_rate": log_uniform(1e-5, 1e-2)},
}
"""Per algorithm, how each parameter of a trial is drawn, besides those that :func:`search_space` adds."""


def search_space(algo: str, rollout_size: int = PAPERS_ROLLOUT) -> dict[str, Suggest]:
    """
    :param algo: key of an algorithm
    :param rollout_size: transitions of a rollout, of all environments
    :return: how each parameter of a trial is drawn, no batch larger than the rollout and no rank larger than a batch; what is
        not here stays as the YAML file has it
    """
    sizes = list(dict.fromkeys(max(rollout_size // n_batches, 1) for n_batches in BATCHES))
    space = {**SEARCH_SPACES[algo], "batch_size": one_of(None, *sizes[1:])}
    if algo == "smac":
        space["fisher_rank"] = one_of(*(rank for rank in RANKS if isinstance(rank, str) or rank <= sizes[-1]))
    if rollout_size < 2:
        space["normalize_advantage"] = one_of(False)  # one has no standard deviation
    return space


def searched(algo: str) -> set[str]:
    """
    :param algo: key of an algorithm
    :return: names of the hyperparameters that a trial has of its own
    """
    return {*search_space(algo), "gamma", "gae_lambda", "policy_kwargs"}


def convert(params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn the parameters of a trial into hyperparameters.

    :param params: parameters of a trial, as named in :func:`search_space`
    :return: arguments of the algorithm's constructor
    """
    hyperparams = convert_onpolicy_params(params)
    if hyperparams.pop("step_rule") == "alpha":
        hyperparams["target_kl"] = None
    return hyperparams


def sampler(
    algo: str, rollout_size: int = PAPERS_ROLLOUT
) -> Callable[[optuna.Trial, int, int, dict[str, Any]], dict[str, Any]]:
    """
    :param algo: key of :data:`SEARCH_SPACES`
    :param rollout_size: transitions of a rollout, of all environments
    :return: the algorithm's sampler, as the Zoo calls it
    """
    space = search_space(algo, rollout_size)

    def sample(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
        hyperparams = convert({name: suggest(trial, name) for name, suggest in space.items()})
        for name in ("gamma", "gae_lambda"):  # shown beside the parameters: they are searched as 1 - x
            trial.set_user_attr(name, hyperparams[name])
        return hyperparams

    return sample
