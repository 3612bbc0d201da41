"""What an update that is not finite came from. Slow: only on the way to an error."""

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from torch import nn

from sb3_smac.common import checks
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.maths import flat_gradient


def explain_actor(evaluator: Evaluator, parameters: list[nn.Parameter], buffer: RolloutBuffer, num_timesteps: int) -> str:
    """
    :param evaluator: of the policy
    :param parameters: the actor's parameters
    :param buffer: the rollout
    :param num_timesteps: timesteps of training at the end of the rollout
    :return: which transition's score is not finite, in words
    """
    evaluator.policy.set_training_mode(False)
    for index in range(buffer.buffer_size * buffer.n_envs):
        data = buffer._get_samples(np.array([index]))
        location = _location(index, buffer, num_timesteps)
        log_prob = evaluator.evaluate(data.observations, data.actions).log_prob
        if not th.isfinite(log_prob).all():
            return f"The log-probability of the action is not finite {location}. {checks.ADVICE}"
        if not th.isfinite(flat_gradient(log_prob, parameters)).all():
            return f"The gradient of the log-probability is not finite {location}. {checks.ADVICE}"
    index = int(np.argmax(np.abs(buffer.advantages)))
    return (
        "The gradient of the actor is not finite, though that of every log-probability is; the largest advantage, "
        f"{buffer.advantages.flat[index]:g}, is {_location(index, buffer, num_timesteps)}. {checks.ADVICE}"
    )


def explain_critic(buffer: RolloutBuffer, num_timesteps: int) -> str:
    """
    :param buffer: the rollout
    :param num_timesteps: timesteps of training at the end of the rollout
    :return: where the return is hardest to fit: there the critic's loss overflowed
    """
    index = int(np.argmax(np.abs(buffer.returns)))
    return (
        "The gradient of the critic is not finite; the largest return, "
        f"{buffer.returns.flat[index]:g}, is {_location(index, buffer, num_timesteps)}. {checks.ADVICE}"
    )


def _location(index: int, buffer: RolloutBuffer, num_timesteps: int) -> str:
    """Where a transition stands, by its index in the flattened rollout buffer (environment by environment)."""
    env, step = divmod(index, buffer.buffer_size)
    return checks.location(buffer, step, env, num_timesteps)
