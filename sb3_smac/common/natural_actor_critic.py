"""The actor-critic of the paper (§4.3, Algorithm 1), with the actor's step left to a subclass."""

import inspect
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy, BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, RolloutBufferSamples
from stable_baselines3.common.vec_env import VecEnv
from torch import nn

from sb3_smac.common import arguments, buffers, checks, parameters, policies
from sb3_smac.common.actor_batch import ActorBatch
from sb3_smac.common.actor_update import move_actor, step_over_batches
from sb3_smac.common.averaging import ActorAverage
from sb3_smac.common.critic import CriticOptimizer, fit_critic
from sb3_smac.common.evaluation import Evaluation, Evaluator, agreeing_evaluator
from sb3_smac.common.exploration import schedule_log_std
from sb3_smac.common.metrics import Metrics, record_rollout
from sb3_smac.common.observation_statistics import update_observation_statistics
from sb3_smac.common.returns import monte_carlo_returns
from sb3_smac.common.schedules import ScheduleLike, value_at
from sb3_smac.common.settings import OWN, Settings
from sb3_smac.common.steps import ActorStep
from sb3_smac.fast.plain_policy import plain_forward
from sb3_smac.fast.threads import threads_of_torch

CriticTarget = Literal["gae", "monte_carlo"]


def inherited(arguments: Mapping[str, Any], *own: str) -> dict[str, Any]:
    """
    :param arguments: ``locals()`` of a subclass's constructor
    :param own: names of the arguments that are the subclass's own
    :return: the arguments that go on to the base class
    """
    return {name: value for name, value in arguments.items() if name not in ("self", "__class__", *own)}


