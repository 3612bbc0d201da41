"""Gaussian exploration whose width is a schedule rather than learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch as th

from sb3_smac.common.policies import unwrapped
from sb3_smac.fast.plain_policy import has_plain_log_std

if TYPE_CHECKING:
    from sb3_smac.common.natural_actor_critic import NaturalActorCritic


def schedule_log_std(model: NaturalActorCritic) -> bool:
    """
    Set the log-std of the next rollout, if it is scheduled; it is then no parameter that is learned.

    :param model: the algorithm
    :return: whether it is scheduled
    :raises ValueError: if it is to be and actions are not Gaussian with a log-std of their own
    """
    policy, final = unwrapped(model.policy), model.final_log_std
    if final is None:
        if getattr(model, "_log_std_is_scheduled", False):
            policy.log_std.requires_grad_(True)
        return False
    if not has_plain_log_std(policy):
        raise ValueError(
            f"final_log_std must be None unless actions are Gaussian (Box, without gSDE), got {final!r} with "
            f"{model.action_space}" + (" and use_sde=True" if model.use_sde else "")
        )
    progress = min(model.num_timesteps / model._total_timesteps, 1.0) if model._total_timesteps else 0.0
    policy.log_std.requires_grad_(False)
    with th.no_grad():
        policy.log_std.fill_(model._log_std_init + progress * (final - model._log_std_init))
    return True
