"""What the command lines have to know of a task before they make it: what its name stands for, and which policy takes it."""

import importlib

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, find_highest_version, get_env_id, parse_env_id
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first

SMALLEST_IMAGE = 36
"""Height and width from which SB3's ``NatureCNN`` has an output."""


def find_task(env_id: str) -> EnvSpec:
    """
    Find what ``gymnasium.make`` would make: unlike ``gymnasium.spec``, with a module before the name or without a version.

    :param env_id: ``[module:][namespace/]name[-v(version)]``; the module is imported, so that it can register the name
    :return: the task's entry in Gymnasium's registry
    :raises gymnasium.error.Error: if there is none
    :raises ImportError: if the module cannot be imported
    """
    module, _, name = env_id.rpartition(":")
    if module:
        importlib.import_module(module)
    namespace, base, version = parse_env_id(name)
    newest = find_highest_version(namespace, base) if version is None else None
    return gym.spec(name if newest is None else get_env_id(namespace, base, newest))


def policy_for(space: spaces.Space) -> str:
    """
    :param space: observation space
    :return: name of the policy that takes it
    """
    if isinstance(space, spaces.Dict):
        return "MultiInputPolicy"
    if not isinstance(space, spaces.Box) or not is_image_space(space):
        return "MlpPolicy"
    sides = space.shape[1:] if is_image_space_channels_first(space) else space.shape[:2]
    return "CnnPolicy" if min(sides) >= SMALLEST_IMAGE else "MlpPolicy"
