"""The actor-critic of the paper (§4.3, Algorithm 1), with the actor's step left to a subclass."""

import copy
import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import Distribution
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, PyTorchObs, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_smac.common import buffers, checks
from sb3_smac.common.checks import NonFiniteError
from sb3_smac.common.critic import CriticOptimizer, fit_by_gauss_newton, fit_by_gradients, take
from sb3_smac.common.normalizer import is_vector
from sb3_smac.common.parameters import make_optimizer, restored_on_error, split_parameters
from sb3_smac.common.plain_policy import is_samplewise, plain_forward, scale_calls
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, NormalizingPolicy
from sb3_smac.common.returns import monte_carlo_returns
from sb3_smac.common.schedules import ScheduleLike, to_schedule
from sb3_smac.common.trust_region import is_invalid_distribution, mean_kl, size_step
from sb3_smac.maths import LayerCall, LayerRecorder, ScaleCall, Scores, assign, flat_gradient, flatten

SelfNaturalActorCritic = TypeVar("SelfNaturalActorCritic", bound="NaturalActorCritic")

# First guess of how far a KL-sized step moves the parameters, at most
MAX_DISTANCE = 1e6
# Keeps a quotient of zeros finite
TINY = 1e-30
# The last halving of the line search is no step at all
MAX_HALVINGS = 10

TOO_LARGE = f"The policy's output is not finite after an actor's step: the step was too large. {checks.ADVICE}"

CriticTarget = Literal["gae", "monte_carlo"]


@dataclass(frozen=True)
class ActorBatch:
    """
    What an algorithm sees of one actor batch of N transitions; d is the number of actor parameters.

    :param observations: o_i, shape (N, ...), or a dict of such
    :param actions: a_i, as the distribution's ``log_prob`` takes them, shape (N, ...)
    :param advantages: A_i, shape (N,)
    :param gradient: policy gradient ``g = (1/N) Σ A_i s_i`` (plus the entropy bonus's, if any; clipped, if so), shape (d,)
    :param weights: c with which ``g = Sᵀ c``, shape (N,); ``None`` if an entropy bonus makes g another sum
    :param scores: the score matrix S (N, d) as a linear operator
    :param distribution: action distributions ``π_θ(· | o_i)`` with their graph
    :param parameters: the actor's parameters θ
    """

    observations: PyTorchObs
    actions: th.Tensor
    advantages: th.Tensor
    gradient: th.Tensor
    weights: th.Tensor | None
    scores: Scores
    distribution: Distribution
    parameters: list[nn.Parameter]


