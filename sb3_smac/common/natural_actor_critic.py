"""The actor-critic of the paper (§4.3, Algorithm 1), with the actor's step left to a subclass."""

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, RolloutBufferSamples
from stable_baselines3.common.utils import explained_variance, update_learning_rate
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_smac.common import buffers, checks
from sb3_smac.common.actor_batch import ActorBatch, make_actor_batch, normalized
from sb3_smac.common.buffers import take
from sb3_smac.common.checks import NonFiniteError
from sb3_smac.common.critic import CriticOptimizer, fit_by_gauss_newton, fit_by_gradients
from sb3_smac.common.diagnosis import TOO_LARGE, explain_actor, explain_critic
from sb3_smac.common.evaluation import Evaluation, Evaluator, agreeing_evaluator
from sb3_smac.common.normalizer import is_vector, last_linear, unit_scale
from sb3_smac.common.parameters import (
    checksum,
    copy_of_state,
    make_optimizer,
    restored_on_error,
    set_parameters_of,
    split_parameters,
)
from sb3_smac.common.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, NormalizingPolicy, unwrapped
from sb3_smac.common.returns import monte_carlo_returns
from sb3_smac.common.schedules import ScheduleLike, to_schedule, value_at
from sb3_smac.common.steps import ActorStep
from sb3_smac.common.trust_region import is_invalid_distribution
from sb3_smac.fast.plain_policy import is_samplewise, plain_forward

SelfNaturalActorCritic = TypeVar("SelfNaturalActorCritic", bound="NaturalActorCritic")

# Keeps a quotient of zeros finite
TINY = 1e-30
# Statistics that no layer can make up for change where they move the policy by less than this part of the update's KL
LEAST_SHARE = 0.1

CriticTarget = Literal["gae", "monte_carlo"]


