"""Return targets of the critic."""

import numpy as np


def monte_carlo_returns(rewards: np.ndarray, episode_starts: np.ndarray, last_returns: np.ndarray, gamma: float) -> np.ndarray:
    """
    Discounted sums of rewards until the end of each episode, or until the end of the rollout, where they are bootstrapped:

    ``R_t = r_t + γ R_{t+1}`` within an episode, ``R_t = r_t`` at its last step.

    A time limit counts as the end of an episode whose last reward already holds ``γ V(terminal observation)``, as
    Stable-Baselines3 stores it.

    :param rewards: shape (n_steps, n_envs)
    :param episode_starts: 1 where a step is the first of its episode, shape (n_steps, n_envs)
    :param last_returns: returns of the last step, bootstrapped if its episode goes on, shape (n_envs,)
    :param gamma: discount factor γ
    :return: shape (n_steps, n_envs)
    """
    returns = np.empty_like(rewards)
    returns[-1] = last_returns
    for step in reversed(range(len(rewards) - 1)):
        returns[step] = rewards[step] + gamma * (1.0 - episode_starts[step + 1]) * returns[step + 1]
    return returns
