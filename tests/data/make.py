"""Made with the code of commit 1b9a7f1 (version before the critic's last layer put out values in units of the reward)."""
import json, sys
from pathlib import Path
import gymnasium as gym, numpy as np, torch as th
import sb3_smac
from sb3_smac import SMAC, ACAdam
assert "wt-old" in sb3_smac.__file__
th.set_num_threads(1)
out = Path(sys.argv[1]); out.mkdir(exist_ok=True, parents=True)
expected = {}
for name, cls, env in (("smac_pendulum", SMAC, "Pendulum-v1"), ("acadam_cartpole", ACAdam, "CartPole-v1")):
    model = cls(*("MlpPolicy", env), n_steps=64, n_critic_updates=2, critic_batch_size=16, policy_kwargs={"net_arch": [4]}, seed=0, device="cpu")
    model.learn(128)
    model.save(out / name)
    venv = model.get_env(); obs = [venv.reset()]
    for _ in range(7):
        obs.append(venv.step(model.predict(obs[-1])[0])[0])
    obs = np.concatenate(obs)
    with th.no_grad():
        values = model.policy.predict_values(th.as_tensor(obs)).flatten()
        actions = model.predict(obs, deterministic=True)[0]
        lp = model.policy.get_distribution(th.as_tensor(obs)).log_prob(th.as_tensor(actions))
    expected[name] = {"observations": obs.tolist(), "actions": actions.tolist(), "values": values.tolist(), "log_probs": lp.tolist()}
(out / "expected.json").write_text(json.dumps(expected) + "\n")