class NaturalActorCritic(Settings):
    """
    Advantage actor-critic whose actor step is ``θ ← θ + α x``, with the direction x left to the subclass.

    An iteration collects N transitions and estimates their advantages by GAE; then the actor makes one step per actor batch,
    and the critic is fitted to the returns by its own optimizer. A subclass implements :meth:`actor_direction`.

    Arguments may be changed in training (``model.target_kl = 0.01``): they are read when they are used, but for those that the
    model is built from (policy, policy_kwargs, use_sde, rollout_buffer_*, normalize_observations, normalize_returns, device);
    ``n_steps``, ``gamma`` and ``gae_lambda`` from the next rollout on.

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
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE) instead of action noise exploration
    :param sde_sample_freq: Steps between two noise matrices of gSDE; -1: one for each rollout
    :param rollout_buffer_class: Rollout buffer class to use. If ``None``, it will be automatically selected.
    :param rollout_buffer_kwargs: Keyword arguments to pass to the rollout buffer on creation.
    :param normalize_advantage: Whether to give the advantages of a rollout mean 0 and standard deviation 1
    :param normalize_observations: Whether the policy normalises observations by a running mean and deviation, which are saved
        with it and change only after an update, without moving the policy. ``None``: if they are vectors (one-dimensional
        Box), the policy is one of this package's, and ``VecNormalize`` does not do it already, when the model is built.
    :param normalize_returns: Whether the critic is fitted to returns of running mean 0 and deviation 1 (PopArt); values keep
        the reward's units. ``None``: if the policy is one of this package's, and ``VecNormalize`` does not scale rewards.
    :param averaging: What :meth:`predict` acts by: 0 or ``None``, the actor; up to 1, its average over about this part of the
        updates, the newest ones (:class:`~sb3_smac.common.averaging.ActorAverage`). Training goes on from the actor itself.
    :param final_log_std: ``None``: the log-std of Gaussian actions is learned. A number: it is not, but goes linearly, over a
        :meth:`learn`, from the policy's ``log_std_init`` to this (Box actions without gSDE).
    :param stats_window_size: Number of episodes over which success rate, episode length and reward are averaged in the logs
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation. ``optimizer_class`` and
        ``optimizer_kwargs`` are the critic's.
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) of the policy; ``"auto"``: a GPU if there is one
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: if an argument is out of its range; the message names it, its value and what is accepted
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": policies.MlpPolicy,
        "CnnPolicy": policies.CnnPolicy,
        "MultiInputPolicy": policies.MultiInputPolicy,
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
        of_base = inherited(locals(), *OWN, "_init_setup_model")
        actions = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
        arguments.check_types(of_base, self.policy_aliases)
        super().__init__(**of_base, vf_coef=0.0, supported_action_spaces=actions, _init_setup_model=False)
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
        self.averaging = averaging
        self.final_log_std = final_log_std
        self._average = ActorAverage()
        self._step = ActorStep()
        self._metrics = Metrics()
        if _init_setup_model:
            self._setup_model()
            self._check_rollout_size()

    def _check_hyperparameters(self) -> None:
        """Check every argument; a subclass adds its own, which its constructor has set before it calls this class's."""
        arguments.check(self)

    def _check_rollout_size(self) -> None:
        """Check what depends on the number of environments. (Not when a model is loaded, perhaps only to predict.)"""
        arguments.check_rollout_size(self)

    def _setup_model(self) -> None:
        self._check_hyperparameters()
        # A loaded model knows what it was built with; one from before these arguments was trained without
        self._normalizes: dict[str, bool] = arguments.normalization(self)
        if self.rollout_buffer_class is None and not isinstance(self.observation_space, spaces.Dict):
            self.rollout_buffer_class = buffers.RolloutBuffer
        policy_kwargs = self.policy_kwargs
        self.policy_kwargs = {**policy_kwargs, **{name: True for name, is_on in self._normalizes.items() if is_on}}
        with arguments.named_in_errors(self):
            super()._setup_model()
        self.policy_kwargs = policy_kwargs
        # That of the settings that the model began with
        self._log_std_init: float = getattr(self, "_log_std_init", self.policy.log_std_init)
        self._log_std_is_scheduled: bool = schedule_log_std(self)
        self.actor_parameters, self.critic_parameters = parameters.initial_split(self.policy, getattr(self, "_names", None))
        # The policy's optimizer is the critic's alone: the actor's step is computed, not descended
        critic_learning_rate = value_at("critic_learning_rate", self.critic_learning_rate, 1.0)
        optimizer = self.policy.optimizer_class, self.critic_parameters, critic_learning_rate, self.policy.optimizer_kwargs
        self.policy.optimizer = parameters.make_optimizer(*optimizer)
        self._checksum_when_built: float = getattr(self, "_checksum_when_built", parameters.checksum(self.policy.parameters()))

    def _maybe_recommend_cpu(self, mlp_class_name: str = policies.MlpPolicy.__name__) -> None:
        super()._maybe_recommend_cpu(mlp_class_name)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        self._check_rollout_size()
        name = type(self).__name__
        args = tuple(name if value == OnPolicyAlgorithm.__name__ else value for value in args)  # the default tb_log_name
        return super()._setup_learn(*args, **kwargs)

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # The last rollout may run past the end, where a schedule to 0 would go below it
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, tensors = super()._get_torch_save_params()
        return state_dicts, [*tensors, *(ActorAverage.TENSORS if self._share_averaged else ())]

    def _excluded_save_params(self) -> list[str]:
        # rebuilt by _setup_model, or by the next update
        return [*super()._excluded_save_params(), "actor_parameters", "critic_parameters", "_metrics", "_average"]

    @classmethod
    def load(cls, *args: Any, **kwargs: Any) -> Any:
        """
        Load a model; see :meth:`stable_baselines3.common.base_class.BaseAlgorithm.load`.

        :param args: the file, and others of that method's
        :param kwargs: others of that method's, and arguments of the constructor that take the place of the saved ones
        :return: the model
        :raises ValueError: if an argument is unknown or out of its range
        """
        of_sb3 = inspect.signature(super().load).parameters
        return super().load(*args, **arguments.for_loading(cls, kwargs, of_sb3))

    def collect_rollouts(
        self, env: VecEnv, callback: BaseCallback, rollout_buffer: RolloutBuffer, n_rollout_steps: int
    ) -> bool:
        if rollout_buffer is self.rollout_buffer:
            rollout_buffer = self.rollout_buffer = buffers.updated(rollout_buffer, self)
        self._log_std_is_scheduled = schedule_log_std(self)
        try:
            with plain_forward(self.policy):
                return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)
        except (RuntimeError, ValueError):
            # torch refuses a NaN mean without a word on the observation that it comes from
            checks.observations_are_finite(self._last_obs, self.num_timesteps)
            raise

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Actions for observations, by the actor or its average (``averaging``).

        :param observation: the observation, or a batch of them
        :param state: not used
        :param episode_start: not used
        :param deterministic: whether actions are the distribution's mode rather than drawn
        :return: actions, and ``state``
        """
        with self._average.acting(self):
            return super().predict(observation, state, episode_start, deterministic)

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
        self._check_hyperparameters()
        self._check_rollout_size()
        checks.rollout_is_finite(self.rollout_buffer, self._last_obs, self.num_timesteps)
        if self.critic_target == "monte_carlo":
            self._set_monte_carlo_returns()
        rollout = next(self.rollout_buffer.get(batch_size=None))  # all transitions, shuffled
        evaluator, acted = agreeing_evaluator(self.policy, rollout)
        self._find_parameters(evaluator, rollout)
        self._update_learning_rates()
        is_untrained = self._n_updates == 0 and parameters.checksum(self.policy.parameters()) == self._checksum_when_built
        self._average.begin(self)
        with threads_of_torch(), parameters.restored_on_error(self.policy, self._step, *self._optimizers()):
            moved = move_actor(self, evaluator, rollout, acted)
            value_loss = fit_critic(self, evaluator, rollout, is_untrained)
            kl = update_observation_statistics(self, evaluator, rollout, acted, moved, is_untrained)
        self._average.add(self)
        self._n_updates += 1
        self._metrics.log(self.logger, approx_kl=kl, value_loss=value_loss)
        record_rollout(self.logger, self.rollout_buffer, self.policy, self._n_updates)

    def _set_monte_carlo_returns(self) -> None:
        buffer = self.rollout_buffer
        # Whatever λ_GAE, the last step's TD(λ) return is its reward plus the bootstrapped value
        buffer.returns = monte_carlo_returns(buffer.rewards, buffer.episode_starts, buffer.returns[-1], self.gamma)

    def _find_parameters(self, evaluator: Evaluator, rollout: RolloutBufferSamples) -> None:
        """The parameters of actor and critic as the policy is now: users put other modules into it."""
        self.actor_parameters, self.critic_parameters = parameters.split_parameters(self.policy, evaluator, rollout)
        parameters.set_parameters_of(self.policy.optimizer, self.critic_parameters)
        self._names = parameters.names_of(self.policy, self.actor_parameters, self.critic_parameters)

    def _optimizers(self) -> list[th.optim.Optimizer]:
        return [self.policy.optimizer]

    def _actor_steps(
        self, evaluator: Evaluator, rollout: RolloutBufferSamples, advantages: th.Tensor, acted: Evaluation
    ) -> Evaluation | None:
        """
        The actor's steps of an update; see :func:`~sb3_smac.common.actor_update.step_over_batches`.

        :param evaluator: of the policy
        :param rollout: N shuffled transitions
        :param advantages: A_i, normalized if they are to be, shape (N,)
        :param acted: the policy on the rollout before the first step
        :return: the policy on the rollout after the last step; ``None`` if nobody has looked
        """
        return step_over_batches(self, evaluator, rollout, advantages, acted)

    def record_actor(self, name: str, value: float) -> None:
        """
        Note a quantity of one actor batch; ``train/<name>`` logs its mean over the batches of the update.

        :param name: key, without ``train/``
        :param value: value
        """
        self._metrics.add(name, value)
