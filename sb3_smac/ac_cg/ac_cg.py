"""AC-CG: actor-critic with the natural gradient by conjugate gradient."""

from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_smac.common import checks
from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.critic import CriticOptimizer
from sb3_smac.common.evaluation import has_kl
from sb3_smac.common.natural_actor_critic import CriticTarget, NaturalActorCritic, inherited
from sb3_smac.common.schedules import ScheduleLike
from sb3_smac.common.trust_region import frozen, mean_kl
from sb3_smac.maths import FisherVectorProduct, conjugate_gradient


class ACCG(NaturalActorCritic):
    """
    AC-CG: the actor's step is the natural gradient, found by conjugate gradient on products with the true Fisher.

    ``θ ← θ + α x`` with ``(F + λI) x = g``; F is never formed. It is the direction of TRPO (https://arxiv.org/abs/1502.05477);
    with ``target_kl`` and ``line_search`` it is TRPO's step.

    Paper: https://arxiv.org/abs/2601.18626 (§5, the AC-CG baseline)

    :param damping: Damping λ of the Fisher, from 1e-30 to 1e30
    :param cg_max_steps: Largest number of conjugate gradient iterations (one Fisher-vector product each)
    :param cg_tolerance: Relative residual ``‖g − (F + λI) x‖ / ‖g‖`` at which they stop

    The other arguments are those of :class:`~sb3_smac.common.natural_actor_critic.NaturalActorCritic`.
    """

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: ScheduleLike = 0.1,
        n_steps: int = 1000,
        batch_size: int | None = None,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        damping: float = 0.1,
        cg_max_steps: int = 10,
        cg_tolerance: float = 1e-5,
        target_kl: ScheduleLike | None = 0.05,
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
        self.damping = damping
        self.cg_max_steps = cg_max_steps
        self.cg_tolerance = cg_tolerance
        super().__init__(**inherited(locals(), "damping", "cg_max_steps", "cg_tolerance"))

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        checks.damping("damping", self.damping)
        checks.integer("cg_max_steps", self.cg_max_steps, minimum=1)
        checks.number("cg_tolerance", self.cg_tolerance, minimum=0, maximum=1e10)

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        """
        ``x ≈ (F + λI)⁻¹ g``, F the Hessian of the KL divergence.

        :param batch: policy gradient g and distributions
        :return: x, shape (d,)
        """
        fisher = self._fisher_vector_product(batch)
        result = conjugate_gradient(
            lambda vector: fisher(vector) + self.damping * vector, batch.gradient, self.cg_max_steps, self.cg_tolerance
        )
        self.record_actor("cg_residual", result.residual)
        self.record_actor("cg_iterations", result.iterations)
        return result.solution

    def _fisher_vector_product(self, batch: ActorBatch) -> Callable[[th.Tensor], th.Tensor]:
        plain = batch.evaluator.plain
        if plain is not None and plain.is_all(batch.parameters):
            return plain.fisher_vector_product(batch.observations, batch.parameters)  # type: ignore[arg-type]  # no Dict
        distribution = batch.distribution
        if distribution is None or not has_kl(distribution):  # no expectation in closed form: the empirical Fisher (1/N) SᵀS
            return lambda vector: batch.scores.weighted_sum(batch.scores.product(vector) / len(batch.scores))
        return FisherVectorProduct(mean_kl(frozen(distribution), distribution), batch.parameters)
