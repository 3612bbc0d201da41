"""A log-std that is scheduled: a line over ``learn``, and no parameter that is learned."""

from typing import Any

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_smac.common.policies import MlpPolicy
from tests.algorithms import every_algorithm, is_same, make, reloaded, snapshot


class LogStds(BaseCallback):
    """The log-std of each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        assert len(set(self.model.policy.log_std.tolist())) == 1
        self.seen.append(self.model.policy.log_std[0].item())


@every_algorithm
@pytest.mark.parametrize("policy", [MlpPolicy, ActorCriticPolicy])
def test_a_line(algo: str, policy: Any) -> None:
    log_stds = LogStds()
    model = make(algo, policy=policy, policy_kwargs={"log_std_init": 0.5, "net_arch": [8]}, final_log_std=-1.5)
    model.learn(4 * 32, callback=log_stds)
    assert log_stds.seen == pytest.approx([0.5, 0, -0.5, -1])
    model.learn(2 * 32, callback=log_stds, reset_num_timesteps=False)  # of 192 timesteps
    assert log_stds.seen[4:] == pytest.approx([0.5 - 2 * 4 / 6, 0.5 - 2 * 5 / 6])
    model.learn(2 * 32, callback=log_stds)
    assert log_stds.seen[6:] == pytest.approx([0.5, -0.5])


def test_it_is_not_learned() -> None:
    """All of a step's KL divergence is the mean's."""
    start = {"log_std_init": -1.0}
    fixed, learned = (
        make("smac_full", policy_kwargs=start, final_log_std=final, target_kl=0.01, normalize_observations=False).learn(32)
        for final in (-1.0, None)
    )
    assert th.equal(fixed.policy.log_std, th.tensor([-1.0])) and not fixed.policy.log_std.requires_grad
    assert not th.equal(learned.policy.log_std, th.tensor([-1.0]))
    assert fixed.logger.name_to_value["train/approx_kl"] == pytest.approx(0.01, rel=0.2)


@every_algorithm
def test_the_same_as_a_user_who_freezes_it(algo: str) -> None:
    user = make(algo, policy_kwargs={"log_std_init": -1.0, "net_arch": [8]})
    user.policy.log_std.requires_grad_(False)
    user.learn(3 * 32)
    same = make(algo, policy_kwargs={"log_std_init": -1.0, "net_arch": [8]}, final_log_std=-1)
    assert is_same(snapshot(user), snapshot(same.learn(3 * 32)))


@pytest.mark.parametrize("how", ["attribute", "load"])
def test_it_can_be_turned_on_and_off(how: str) -> None:
    def changed(model: Any, final: Any) -> Any:
        if how == "load":
            return reloaded(model, env=model.get_env(), final_log_std=final)
        model.final_log_std = final
        return model

    model = changed(make("smac", final_log_std=-2.0).learn(2 * 32), None)
    assert th.equal(model.policy.log_std, th.tensor([-1.0]))
    model.learn(32)
    assert model.policy.log_std.requires_grad and not th.equal(model.policy.log_std, th.tensor([-1.0]))
    model = changed(model, -4.0).learn(2 * 32)
    assert th.equal(model.policy.log_std, th.tensor([-2.0])) and not model.policy.log_std.requires_grad


@pytest.mark.parametrize(
    ("env", "arguments", "got"),
    [
        ("Pendulum-v1", {"final_log_std": "lin_1"}, "'lin_1'"),
        ("Pendulum-v1", {"final_log_std": -21}, "-21"),
        ("Pendulum-v1", {"final_log_std": float("nan")}, "nan"),
        ("Pendulum-v1", {"final_log_std": -1, "use_sde": True}, "-1 with Box.* and use_sde=True"),
        ("CartPole-v1", {"final_log_std": -1}, "-1 with Discrete"),
    ],
)
@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_errors(algo: str, env: str, arguments: dict[str, Any], got: str) -> None:
    with pytest.raises(ValueError, match=f"^final_log_std must be None.*got {got}"):
        make(algo, env, **arguments)