def inherited(arguments: Mapping[str, Any], *own: str) -> dict[str, Any]:
    """
    :param arguments: ``locals()`` of a subclass's constructor
    :param own: names of the arguments that are the subclass's own
    :return: the arguments that go on to the base class
    """
    return {name: value for name, value in arguments.items() if name not in ("self", "__class__", *own)}


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
        learning_rate: ScheduleLike = 0.1,
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
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
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
        self._step = ActorStep()
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
        checks.choice("use_sde", self.use_sde, (False, True))
        checks.integer("sde_sample_freq", self.sde_sample_freq, minimum=-1)
        to_schedule(self.learning_rate, "learning_rate")
        to_schedule(self.critic_learning_rate, "critic_learning_rate")
        if self.target_kl is not None:
            to_schedule(self.target_kl, "target_kl", exclusive=True)
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
        self.policy_kwargs = dict(**policy_kwargs, **{name: True for name, is_on in self._normalizes.items() if is_on})
        super()._setup_model()
        self.policy_kwargs = policy_kwargs
        self.actor_parameters, self.critic_parameters = split_parameters(self.policy)
        # The policy's optimizer is the critic's alone: the actor's step is computed, not descended
        self.policy.optimizer = make_optimizer(
            self.policy.optimizer_class,
            self.critic_parameters,
            value_at("critic_learning_rate", self.critic_learning_rate, 1.0),
            self.policy.optimizer_kwargs,
        )
        # A loaded model knows the one that it was built with
        self._initial_checksum = getattr(self, "_initial_checksum", checksum(self.policy.parameters()))

    def _decide_normalization(self) -> None:
        """What is left to us is on where nothing else normalises; what a model was built with is saved with it."""
        if hasattr(self, "_normalizes"):
            decided = self._normalizes
        else:
            # A loaded model has a schedule already: if it does not know these arguments, it was trained without them
            possible = issubclass(self.policy_class, NormalizingPolicy) and not hasattr(self, "lr_schedule")
            wrapper = self._vec_normalize_env
            normalized = wrapper is not None and wrapper.norm_obs
            decided = {
                "normalize_observations": possible and is_vector(self.observation_space) and not normalized,
                "normalize_returns": possible and not (wrapper is not None and wrapper.norm_reward),
            }
        chosen = {name: getattr(self, name) for name in decided}
        self._normalizes = {name: decided[name] if value is None else value for name, value in chosen.items()}

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = to_schedule(self.learning_rate, "learning_rate")
        self._scheduled_learning_rate = self.learning_rate

    def _maybe_recommend_cpu(self, mlp_class_name: str = MlpPolicy.__name__) -> None:
        super()._maybe_recommend_cpu(mlp_class_name)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._check_rollout_size()
        return super()._setup_learn(*args, **kwargs)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # The last rollout may run past the end, where a schedule to 0 would go below it
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _excluded_save_params(self) -> list[str]:
        # rebuilt by _setup_model
        return [*super()._excluded_save_params(), "actor_parameters", "critic_parameters", "_actor_metrics"]

    @property
    def _searches_line(self) -> bool:
        """Whether a step that lowers the surrogate on its own batch is shortened."""
        return bool(self.line_search)

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
        :raises ValueError: if an argument that has been changed is out of its range, or if what acts cannot be trained
        """
        self._actor_metrics.clear()
        self._check_hyperparameters()
        self._check_rollout_size()
        checks.rollout_is_finite(self.rollout_buffer, self._last_obs, self.num_timesteps)
        if self.critic_target == "monte_carlo":
            self._set_monte_carlo_returns()
        rollout = next(self.rollout_buffer.get(batch_size=None))  # all transitions, shuffled
        evaluator, acted = self._evaluator(rollout)
        self._own_parameters(evaluator, rollout)
        self._update_learning_rates()
        curvature = self._step.curvature
        try:
            with restored_on_error(self.policy, *self._optimizers()):
                is_untrained = self._n_updates == 0 and checksum(self.policy.parameters()) == self._initial_checksum
                moved = self._train_actor(evaluator, rollout, acted)
                self._train_critic(evaluator, rollout, is_untrained)
                kl = self._update_observation_statistics(evaluator, rollout, acted, moved, is_untrained)
        except BaseException:
            self._step.curvature = curvature
            raise
        self.record_actor("approx_kl", kl)
        self._n_updates += 1
        self._log_update()

    def _evaluator(self, rollout: RolloutBufferSamples) -> tuple[Evaluator, Evaluation]:
        """How the policy is evaluated so that what acts is what is trained, and the policy on the rollout."""
        try:
            return agreeing_evaluator(self.policy, rollout)
        except ValueError as error:
            if is_invalid_distribution(error):
                raise NonFiniteError(TOO_LARGE) from error
            raise

    def _own_parameters(self, evaluator: Evaluator, rollout: RolloutBufferSamples) -> None:
        """Find the parameters of actor and critic as the policy is now: users put other modules into it."""
        few = slice(2)
        self.actor_parameters, self.critic_parameters = split_parameters(
            self.policy, evaluator, take(rollout.observations, few), rollout.actions[few]
        )
        set_parameters_of(self.policy.optimizer, self.critic_parameters, self.policy)

    def _optimizers(self) -> list[th.optim.Optimizer]:
        return [self.policy.optimizer]

    def _update_learning_rates(self) -> None:
        progress = self._current_progress_remaining
        if self.learning_rate is not self._scheduled_learning_rate:  # changed since: lr_schedule is Stable-Baselines3's
            self._setup_lr_schedule()
        critic_learning_rate = value_at("critic_learning_rate", self.critic_learning_rate, progress)
        update_learning_rate(self.policy.optimizer, critic_learning_rate)
        self.logger.record("train/learning_rate", self._step_size)
        self.logger.record("train/critic_learning_rate", critic_learning_rate)

    @property
    def _step_size(self) -> float:
        """α as the schedule has it now."""
        return value_at("learning_rate", self.lr_schedule, self._current_progress_remaining)

    @property
    def _target_kl(self) -> float | None:
        """``target_kl`` as the schedule has it now."""
        if self.target_kl is None:
            return None
        return value_at("target_kl", self.target_kl, self._current_progress_remaining)

    def _set_monte_carlo_returns(self) -> None:
        buffer = self.rollout_buffer
        # Whatever λ_GAE, the last step's TD(λ) return is its reward plus the bootstrapped value
        buffer.returns = monte_carlo_returns(buffer.rewards, buffer.episode_starts, buffer.returns[-1], self.gamma)

    def _train_actor(self, evaluator: Evaluator, rollout: RolloutBufferSamples, acted: Evaluation) -> Evaluation | None:
        """
        Move the actor, and check that the policy is still one.

        :param evaluator: of the policy
        :param rollout: N shuffled transitions
        :param acted: the policy on the rollout, as it acted
        :return: the policy on the rollout after its steps; ``None`` if an action's distribution has left the others' range
        """
        if not any(parameter.requires_grad for parameter in self.actor_parameters):  # the user froze them all
            return acted
        advantages = normalized(rollout.advantages) if self.normalize_advantage else rollout.advantages
        moved = self._actor_steps(evaluator, rollout, advantages, acted)
        if moved is None:
            moved = evaluator.after_step(rollout.observations, rollout.actions)
        self._check_kl(acted.kl(moved))
        return moved

    def _check_kl(self, kl: float) -> float:
        # Among few actions a probability may round to 0, and the KL divergence is then infinite though nothing is broken
        if math.isnan(kl) or (math.isinf(kl) and isinstance(self.action_space, spaces.Box)):
            raise NonFiniteError(TOO_LARGE)
        return kl

    def _actor_steps(
        self, evaluator: Evaluator, rollout: RolloutBufferSamples, advantages: th.Tensor, acted: Evaluation
    ) -> Evaluation | None:
        """
        One step per actor batch, each at the parameters that the previous one left.

        :param evaluator: of the policy
        :param rollout: N shuffled transitions
        :param advantages: A_i, normalized if they are to be, shape (N,)
        :param acted: the policy on the rollout before the first step
        :return: the policy on the rollout after the last step; ``None`` if nobody has looked
        """
        rollout_size = len(advantages)
        batch_size = min(self.batch_size or rollout_size, rollout_size)
        is_whole, target_kl = batch_size == rollout_size, self._target_kl
        is_measured = target_kl is not None or self._searches_line
        for start in range(0, rollout_size, batch_size):
            indices = slice(start, start + batch_size)
            observations, actions = take(rollout.observations, indices), rollout.actions[indices]
            batch = make_actor_batch(
                *(evaluator, self.actor_parameters, observations, actions, advantages[indices]),
                *(self.ent_coef, self.max_grad_norm),
            )
            direction = self._finite_direction(evaluator, batch)
            before: Evaluation | None = None
            if is_measured:  # a pass in training mode has moved batch statistics
                reused = is_whole and is_samplewise(evaluator.policy)
                before = acted if reused else evaluator.as_it_acts(observations, actions)
            taken = self._step.take(
                *(evaluator, batch, direction, before, self._step_size, target_kl, self._searches_line, self.ent_coef)
            )
            self.record_actor("step_size", taken.step_size)
            if taken.halvings is not None:
                self.record_actor("line_search_halvings", taken.halvings)
        return taken.evaluation if is_whole else None

    def _finite_direction(self, evaluator: Evaluator, batch: ActorBatch) -> th.Tensor:
        """
        :raises NonFiniteError: saying where it comes from, if the gradient or the direction is not finite
        """
        try:
            direction = self.actor_direction(batch) if th.isfinite(batch.gradient).all() else None
        except FloatingPointError:
            direction = None
        if direction is None or not th.isfinite(direction).all():
            raise NonFiniteError(explain_actor(evaluator, self.actor_parameters, self.rollout_buffer, self.num_timesteps))
        self._record_direction(batch, direction)
        return direction

    def _train_critic(self, evaluator: Evaluator, rollout: RolloutBufferSamples, is_untrained: bool) -> None:
        """
        Fit the critic to the returns; parameters that it shares with the actor stay as they are.

        :param evaluator: of the policy
        :param rollout: N transitions
        :param is_untrained: whether the policy was as it was built before the update
        """
        parameters = [parameter for parameter in self.critic_parameters if parameter.requires_grad]
        if not parameters:  # the user froze them all
            return
        policy, few = unwrapped(self.policy), slice(8)
        moments = policy.return_normalizer if self._normalizes["normalize_returns"] else None
        observations, actions = take(rollout.observations, few), rollout.actions[few]
        head = last_linear(policy.value_net) if hasattr(policy, "value_net") else None

        def values() -> th.Tensor:
            self.policy.set_training_mode(False)
            return evaluator.values(observations, actions)

        with unit_scale(head, moments, rollout.returns, values, is_untrained) as (targets, scale):
            self.policy.set_training_mode(True)
            data = (evaluator, rollout, targets, parameters, self.n_critic_updates)
            if self.critic_optimizer == "adam":
                loss = fit_by_gradients(*data, self.critic_batch_size, self.max_grad_norm).item()
            else:
                loss = fit_by_gauss_newton(*data, self.critic_damping).item()
        if not math.isfinite(loss) or not all(th.isfinite(parameter).all() for parameter in parameters):
            raise NonFiniteError(explain_critic(self.rollout_buffer, self.num_timesteps))
        self.logger.record("train/value_loss", loss * scale**2)

    def _update_observation_statistics(
        self,
        evaluator: Evaluator,
        rollout: RolloutBufferSamples,
        acted: Evaluation,
        moved: Evaluation | None,
        is_untrained: bool,
    ) -> float:
        """
        Add the rollout to the statistics of observations. Last: behaviour, scores, KL and values have seen the same. The layers
        behind them make up for the change, so that the policy stays what the step has made of it, but the first time.

        :param evaluator: of the policy
        :param rollout: N transitions
        :param acted: the policy on the rollout before the update
        :param moved: the policy on the rollout after its steps
        :param is_untrained: whether the policy was as it was built before the update
        :return: KL divergence of the policy after the update from the one before
        """
        policy = unwrapped(self.policy)
        kl, is_same = acted.kl(moved), is_samplewise(policy)  # batch statistics have moved with the critic
        if self._normalizes["normalize_observations"]:
            kl_without, state = kl, copy_of_state(policy)
            layers = None if is_untrained else policy.input_layers(take(rollout.observations, slice(8)))
            is_same = policy.observation_normalizer.update_preserving(rollout.observations, layers or []) and is_same
            if layers is None and not is_untrained:
                change = moved.kl(evaluator.after_step(rollout.observations, rollout.actions))
                if not change <= LEAST_SHARE * kl_without:
                    policy.load_state_dict(state)
                    is_same = is_samplewise(policy)
        if not is_same:
            kl = acted.kl(evaluator.after_step(rollout.observations, rollout.actions))
        return self._check_kl(kl)

    def record_actor(self, name: str, value: float) -> None:
        """
        Note a quantity of one actor batch; ``train/<name>`` logs its mean over the batches of the update.

        :param name: key, without ``train/``
        :param value: value
        """
        self._actor_metrics[name].append(value)

    def _record_direction(self, batch: ActorBatch, direction: th.Tensor) -> None:
        norms = [th.linalg.vector_norm(vector, dtype=th.float64).item() for vector in (batch.gradient, direction)]
        self.record_actor("policy_loss", -(batch.advantages * batch.evaluation.log_prob.detach()).mean().item())
        self.record_actor("entropy_loss", -batch.evaluation.mean_entropy.item())
        self.record_actor("policy_gradient_norm", norms[0])
        self.record_actor("natural_gradient_norm", norms[1])
        unit = [vector / max(norm, TINY) for vector, norm in zip((batch.gradient, direction), norms, strict=True)]
        self.record_actor("cosine_similarity", unit[0].dot(unit[1]).item())
        if "score_norm" not in self._actor_metrics:  # of the first batch only: it may cost a backward pass
            self.record_actor("score_norm", batch.scores.mean().norm().item())

    def _log_update(self) -> None:
        for name, values in self._actor_metrics.items():
            self.logger.record(f"train/{name}", float(np.mean(values)))
        buffer = self.rollout_buffer
        values, returns = buffer.values.flatten().astype(np.float64), buffer.returns.flatten().astype(np.float64)
        self.logger.record("train/log_prob", float(buffer.log_probs.mean()))
        self.logger.record("train/explained_variance", explained_variance(values, returns))
        if hasattr(self.policy, "log_std"):
            self.logger.record("train/std", th.exp(self.policy.log_std).mean().item())
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        if rollout_buffer is self.rollout_buffer:
            rollout_buffer = self._current_rollout_buffer()
        try:
            with plain_forward(self.policy):
                return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        except ValueError:
            # torch refuses a NaN mean without a word on the observation that it comes from
            checks.observations_are_finite(self._last_obs, self.num_timesteps)
            raise

    def _current_rollout_buffer(self) -> RolloutBuffer:
        """The rollout buffer, made anew if ``n_steps`` has been changed, with γ and λ_GAE as they are now."""
        buffer = self.rollout_buffer
        if buffer.buffer_size != self.n_steps:
            self._check_hyperparameters()
            self._check_rollout_size()
            assert self.rollout_buffer_class is not None
            self.rollout_buffer = self.rollout_buffer_class(
                self.n_steps,
                self.observation_space,  # type: ignore[arg-type]  # a Dict only for the class for it
                self.action_space,
                device=self.device,
                gamma=self.gamma,
                gae_lambda=self.gae_lambda,
                n_envs=self.n_envs,
                **self.rollout_buffer_kwargs,
            )
        self.rollout_buffer.gamma, self.rollout_buffer.gae_lambda = self.gamma, self.gae_lambda
        return self.rollout_buffer

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
