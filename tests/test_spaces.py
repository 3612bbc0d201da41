"""Every pair of an observation and an action space that Stable-Baselines3's on-policy algorithms support."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from sb3_smac.maths import flatten
from tests.algorithms import ACTION_SPACES as SUPPORTED
from tests.algorithms import VECTOR, SampleEnv, every_algorithm, is_finite, make

ACTION_SPACES: dict[str, spaces.Space] = {
    **SUPPORTED,
    "BoxOfManyNumbers": spaces.Box(-1, 1, (20,)),
    "BoxOfTwoDimensions": spaces.Box(-1, 1, (2, 2)),
}
OBSERVATION_SPACES: dict[str, spaces.Space] = {
    "BoxOfFloat64": spaces.Box(-1, 1, (3,), dtype=np.float64),
    "BoxOfTwoDimensions": spaces.Box(-1, 1, (2, 3)),
    "UnboundedBox": spaces.Box(-np.inf, np.inf, (3,)),
    "BoxOfIntegers": spaces.Box(0, 5, (3,), dtype=np.int64),
    "Discrete": spaces.Discrete(6),
    "MultiDiscrete": spaces.MultiDiscrete([4, 3]),
    "MultiBinary": spaces.MultiBinary(4),
    "MultiBinaryOfTwoDimensions": spaces.MultiBinary((3, 2)),
}
UNSUPPORTED_ACTION_SPACES: dict[str, spaces.Space] = {
    "MultiBinaryOfTwoDimensions": spaces.MultiBinary((2, 3)),
    "Dict": spaces.Dict({"a": spaces.Discrete(2)}),
    "Tuple": spaces.Tuple([spaces.Discrete(2)]),
}


def divergence(old: ActorCriticPolicy, new: ActorCriticPolicy, observations: np.ndarray) -> float:
    """KL(old ‖ new) by PyTorch's formulas, summed over the parts of an action and averaged over the states."""
    batch, _ = new.obs_to_tensor(observations)
    with th.no_grad():
        pair = [policy.get_distribution(batch).distribution for policy in (old, new)]
    parts = zip(*[each if isinstance(each, list) else [each] for each in pair], strict=True)
    return sum(th.distributions.kl_divergence(p, q).reshape(len(batch), -1).sum(dim=1).mean().item() for p, q in parts)


@every_algorithm
@pytest.mark.parametrize("space", ACTION_SPACES)
def test_sized_steps(algo: str, space: str) -> None:
    """The policy moves by the KL divergence that was asked for, whatever an action is made of."""
    arguments = {"target_kl": 0.01, "line_search": False, "normalize_observations": False}  # new statistics move it once more
    old, model = (make(algo, SampleEnv(VECTOR, ACTION_SPACES[space]), **arguments) for _ in range(2))  # same weights
    model.learn(32)
    moved = divergence(old.policy, model.policy, model.rollout_buffer.observations.reshape(32, 3))
    assert math.isclose(moved, 0.01, rel_tol=0.11)
    assert math.isclose(model.logger.name_to_value["train/approx_kl"], moved, rel_tol=1e-3)


@every_algorithm
@pytest.mark.parametrize("space", SUPPORTED)
def test_fixed_steps(algo: str, space: str) -> None:
    """In minibatches; the standard deviation is logged where there is one."""
    env = SampleEnv(VECTOR, SUPPORTED[space])
    model = make(algo, env, target_kl=None, learning_rate=0.01, batch_size=8)
    before = flatten(model.actor_parameters)
    model.learn(64)
    assert is_finite(model)
    assert not th.equal(before, flatten(model.actor_parameters))
    assert ("train/std" in model.logger.name_to_value) == isinstance(env.action_space, spaces.Box)


@pytest.mark.parametrize("space", OBSERVATION_SPACES)
def test_observation_spaces(space: str) -> None:
    """Both the actor and the critic read the observation."""
    env = SampleEnv(OBSERVATION_SPACES[space], spaces.Discrete(2))
    model = make("smac", env).learn(64)
    assert is_finite(model)
    batch, _ = model.policy.obs_to_tensor(np.stack([env.reset(seed=seed)[0] for seed in range(8)]))
    with th.no_grad():
        probabilities = model.policy.get_distribution(batch).distribution.probs
        values = model.policy.predict_values(batch)
    assert len(probabilities.unique(dim=0)) > 1
    assert len(values.unique()) > 1


@pytest.mark.parametrize("space", UNSUPPORTED_ACTION_SPACES)
def test_unsupported_action_spaces_are_refused(space: str) -> None:
    """With Stable-Baselines3's message, when the model is built."""
    with pytest.raises(AssertionError, match=r"action space|only supports"):
        make("smac", SampleEnv(VECTOR, UNSUPPORTED_ACTION_SPACES[space]))


def test_actions_are_clipped_for_the_environment_only() -> None:
    """The environment gets actions of its space; the policy learns from those that it drew."""
    env = SampleEnv(VECTOR, spaces.Box(-0.01, 0.01, (2,)))
    model = make("smac", env).learn(32)  # SampleEnv refuses an action that is not of its space
    assert np.abs(model.rollout_buffer.actions).max() > 0.01


@pytest.mark.parametrize("env", ["MountainCar-v0", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_gymnasium_tasks(env: str) -> None:
    assert is_finite(make("smac", gym.make(env)).learn(32))
