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
    "batch_size": one_of(None, 500, 250, 125),
    "critic_learning_rate": log_uniform(1e-4, 1e-2),
    "n_critic_updates": one_of(1, 5, 10, 20),
    "one_minus_gamma": log_uniform(1e-4, 0.03),
    "one_minus_gae_lambda": log_uniform(0.01, 0.2),
    "normalize_advantage": one_of(True, False),
    "net_arch": one_of("tiny", "small", "medium"),
    "activation_fn": one_of("tanh", "relu"),
}
DAMPING = log_uniform(1e-3, 10)

SEARCH_SPACES: dict[str, dict[str, Suggest]] = {
    "smac": {
        **COMMON,
        "learning_rate": log_uniform(1e-3, 1),
        "damping": DAMPING,
        "fisher_rank": one_of(1, 16, 64, "full"),
    },
    "accg": {**COMMON, "learning_rate": log_uniform(1e-3, 1), "damping": DAMPING, "cg_max_steps": one_of(5, 10, 20)},
    "acsgd": {**COMMON, "learning_rate": log_uniform(1e-3, 1)},
    "acadam": {**COMMON, "learning_rate": log_uniform(1e-5, 1e-2)},
}
"""Per algorithm, how each parameter of a trial is drawn. What is not here stays as the YAML file has it."""


def convert(params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn the parameters of a trial into hyperparameters.

    :param params: parameters of a trial, as named in :data:`SEARCH_SPACES`
    :return: arguments of the algorithm's constructor
    """
    hyperparams = convert_onpolicy_params(params)
    if hyperparams.pop("step_rule") == "alpha":
        hyperparams["target_kl"] = None
    return hyperparams


def sampler(algo: str) -> Callable[[optuna.Trial, int, int, dict[str, Any]], dict[str, Any]]:
    """
    :param algo: key of :data:`SEARCH_SPACES`
    :return: the algorithm's sampler, as the Zoo calls it
    """

    def sample(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
        hyperparams = convert({name: suggest(trial, name) for name, suggest in SEARCH_SPACES[algo].items()})
        for name in ("gamma", "gae_lambda"):  # shown beside the parameters: they are searched as 1 - x
            trial.set_user_attr(name, hyperparams[name])
        return hyperparams

    return sample
