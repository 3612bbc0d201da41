"""AC-CG: actor-critic with the natural gradient by conjugate gradient."""

from collections.abc import Callable
from typing import Any

import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv

from sb3_smac.common import checks
from sb3_smac.common.critic import CriticOptimizer
from sb3_smac.common.natural_actor_critic import ActorBatch, CriticTarget, NaturalActorCritic
from sb3_smac.common.plain_policy import PlainPolicy
from sb3_smac.common.schedules import ScheduleLike
from sb3_smac.common.trust_region import frozen, mean_kl
from sb3_smac.maths import FisherVectorProduct, conjugate_gradient


class ACCG(NaturalActorCritic):
    """
    AC-CG: the actor's step is the natural gradient, found by conjugate gradient on products with the true Fisher.

    ``θ ← θ + α x`` with ``(F + λI) x = g``; F is never formed. It is the direction of TRPO (https://arxiv.org/abs/1502.05477);
    with ``target_kl`` and ``line_search`` it is TRPO's step.

    Paper: https://arxiv.org/abs/2601.18626 (§5, the AC-CG baseline)

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, MultiInputPolicy, or a class)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: Step size α of the actor: a number, a schedule (of the progress remaining, from 1 to 0) or the
        RL Zoo's ``"lin_x"``. Not used with ``target_kl``.
    :param n_steps: Number of steps to run for each environment per update (N is n_steps * n_envs)
    :param batch_size: Transitions per actor step. ``None``: the whole rollout. Several steps
        are made one after the other, in random order, each at the parameters that the previous one left. If it does not divide
        the rollout, the last batch is smaller.
    :param gamma: Discount factor
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator
    :param damping: Damping λ > 0 of the Fisher
    :param cg_max_steps: Largest number of conjugate gradient iterations (one Fisher-vector product each)
    :param cg_tolerance: Relative residual ``‖g − (F + λI) x‖ / ‖g‖`` at which they stop
    :param target_kl: ``None``: the actor's step is α. A number (or a schedule): each actor step is sized so that the KL
        divergence of the policy on its batch (summed over independent action dimensions, averaged over states) is this
        number.
    :param line_search: Whether a step that lowers the surrogate objective on its own batch is halved until it does not, as in
        TRPO
    :param critic_learning_rate: Learning rate of the critic's optimizer, Adam (same types as ``learning_rate``)
    :param critic_optimizer: How the critic is fitted: ``"adam"`` (or the policy's ``optimizer_class``), minibatch steps, or
        ``"gauss_newton"``, damped Gauss–Newton steps on the whole rollout in sample space, none of which raises the loss
        (without learning rate, minibatches or clipping)
    :param critic_damping: Damping λ > 0 of Gauss–Newton
    :param n_critic_updates: Passes over the rollout when the critic is fitted, or Gauss–Newton steps (fewer, if they no longer
        lower the loss by 1 %)
    :param critic_batch_size: Minibatch size of the critic's regression; ``None``, or more than the rollout: the whole rollout
    :param critic_target: Regression target of the critic: ``"gae"``, TD(λ) as in SB3, or ``"monte_carlo"``, the discounted sum
        of rewards (the paper's), bootstrapped where the rollout or a time limit cuts an episode
    :param ent_coef: Coefficient of the entropy bonus
    :param max_grad_norm: Largest norm of the policy gradient and of the critic's gradient; ``None``: no clipping
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE)
        instead of action noise exploration (default: False)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE
        Default: -1 (only sample at the beginning of the rollout)
    :param rollout_buffer_class: Rollout buffer class to use. If ``None``, it will be automatically selected.
    :param rollout_buffer_kwargs: Keyword arguments to pass to the rollout buffer on creation.
    :param normalize_advantage: Whether to give the advantages of a rollout mean 0 and standard deviation 1
    :param normalize_observations: Whether the policy normalises observations by a running mean and deviation, which are saved
        with it and change only after an update. ``None``: if they are vectors (one-dimensional Box), the policy is one of
        this package's (or a subclass), and ``VecNormalize`` does not do it already; decided when the model is built.
    :param normalize_returns: Whether the critic is fitted to returns of running mean 0 and deviation 1 (PopArt); values keep
        the reward's units. ``None``: if the policy is one of this package's, and ``VecNormalize`` does not scale rewards.
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average
        the reported success rate, mean episode length, and mean reward over
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation. ``optimizer_class`` and
        ``optimizer_kwargs`` are the critic's.
    :param verbose: Verbosity level: 0 for no output, 1 for info messages (such as device or wrappers used), 2 for
        debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
        Setting it to auto, the code will be run on the GPU if possible.
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: if an argument is out of its range; the message names it, its value and what is accepted
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
        line_search: bool = False,
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
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=batch_size,
            gamma=gamma,
            gae_lambda=gae_lambda,
            target_kl=target_kl,
            line_search=line_search,
            critic_learning_rate=critic_learning_rate,
            critic_optimizer=critic_optimizer,
            critic_damping=critic_damping,
            n_critic_updates=n_critic_updates,
            critic_batch_size=critic_batch_size,
            critic_target=critic_target,
            ent_coef=ent_coef,
            max_grad_norm=max_grad_norm,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            normalize_advantage=normalize_advantage,
            normalize_observations=normalize_observations,
            normalize_returns=normalize_returns,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _check_hyperparameters(self) -> None:
        super()._check_hyperparameters()
        checks.number("damping", self.damping, minimum=0, exclusive=True)
        checks.integer("cg_max_steps", self.cg_max_steps, minimum=1)
        checks.number("cg_tolerance", self.cg_tolerance, minimum=0)

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
        plain = PlainPolicy.of(self.policy)
        if plain is not None and plain.is_all(batch.parameters):
            return plain.fisher_vector_product(batch.observations, batch.parameters)  # type: ignore[arg-type]  # no Dict
        kl = mean_kl(frozen(batch.distribution), batch.distribution)
        return FisherVectorProduct(kl, batch.parameters)
