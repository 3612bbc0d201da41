"""Advantages and return targets against sums that are written out, with episodes that end in both ways."""

from itertools import chain
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_smac import ACSGD
from sb3_smac.common import natural_actor_critic
from sb3_smac.common.critic import fit_critic
from tests.dense_reference import DoublePolicy, DoubleRolloutBuffer, collect, critic, train, transitions, vector

GAMMA, LAMBDA, STEPS = 0.9, 0.7, 11


class Transition(NamedTuple):
    observation: np.ndarray
    reward: float
    next_observation: np.ndarray
    terminated: bool
    truncated: bool


class DiaryEnv(gym.Env):
    """Ends episodes at fixed steps of its life, and keeps a diary of what really happened: no vectorised resets in it."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, terminations: set[int], truncations: set[int]) -> None:
        self.terminations, self.truncations = terminations, truncations
        self.diary: list[Transition] = []

    def _observe(self) -> np.ndarray:
        self.observation = self.np_random.normal(size=2).astype(np.float32)
        return self.observation

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        step, before, reward = (len(self.diary), self.observation, float(np.float32(self.np_random.normal())))
        ends = step in self.terminations, step in self.truncations
        self.diary.append(Transition(before, reward, self._observe(), *ends))
        return self.observation, reward, *ends, {}


def value(observation: np.ndarray) -> float:
    """V(o) of the critic that :func:`make_model` makes: another value in every state, also in terminal ones."""
    return 3.0 * observation[0] - observation[1] + 0.5


def make_model(**arguments: Any) -> ACSGD:
    """One environment never ends, one ends in all ways within the rollout, others at its last step or its first."""
    endings = [(set(), set()), ({1, 5}, {3, 7, 8}), ({9}, {10}), ({10}, {0}), ({4}, {4})]
    envs = [lambda ending=ending: DiaryEnv(*ending) for ending in endings]
    defaults = {
        **{"learning_rate": 0.0, "n_steps": STEPS, "gamma": GAMMA, "gae_lambda": LAMBDA, "seed": 0, "device": "cpu"},
        **{"normalize_advantage": False, "normalize_observations": False, "normalize_returns": False},
        **{"rollout_buffer_class": DoubleRolloutBuffer, "policy_kwargs": {"net_arch": []}},
    }
    model = ACSGD(DoublePolicy, make_vec_env(lambda: envs.pop(0)(), n_envs=len(envs)), **{**defaults, **arguments})
    with th.no_grad():
        model.policy.value_net.weight.copy_(th.tensor([[3.0, -1.0]]))
        model.policy.value_net.bias.fill_(0.5)
    collect(model)
    return model


def rest_of_episode(diary: list[Transition], start: int) -> list[Transition]:
    """The transitions from ``start`` to the end of its episode, or of the rollout."""
    ends = (end for end in range(start, len(diary)) if diary[end].terminated or diary[end].truncated)
    return diary[start : next(ends, len(diary)) + 1]


def bootstrap(transition: Transition) -> float:
    """V of the state that the transition really led to, but nothing after a termination."""
    return 0.0 if transition.terminated else value(transition.next_observation)


def advantage(diary: list[Transition], start: int) -> float:
    """``Σ_l (γλ)^l δ_{t+l}`` to the end of the episode."""
    deltas = [each.reward + GAMMA * bootstrap(each) - value(each.observation) for each in rest_of_episode(diary, start)]
    return sum((GAMMA * LAMBDA) ** power * delta for power, delta in enumerate(deltas))


def td_lambda(diary: list[Transition], start: int) -> float:
    return advantage(diary, start) + value(diary[start].observation)


def monte_carlo(diary: list[Transition], start: int) -> float:
    """``Σ_l γ^l r_{t+l}`` to the end of the episode, bootstrapped if it goes on."""
    episode = rest_of_episode(diary, start)
    rewards = sum(GAMMA**power * each.reward for power, each in enumerate(episode))
    return rewards + GAMMA ** len(episode) * bootstrap(episode[-1])


def table(model: ACSGD, entry: Any) -> np.ndarray:
    """``entry(diary, step)`` of every environment and step, in the order of the flattened buffer, (n_envs * n_steps,)."""
    diaries = model.get_env().get_attr("diary")  # type: ignore[union-attr]
    return np.array([entry(diary, step) for diary in diaries for step in range(STEPS)])


@pytest.mark.parametrize(
    ("critic_target", "gae_lambda", "entry"),
    [
        ("gae", LAMBDA, td_lambda),
        ("monte_carlo", LAMBDA, monte_carlo),
        ("monte_carlo", 0.0, monte_carlo),
        ("monte_carlo", 1.0, monte_carlo),
    ],
)
def test_targets_are_the_written_out_sums(critic_target: str, gae_lambda: float, entry: Any) -> None:
    """
    Terminations end a sum with nothing, time limits with the value of the state that was cut off. Monte-Carlo targets do not
    depend on λ; and the advantages stay those of GAE either way.
    """
    model = make_model(critic_target=critic_target, gae_lambda=gae_lambda)
    train(model)
    assert model.rollout_buffer.returns.flatten() == pytest.approx(table(model, entry), rel=1e-5, abs=1e-6)
    if gae_lambda == LAMBDA:
        assert model.rollout_buffer.advantages.flatten() == pytest.approx(table(model, advantage), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("critic_target", "entry"), [("gae", td_lambda), ("monte_carlo", monte_carlo)])
@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_critic_regresses_on_its_targets(critic_target: str, entry: Any, max_grad_norm: float | None) -> None:
    """Two passes by SGD: φ ← φ − η ∇ mean (V − R)², clipped or not, by a linear critic whose gradient is written out."""
    rate = 0.05  # with a quarter of the training to go
    arguments = {"critic_learning_rate": "lin_0.2", "n_critic_updates": 2, "critic_batch_size": None}
    policy_kwargs = {"net_arch": [], "optimizer_class": th.optim.SGD}
    model = make_model(critic_target=critic_target, max_grad_norm=max_grad_norm, policy_kwargs=policy_kwargs, **arguments)
    returns, states = table(model, entry), table(model, lambda diary, step: [*diary[step].observation, 1.0])
    phi = np.array([3.0, -1.0, 0.5])
    for _ in range(2):
        gradient = 2 * states.T @ (states @ phi - returns) / len(returns)
        phi -= rate * gradient * (1 if max_grad_norm is None else min(1, max_grad_norm / np.linalg.norm(gradient)))
    model._current_progress_remaining = 0.25
    train(model)
    assert vector(critic(model.policy)).numpy() == pytest.approx(phi, rel=1e-4)


@pytest.mark.parametrize(("batch_size", "sizes"), [(20, [20, 20, 15]), (None, [55]), (1000, [55])])
def test_each_critic_pass_sees_each_transition_once(
    batch_size: int | None, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In minibatches of a new order every time, each observation beside its own return."""
    model = make_model(critic_batch_size=batch_size, n_critic_updates=3, critic_learning_rate=0.0)
    rollout = transitions(model)
    pairs = dict(zip(map(tuple, rollout.observations.tolist()), rollout.returns.tolist(), strict=True))
    seen, losses, predict_values = [], [], model.policy.predict_values

    def noted(observations: th.Tensor) -> th.Tensor:
        values = predict_values(observations)
        seen.append([*map(tuple, observations.tolist())])
        losses.append(np.square(values.detach().numpy().ravel() - [pairs[each] for each in seen[-1]]).mean())
        return values

    def fit(*args: Any) -> float | None:
        seen.clear(), losses.clear()  # what the update has looked at before
        return fit_critic(*args)

    model.policy.predict_values = noted
    monkeypatch.setattr(natural_actor_critic, "fit_critic", fit)
    train(model)
    assert [len(batch) for batch in seen] == sizes * 3
    passes = [list(chain(*seen[start : start + len(sizes)])) for start in range(0, len(seen), len(sizes))]
    assert all(sorted(each) == sorted(pairs) for each in passes)
    assert passes[0] != passes[1] != passes[2]
    assert model.logger.name_to_value["train/value_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
