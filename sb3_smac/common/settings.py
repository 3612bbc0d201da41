"""What an algorithm's arguments mean now: they may be changed in training, follow schedules, or be words of a subclass's."""

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.utils import update_learning_rate

from sb3_smac.common.schedules import ScheduleLike, to_schedule, value_at

# Arguments that Stable-Baselines3's on-policy algorithms do not have
OWN = (
    *("batch_size", "target_kl", "line_search", "critic_learning_rate", "critic_optimizer", "critic_damping"),
    *("n_critic_updates", "critic_batch_size", "critic_target", "averaging", "final_log_std"),
    *("normalize_advantage", "normalize_observations", "normalize_returns"),
)


class Settings(OnPolicyAlgorithm):
    """
    Stable-Baselines3's on-policy algorithm, with how the arguments of
    :class:`~sb3_smac.common.natural_actor_critic.NaturalActorCritic` are read.
    """

    learning_rate: ScheduleLike  # type: ignore[assignment]  # strings, too
    critic_learning_rate: ScheduleLike
    target_kl: ScheduleLike | None
    line_search: bool | None
    averaging: float | None

    def _setup_lr_schedule(self) -> None:
        self.lr_schedule = to_schedule(self.learning_rate, "learning_rate")
        self._scheduled_learning_rate = self.learning_rate

    def _update_learning_rates(self) -> None:
        if self.learning_rate is not self._scheduled_learning_rate:  # changed since lr_schedule was made of it
            self._setup_lr_schedule()
        critic_learning_rate = value_at("critic_learning_rate", self.critic_learning_rate, self._current_progress_remaining)
        update_learning_rate(self.policy.optimizer, critic_learning_rate)
        self.logger.record("train/learning_rate", self._step_size)
        self.logger.record("train/critic_learning_rate", critic_learning_rate)

    @property
    def _step_size(self) -> float:
        """α now."""
        return value_at("learning_rate", self.lr_schedule, self._current_progress_remaining)

    @property
    def _target_kl(self) -> ScheduleLike | None:
        """``target_kl``, or what a subclass takes its word for."""
        return self.target_kl

    @property
    def _current_target_kl(self) -> float | None:
        """``target_kl`` now."""
        kl = self._target_kl
        return None if kl is None else value_at("target_kl", kl, self._current_progress_remaining)

    @property
    def _share_averaged(self) -> float:
        """``averaging``, or what a subclass takes ``None`` for."""
        return self.averaging or 0.0

    @property
    def _searches_line(self) -> bool:
        """Whether a step that lowers the surrogate on its own batch is shortened."""
        return bool(self.line_search)
