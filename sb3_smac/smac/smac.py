"""SMAC: actor-critic with a damped rank-1 Fisher."""

from typing import Any, Literal

import numpy as np
import torch as th
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples

from sb3_smac.common import checks
from sb3_smac.common.critic import CriticOptimizer
from sb3_smac.common.natural_actor_critic import ActorBatch, CriticTarget, NaturalActorCritic
from sb3_smac.common.plain_policy import PlainPolicy
from sb3_smac.common.schedules import ScheduleLike
from sb3_smac.maths import assign, flatten, random_groups, ridge_weights, sherman_morrison_solve, woodbury_weights
from sb3_smac.smac.single_sample import single_sample_steps

FisherRank = int | Literal["full"]


class SMAC(NaturalActorCritic):
    """
    SM-ActorCritic (SMAC): the actor's step is the natural gradient under a damped rank-1 empirical Fisher.

    The mean score s̄ of an actor batch gives ``F̂ = λI + s̄s̄ᵀ``, which the Sherman–Morrison formula inverts in O(d) time and
    memory: ``θ ← θ + α F̂⁻¹ g``.

    Paper: https://arxiv.org/abs/2601.18626 (eq. 4-5, §5.1)

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, MultiInputPolicy, or a class)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: Step size α of the actor: a number, a schedule (of the progress remaining, from 1 to 0) or the
        RL Zoo's ``"lin_x"``. Not used with ``target_kl``.
    :param n_steps: Number of steps to run for each environment per update (N is n_steps * n_envs)
    :param batch_size: Transitions per actor step. ``None``: the whole rollout (the paper's batch-mean variant), ``1``: the
        paper's single-sample variant. Several steps
        are made one after the other, in random order, each at the parameters that the previous one left. If it does not divide
        the rollout, the last batch is smaller.
    :param gamma: Discount factor
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator
    :param damping: Damping λ > 0 of the Fisher. ``None``: 0.1 for rank 1; above, 1 for ``"full"`` and k / N for rank k, whose
        means of N / k scores are weaker by that factor (N transitions per actor step); decided when the model is built.
    :param fisher_rank: Rank k of the empirical Fisher ``λI + (1/k) Σ s̄_j s̄_jᵀ``: ``1``, the mean score of the batch (the
        paper); k > 1, the mean scores of k random groups of the batch; ``"full"``, every score. k is at most the size of the
        actor batch (less where the last batch of a rollout is smaller).
    :param target_kl: ``None``: the actor's step is α. A number (or a schedule): each actor step is sized so that the KL
        divergence of the policy on its batch (summed over independent action dimensions, averaged over states) is this
        number.
    :param line_search: Whether a step that lowers the surrogate objective on its own batch is halved until it does not, as in
        TRPO; ``None``: only for ``fisher_rank`` above 1
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
        damping: float | None = None,
        fisher_rank: FisherRank = 1,
        target_kl: ScheduleLike | None = 0.05,
        line_search: bool | None = None,
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
        self.damping: float = damping  # type: ignore[assignment]  # a number once the model is built
        self.fisher_rank = fisher_rank
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
        checks.number("damping", self.damping, minimum=0, exclusive=True, optional=True)
        checks.integer("fisher_rank", self.fisher_rank, minimum=1, besides=("full",))

    def _setup_model(self) -> None:
        super()._setup_model()
        if self.damping is None:
            rank = self._actor_batch_size if self.fisher_rank == "full" else self.fisher_rank
            self.damping = 0.1 if self.fisher_rank == 1 else rank / self._actor_batch_size

    @property
    def _actor_batch_size(self) -> int:
        return self.batch_size or self.n_steps * self.n_envs

    def _check_rollout_size(self) -> None:
        super()._check_rollout_size()
        size = self._actor_batch_size
        if self.fisher_rank != "full" and self.fisher_rank > size:
            raise ValueError(
                f"fisher_rank must be 'full' or at most the actor batch's {size} transitions, got {self.fisher_rank}"
            )

    @property
    def _searches_line(self) -> bool:
        return self.fisher_rank != 1 if self.line_search is None else self.line_search

    @property
    def _needs_gram(self) -> bool:
        return self.fisher_rank != 1

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        """
        ``x = F̂⁻¹ g``: by the Sherman–Morrison formula for rank 1 (the paper's eq. 5; §5.1 for a batch), by Woodbury's above.

        :param batch: policy gradient g and scores
        :return: x, shape (d,)
        """
        if self.fisher_rank == 1:
            mean_score = batch.scores.mean()
            self.record_actor("score_norm", mean_score.norm().item())
            return sherman_morrison_solve(batch.gradient, mean_score, self.damping)
        size = len(batch.scores)
        if batch.weights is not None and self.fisher_rank in ("full", size):
            weights, damping = ridge_weights(batch.scores.gram(), batch.weights, self.damping)
            self.record_actor("fisher_damping", damping)
            return batch.scores.weighted_sum(weights)
        groups = random_groups(size, size if self.fisher_rank == "full" else min(self.fisher_rank, size)).to(self.device)
        weights, damping = woodbury_weights(batch.scores.gram(), batch.scores.product(batch.gradient), groups, self.damping)
        self.record_actor("fisher_damping", damping)
        return (batch.gradient - batch.scores.weighted_sum(weights)) / damping

    def _actor_steps(self, rollout: RolloutBufferSamples, advantages: th.Tensor) -> Distribution:
        plain = self._plain_single_sample()
        if plain is None:
            return super()._actor_steps(rollout, advantages)
        old_distribution = self._distribution(rollout.observations)
        start = flatten(self.actor_parameters)
        with np.errstate(all="ignore"):
            steps = single_sample_steps(
                plain,
                rollout.observations,
                self._as_log_prob_takes(rollout.actions),
                advantages,
                self.lr_schedule(self._current_progress_remaining),
                self.damping,
            )
        if not th.isfinite(flatten(self.actor_parameters)).all():
            assign(self.actor_parameters, start)
            return super()._actor_steps(rollout, advantages)  # which says what is wrong
        gradient_norms = np.abs(advantages.numpy()) * np.sqrt(steps.squared_norms)
        self.record_actor("policy_loss", -float(np.mean(advantages.numpy() * steps.log_probs)))
        self.record_actor("entropy_loss", -float(np.mean(steps.entropies)))
        self.record_actor("policy_gradient_norm", float(np.mean(gradient_norms)))
        self.record_actor(
            "natural_gradient_norm", float(np.mean(gradient_norms / (self.damping + np.array(steps.squared_norms))))
        )
        self.record_actor("cosine_similarity", 1.0)  # the step and the gradient are multiples of one score
        self.record_actor("score_norm", float(np.mean(np.sqrt(steps.squared_norms))))
        self.record_actor("step_size", self.lr_schedule(self._current_progress_remaining))
        return old_distribution

    def _plain_single_sample(self) -> PlainPolicy | None:
        """The policy's plain view, if the actor's steps are the paper's single-sample ones and nothing else."""
        is_papers = self.batch_size == self.fisher_rank == 1 and self.target_kl_schedule is None and not self._searches_line
        if not is_papers or type(self).actor_direction is not SMAC.actor_direction:  # a subclass has another step
            return None
        if self.max_grad_norm is not None or self.ent_coef > 0:
            return None
        plain = PlainPolicy.of(self.policy)
        return plain if plain is not None and plain.is_all(self.actor_parameters) else None
