"""Dict observations."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.envs import BitFlippingEnv, SimpleMultiObsEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecExtractDictObs, VecFrameStack, VecNormalize

from tests.algorithms import ACTION_SPACES, VECTOR, SampleEnv, is_finite, is_same, make, snapshot

IMAGE = spaces.Box(0, 255, (36, 36, 1), dtype=np.uint8)
TINY_CNN = {"net_arch": [8], "features_extractor_kwargs": {"cnn_output_dim": 8}}
OBSERVATION_SPACES: dict[str, spaces.Dict] = {
    "vectors": spaces.Dict({"a": VECTOR, "b": spaces.Box(-1, 1, (2,), dtype=np.float64)}),
    "discrete": spaces.Dict({"a": spaces.Discrete(3), "b": spaces.MultiDiscrete([2, 3]), "c": spaces.MultiBinary(2)}),
    "image": spaces.Dict({"image": IMAGE, "vector": VECTOR, "discrete": spaces.Discrete(4)}),
}


@pytest.mark.parametrize(
    ("algo", "space", "actions"),
    [
        *[("smac", space, "Discrete") for space in OBSERVATION_SPACES],
        *[(algo, "image", "Box") for algo in ("smac_full", "accg", "acadam")],
    ],
)
def test_learns(algo: str, space: str, actions: str) -> None:
    """
    In minibatches too, which take the same rows of every key. Actor and critic are disjoint: only an extractor without
    parameters is shared, and every parameter is in exactly one list.
    """
    env = SampleEnv(OBSERVATION_SPACES[space], ACTION_SPACES[actions])
    policy_kwargs = TINY_CNN if space == "image" else {}
    model = make(algo, env, "MultiInputPolicy", policy_kwargs=policy_kwargs, batch_size=12, target_kl=0.01)
    before = snapshot(model)
    model.learn(32)
    assert is_finite(model)
    assert not is_same(before, snapshot(model))
    assert len(evaluate_policy(model, env, n_eval_episodes=2, warn=False, return_episode_rewards=True)[0]) == 2
    policy = model.policy
    actor, critic = (set(map(id, parameters)) for parameters in (model.actor_parameters, model.critic_parameters))
    assert actor | critic == set(map(id, policy.parameters())) and not actor & critic
    assert set(map(id, policy.vf_features_extractor.parameters())) <= critic
    assert set(map(id, policy.pi_features_extractor.parameters())) <= actor


class OnlyVector(gym.ObservationWrapper):
    """The one entry of a Dict observation by itself."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = env.observation_space["vector"]

    def observation(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return observation["vector"]


def test_a_dict_of_one_vector_is_the_vector() -> None:
    """The same training, whichever way the observation is wrapped (and where nobody normalises it)."""
    results = []
    for wrapper, policy in ((lambda env: env, "MultiInputPolicy"), (OnlyVector, "MlpPolicy")):
        env = SampleEnv(spaces.Dict({"vector": VECTOR}), ACTION_SPACES["Box"])
        model = make("smac", wrapper(env), policy, normalize_observations=False).learn(64)
        results.append([parameter.detach() for parameter in (*model.actor_parameters, *model.critic_parameters)])
    for one, other in zip(*results, strict=True):
        th.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_wrappers_that_treat_the_keys_differently() -> None:
    """Vectors normalised, images stacked."""
    env = DummyVecEnv([lambda: SimpleMultiObsEnv(channel_last=False)] * 2)
    channels = env.observation_space["img"].shape[0]
    env = VecFrameStack(VecNormalize(env, norm_obs_keys=["vec"]), n_stack=2, channels_order={"vec": None, "img": "first"})
    model = make("smac", env, "MultiInputPolicy", policy_kwargs=TINY_CNN, n_steps=16).learn(32)
    assert is_finite(model)
    assert model.observation_space["img"].shape[0] == 2 * channels


def test_one_key_of_a_dict() -> None:
    env = DummyVecEnv([lambda: SampleEnv(OBSERVATION_SPACES["vectors"], spaces.Discrete(2))] * 2)
    model = make("smac", VecExtractDictObs(env, key="a")).learn(64)
    assert model.observation_space.shape == (3,) and is_finite(model)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_the_wrong_policy_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        make("smac", BitFlippingEnv(n_bits=3), policy)
