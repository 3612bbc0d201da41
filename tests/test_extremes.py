"""Extremes end in a smaller step, no step, or an error that says where; never in a crash of arithmetic."""

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_smac import NaturalActorCritic, NonFiniteError
from tests.algorithms import TABLE, NormalEnv, is_finite, make

pytestmark = pytest.mark.filterwarnings("ignore:.*no longer those of the policy.*:UserWarning")

ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TABLE},
    "smac_rank_2": ("smac", {"fisher_rank": 2}),
}
every_algorithm_and_rank = pytest.mark.parametrize("algo", ALGORITHMS)

BOX, DISCRETE = spaces.Box(-1, 1, (2,)), spaces.Discrete(3)


class Rewarding(NormalEnv):
    """
    Random observations, and rewards by what the test says.

    :param action_space: action space
    :param reward: of the action
    :param offset: of the observations
    :param scale: of the observations
    """

    def __init__(self, action_space: spaces.Space = BOX, reward: Any = None, offset: Any = 0.0, scale: Any = 1.0) -> None:
        super().__init__(action_space, offset, scale)
        self.reward = (lambda action: float(np.ravel(action)[0])) if reward is None else reward

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.steps += 1
        return (self.observation(), self.reward(action), self.steps % 7 == 0, self.steps % 5 == 0, {})


def build(algo: str, env: Any, **arguments: Any) -> NaturalActorCritic:
    name, own = ALGORITHMS[algo]
    return make(name, env, **{"n_steps": 16, "target_kl": 0.02, **own, **arguments})


def learned(model: NaturalActorCritic, n_steps: int = 32, **arguments: Any) -> NaturalActorCritic:
    """
    Trained: nothing crashes, all stays finite, and what is logged is.

    But for the KL divergence of a fixed step, or of several, which is infinite where the probability of a discrete action
    rounds to 0.
    """
    model.learn(n_steps, **arguments)
    assert is_finite(model)
    logged = {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}
    undefined = {"train/explained_variance"}  # of returns that are all equal
    if (model.target_kl is None or model.batch_size is not None) and not isinstance(model.action_space, spaces.Box):
        undefined.add("train/approx_kl")
    assert not {key for key, value in logged.items() if not math.isfinite(value)} - undefined, logged
    return model


@pytest.mark.parametrize("algo", ["smac", "smac_full"])
@pytest.mark.parametrize("n_steps", [2, 5])
@pytest.mark.parametrize("seed", range(2))
def test_short_rollouts(algo: str, n_steps: int, seed: int) -> None:
    """Saturated policies have directions of 1e-34, whose step size is beyond float32."""
    env = make_vec_env("CartPole-v1", n_envs=8)
    model = build(algo, env, n_steps=n_steps, target_kl=0.05, seed=seed, policy_kwargs=None)
    learned(model, 800)


@every_algorithm_and_rank
@pytest.mark.parametrize("action_space", [BOX, DISCRETE], ids=["Box", "Discrete"])
@pytest.mark.parametrize("scale", [1e-20, 1e15, 1e20, 1e30])
@pytest.mark.parametrize(("target_kl", "normalize_returns"), [(0.02, True), (0.02, False), (None, True)])
def test_rewards_of_any_size(
    algo: str, action_space: spaces.Space, scale: float, target_kl: float | None, normalize_returns: bool
) -> None:
    """A2C and PPO go on."""
    env = Rewarding(action_space, lambda action: scale * float(np.ravel(action)[0]))
    arguments = {"learning_rate": 0.01, "target_kl": target_kl, "normalize_returns": normalize_returns}
    learned(build(algo, env, **arguments))


@every_algorithm_and_rank
@pytest.mark.parametrize("critic_optimizer", ["adam", "gauss_newton"])
@pytest.mark.parametrize("scale", [1e-20, 1e20])
@pytest.mark.parametrize("critic_target", ["gae", "monte_carlo"])
def test_rewards_of_any_size_and_any_critic(algo: str, critic_optimizer: str, scale: float, critic_target: str) -> None:
    """Also where one reward is the size of all others together."""
    env = Rewarding(BOX, lambda action: scale if action[0] > 0.9 else 1.0)
    arguments = {"critic_optimizer": critic_optimizer, "critic_target": critic_target, "max_grad_norm": 0.5}
    learned(build(algo, env, **arguments))


@every_algorithm_and_rank
@pytest.mark.parametrize("reward", [0.0, 1.0, -3.7, 1e20, 0.1])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_equal_rewards(algo: str, reward: float, batch_size: int | None) -> None:
    """Advantages that are (nearly) all equal: no step, or a small one."""
    rank = {"fisher_rank": 1} if algo == "smac_rank_2" and batch_size == 1 else {}
    env = Rewarding(BOX, lambda action: reward)
    learned(build(algo, env, gamma=0.0, batch_size=batch_size, **rank))


