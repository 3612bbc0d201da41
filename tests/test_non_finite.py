"""NaN and infinity stop the update with an error that says what and when, and leave the policy as it was."""

import math
import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_smac import NaturalActorCritic, NonFiniteError
from tests.algorithms import every_algorithm, is_finite, is_same, make, snapshot

pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")

NAN, INF = math.nan, math.inf

OBSERVATION_SPACES: dict[str, spaces.Space] = {
    "box": spaces.Box(-1, 1, (3,)),
    "dict": spaces.Dict({"good": spaces.Box(-1, 1, (2,)), "other": spaces.Box(-1, 1, (3,))}),
}
ACTION_SPACES: dict[str, spaces.Space] = {
    "Discrete": spaces.Discrete(3),
    "Box": spaces.Box(-1, 1, (2,)),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
}


class FaultyEnv(gym.Env):
    """
    Returns one bad number, once; episodes of ten steps that a time limit cuts.

    :param fault: ``"reward"``, ``"observation"`` or ``"terminal observation"``
    :param at: the step that returns it, counted from 1
    :param value: the bad number
    """

    def __init__(
        self, fault: str, at: int, value: float, observation_space: str = "box", action_space: str = "Discrete"
    ) -> None:
        self.observation_space, self.action_space = (OBSERVATION_SPACES[observation_space], ACTION_SPACES[action_space])
        self.fault, self.at, self.value = fault, at, value
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        if seed is not None:
            self.observation_space.seed(seed)
        return self._observation("observation"), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self.steps += 1
        ended = self.steps % 10 == 0
        reward = self.value if self.fault == "reward" and self.steps == self.at else 0.5
        return (self._observation("terminal observation" if ended else "observation"), reward, False, ended, {})

    def _observation(self, kind: str) -> Any:
        observation = self.observation_space.sample()
        if self.fault == kind and self.steps == self.at:
            (observation["other"] if isinstance(observation, dict) else observation)[1] = self.value
        return observation


def check_stops(model: NaturalActorCritic, message: str) -> str:
    """Train, good rollouts first, until the error comes: then everything is bit for bit as after the last good update."""
    states = [snapshot(model)]
    train = model.train

    def train_and_keep() -> None:
        train()
        states.append(snapshot(model))

    model.train = train_and_keep  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match=message) as error:
        model.learn(160 * model.n_envs)
    assert len(states) == 2 == model._n_updates + 1  # one good update, and no other
    assert is_finite(model)
    assert is_same(states[-1], snapshot(model))
    assert isinstance(error.value, ValueError)  # the RL Zoo prunes a trial on this one
    return str(error.value)


def timestep(message: str) -> int:
    (found,) = re.findall(r"timestep (\d+)", message)
    return int(found)


@every_algorithm
@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_rewards(algo: str, space: str, value: float) -> None:
    message = check_stops(make(algo, FaultyEnv("reward", 45, value, action_space=space)), "rewards")
    assert timestep(message) == 45


@every_algorithm
@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize("value", [NAN, INF])
def test_observations(algo: str, space: str, value: float) -> None:
    """Also where the policy itself would choke on them, in the middle of a rollout, with a message about a distribution."""
    check_stops(make(algo, FaultyEnv("observation", 45, value, action_space=space)), "observations")


@every_algorithm
def test_observations_that_only_float64_holds(algo: str) -> None:
    """Networks are given float32, in which 1e39 is infinite."""
    env = FaultyEnv("observation", 45, 1e39)
    env.observation_space = spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float64)
    assert timestep(check_stops(make(algo, env), "observations")) == 45


@every_algorithm
def test_the_timestep_is_the_one_that_returned_the_observation(algo: str) -> None:
    """Whichever check finds it: the policy that acts on it (NaN), or the one of the whole rollout (infinity)."""
    messages = [check_stops(make(algo, FaultyEnv("observation", 45, value)), "observations") for value in (NAN, INF)]
    assert [timestep(message) for message in messages] == [45, 45]


@every_algorithm
def test_the_last_observation_of_a_rollout(algo: str) -> None:
    """It is in no buffer yet: the critic bootstraps from it."""
    assert timestep(check_stops(make(algo, FaultyEnv("observation", 64, NAN)), "observations")) == 64


@every_algorithm
def test_terminal_observations(algo: str) -> None:
    """They reach the update through the value that a time limit adds to the last reward."""
    assert timestep(check_stops(make(algo, FaultyEnv("terminal observation", 50, NAN)), "rewards|terminal")) == 50


@every_algorithm
def test_entries_of_a_dict_are_named(algo: str) -> None:
    for value in (NAN, INF):
        model = make(algo, FaultyEnv("observation", 45, value, observation_space="dict"), "MultiInputPolicy")
        message = check_stops(model, "observations")
        assert "other" in message and "good" not in message


@every_algorithm
@pytest.mark.parametrize("fault", ["reward", "observation"])
def test_the_environment_is_named(algo: str, fault: str) -> None:
    """Of three, the second; a timestep counts the steps of all of them."""
    environments = [FaultyEnv("nothing", 0, 0), FaultyEnv(fault, 45, INF), FaultyEnv("nothing", 0, 0)]
    message = check_stops(make(algo, DummyVecEnv([lambda env=env: env for env in environments])), f"{fault}s")
    assert "environment 1" in message
    assert timestep(message) in (44 * 3, 45 * 3, 46 * 3) if fault == "observation" else timestep(message) == 45 * 3


@every_algorithm
@pytest.mark.parametrize("normalize_returns", [False, True])
def test_rewards_whose_squares_are_not_finite(algo: str, normalize_returns: bool) -> None:
    """They are trained on as any others: advantages and the critic's targets are scaled in float64."""
    model = make(algo, FaultyEnv("reward", 45, 1e30), normalize_returns=normalize_returns).learn(160)
    assert is_finite(model) and model._n_updates == 5
    assert all(map(math.isfinite, model.logger.name_to_value.values()))


