"""Environment wrappers for the YAML files."""

import gymnasium as gym


def time_limit(env: gym.Env, max_episode_steps: int) -> gym.Env:
    """
    Shorten or lengthen an environment's time limit.

    As an ``env_wrapper`` it holds wherever the Zoo makes the environment (training, evaluation, ``enjoy``, videos), and inside
    the monitor, so that logged returns are those of whole episodes. ``env_kwargs`` reaches only some of these.

    :param env: an environment with a time limit
    :param max_episode_steps: the new limit
    :return: the same environment
    :raises ValueError: if it has no time limit
    """
    wrapper = env
    while isinstance(wrapper, gym.Wrapper):
        # Not by its class: the Zoo replaces gymnasium's TimeLimit by one of its own
        if "_max_episode_steps" in vars(wrapper):
            vars(wrapper)["_max_episode_steps"] = max_episode_steps
            return env
        wrapper = wrapper.env
    raise ValueError(f"{env} has no time limit that could become {max_episode_steps} steps")
