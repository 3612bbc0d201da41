"""Same seed, same result, bit for bit."""

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from tests.algorithms import TABLE, SampleEnv, is_same, make, snapshot

CASES: dict[str, dict[str, Any]] = {
    "discrete": {"env": "CartPole-v1"},
    "box": {"env": "Pendulum-v1"},
    "sde": {"env": "Pendulum-v1", "use_sde": True, "sde_sample_freq": 4},
    "minibatches": {"env": "CartPole-v1", "batch_size": 12},
    "fixed": {"env": "Pendulum-v1", "target_kl": None},
    "dict": {"policy": "MultiInputPolicy"},
}


def run(algo: str, env: Any = None, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
    """What training ends with, and what a stochastic policy then does."""
    if env is None:  # a new one, whose spaces nothing was drawn from
        env = SampleEnv(spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), spaces.Discrete(2))
    model = make(algo, env, **arguments).learn(64)
    vec_env = model.get_env()
    assert vec_env is not None
    observations, history = vec_env.reset(), []
    for _ in range(30):
        actions, _ = model.predict(observations)
        observations, rewards, dones, _ = vec_env.step(actions)
        history.append((actions, rewards, dones))
    return snapshot(model), history


@pytest.mark.parametrize(
    ("algo", "case"), [*[(algo, "box") for algo in TABLE], *[("smac", case) for case in CASES if case != "box"]]
)
def test_same_seed_same_result(algo: str, case: str) -> None:
    """And another seed gives another result: the seed reaches the environment, the network and the sampling."""
    first, second, other = (run(algo, **CASES[case], seed=seed) for seed in (3, 3, 4))
    assert is_same(first, second)
    assert not is_same(first[0], other[0])
    assert not is_same(first[1], other[1])


def test_leaves_the_global_generators_to_the_user() -> None:
    """Building a model without a seed draws only the initial weights: NumPy's generator stays where it was."""
    np.random.seed(0)
    expected = np.random.RandomState(0).rand()
    make("smac", seed=None)
    assert np.random.rand() == expected