def poison(model: NaturalActorCritic, which: str) -> None:
    """Make the gradient NaN from the second update on."""
    parameter = {"actor": model.actor_parameters, "critic": model.critic_parameters}[which][0]
    parameter.register_hook(lambda gradient: gradient * NAN if model._n_updates else gradient)


@every_algorithm
@pytest.mark.parametrize(
    "arguments", [{}, {"target_kl": None}, {"target_kl": 0.01, "batch_size": 8}], ids=["default", "fixed", "minibatches"]
)
@pytest.mark.parametrize("which", ["actor", "critic"])
@pytest.mark.parametrize("max_grad_norm", [None, 0.5])
def test_gradients(algo: str, arguments: dict[str, Any], which: str, max_grad_norm: float | None) -> None:
    """Whose, and where; the actor's step that went before the critic's is taken back."""
    model = make(algo, max_grad_norm=max_grad_norm, **arguments)
    poison(model, which)
    message = check_stops(model, "log-probability|actor" if which == "actor" else "critic")
    assert 33 <= timestep(message) <= 64


class BadGradient(nn.Module):
    """Finite, with a gradient that is not where the input is negative: the usual mistake with ``torch.where``."""

    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.where(x > 0, x.sqrt(), 0.0)


@every_algorithm
def test_a_network_without_a_gradient(algo: str) -> None:
    """A real one rather than a hook. Training never starts, and the error comes in the first update."""
    model = make(algo, policy_kwargs={"net_arch": [8], "activation_fn": BadGradient})
    before = snapshot(model)
    with pytest.raises(NonFiniteError, match=r"gradient of the log-probability .*timestep 1"):
        model.learn(32)
    assert is_same(before, snapshot(model))


@every_algorithm
@pytest.mark.parametrize("batch_size", [None, 8])
def test_steps_that_are_far_too_large(algo: str, batch_size: int | None) -> None:
    """The policy breaks down within its own update: the error says why, and the policy from before is back."""
    learning_rate = lambda progress: 1e-3 if progress > 0.5 else 1e38  # noqa: E731
    model = make(algo, target_kl=None, learning_rate=learning_rate, batch_size=batch_size, line_search=False)
    states = []
    train = model.train
    model.train = lambda: (train(), states.append(snapshot(model)))  # type: ignore[method-assign]
    with pytest.raises(NonFiniteError, match="step was too large"):
        model.learn(96)
    assert states and is_same(states[-1], snapshot(model))


@every_algorithm
def test_batch_norm_is_restored(algo: str) -> None:
    """Buffers as well as parameters: the critic fails after the actor's pass has moved the running statistics."""

    class Extractor(nn.Sequential):
        def __init__(self, observation_space: spaces.Box) -> None:
            super().__init__(nn.Flatten(), nn.BatchNorm1d(observation_space.shape[0]))
            self.features_dim = observation_space.shape[0]

    model = make(algo, policy_kwargs={"net_arch": [8], "features_extractor_class": Extractor}, target_kl=0.01)
    assert any("running_mean" in name for name, _ in model.policy.named_buffers())
    poison(model, "critic")
    check_stops(model, "critic")


@every_algorithm
def test_learning_rates_of_the_optimizers_are_restored(algo: str) -> None:
    """Under a schedule, an update that did not happen has not lowered them either."""
    model = make(algo, FaultyEnv("reward", 45, NAN), critic_learning_rate="lin_0.01")
    check_stops(model, "rewards")


@every_algorithm
def test_training_goes_on_after_the_error(algo: str) -> None:
    """As if the bad rollout had not been: neither its metrics nor what a sized step remembers of it are left over."""

    def after(fails: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        model = make(algo, target_kl=0.01).learn(32)
        if fails:
            hook = model.critic_parameters[0].register_hook(lambda gradient: gradient * NAN)
            buffer, generators = model.rollout_buffer, (np.random.get_state(), th.get_rng_state())
            buffer.generator_ready = False
            _refill(model)
            with pytest.raises(NonFiniteError):
                model.train()
            hook.remove()
            np.random.set_state(generators[0])
            th.set_rng_state(generators[1])
        _refill(model)
        model.train()
        return snapshot(model), {key: value for key, value in model.logger.name_to_value.items() if key.startswith("train/")}

    assert is_same(after(False), after(True))


def _refill(model: NaturalActorCritic) -> None:
    """The same rollout again, made up."""
    generator = np.random.default_rng(0)
    buffer = model.rollout_buffer
    buffer.reset()
    model.policy.set_training_mode(False)
    for step in range(buffer.buffer_size):
        observations = generator.uniform(-1, 1, (1, 3)).astype(np.float32)
        actions = generator.uniform(-1, 1, (1, 1)).astype(np.float32)
        with th.no_grad():
            values, log_probs, _ = model.policy.evaluate_actions(th.as_tensor(observations), th.as_tensor(actions))
        buffer.add(observations, actions, generator.uniform(size=1), np.array([step == 0]), values, log_probs)
    buffer.compute_returns_and_advantage(th.zeros(1), np.array([False]))


@every_algorithm
def test_interrupting_an_update_restores_it_too(algo: str) -> None:
    """Ctrl-C in the middle of the critic's regression: a model that is saved then is a whole one."""
    model = make(algo, target_kl=0.01).learn(32)
    before = snapshot(model)

    def interrupt(gradient: th.Tensor) -> th.Tensor:
        raise KeyboardInterrupt

    model.critic_parameters[0].register_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.learn(32, reset_num_timesteps=False)
    assert is_same(before, snapshot(model))
