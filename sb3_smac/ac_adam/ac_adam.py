"""AC-Adam: actor-critic with an Adam step."""

from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples
from torch import nn

from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.critic import CriticOptimizer
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.common.natural_actor_critic import CriticTarget, NaturalActorCritic, inherited
from sb3_smac.common.parameters import make_optimizer
from sb3_smac.common.schedules import ScheduleLike
from sb3_smac.maths import flatten, unflatten


class ACAdam(NaturalActorCritic):
    """
    AC-Adam: the actor's step is Adam's on the policy gradient: A2C with GAE and Adam (https://arxiv.org/abs/1412.6980).

    Paper: https://arxiv.org/abs/2601.18626 (§5, the AC-Adam baseline)

    The other arguments are those of :class:`~sb3_smac.common.natural_actor_critic.NaturalActorCritic`.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: ScheduleLike = 1e-3,
        n_steps: int = 1000,
        batch_size: int | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        target_kl: ScheduleLike | None = None,
        line_search: bool | None = False,
        critic_learning_rate: ScheduleLike = 1e-3,
        critic_optimizer: CriticOptimizer = "adam",
        critic_damping: float = 0.1,
        n_critic_updates: int = 10,
        critic_batch_size: int | None = 128,
        critic_target: CriticTarget = "gae",
        ent_coef: float = 0.0,
        max_grad_norm: float | None = None,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: type[RolloutBuffer] | None = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        normalize_observations: bool | None = None,
        normalize_returns: bool | None = None,
        averaging: float | None = None,
        final_log_std: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        super().__init__(**inherited(locals()))

    def _setup_model(self) -> None:
        super()._setup_model()
        # Adam's displacement at step size 1 is the direction: the step size, fixed or by KL, comes after
        self._displacement = nn.Parameter(flatten(self.actor_parameters).zero_())
        self.actor_optimizer = make_optimizer(th.optim.Adam, [self._displacement], 1.0, {"eps": 1e-5})

    def _find_parameters(self, evaluator: Evaluator, rollout: RolloutBufferSamples) -> None:
        before = self.actor_parameters
        super()._find_parameters(evaluator, rollout)
        if list(map(id, before)) != list(map(id, self.actor_parameters)):  # the moments of those that stayed stay
            self._move_moments(before)

    def _move_moments(self, before: list[nn.Parameter]) -> None:
        state = self.actor_optimizer.state.pop(self._displacement, {})
        old_d, self._displacement = len(self._displacement), nn.Parameter(flatten(self.actor_parameters).zero_())
        self.actor_optimizer.param_groups[0]["params"] = [self._displacement]
        for name, moments in state.items():
            if moments.shape == (old_d,):
                kept = dict(zip(before, unflatten(moments, before), strict=True))
                moments = flatten(kept.get(parameter, th.zeros_like(parameter)) for parameter in self.actor_parameters)
            self.actor_optimizer.state[self._displacement][name] = moments

    def _optimizers(self) -> list[th.optim.Optimizer]:
        return [*super()._optimizers(), self.actor_optimizer]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        return [*state_dicts, "actor_optimizer"], tensors

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_displacement"]

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        """
        ``x = m̂ / (√v̂ + ε)``, with the moments m and v of the policy gradient that the optimizer keeps.

        :param batch: policy gradient g
        :return: x, shape (d,)
        """
        self._displacement.data.zero_()
        self._displacement.grad = -batch.gradient  # the optimizer descends
        self.actor_optimizer.step()
        direction = self._displacement.detach().clone()
        for parameter, part in zip(batch.parameters, unflatten(direction, batch.parameters), strict=True):
            if not parameter.requires_grad:  # its moments may still be there from before the user froze it
                part.zero_()
        return direction
