"""
Models that earlier versions have saved are loaded, and act and value as they did.

The files of ``tests/data`` are of commit 1b9a7f1, whose critics put out normalised values; ``tests/data/make.py`` made them.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_smac import SMAC, ACAdam, NaturalActorCritic
from tests.algorithms import is_finite, is_same, snapshot

DATA = Path(__file__).parent / "data"
EXPECTED: dict[str, dict[str, list]] = json.loads((DATA / "expected.json").read_text())
MODELS: dict[str, tuple[type[NaturalActorCritic], str]] = {
    "smac_pendulum": (SMAC, "Pendulum-v1"),
    "acadam_cartpole": (ACAdam, "CartPole-v1"),
}
every_model = pytest.mark.parametrize("name", MODELS)


def load(name: str, **arguments: Any) -> NaturalActorCritic:
    model: NaturalActorCritic = MODELS[name][0].load(DATA / name, device="cpu", **arguments)
    return model


@every_model
def test_they_act_and_value_as_they_did(name: str) -> None:
    model, expected = load(name), EXPECTED[name]
    observations = np.array(expected["observations"], np.float32)
    actions, _ = model.predict(observations, deterministic=True)
    tensors = th.as_tensor(observations)
    with th.no_grad():
        values = model.policy.predict_values(tensors).flatten().tolist()
        log_probs = model.policy.get_distribution(tensors).log_prob(th.as_tensor(actions)).tolist()
    assert actions == pytest.approx(np.array(expected["actions"]), abs=1e-6)
    assert values == pytest.approx(expected["values"], rel=1e-5)
    assert log_probs == pytest.approx(expected["log_probs"], rel=1e-5)


@every_model
def test_they_go_on_training(name: str) -> None:
    """
    From where they were, with statistics, counters and optimizers: the rollout's values are still those of the critic after
    the first new statistics.
    """
    model = load(name, env=make_vec_env(MODELS[name][1], seed=0))
    assert model.policy.normalize_observations and model.policy.normalize_returns
    assert model.policy.observation_normalizer.count == model.policy.return_normalizer.count == 128
    assert (model.num_timesteps, model._n_updates) == (128, 2)
    assert all(parameters["state"] for key, parameters in model.get_parameters().items() if "optimizer" in key)
    model.learn(64, reset_num_timesteps=False)
    assert is_finite(model)
    assert model.policy.return_normalizer.count == 192
    assert model.logger.name_to_value["train/approx_kl"] < 0.1


@every_model
def test_saved_again_they_are_new(name: str, tmp_path: Path) -> None:
    """Values are put into the units of the reward once."""
    model = load(name)
    model.save(tmp_path / "model")
    assert is_same(snapshot(MODELS[name][0].load(tmp_path / "model", device="cpu")), snapshot(model))
