"""AC-CG with a KL-sized step and the line search is TRPO: against sb3-contrib's, on the same batch."""

import copy
from unittest import mock

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib import TRPO
from stable_baselines3.common.env_util import make_vec_env
from torch.nn import functional as F

from sb3_smac import ACCG
from sb3_smac.common.trust_region import frozen, mean_kl
from tests.algorithms import SampleEnv
from tests.dense_reference import actor, vector

OBSERVATIONS = spaces.Box(-1, 1, (4,), np.float64)
BOX = spaces.Box(-1, 1, (3,), np.float32)
DAMPING, TARGET_KL, STEPS = 0.1, 0.01, 8


@pytest.mark.parametrize("space", [BOX, spaces.Discrete(4)], ids=["box", "discrete"])
def test_step(space: spaces.Space) -> None:
    """
    The same direction, to rounding, and the same length, to the tolerance of a KL-sized step.

    TRPO averages the divergence over the dimensions of a Box action: its damping is ours divided by their number.
    """
    dimensions = space.shape[0] if isinstance(space, spaces.Box) else 1
    arguments = {"n_steps": 256, "seed": 0, "cg_max_steps": STEPS, "device": "cpu"}
    env = make_vec_env(lambda: SampleEnv(OBSERVATIONS, space), n_envs=2, seed=0)
    trpo = TRPO("MlpPolicy", env, cg_damping=DAMPING, target_kl=TARGET_KL, n_critic_updates=1, **arguments)
    with mock.patch.object(trpo, "train"):
        trpo.learn(512)
    normalize = {"normalize_observations": False, "normalize_returns": False}
    accg = ACCG("MlpPolicy", env, damping=DAMPING * dimensions, cg_tolerance=0, line_search=True, **normalize, **arguments)
    with mock.patch.object(accg, "train"):
        accg.learn(512)
    accg.policy.load_state_dict(trpo.policy.state_dict())
    accg.rollout_buffer = copy.deepcopy(trpo.rollout_buffer)
    start = vector(actor(trpo.policy))
    observations = th.as_tensor(trpo.rollout_buffer.observations).reshape(512, -1)
    before = frozen(accg.policy.get_distribution(observations))

    trpo.train()
    trpo_step = vector(actor(trpo.policy)) - start
    divergence = mean_kl(before, trpo.policy.get_distribution(observations)).item()
    assert 0.3 * TARGET_KL < divergence / dimensions < 1.1 * TARGET_KL

    accg.target_kl = divergence
    accg.train()
    accg_step = vector(actor(accg.policy)) - start
    assert F.cosine_similarity(trpo_step, accg_step, dim=0) > 0.99999
    assert accg_step.norm().item() == pytest.approx(trpo_step.norm().item(), rel=0.06)
    assert accg.logger.name_to_value["train/line_search_halvings"] == 0
