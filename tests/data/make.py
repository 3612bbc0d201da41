"""
Makes the models of this folder, with the code of commit 1b9a7f1::

    git worktree add --detach ../old 1b9a7f1
    PYTHONPATH=../old python tests/data/make.py tests/data
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch as th

from sb3_smac import SMAC, ACAdam

MODELS = {"smac_pendulum": (SMAC, "Pendulum-v1"), "acadam_cartpole": (ACAdam, "CartPole-v1")}
TINY = {"n_steps": 64, "n_critic_updates": 2, "critic_batch_size": 16, "policy_kwargs": {"net_arch": [4]}, "device": "cpu"}


def make(name: str, folder: Path) -> dict[str, list]:
    """Train and save a model; return what it does on eight observations."""
    algorithm, task = MODELS[name]
    model = algorithm("MlpPolicy", task, seed=0, **TINY).learn(128)
    model.save(folder / name)
    env = model.get_env()
    seen = [env.reset()]
    for _ in range(7):
        seen.append(env.step(model.predict(seen[-1])[0])[0])
    observations = np.concatenate(seen)
    actions, _ = model.predict(observations, deterministic=True)
    with th.no_grad():
        values = model.policy.predict_values(th.as_tensor(observations)).flatten()
        log_probs = model.policy.get_distribution(th.as_tensor(observations)).log_prob(th.as_tensor(actions))
    arrays = {"observations": observations, "actions": actions, "values": values, "log_probs": log_probs}
    return {key: array.tolist() for key, array in arrays.items()}


if __name__ == "__main__":
    data = Path(sys.argv[1])
    (data / "expected.json").write_text(json.dumps({name: make(name, data) for name in MODELS}) + "\n")