@every_algorithm_and_rank
@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("action_space", [BOX, DISCRETE], ids=["Box", "Discrete"])
def test_rollouts_of_a_few_steps(algo: str, n_steps: int, action_space: spaces.Space) -> None:
    rank = {"fisher_rank": 1} if n_steps == 1 and ALGORITHMS[algo][0] == "smac" else {}
    learned(build(algo, Rewarding(action_space), n_steps=n_steps, normalize_advantage=n_steps > 1, **rank), 40)


@every_algorithm_and_rank
@pytest.mark.parametrize("target_kl", [0.02, None])
@pytest.mark.parametrize("action_space", [BOX, DISCRETE], ids=["Box", "Discrete"])
def test_batches_of_one(algo: str, target_kl: float | None, action_space: spaces.Space) -> None:
    rank = {"fisher_rank": 1} if ALGORITHMS[algo][0] == "smac" and algo != "smac_full" else {}
    learned(build(algo, Rewarding(action_space), batch_size=1, target_kl=target_kl, learning_rate=0.01, **rank))


@every_algorithm_and_rank
@pytest.mark.parametrize("log_std", [-20.0, -10.0, -5.0, 5.0, 20.0])
@pytest.mark.parametrize("target_kl", [0.02, None])
def test_deviations_that_are_nearly_nothing(algo: str, log_std: float, target_kl: float | None) -> None:
    """And very large ones, from the beginning."""
    model = build(algo, Rewarding(), target_kl=target_kl, learning_rate=1e-6, policy_kwargs={"log_std_init": log_std})
    trained_or_refused(model)


def trained_or_refused(model: NaturalActorCritic, **arguments: Any) -> None:
    """Never a crash; an error says what is not finite, and leaves a finite policy."""
    try:
        learned(model, **arguments)
    except NonFiniteError:
        assert is_finite(model)


class SetDeviation(BaseCallback):
    """In mid-rollout."""

    def __init__(self, value: float, at: int = 20) -> None:
        super().__init__()
        self.value, self.at = value, at

    def _on_step(self) -> bool:
        if self.n_calls == self.at:
            self.model.policy.log_std.data.fill_(self.value)
        return True


@every_algorithm_and_rank
@pytest.mark.parametrize("value", [-20.0, -8.0, 10.0])
def test_deviations_set_in_mid_rollout(algo: str, value: float) -> None:
    """No algorithm ends in an error: most of the rollout comes from another policy."""
    learned(build(algo, Rewarding()), callback=SetDeviation(value))
    learned(build(algo, make_vec_env("Pendulum-v1", n_envs=2)), callback=SetDeviation(value))


@every_algorithm_and_rank
@pytest.mark.parametrize("logit", [1e2, 1e4, 1e8, -1e4])
@pytest.mark.parametrize("action_space", [DISCRETE, spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)], ids=str)
def test_saturated_discrete_policies(algo: str, logit: float, action_space: spaces.Space) -> None:
    """Probabilities of 0 and 1; with an entropy bonus, too."""
    for ent_coef in (0.0, 0.01):
        model = build(algo, Rewarding(action_space, lambda action: 1.0), ent_coef=ent_coef)
        with th.no_grad():
            model.policy.action_net.bias[0] = logit
        learned(model)


@every_algorithm_and_rank
@pytest.mark.parametrize(
    ("offset", "scale"),
    [
        *[(1e6, 1.0), (-1e6, 1.0), (0.0, 1e6), (0.0, 1e-6), (1e6, 0.0), (0.0, 0.0), (1e20, 1e19), (1e30, 1.0)],
        *[(np.array([0.0, 1e6, 0.0]), 1.0), (0.0, np.array([1.0, 0.0, 1e8]))],
    ],
)
@pytest.mark.parametrize("normalize", [True, False])
def test_observations_of_any_size(algo: str, offset: Any, scale: Any, normalize: bool) -> None:
    """Normalised, they train; raw, they train or say so."""
    model = build(algo, Rewarding(offset=offset, scale=scale), normalize_observations=normalize)
    if normalize:
        learned(model)
    else:
        trained_or_refused(model)


@every_algorithm_and_rank
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["reward", "parameter", "advantage"])
def test_what_is_not_finite_is_named(algo: str, value: float, where: str) -> None:
    """Where it comes from; a parameter that the user broke, too."""
    reward = (lambda action: value) if where == "reward" else None
    model = build(algo, Rewarding(reward=reward))
    if where == "parameter":
        model.policy.action_net.bias.data[0] = value
    if where == "advantage":
        compute = model.rollout_buffer.compute_returns_and_advantage

        def broken(*args: Any, **kwargs: Any) -> None:
            compute(*args, **kwargs)
            model.rollout_buffer.advantages[3] = value

        model.rollout_buffer.compute_returns_and_advantage = broken  # type: ignore[method-assign]
    with pytest.raises(ValueError) as error:
        model.learn(16)
    assert where == "parameter" or isinstance(error.value, NonFiniteError)
    assert where == "parameter" or where in str(error.value)


