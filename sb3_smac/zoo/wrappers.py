"""Environment wrappers for the YAML files."""

import gymnasium as gym

from sb3_smac.common import checks

TIME_LIMIT = f"{__name__}.time_limit"
"""Name of :func:`time_limit` in an entry."""

EVALUATION_LIMIT = 10_000
"""Steps of an evaluation's episode where the task itself has no time limit."""


def time_limit(env: gym.Env, max_episode_steps: int) -> gym.Env:
    """
    Shorten or lengthen an environment's time limit, or give it one.

    As an ``env_wrapper`` it holds wherever the Zoo makes the environment (training, evaluation, ``enjoy``, videos), and inside
    the monitor, so that logged returns are those of whole episodes. ``env_kwargs`` reaches only some of these.

    :param env: an environment
    :param max_episode_steps: the new limit
    :return: the same environment, perhaps in a wrapper
    :raises ValueError: if the limit is no positive integer
    """
    checks.integer("max_episode_steps", max_episode_steps, minimum=1)
    limit = _find(env, "_max_episode_steps")
    if limit is not None:
        vars(limit)["_max_episode_steps"] = max_episode_steps
        return env
    monitor = _find(env, "episode_returns")
    if monitor is None:
        return gym.wrappers.TimeLimit(env, max_episode_steps)
    monitor.env = gym.wrappers.TimeLimit(monitor.env, max_episode_steps)
    return env


def ends(env: gym.Env, within: int = EVALUATION_LIMIT) -> gym.Env:
    """
    Give an environment a time limit if it has none: in ``CliffWalking-v1``, the episode of a policy that walks in circles, and
    with it an evaluation, would never end.

    :param env: an environment
    :param within: the limit
    :return: the same environment, perhaps in a wrapper
    """
    return env if _find(env, "_max_episode_steps") else time_limit(env, within)


def _find(env: gym.Env, attribute: str) -> gym.Wrapper | None:
    """The outermost wrapper that has it. Not by its class: the Zoo replaces gymnasium's TimeLimit by one of its own."""
    while isinstance(env, gym.Wrapper):
        if attribute in vars(env):
            return env
        env = env.env
    return None