class NaturalActorCritic(OnPolicyAlgorithm):
    """
    Advantage actor-critic whose actor step is ``θ ← θ + α x``, with the direction x left to the subclass.

    An iteration collects N transitions and estimates their advantages by GAE; then the actor makes one step per actor batch,
    and the critic is fitted to the returns by its own optimizer. A subclass implements :meth:`actor_direction`.

    Paper: https://arxiv.org/abs/2601.18626

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, MultiInputPolicy, or a class)
    :param env: The environment to learn from (if registered in Gym, can be str)
    :param learning_rate: Step size α of the actor: a number, a schedule (of the progress remaining, from 1 to 0) or the
        RL Zoo's ``"lin_x"``. Not used with ``target_kl``.
    :param n_steps: Number of steps to run for each environment per update (N is n_steps * n_envs)
    :param batch_size: Transitions per actor step. ``None``: the whole rollout (the paper's batch-mean variant), ``1``: the
        paper's single-sample variant. Several steps are made one after the other, in random order, each at the parameters
        that the previous one left. If it does not divide the rollout, the last batch is smaller.
    :param gamma: Discount factor
    :param gae_lambda: Factor for trade-off of bias vs variance for Generalized Advantage Estimator
    :param target_kl: ``None``: the actor's step is α. A number (or a schedule): each actor step is sized so that the KL
        divergence of the policy on its batch (summed over independent action dimensions, averaged over states) is this
        number.
    :param line_search: Whether a step that lowers the surrogate objective on its own batch is halved until it does not, as in
        TRPO
    :param critic_learning_rate: Learning rate of the critic's optimizer (same types as ``learning_rate``)
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

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }

    actor_parameters: list[nn.Parameter]
    critic_parameters: list[nn.Parameter]

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        learning_rate: ScheduleLike,
        n_steps: int,
        batch_size: int | None,
        gamma: float,
        gae_lambda: float,
        target_kl: ScheduleLike | None,
        line_search: bool | None,
        critic_learning_rate: ScheduleLike,
        critic_optimizer: CriticOptimizer,
        critic_damping: float,
        n_critic_updates: int,
        critic_batch_size: int | None,
        critic_target: CriticTarget,
        ent_coef: float,
        max_grad_norm: float | None,
        use_sde: bool,
        sde_sample_freq: int,
        rollout_buffer_class: type[RolloutBuffer] | None,
        rollout_buffer_kwargs: dict[str, Any] | None,
        normalize_advantage: bool,
        normalize_observations: bool | None,
        normalize_returns: bool | None,
        stats_window_size: int,
        tensorboard_log: str | None,
        policy_kwargs: dict[str, Any] | None,
        verbose: int,
        seed: int | None,
        device: th.device | str,
        _init_setup_model: bool,
    ) -> None:
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,  # type: ignore[arg-type]  # strings are parsed in _setup_lr_schedule
            n_steps=n_steps,
            gamma=gamma,
            gae_lambda=gae_lambda,
            ent_coef=ent_coef,
            vf_coef=0.0,  # actor and critic have losses of their own
            max_grad_norm=max_grad_norm,  # type: ignore[arg-type]  # None: no clipping
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            rollout_buffer_class=rollout_buffer_class,
            rollout_buffer_kwargs=rollout_buffer_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
            supported_action_spaces=(spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary),
            _init_setup_model=False,
        )
        self.batch_size = batch_size
        self.target_kl = target_kl
        self.line_search = line_search
        self.critic_learning_rate = critic_learning_rate
        self.critic_optimizer = critic_optimizer
        self.critic_damping = critic_damping
        self.n_critic_updates = n_critic_updates
        self.critic_batch_size = critic_batch_size
        self.critic_target = critic_target
        self.normalize_advantage = normalize_advantage
        self.normalize_observations = normalize_observations
        self.normalize_returns = normalize_returns
        # KL / ‖α x‖² of the last sized step: the next one starts its search from there
        self._kl_curvature: float | None = None
        self._actor_metrics: defaultdict[str, list[float]] = defaultdict(list)
        if _init_setup_model:
            self._setup_model()
            self._check_rollout_size()

    def _check_hyperparameters(self) -> None:
        """
        Check every argument; a subclass adds its own, which its constructor has set before it calls this class's.

        :raises ValueError: naming the argument, its value and what is accepted
        """
        checks.integer("n_steps", self.n_steps, minimum=1)
        checks.integer("batch_size", self.batch_size, minimum=1, besides=(None,))
        checks.number("gamma", self.gamma, minimum=0, maximum=1)
        checks.number("gae_lambda", self.gae_lambda, minimum=0, maximum=1)
        checks.choice("critic_optimizer", self.critic_optimizer, ("adam", "gauss_newton"))
        checks.number("critic_damping", self.critic_damping, minimum=0, exclusive=True)
        checks.integer("n_critic_updates", self.n_critic_updates, minimum=1)
        checks.integer("critic_batch_size", self.critic_batch_size, minimum=1, besides=(None,))
        checks.choice("critic_target", self.critic_target, ("gae", "monte_carlo"))
        checks.number("ent_coef", self.ent_coef, minimum=0)
        checks.number("max_grad_norm", self.max_grad_norm, minimum=0, exclusive=True, optional=True)
        checks.choice("line_search", self.line_search, (None, False, True))
        checks.choice("normalize_advantage", self.normalize_advantage, (False, True))
        for name in ("normalize_observations", "normalize_returns"):
            checks.choice(name, getattr(self, name), (None, False, True))
            if getattr(self, name) and not issubclass(self.policy_class, NormalizingPolicy):
                raise ValueError(
                    f"{name} must be None or False unless the policy is a subclass of sb3_smac's, got {getattr(self, name)!r} "
                    f"with {self.policy_class.__name__}"
                )
        checks.integer("stats_window_size", self._stats_window_size, minimum=1)

    def _check_rollout_size(self) -> None:
        """
        Check what depends on the number of environments. (Not when a model is loaded, perhaps only to predict.)

        :raises ValueError: if the rollout is too small for ``batch_size`` or ``normalize_advantage``
        """
        rollout_size = self.n_steps * self.n_envs
        if self.batch_size is not None and self.batch_size > rollout_size:
            raise ValueError(
                f"batch_size must be None or between 1 and {rollout_size} (n_steps * n_envs), got {self.batch_size}"
            )
        if self.normalize_advantage and rollout_size < 2:
            raise ValueError(
                f"normalize_advantage=True needs n_steps * n_envs of at least 2, got n_steps={self.n_steps} and "
                f"n_envs={self.n_envs}"
            )

    def _setup_model(self) -> None:
        self._check_hyperparameters()
        self._decide_normalization()
        if self.rollout_buffer_class is None and not isinstance(self.observation_space, spaces.Dict):
            self.rollout_buffer_class = buffers.RolloutBuffer
        policy_kwargs = self.policy_kwargs
        self.policy_kwargs = dict(**policy_kwargs, **self._normalization())
        super()._setup_model()
        self.policy_kwargs = policy_kwargs
        self.critic_lr_schedule = to_schedule(self.critic_learning_rate, "critic_learning_rate")
        self.target_kl_schedule = None if self.target_kl is None else to_schedule(self.target_kl, "target_kl", exclusive=True)
        self.actor_parameters, self.critic_parameters = split_parameters(self.policy)
        # The policy's optimizer is the critic's alone: the actor's step is computed, not descended
        self.policy.optimizer = make_optimizer(
            self.policy.optimizer_class, self.critic_parameters, self.critic_lr_schedule(1), self.policy.optimizer_kwargs
        )

    def _decide_normalization(self) -> None:
        """What is left to us is on where nothing else normalises; the attributes hold the decision, and are saved."""
        # A loaded model has a schedule already: if it does not know these arguments, it was trained without them
        possible = issubclass(self.policy_class, NormalizingPolicy) and not hasattr(self, "lr_schedule")
        wrapper = self._vec_normalize_env
        if self.normalize_observations is None:
            normalized = wrapper is not None and wrapper.norm_obs
            self.normalize_observations = possible and is_vector(self.observation_space) and not normalized
        if self.normalize_returns is None:
            self.normalize_returns = possible and not (wrapper is not None and wrapper.norm_reward)

    def _normalization(self) -> dict[str, bool]:
        """The policy's arguments for what is on: other policy classes have none of these."""
        names = ("normalize_observations", "normalize_returns")
        return {name: True for name in names if getattr(self, name)}

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = to_schedule(self.learning_rate, "learning_rate")

    def _maybe_recommend_cpu(self, mlp_class_name: str = MlpPolicy.__name__) -> None:
        super()._maybe_recommend_cpu(mlp_class_name)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._check_rollout_size()
        return super()._setup_learn(*args, **kwargs)

    def _excluded_save_params(self) -> list[str]:
        # rebuilt by _setup_model
        return [
            *super()._excluded_save_params(),
            "actor_parameters",
            "critic_parameters",
            "critic_lr_schedule",
            "target_kl_schedule",
            "_actor_metrics",
        ]

    @property
    def _searches_line(self) -> bool:
        """Whether a step that lowers the surrogate on its own batch is shortened."""
        return bool(self.line_search)

    @property
    def _needs_gram(self) -> bool:
        """Whether :meth:`actor_direction` uses ``batch.scores.gram()``: the layers are then recorded for it."""
        return False

    @abstractmethod
    def actor_direction(self, batch: ActorBatch) -> th.Tensor:
        """
        The direction x of the actor's step ``θ ← θ + α x``: all that distinguishes one algorithm from another.

        :param batch: policy gradient, scores and distributions of the batch
        :return: x, shape (d,)
        """

    def train(self) -> None:
        """
        Update actor and critic with the rollout that was just collected (Algorithm 1 of the paper).

        :raises NonFiniteError: if the rollout or a gradient is not finite; the policy is then as it was before
        """
        self._actor_metrics.clear()
        checks.rollout_is_finite(self.rollout_buffer, self._last_obs, self.num_timesteps)
        if self.critic_target == "monte_carlo":
            self._set_monte_carlo_returns()
        kl_curvature = self._kl_curvature
        try:
            with restored_on_error(self.policy, *self._optimizers()):
                self._update_learning_rates()
                rollout = next(self.rollout_buffer.get(batch_size=None))  # all transitions, shuffled
                self._train_actor(rollout)
                if isinstance(self.policy, NormalizingPolicy):
                    self.policy.update_return_statistics(rollout.returns)
                self._train_critic(rollout)
                if isinstance(self.policy, NormalizingPolicy):  # last: behaviour, scores, KL and values have seen the same
                    self.policy.update_observation_statistics(rollout.observations)
        except BaseException:
            self._kl_curvature = kl_curvature
            raise
        self._n_updates += 1
        self._log_update()

    def _optimizers(self) -> list[th.optim.Optimizer]:
        return [self.policy.optimizer]

    def _update_learning_rates(self) -> None:
        progress = self._current_progress_remaining
        critic_learning_rate = self.critic_lr_schedule(progress)
        update_learning_rate(self.policy.optimizer, critic_learning_rate)
        self.logger.record("train/learning_rate", self.lr_schedule(progress))
        self.logger.record("train/critic_learning_rate", critic_learning_rate)

    def _set_monte_carlo_returns(self) -> None:
        buffer = self.rollout_buffer
        # Whatever λ_GAE, the last step's TD(λ) return is its reward plus the bootstrapped value
        buffer.returns = monte_carlo_returns(buffer.rewards, buffer.episode_starts, buffer.returns[-1], self.gamma)

    def _train_actor(self, rollout: RolloutBufferSamples) -> None:
        """
        Move the actor, and check that the policy is still one.

        :param rollout: N shuffled transitions
        """
        advantages = rollout.advantages
        if self.normalize_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        old_distribution = self._actor_steps(rollout, advantages)
        kl = self._kl_from(old_distribution, rollout.observations)
        # Among few actions a probability may round to 0, and the KL divergence is then infinite though nothing is broken
        if math.isnan(kl) or (math.isinf(kl) and isinstance(self.action_space, spaces.Box)):
            raise NonFiniteError(TOO_LARGE)
        self.record_actor("approx_kl", kl)

    def _actor_steps(self, rollout: RolloutBufferSamples, advantages: th.Tensor) -> Distribution:
        """
        One step per actor batch, each at the parameters that the previous one left.

        :param rollout: N shuffled transitions
        :param advantages: A_i, normalized if they are to be, shape (N,)
        :return: the policy on the rollout before the first step
        """
        rollout_size = len(advantages)
        batch_size = self.batch_size or rollout_size
        measured = self.target_kl_schedule is not None or self._searches_line
        old_distribution: Distribution | None = None
        for start in range(0, rollout_size, batch_size):
            indices = slice(start, start + batch_size)
            batch = self._actor_batch(take(rollout.observations, indices), rollout.actions[indices], advantages[indices])
            if not th.isfinite(batch.gradient).all():
                raise NonFiniteError(self._explain_actor())
            try:
                direction = self.actor_direction(batch)
            except FloatingPointError as error:
                raise NonFiniteError(self._explain_actor()) from error
            if not th.isfinite(direction).all():
                raise NonFiniteError(self._explain_actor())
            self._record_direction(batch, direction)
            if old_distribution is None:  # not before: the first pass in training mode moves batch statistics
                old_distribution = self._distribution(rollout.observations)
            before = self._distribution(batch.observations) if measured and batch_size < rollout_size else old_distribution
            self._step_actor(batch, direction, before)
        assert old_distribution is not None
        return old_distribution

    def _actor_batch(self, observations: PyTorchObs, actions: th.Tensor, advantages: th.Tensor) -> ActorBatch:
        self.policy.set_training_mode(True)  # batch statistics and dropout
        samplewise = is_samplewise(self.policy)
        # The policy writes its next distribution into the same object: keep this one
        with LayerRecorder(self.policy.modules() if samplewise or self._needs_gram else ()) as recorder:
            try:
                distribution = copy.copy(self.policy.get_distribution(observations))
            except ValueError as error:
                if is_invalid_distribution(error):
                    raise NonFiniteError(TOO_LARGE) from error
                raise
        actions = self._as_log_prob_takes(actions)
        log_prob = distribution.log_prob(actions)  # (N,)
        advantages = advantages.to(log_prob.dtype)
        calls: list[LayerCall | ScaleCall] = [*recorder.calls, *scale_calls(self.policy, distribution)]
        scores = Scores(log_prob, self.actor_parameters, calls, samplewise)
        gradient, weights = self._policy_gradient(scores, distribution, advantages)
        return ActorBatch(observations, actions, advantages, gradient, weights, scores, distribution, self.actor_parameters)

    def _policy_gradient(
        self, scores: Scores, distribution: Distribution, advantages: th.Tensor
    ) -> tuple[th.Tensor, th.Tensor | None]:
        """``g = (1/N) Σ A_i s_i`` with the entropy bonus's gradient, clipped; and c, if ``g = Sᵀ c`` is all of it."""
        entropy = distribution.entropy()
        entropy_loss = scores.log_prob.mean() if entropy is None else -entropy.mean()
        self.record_actor("policy_loss", -(advantages * scores.log_prob.detach()).mean().item())
        self.record_actor("entropy_loss", entropy_loss.item())
        weights = advantages / len(scores)
        gradient = scores.weighted_sum(weights)
        if self.ent_coef > 0:
            gradient -= flat_gradient(self.ent_coef * entropy_loss, self.actor_parameters, retain_graph=True)
        if self.max_grad_norm is not None:
            factor = (self.max_grad_norm / (gradient.norm() + 1e-6)).clamp(max=1.0)
            gradient *= factor
            weights = weights * factor
        return gradient, weights if self.ent_coef == 0 else None

    def _as_log_prob_takes(self, actions: th.Tensor) -> th.Tensor:
        return actions.long().flatten() if isinstance(self.action_space, spaces.Discrete) else actions

    @th.no_grad()
    def _distribution(self, observations: PyTorchObs) -> Distribution:
        """What the policy would do: in evaluation mode, as it collects rollouts."""
        self.policy.set_training_mode(False)
        return copy.copy(self.policy.get_distribution(observations))

    def _moved_distribution(self, observations: PyTorchObs) -> Distribution | None:
        """What the policy would do after a step; ``None`` if the step has broken it."""
        try:
            return self._distribution(observations)
        except ValueError as error:
            if is_invalid_distribution(error):
                return None
            raise

    def _kl_from(self, old_distribution: Distribution, observations: PyTorchObs) -> float:
        """KL divergence of the policy as it is now from ``old_distribution``; NaN if the policy is broken."""
        distribution = self._moved_distribution(observations)
        if distribution is None:
            return math.nan
        kl = mean_kl(old_distribution, distribution).item()
        return math.inf if math.isnan(kl) else kl  # ∞ − ∞ within the formula

    def _step_actor(self, batch: ActorBatch, direction: th.Tensor, old_distribution: Distribution) -> None:
        """
        ``θ ← θ + α x``: α fixed, or sized by its KL divergence, and halved while it does harm if ``line_search`` is on.

        :param batch: actor batch
        :param direction: x, shape (d,)
        :param old_distribution: the policy on the batch before the step
        """
        start = flatten(batch.parameters)

        def move(step_size: float) -> None:
            assign(batch.parameters, start, direction, step_size)

        if self.target_kl_schedule is None:
            step_size = self.lr_schedule(self._current_progress_remaining)
        else:
            step_size = self._sized_step(batch, direction, old_distribution, move)
        move(step_size)
        if self._searches_line:
            step_size = self._accepted_step(batch, old_distribution, move, step_size)
        self.record_actor("step_size", step_size)

    def _sized_step(
        self, batch: ActorBatch, direction: th.Tensor, old_distribution: Distribution, move: Callable[[float], None]
    ) -> float:
        """The α at which the policy's KL divergence on the batch is ``target_kl``."""
        assert self.target_kl_schedule is not None
        target_kl = self.target_kl_schedule(self._current_progress_remaining)
        # float64: with next to no damping the direction is longer than the root of float32's largest number
        squared_norm = th.linalg.vector_norm(direction, dtype=th.float64).item() ** 2
        if squared_norm == 0 or target_kl <= 0:  # nowhere to go
            return 0.0

        def kl_at(step_size: float) -> float:
            move(step_size)
            return self._kl_from(old_distribution, batch.observations)

        curvature = self._kl_curvature or self._predicted_curvature(batch, direction)
        # however flat the policy is just here, no parameter vector has any business further away than this
        distance = min(math.sqrt(target_kl / curvature), MAX_DISTANCE)
        step_size, kl, _ = size_step(kl_at, target_kl, first_guess=distance / math.sqrt(squared_norm))
        # a search that missed its target (a saturated policy) tells the next one nothing
        found = 0.5 * target_kl <= kl <= 2 * target_kl
        self._kl_curvature = kl / (step_size**2 * squared_norm) if found else None
        return step_size

    def _accepted_step(
        self, batch: ActorBatch, old_distribution: Distribution, move: Callable[[float], None], step_size: float
    ) -> float:
        """
        Halve α until the surrogate ``mean A_i π_θ(a_i | o_i) / π_old(a_i | o_i)`` on the batch, plus the entropy bonus, is at
        least what it was before the step, as TRPO does; stay where the policy was if that takes too many.
        """
        old_log_prob = old_distribution.log_prob(batch.actions)
        before = batch.advantages.mean() + self._entropy_bonus(old_distribution, old_log_prob)

        def does_harm() -> bool:
            distribution = self._moved_distribution(batch.observations)
            if distribution is None:
                return True
            log_prob = distribution.log_prob(batch.actions)
            surrogate = ((log_prob - old_log_prob).exp() * batch.advantages).mean()
            # far enough away every ratio is 0, which may look harmless
            return (
                not surrogate + self._entropy_bonus(distribution, log_prob) >= before
                or not mean_kl(old_distribution, distribution) < math.inf
            )

        halvings = 0
        while halvings < MAX_HALVINGS and does_harm():
            halvings += 1
            step_size = step_size / 2 if halvings < MAX_HALVINGS else 0.0
            move(step_size)
        self.record_actor("line_search_halvings", halvings)
        return step_size

    def _entropy_bonus(self, distribution: Distribution, log_prob: th.Tensor) -> th.Tensor:
        """``ent_coef`` times the mean entropy, by the actions' log-probabilities where it has no formula."""
        entropy = distribution.entropy()
        return self.ent_coef * (-log_prob if entropy is None else entropy).mean()

    def _predicted_curvature(self, batch: ActorBatch, direction: th.Tensor) -> float:
        """KL / ‖α x‖² of a small step, by the whole empirical Fisher: ``½ xᵀFx / ‖x‖²``, where ``xᵀFx = mean (s_iᵀx)²``."""
        squares = batch.scores.product(direction).double().square()
        curvature = 0.5 * (squares.mean() / direction.dot(direction).double()).item()
        return curvature if 0 < curvature < math.inf else 1.0

    def _train_critic(self, rollout: RolloutBufferSamples) -> None:
        """
        Fit the critic to the returns; parameters that it shares with the actor stay as they are.

        :param rollout: N transitions
        """
        self.policy.set_training_mode(True)
        parameters = [parameter for parameter in self.critic_parameters if parameter.requires_grad]
        if not parameters:  # the user froze them all
            return
        data = (self.policy, rollout.observations, rollout.returns, parameters, self.n_critic_updates)
        if self.critic_optimizer == "adam":
            value_loss = fit_by_gradients(*data, self.critic_batch_size, self.max_grad_norm).item()
        else:
            value_loss = fit_by_gauss_newton(*data, self.critic_damping).item()
        if not math.isfinite(value_loss) or not all(th.isfinite(parameter).all() for parameter in parameters):
            raise NonFiniteError(self._explain_critic())
        self.logger.record("train/value_loss", value_loss)

    def record_actor(self, name: str, value: float) -> None:
        """
        Note a quantity of one actor batch; ``train/<name>`` logs its mean over the batches of the update.

        :param name: key, without ``train/``
        :param value: value
        """
        self._actor_metrics[name].append(value)

    def _record_direction(self, batch: ActorBatch, direction: th.Tensor) -> None:
        norms = batch.gradient.norm().item(), direction.norm().item()
        self.record_actor("policy_gradient_norm", norms[0])
        self.record_actor("natural_gradient_norm", norms[1])
        self.record_actor("cosine_similarity", batch.gradient.dot(direction).item() / max(norms[0] * norms[1], TINY))
        if "score_norm" not in self._actor_metrics:  # of the first batch only: it may cost a backward pass
            self.record_actor("score_norm", batch.scores.mean().norm().item())

    def _log_update(self) -> None:
        for name, values in self._actor_metrics.items():
            self.logger.record(f"train/{name}", float(np.mean(values)))
        buffer = self.rollout_buffer
        self.logger.record("train/log_prob", float(buffer.log_probs.mean()))
        self.logger.record("train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten()))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def _explain_actor(self) -> str:
        """Which transition's score is not finite, and where it came from. Slow: only on the way to an error."""
        self.policy.set_training_mode(False)
        for index in range(self.rollout_buffer.buffer_size * self.rollout_buffer.n_envs):
            data = self.rollout_buffer._get_samples(np.array([index]))
            log_prob = self.policy.get_distribution(data.observations).log_prob(self._as_log_prob_takes(data.actions))
            if not th.isfinite(log_prob).all():
                return f"The log-probability of the action is not finite {self._place(index)}. {checks.ADVICE}"
            if not th.isfinite(flat_gradient(log_prob, self.actor_parameters)).all():
                return f"The gradient of the log-probability is not finite {self._place(index)}. {checks.ADVICE}"
        index = int(np.argmax(np.abs(self.rollout_buffer.advantages)))
        return (
            "The gradient of the actor is not finite, though that of every log-probability is; the largest advantage, "
            f"{self.rollout_buffer.advantages.flat[index]:g}, is {self._place(index)}. {checks.ADVICE}"
        )

    def _explain_critic(self) -> str:
        """Where the return is hardest to fit: there the critic's loss overflowed. Only on the way to an error."""
        index = int(np.argmax(np.abs(self.rollout_buffer.returns)))
        return (
            "The gradient of the critic is not finite; the largest return, "
            f"{self.rollout_buffer.returns.flat[index]:g}, is {self._place(index)}. {checks.ADVICE}"
        )

    def _place(self, index: int) -> str:
        """Where a transition stands, by its index in the flattened rollout buffer (environment by environment)."""
        buffer = self.rollout_buffer
        env, step = divmod(index, buffer.buffer_size)
        return checks.place(buffer, step, env, self.num_timesteps)

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        try:
            with plain_forward(self.policy):
                return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        except ValueError:
            # torch refuses a NaN mean without a word on the observation that it comes from
            checks.observations_are_finite(self._last_obs, self.num_timesteps)
            raise

    def learn(
        self: SelfNaturalActorCritic,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfNaturalActorCritic:
        return super().learn(
            total_timesteps=total_timesteps,
            callback=callback,
            log_interval=log_interval,
            tb_log_name=type(self).__name__ if tb_log_name is None else tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
