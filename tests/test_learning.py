"""SMAC learns real tasks (minutes to hours: ``make test-slow``)."""

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_smac import SMAC

pytestmark = pytest.mark.slow

LAST = 30_000


def final_return(env_id: str, timesteps: int, seed: int) -> float:
    """Mean undiscounted return of the training episodes that end in the last 30 thousand steps, with the default arguments."""
    env = VecNormalize(make_vec_env(env_id, seed=seed), gamma=0.99)
    model = SMAC("MlpPolicy", env, seed=seed, stats_window_size=timesteps, device="cpu").learn(timesteps)
    episodes = model.ep_info_buffer
    assert episodes
    ends = np.cumsum([episode["l"] for episode in episodes])
    return float(np.mean([episode["r"] for episode, end in zip(episodes, ends, strict=True) if end > timesteps - LAST]))


def test_cartpole() -> None:
    """Of at most 500, from about 20."""
    model = SMAC("MlpPolicy", "CartPole-v1", seed=0, device="cpu").learn(100_000)
    mean, _ = evaluate_policy(model, make_vec_env("CartPole-v1", seed=1), n_eval_episodes=20)
    assert mean >= 400


def pendulum_return(seed: int) -> float:
    """Smooth exploration and several steps a rollout, as for A2C and TRPO."""
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=4, seed=seed), gamma=0.9)
    model = SMAC(
        "MlpPolicy",
        env,
        n_steps=250,
        batch_size=100,
        gamma=0.9,
        gae_lambda=0.95,
        target_kl=0.02,
        critic_learning_rate=3e-3,
        use_sde=True,
        sde_sample_freq=4,
        seed=seed,
        device="cpu",
    ).learn(100_000)
    env.training = env.norm_reward = False
    return evaluate_policy(model, env, n_eval_episodes=20)[0]


def test_pendulum() -> None:
    """Random actions get about -1200 in 200 steps. The median of three seeds: about one in four does not get there in time."""
    assert np.median([pendulum_return(seed) for seed in range(3)]) >= -800


@pytest.mark.parametrize("env_id", ["Hopper-v4", "HalfCheetah-v4"])
def test_locomotion(env_id: str) -> None:
    """The defaults, without tuning, on average over three seeds."""
    assert np.mean([final_return(env_id, 300_000, seed) for seed in range(3)]) >= 1200
