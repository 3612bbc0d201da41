"""SMAC: actor-critic with a damped rank-1 Fisher."""

import math
from typing import Any, Literal

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples

from sb3_smac.common import checks
from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.critic import CriticOptimizer
from sb3_smac.common.evaluation import Evaluation, Evaluator, as_log_prob_takes
from sb3_smac.common.natural_actor_critic import CriticTarget, NaturalActorCritic, inherited
from sb3_smac.common.schedules import ScheduleLike
from sb3_smac.fast.plain_policy import PlainPolicy
from sb3_smac.maths import assign, flatten, random_groups, ridge_weights, sherman_morrison_solve, woodbury_weights
from sb3_smac.smac.single_sample import single_sample_steps

FisherRank = int | Literal["full"]
TargetKL = ScheduleLike | Literal["auto"] | None

# The rule of the whole batch's Fisher, per dimension of the action
KL_PER_DIMENSION = 0.01
DAMPING_PER_DIMENSION = 0.1
LOG_STD_INIT = -0.5
AVERAGING = 0.05


class SMAC(NaturalActorCritic):
    """
    SM-ActorCritic (SMAC): the actor's step is the natural gradient under a damped rank-1 empirical Fisher.

    The mean score s̄ of an actor batch gives ``F̂ = λI + s̄s̄ᵀ``, which the Sherman–Morrison formula inverts in O(d) time and
    memory: ``θ ← θ + α F̂⁻¹ g``.

    Paper: https://arxiv.org/abs/2601.18626 (eq. 4-5, §5.1)

    ``fisher_rank="full"`` comes with a rule for every task, in units of the action's dimensions: what ``None`` and ``"auto"``
    stand for below, and a policy that starts with a log-std of -0.5 unless ``policy_kwargs`` has another ``log_std_init``
    (Box actions without gSDE, ``"MlpPolicy"`` and the others of this package, not subclasses).

    :param damping: Damping λ of the Fisher, from 1e-30 to 1e30. ``None``: 0.1 for rank 1; k / N for rank k, whose means of
        N / k scores are weaker by that factor (N transitions per actor step); for ``"full"``, 0.1 per dimension of the action,
        over the variance that a Gaussian policy starts with.
    :param fisher_rank: Rank k of the empirical Fisher ``λI + (1/k) Σ s̄_j s̄_jᵀ``: ``1``, the mean score of the batch (the
        paper); k > 1, the mean scores of k random groups of the batch; ``"full"``, every score. k is at most the size of the
        actor batch (less where the last batch of a rollout is smaller).
    :param target_kl: As in the base class, or ``"auto"``: 0.05; for ``"full"``, 0.01 per dimension of the action
    :param line_search: Whether a step that lowers the surrogate objective on its own batch is halved until it does not, as in
        TRPO; ``None``: only for ``fisher_rank`` above 1
    :param averaging: As in the base class; ``None``: 0; for ``"full"``, 0.05

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
        damping: float | None = None,
        fisher_rank: FisherRank = 1,
        target_kl: TargetKL = "auto",
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
        self.fisher_rank = fisher_rank
        super().__init__(**inherited(locals(), "damping", "fisher_rank"))

    def _check_hyperparameters(self) -> None:
        checks.damping("damping", self.damping, optional=True)
        checks.integer("fisher_rank", self.fisher_rank, minimum=1, besides=("full",))
        super()._check_hyperparameters()  # which asks for the target that goes with the rank

    def _setup_model(self) -> None:
        self._check_hyperparameters()
        policy_kwargs, is_loaded = self.policy_kwargs, hasattr(self, "lr_schedule")
        is_ours = self.policy_class in self.policy_aliases.values()
        if self.fisher_rank == "full" and self._acts_by_gaussian and is_ours and not is_loaded:
            self.policy_kwargs = {"log_std_init": LOG_STD_INIT, **policy_kwargs}
        super()._setup_model()
        self.policy_kwargs = policy_kwargs

    @property
    def _acts_by_gaussian(self) -> bool:
        return isinstance(self.action_space, spaces.Box) and not self.use_sde

    @property
    def _share_averaged(self) -> float:
        return AVERAGING if self.averaging is None and self.fisher_rank == "full" else super()._share_averaged

    @property
    def _target_kl(self) -> ScheduleLike | None:
        if not isinstance(self.target_kl, str) or self.target_kl != "auto":
            return self.target_kl
        if self.fisher_rank != "full":
            return 0.05
        return KL_PER_DIMENSION * get_action_dim(self.action_space)

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

    def _damping_of(self, rank: int, size: int) -> float:
        """λ, or what fits means of N / k scores, which are weaker by that factor than scores."""
        if self.damping is not None:
            return self.damping
        if self.fisher_rank != "full":
            return 0.1 if self.fisher_rank == 1 else rank / size
        # Scores grow as one over the deviation
        variance = math.exp(2 * self._log_std_init) if self._acts_by_gaussian else 1.0
        return DAMPING_PER_DIMENSION * get_action_dim(self.action_space) / variance

    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        """
        ``x = F̂⁻¹ g``: by the Sherman–Morrison formula for rank 1 (the paper's eq. 5; §5.1 for a batch), by Woodbury's above.

        :param batch: policy gradient g and scores
        :return: x, shape (d,)
        """
        size = len(batch.scores)
        rank = size if self.fisher_rank == "full" else min(self.fisher_rank, size)
        damping = self._damping_of(rank, size)
        if self.fisher_rank == 1:
            mean_score = batch.scores.mean()
            self.record_actor("score_norm", mean_score.norm().item())
            return sherman_morrison_solve(batch.gradient, mean_score, damping)
        if batch.weights is not None and rank == size:
            weights, damping = ridge_weights(batch.scores.gram(only_lower=True), batch.weights, damping)
            self.record_actor("fisher_damping", damping)
            return batch.scores.weighted_sum(weights)
        groups = random_groups(size, rank).to(self.device)
        weights, damping = woodbury_weights(batch.scores.gram(), batch.scores.product(batch.gradient), groups, damping)
        self.record_actor("fisher_damping", damping)
        return (batch.gradient - batch.scores.weighted_sum(weights)) / damping

    def _actor_steps(
        self, evaluator: Evaluator, rollout: RolloutBufferSamples, advantages: th.Tensor, acted: Evaluation
    ) -> Evaluation | None:
        plain = self._plain_single_sample(evaluator)
        if plain is None:
            return super()._actor_steps(evaluator, rollout, advantages, acted)
        start, damping = flatten(self.actor_parameters), self._damping_of(1, 1)
        actions = as_log_prob_takes(self.action_space, rollout.actions)
        with np.errstate(all="ignore"):
            steps = single_sample_steps(plain, rollout.observations, actions, advantages, self._step_size, damping)
        if not th.isfinite(flatten(self.actor_parameters)).all():
            assign(self.actor_parameters, start)
            return super()._actor_steps(evaluator, rollout, advantages, acted)  # which says what is wrong
        gradient_norms = np.abs(advantages.numpy()) * np.sqrt(steps.squared_norms)
        self.record_actor("policy_loss", -float(np.mean(advantages.numpy() * steps.log_probs)))
        self.record_actor("entropy_loss", -float(np.mean(steps.entropies)))
        self.record_actor("policy_gradient_norm", float(np.mean(gradient_norms)))
        self.record_actor("natural_gradient_norm", float(np.mean(gradient_norms / (damping + np.array(steps.squared_norms)))))
        self.record_actor("cosine_similarity", 1.0)  # the step and the gradient are multiples of one score
        self.record_actor("score_norm", float(np.mean(np.sqrt(steps.squared_norms))))
        self.record_actor("step_size", self._step_size)
        return None

    def _plain_single_sample(self, evaluator: Evaluator) -> PlainPolicy | None:
        """The policy's plain view, if the actor's steps are the paper's single-sample ones and nothing else."""
        is_papers = self.batch_size == self.fisher_rank == 1 and self._target_kl is None and not self._searches_line
        if not is_papers or type(self).actor_direction is not SMAC.actor_direction:  # a subclass has another step
            return None
        if self.max_grad_norm is not None or self.ent_coef > 0:
            return None
        plain = evaluator.plain
        return plain if plain is not None and plain.is_all(self.actor_parameters) and not plain.has_fixed_std else None