class Collects(BaseCallback):
    """A rollout within a rollout, with the same policy."""

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when

    def _init_callback(self) -> None:
        self.env = DummyVecEnv([Rewarding])
        self.n_collected = 0

    def _collect(self) -> None:
        model = self.model
        own = model._last_obs, model._last_episode_starts, model.num_timesteps
        model._last_obs, model._last_episode_starts = self.env.reset(), np.ones(1, bool)
        buffer = type(model.rollout_buffer)(4, model.observation_space, model.action_space, device="cpu")
        silent = Silent()
        silent.init_callback(model)
        model.collect_rollouts(self.env, silent, buffer, 4)
        assert buffer.full
        self.n_collected += 1
        model._last_obs, model._last_episode_starts, model.num_timesteps = own

    def _on_step(self) -> bool:
        if self.when == "step" and self.n_calls % 5 == 0:
            self._collect()
        return True

    def _on_rollout_start(self) -> None:
        if self.when == "start":
            self._collect()

    def _on_rollout_end(self) -> None:
        if self.when == "end":
            self._collect()


class Silent(BaseCallback):
    def _on_step(self) -> bool:
        return True


@every_algorithm_and_rank
@pytest.mark.parametrize("when", ["start", "step", "end"])
def test_a_rollout_within_a_rollout(algo: str, when: str) -> None:
    """Collected into another buffer: the outer one is what is trained on, as if nothing had been."""
    callback = Collects(when)
    model = build(algo, Rewarding())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned(model, callback=callback)
    assert callback.n_collected >= 2
    assert model.rollout_buffer.buffer_size == 16


@every_algorithm_and_rank
@pytest.mark.parametrize("part", ["actor", "critic", "both"])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_frozen_parts(algo: str, part: str, trained: bool, batch_size: int | None) -> None:
    """An empty actor takes no step; an empty critic is not fitted; the other one goes on."""
    model = build(algo, Rewarding(), batch_size=batch_size)
    if trained:
        model.learn(16)
    frozen = {
        "actor": model.actor_parameters,
        "critic": model.critic_parameters,
        "both": [*model.actor_parameters, *model.critic_parameters],
    }[part]
    for parameter in frozen:
        parameter.requires_grad_(False)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    learned(model)
    for old, new in zip(before, model.policy.parameters(), strict=True):
        assert th.equal(old, new) == (not new.requires_grad)


@every_algorithm_and_rank
def test_a_target_of_next_to_nothing_and_of_very_much(algo: str) -> None:
    for target_kl in (1e-30, 1e30):
        learned(build(algo, Rewarding(), target_kl=target_kl, line_search=True))
        learned(build(algo, Rewarding(DISCRETE), target_kl=target_kl))


@every_algorithm_and_rank
@pytest.mark.parametrize("learning_rate", [0.0, 1e-38, 1e-30, 1e3, 1e30, 1e300])
def test_any_learning_rate(algo: str, learning_rate: float) -> None:
    """A step that is too large is an error that says so."""
    for env in (Rewarding(), Rewarding(DISCRETE)):
        trained_or_refused(build(algo, env, target_kl=None, learning_rate=learning_rate, max_grad_norm=0.5))


@every_algorithm_and_rank
@pytest.mark.parametrize("damping", [1e-30, 1e-10, 1e10, 1e30])
def test_any_damping(algo: str, damping: float) -> None:
    if "damping" not in TABLE[ALGORITHMS[algo][0]].options:
        pytest.skip("no damping")
    for env in (Rewarding(), Rewarding(DISCRETE)):
        learned(build(algo, env, damping=damping))


@every_algorithm_and_rank
@pytest.mark.parametrize("parameter_scale", [0.0, 1e-30, 1e10])
def test_parameters_of_any_size(algo: str, parameter_scale: float) -> None:
    """All zero, next to nothing, and huge."""
    for action_space in (BOX, DISCRETE):
        model = build(algo, Rewarding(action_space))
        with th.no_grad():
            for name, parameter in model.policy.named_parameters():
                if name != "log_std":
                    parameter.mul_(parameter_scale)
        learned(model)


@every_algorithm_and_rank
def test_a2c_goes_on_where_ours_do(algo: str) -> None:
    """The cases above are ones that A2C survives: rewards of 1e20, and a policy of nearly zero entropy."""
    for arguments in ({"policy_kwargs": {"log_std_init": -20.0, "net_arch": [8]}}, {"policy_kwargs": {"net_arch": [8]}}):
        scale = 1.0 if "log_std_init" in arguments["policy_kwargs"] else 1e20
        env = Rewarding(reward=lambda action, scale=scale: scale * float(action[0]))
        a2c = A2C("MlpPolicy", env, n_steps=16, device="cpu", seed=0, **arguments).learn(32)
        assert all(bool(th.isfinite(parameter).all()) for parameter in a2c.policy.parameters())
        learned(build(algo, env, **arguments), 32)
