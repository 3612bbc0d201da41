"""What is logged, what it means, and that every output of Stable-Baselines3 can write it."""

import math
from typing import Any

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import HumanOutputFormat

from sb3_smac import NaturalActorCritic
from tests.algorithms import TABLE, every_algorithm, make

OF_EVERY_UPDATE = (
    *("policy_loss", "value_loss", "explained_variance", "entropy_loss", "learning_rate", "critic_learning_rate"),
    *("approx_kl", "log_prob", "policy_gradient_norm", "natural_gradient_norm", "score_norm", "cosine_similarity"),
    *("step_size", "n_updates"),
)
TRAIN_KEYS = {f"train/{name}" for name in OF_EVERY_UPDATE}
"""What every algorithm logs with every update; ``train/std`` is added for continuous actions."""

TIME_KEYS = {"time/fps", "time/iterations", "time/time_elapsed", "time/total_timesteps"}
ROLLOUT_KEYS = {"rollout/ep_rew_mean", "rollout/ep_len_mean"}


def short_pendulum() -> gym.Env:
    """Episodes of ten steps: several end in each rollout."""
    return gym.make("Pendulum-v1", max_episode_steps=10)


class Kept(BaseCallback):
    """Keeps what every update logged (it stands in the logger until the next rollout is over)."""

    def _on_training_start(self) -> None:
        self.updates: list[dict[str, Any]] = []

    def _on_rollout_start(self) -> None:
        if self.model._n_updates:
            self.updates.append(dict(self.model.logger.name_to_value))

    def _on_training_end(self) -> None:
        self._on_rollout_start()

    def _on_step(self) -> bool:
        return True


def logged(algo: str, env: str = "Pendulum-v1", **arguments: Any) -> tuple[NaturalActorCritic, list[dict[str, Any]]]:
    callback = Kept()
    model = make(algo, env, **arguments).learn(96, callback=callback)
    assert len(callback.updates) == 3
    return model, callback.updates


@every_algorithm
@pytest.mark.parametrize(("env", "target_kl"), [("CartPole-v1", None), ("Pendulum-v1", 0.01)])
def test_every_update_logs_the_same_finite_numbers(algo: str, env: str, target_kl: float | None) -> None:
    """Exactly the documented keys; the standard deviation only where there is one."""
    expected = TRAIN_KEYS | set(TABLE[algo].log_keys) | ({"train/std"} if env == "Pendulum-v1" else set())
    for update in logged(algo, env, target_kl=target_kl)[1]:
        assert {key for key in update if key.startswith("train/")} == expected
        assert all(math.isfinite(value) for value in update.values())
        assert not any(isinstance(value, th.Tensor) for value in update.values())


@pytest.mark.parametrize("algo", ["smac_full", "accg"])
def test_console_table(algo: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Stable-Baselines3 cuts keys at its table's width: every key has its line; a narrow table does not mix them up either."""
    model = make(algo, short_pendulum(), verbose=1).learn(96)
    lines = capsys.readouterr().out.splitlines()
    printed = {line.split("|")[1].strip() for line in lines if line.startswith("|") and line.count("|") == 3}
    keys = TRAIN_KEYS | set(TABLE[algo].log_keys) | {"train/std"} | TIME_KEYS | ROLLOUT_KEYS
    assert {key.split("/")[1] for key in keys} <= printed
    values = dict(model.logger.name_to_value)
    HumanOutputFormat("/dev/null", max_length=24).write(values, {key: () for key in values})


@every_algorithm
def test_what_the_numbers_are(algo: str) -> None:
    """Those that can be recomputed from the model and its last rollout."""
    model, updates = logged(algo, ent_coef=0.01 * (algo != "acsgd"), target_kl=None, learning_rate=0.01)
    last, buffer = updates[-1], model.rollout_buffer
    assert last["train/n_updates"] == 3
    assert last["train/learning_rate"] == last["train/step_size"] == 0.01
    assert last["train/critic_learning_rate"] == model.policy.optimizer.param_groups[0]["lr"]
    assert math.isclose(last["train/log_prob"], buffer.log_probs.mean(), rel_tol=1e-6)
    assert math.isclose(last["train/std"], model.policy.log_std.exp().mean().item(), rel_tol=1e-6)
    assert last["train/explained_variance"] <= 1
    assert last["train/approx_kl"] > 0
    assert 0 < last["train/cosine_similarity"] <= 1 + 1e-6  # an ascent direction
    assert last["train/policy_gradient_norm"] > 0 and last["train/score_norm"] > 0
    # Until a step is made, the mean of normalised advantages times log-probabilities is their covariance
    assert abs(last["train/policy_loss"]) < buffer.log_probs.std() + 1e-6
    if algo == "acsgd":
        assert math.isclose(last["train/cosine_similarity"], 1, rel_tol=1e-5)
        assert last["train/natural_gradient_norm"] == last["train/policy_gradient_norm"]


def test_schedules_are_logged_as_they_fall() -> None:
    """From the whole value before the first update towards 0 at the end of training."""
    updates = logged("smac", target_kl=None, learning_rate="lin_0.03", critic_learning_rate="lin_0.3")[1]
    for update, remaining in zip(updates, (2 / 3, 1 / 3, 0), strict=True):
        assert math.isclose(update["train/learning_rate"], 0.03 * remaining, abs_tol=1e-12)
        assert update["train/step_size"] == update["train/learning_rate"]
        assert math.isclose(update["train/critic_learning_rate"], 0.3 * remaining, abs_tol=1e-12)


@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_metrics_of_several_batches_are_averaged(algo: str) -> None:
    """The logged value is the mean over the actor batches of this update, and of no other."""
    recorded: dict[str, list[float]] = {}
    model = make(algo, batch_size=8, target_kl=None, learning_rate=0.01)
    add = model._metrics.add

    def keep(name: str, value: float) -> None:
        recorded.setdefault(name, []).append(value)
        add(name, value)

    model._metrics.add = keep  # type: ignore[method-assign]
    for update in range(2):
        recorded.clear()
        model.learn(32, reset_num_timesteps=update == 0)
        assert len(recorded["policy_loss"]) == 4
        for name, values in recorded.items():
            mean = sum(values) / len(values)
            assert math.isclose(model.logger.name_to_value[f"train/{name}"], mean, rel_tol=1e-9, abs_tol=1e-12)
