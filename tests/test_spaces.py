"""Every pair of an observation and an action space that Stable-Baselines3's on-policy algorithms support."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_smac.maths import flatten
from tests.algorithms import SampleEnv, every_algorithm, is_finite, make

BOX = spaces.Box(-1, 1, (3,))

ACTION_SPACES: dict[str, spaces.Space] = {
    "Discrete": spaces.Discrete(3),
    "Box": spaces.Box(-1, 1, (2,)),
    "BoxOfTwoDimensions": spaces.Box(-1, 1, (2, 2)),
    "MultiDiscrete": spaces.MultiDiscrete([2, 4, 3]),
    "MultiBinary": spaces.MultiBinary(4),
}
OBSERVATION_SPACES: dict[str, spaces.Space] = {
    "Box": BOX,
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


@every_algorithm
@pytest.mark.parametrize("space", ACTION_SPACES)
@pytest.mark.parametrize(
    "arguments", [{"target_kl": 0.01}, {"target_kl": None, "learning_rate": 0.01, "batch_size": 8}], ids=["sized", "fixed"]
)
def test_action_spaces(algo: str, space: str, arguments: dict) -> None:
    """The actor moves, by the KL divergence that was asked for if one was."""
    model = make(algo, SampleEnv(BOX, ACTION_SPACES[space]), **arguments)
    before = flatten(model.actor_parameters)
    model.learn(64)
    assert is_finite(model)
    assert not th.equal(before, flatten(model.actor_parameters))
    logged = model.logger.name_to_value
    assert logged["train/approx_kl"] > 0
    if arguments["target_kl"]:
        assert math.isclose(logged["train/approx_kl"], 0.01, rel_tol=0.11)
    assert ("train/std" in logged) == space.startswith("Box")


@every_algorithm
@pytest.mark.parametrize("space", OBSERVATION_SPACES)
def test_observation_spaces(algo: str, space: str) -> None:
    """Both the actor and the critic read the observation."""
    model = make(algo, SampleEnv(OBSERVATION_SPACES[space], spaces.Discrete(2))).learn(64)
    assert is_finite(model)
    generator = np.random.default_rng(0)
    env = SampleEnv(OBSERVATION_SPACES[space], spaces.Discrete(2))
    observations = [env.reset(seed=int(generator.integers(1000)))[0] for _ in range(8)]
    batch, _ = model.policy.obs_to_tensor(np.stack(observations))
    with th.no_grad():
        probabilities = model.policy.get_distribution(batch).distribution.probs
        values = model.policy.predict_values(batch)
    assert len(probabilities.unique(dim=0)) > 1
    assert len(values.unique()) > 1


@every_algorithm
@pytest.mark.parametrize("space", UNSUPPORTED_ACTION_SPACES)
def test_unsupported_action_spaces_are_refused(algo: str, space: str) -> None:
    """With Stable-Baselines3's message, when the model is built."""
    with pytest.raises(AssertionError, match=r"action space|only supports"):
        make(algo, SampleEnv(BOX, UNSUPPORTED_ACTION_SPACES[space]))


@every_algorithm
def test_actions_are_clipped_for_the_environment_only(algo: str) -> None:
    """The environment gets actions of its space; the policy learns from those that it drew."""
    env = SampleEnv(BOX, spaces.Box(-0.01, 0.01, (2,)))
    model = make(algo, env).learn(32)  # SampleEnv refuses an action that is not of its space
    assert np.abs(model.rollout_buffer.actions).max() > 0.01


@every_algorithm
def test_continuous_task_of_many_dimensions(algo: str) -> None:
    """KL divergences add up over the dimensions of an action: a step of the same size in each is not more than asked for."""
    model = make(algo, SampleEnv(BOX, spaces.Box(-1, 1, (20,))), target_kl=0.01).learn(64)
    assert math.isclose(model.logger.name_to_value["train/approx_kl"], 0.01, rel_tol=0.11)


@every_algorithm
@pytest.mark.parametrize("env", ["MountainCar-v0", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_gymnasium_tasks(algo: str, env: str) -> None:
    assert is_finite(make(algo, gym.make(env)).learn(32))
