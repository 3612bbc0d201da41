"""Environments: what other simulators need to be a VecEnv, and what the command lines know of a task."""

from sb3_smac.envs.envpool_vec_env import EnvPoolVecEnv

__all__ = ["EnvPoolVecEnv"]
