"""What the YAML files and the searches hold: checked against the constructors and the paper's protocol."""

import inspect
import re
from typing import Any

import gymnasium as gym
import pytest
from stable_baselines3.common.monitor import Monitor
from torch import nn

from sb3_smac import ALGORITHMS
from sb3_smac.zoo import HYPERPARAMS, register

yaml = pytest.importorskip("yaml")
pytest.importorskip("optuna")
rl_zoo3 = pytest.importorskip("rl_zoo3")

CLASSIC_CONTROL = ["Acrobot-v1", "CartPole-v1", "Pendulum-v1"]
LOCOMOTION = ["HalfCheetah", "Hopper", "Swimmer", "Walker2d"]
PAPER = [*CLASSIC_CONTROL, *(f"{name}-v{v}" for name in [*LOCOMOTION, "Humanoid"] for v in (4, 5)), "Pusher-v5"]
OTHERS = [
    *(f"{name}-v{v}" for name in ("Ant", "InvertedPendulum", "InvertedDoublePendulum", "Reacher") for v in (4, 5)),
    *("LunarLander-v3", "LunarLanderContinuous-v3", "MountainCar-v0", "MountainCarContinuous-v0", "BipedalWalker-v3"),
]
# What the Zoo itself takes from an entry (its documentation, "Config")
ZOO_KEYS = {
    *("n_envs", "n_timesteps", "normalize", "frame_stack", "env_wrapper", "vec_env_wrapper"),
    *("env_kwargs", "monitor_kwargs", "callback"),
}
# Their settings were searched; they are not the paper's
TUNED = {
    "smac": {f"{name}-v{v}" for name in ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Swimmer", "Walker2d") for v in (4, 5)}
}
STEP_SIZES = {"learning_rate", "critic_learning_rate", "target_kl"}
every_algorithm = pytest.mark.parametrize("algo", ALGORITHMS)


def entries_of(algo: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load((HYPERPARAMS / f"{algo}.yml").read_text())


@every_algorithm
def test_every_key_is_a_parameter_of_the_constructor_or_the_zoo(algo: str) -> None:
    known = set(inspect.signature(ALGORITHMS[algo]).parameters) | ZOO_KEYS
    for env_id, entry in entries_of(algo).items():
        assert set(entry) <= known, env_id


@every_algorithm
def test_every_value_is_accepted(algo: str) -> None:
    for entry in {id(entry): entry for entry in entries_of(algo).values()}.values():
        arguments = {key: value for key, value in entry.items() if key not in ZOO_KEYS}
        if "policy_kwargs" in arguments:  # Python, as the Zoo has it
            arguments["policy_kwargs"] = eval(arguments["policy_kwargs"], {"nn": nn})
        is_of_box = arguments.get("final_log_std") is not None
        ALGORITHMS[algo](env="Pendulum-v1" if is_of_box else "CartPole-v1", **arguments)


@every_algorithm
def test_tasks(algo: str) -> None:
    assert set(entries_of(algo)) == {*PAPER, *OTHERS, "default"}
    assert set(PAPER + OTHERS) <= set(gym.registry)


@every_algorithm
def test_protocol_of_the_paper(algo: str) -> None:
    entries = entries_of(algo)
    for env_id in set(PAPER) - TUNED.get(algo, set()):
        entry = entries[env_id]
        assert entry["n_steps"] * entry.get("n_envs", 1) == 1000
        assert (entry["gamma"], entry["gae_lambda"]) == (0.99, 0.9)


def test_dampings_of_the_paper() -> None:
    entries = entries_of("smac")
    untuned = set(PAPER) - TUNED["smac"]
    assert {env_id: entries[env_id]["damping"] for env_id in untuned} == {
        env_id: 0.1 if env_id in CLASSIC_CONTROL else 1.0 if env_id.split("-")[0] in LOCOMOTION else 0.01 for env_id in untuned
    }


@every_algorithm
@pytest.mark.parametrize("env_id", PAPER)
def test_horizon_of_the_paper(algo: str, env_id: str) -> None:
    wrap = rl_zoo3.get_wrapper_class(entries_of(algo)[env_id]) or (lambda env: env)
    env = wrap(Monitor(gym.make(env_id)))
    assert env.spec is not None
    assert env.spec.max_episode_steps == 1000
    env.close()


@every_algorithm
def test_an_entry_is_marked_untuned_unless_it_has_step_sizes(algo: str) -> None:
    marks = dict(re.findall(r"^(\S+):.*\b(tuned|untuned)\b", (HYPERPARAMS / f"{algo}.yml").read_text(), flags=re.MULTILINE))
    tuned = {env_id for env_id, entry in entries_of(algo).items() if STEP_SIZES & set(entry)}
    assert tuned == TUNED.get(algo, set())
    assert marks == {env_id: "tuned" if env_id in tuned else "untuned" for env_id in entries_of(algo)}


@every_algorithm
def test_registered_beside_the_zoo_s_own(algo: str) -> None:
    from rl_zoo3.hyperparams_opt import HYPERPARAMS_CONVERTER, HYPERPARAMS_SAMPLER

    register()
    assert rl_zoo3.ALGOS[algo] is ALGORITHMS[algo]
    assert {"ppo", algo} <= set(rl_zoo3.ALGOS) & set(HYPERPARAMS_SAMPLER) & set(HYPERPARAMS_CONVERTER)


def test_every_algorithm_has_a_search_of_its_own_parameters() -> None:
    from sb3_smac.zoo.hyperparams_opt import SEARCH_SPACES

    assert set(SEARCH_SPACES) == set(ALGORITHMS)
    for algo, space in SEARCH_SPACES.items():
        parameters = inspect.signature(ALGORITHMS[algo]).parameters
        for name in ("learning_rate", "damping", "cg_max_steps"):
            assert (name in space) == (name in parameters), (algo, name)
