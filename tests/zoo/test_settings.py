"""Errors of entries, of ``-params`` and of searches: they name what is wrong, what it is and what is accepted."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rl_zoo3")
optuna = pytest.importorskip("optuna")

from gymnasium import spaces  # noqa: E402

from sb3_smac import ALGORITHMS  # noqa: E402
from sb3_smac.zoo import settings  # noqa: E402
from sb3_smac.zoo.__main__ import main  # noqa: E402
from sb3_smac.zoo.exp_manager import ExperimentManager  # noqa: E402
from sb3_smac.zoo.hyperparams_opt import convert, sampler, search_space, searched  # noqa: E402

TRAIN = ("train", "--algo", "smac", "--env", "CartPole-v1", "-n", "32", "--eval-freq", "-1")


LIMIT = "sb3_smac.zoo.wrappers.time_limit"
WRONG = [
    ("damping", -1, "damping must be None or a finite number > 0, got -1"),
    (
        "learning_rate",
        "lin0.1",
        "learning_rate must be a finite number >= 0, a schedule (callable) or a string such as 'lin_0.001'",
    ),
    ("n_steps", 1.5, "n_steps must be an integer >= 1, got 1.5"),
    ("n_envs", 0, "n_envs must be an integer >= 1, got 0"),
    ("n_envs", "two", "n_envs must be an integer >= 1, got 'two'"),
    ("n_timesteps", "many", "n_timesteps must be a finite number >= 1, got 'many'"),
    ("frame_stack", 0, "frame_stack must be an integer >= 1, got 0"),
    ("batch_size", 2000, "batch_size must be None or between 1 and 1000 (n_steps * n_envs), got 2000"),
    ("normalise", True, "smac.yml, or -params); did you mean 'normalize'?"),
    ("train_freq", 1, "'train_freq' is no hyperparameter of smac"),
    ("_init_setup_model", False, "'_init_setup_model' is no hyperparameter of smac"),
    ("seed", 3, "or -params): it is the option --seed"),
    ("tensorboard_log", "tb", "or -params): it is the option --tensorboard-log"),
    ("normalize", 3, "normalize must be True, False or a dict, or Python for one such as 'dict(a=1)', got 3"),
    ("normalize", "dict(norm_ob=True)", "'norm_ob' is no argument of VecNormalize (normalize); did you mean 'norm_obs'?"),
    (
        "policy",
        "MlpPolcy",
        "policy must be one of MlpPolicy, CnnPolicy, MultiInputPolicy, or module.Class of your own, got 'MlpPolcy'",
    ),
    ("policy", "sb3_smac.nothing.Policy", "policy: 'sb3_smac.nothing.Policy' cannot be imported (No module named"),
    (
        "policy",
        "sb3_smac.common.policies.MlpPolcy",
        "'MlpPolcy' is no name in sb3_smac.common.policies (policy); did you mean 'MlpPolicy'?",
    ),
    ("policy_kwargs", "dict(net_arch=[64)", "policy_kwargs must be a dict, or Python for one such as 'dict(a=1)', got"),
    ("policy_kwargs", "dict(activation_fn=nn.Relu)", "got 'dict(activation_fn=nn.Relu)' (AttributeError: "),
    ("env_kwargs", 3, "env_kwargs must be a dict, got 3"),
    ("env_kwargs", "dict(a=1)", "env_kwargs must be a dict, got 'dict(a=1)'"),
    (
        "monitor_kwargs",
        {"info_keyword": ()},
        "'info_keyword' is no argument of Monitor (monitor_kwargs); did you mean 'info_keywords'?",
    ),
    ("env_wrapper", 3, "env_wrapper must be a class or function, as module.name, or a list of these; got 3"),
    ("env_wrapper", "time_limit", "env_wrapper must be a class or function with its module, as module.name; got 'time_limit'"),
    (
        "env_wrapper",
        f"{LIMIT}s",
        "'time_limits' is no name in sb3_smac.zoo.wrappers (env_wrapper); did you mean 'time_limit'?",
    ),
    (
        "env_wrapper",
        [{LIMIT: {"max_step": 3}}],
        "'max_step' is no argument of time_limit (env_wrapper); did you mean 'max_episode_steps'?",
    ),
    (
        "env_wrapper",
        {LIMIT: None},
        "env_wrapper must have arguments as name: {argument: value} (in YAML: see the indentation)",
    ),
    ("env_wrapper", {LIMIT: {"max_episode_steps": "long"}}, "max_episode_steps must be an integer >= 1, got 'long'"),
    ("callback", "no_such_module.Callback", "callback: 'no_such_module.Callback' cannot be imported"),
    ("vec_env", "dumy", "vec_env must be one of None, 'dummy', 'subproc', 'envpool', got 'dumy'"),
]


@pytest.mark.parametrize("name, value, message", WRONG)
def test_wrong_values_on_the_command_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        main([*TRAIN, "-params", f"{name}:{value!r}"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("CartPole-v1: {n_timesteps: 10, policy: MlpPolicy, learning_rate: lin0.1}", "learning_rate must be a finite number"),
        ("CartPole-v1: {n_timesteps: 10, policy: MlpPolicy, n_steps: ten}", "n_steps must be an integer >= 1, got 'ten'"),
        (
            "CartPole-v1: {n_timesteps: 10, policy: MlpPolicy, dampin: 0.1}",
            "'dampin' is no hyperparameter of smac (CartPole-v1 in mine.yml, or -params); did you mean 'damping'?",
        ),
        ("CartPole-v1: 3", "CartPole-v1 in mine.yml must have hyperparameters as name: value, got 3"),
        ("", "mine.yml must have an entry for each environment, got None"),
        ("CartPole-v1: {", "mine.yml is not a YAML file: "),
        ("Pendulum-v1: {n_timesteps: 10}", "Hyperparameters not found for smac-CartPole-v1 in mine.yml"),
    ],
)
def test_wrong_files(text: str, message: str) -> None:
    Path("mine.yml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        main([*TRAIN, "-conf", "mine.yml"])


def test_how_long_is_needed() -> None:
    Path("mine.yml").write_text("CartPole-v1: {n_steps: 16}")
    with pytest.raises(ValueError, match=r"n_timesteps is neither in CartPole-v1's entry of mine.yml nor given"):
        main([*TRAIN[:5], "-conf", "mine.yml"])
    assert main([*TRAIN, "-conf", "mine.yml"]) == 0  # with -n; and without a policy, the one that fits
    assert "n_timesteps\n    - 32" in Path("logs/smac/CartPole-v1_1/CartPole-v1/config.yml").read_text()


def test_numbers_that_yaml_takes_for_strings() -> None:
    """YAML 1.1 wants ``1.0e-3``; everybody writes ``1e-3``."""
    Path("mine.yml").write_text(
        "CartPole-v1: {policy: MlpPolicy, n_timesteps: 3e1, n_steps: 16, learning_rate: 1e-3, target_kl: 2e-2, damping: 5E-1}"
    )
    assert main([*TRAIN[:5], "--eval-freq", "-1", "-conf", "mine.yml"]) == 0
    model = ALGORITHMS["smac"].load("logs/smac/CartPole-v1_1/CartPole-v1.zip")
    assert (model.learning_rate, model.target_kl, model.damping) == (0.001, 0.02, 0.5)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (
            "damping:much",
            "argument -params: the value of damping must be Python, got much (NameError: name 'much' is not defined)",
        ),
        ("learning_rate:lin_0.1", "a string has quotes of its own, as in learning_rate:\"'lin_0.1'\""),
        ("damping=0.1", "argument -params: must be name:value, got 'damping=0.1'"),
    ],
)
def test_what_is_no_python(argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*TRAIN, "-params", "n_steps:16", argument])
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--env", "no_such_module:CartPole-v1"), "--env no_such_module:CartPole-v1: No module named 'no_such_module'"),
        (("--env", "CartPole-v1", "--gym-packages", "no_such_module"), "--gym-packages: no_such_module cannot be imported"),
    ],
)
def test_modules_that_are_not_there(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(message)):
        main(["train", "--algo", "smac", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--trial-id", "3"), "--trial-id must come with --storage and --study-name, got 3 alone"),
        (("--eval-episodes", "0"), "--eval-episodes must be an integer >= 1, got 0"),
        (("--n-eval-envs", "0"), "--n-eval-envs must be an integer >= 1, got 0"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        main([*TRAIN, *arguments])


def test_trials_that_are_not_there() -> None:
    storage = "sqlite:///study.db"
    optuna.create_study(study_name="empty", storage=storage)
    for study in ("empty", "none"):
        with pytest.raises(ValueError, match=f"--trial-id 3: study '{study}' in {storage} has no such trial"):
            main([*TRAIN, "--trial-id", "3", "--storage", storage, "--study-name", study])


def test_wrong_normalisation_of_a_dict() -> None:
    space = spaces.Dict({"speed": spaces.Box(-1, 1, (2,)), "gear": spaces.Discrete(5)})
    assert settings.normalizable(space, {"gamma": 0.9}) == {"gamma": 0.9, "norm_obs_keys": ["speed"]}
    message = "'sped' is no key of the observations (norm_obs_keys in normalize); did you mean 'speed'?"
    with pytest.raises(ValueError, match=re.escape(message)):
        settings.normalizable(space, {"norm_obs_keys": ["sped"]})


@pytest.mark.parametrize("algo", ALGORITHMS)
@pytest.mark.parametrize("rollout_size", [1, 2, 7, 40, 1000, 16384])
def test_whatever_the_rollout_what_is_drawn_fits_and_can_be_had_again(algo: str, rollout_size: int) -> None:
    """``--trial-id`` converts the parameters of a trial again: it must get what the trial was trained with."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    rules = set()
    for _ in range(12):
        trial = study.ask()
        hyperparams = sampler(algo, rollout_size)(trial, 1, 1, {})
        ALGORITHMS[algo]("MlpPolicy", "CartPole-v1", n_steps=rollout_size, **hyperparams)
        assert convert(trial.params) == hyperparams
        assert set(hyperparams) <= searched(algo)
        rules.add(hyperparams["target_kl"] is None)
    assert rules == {True, False}  # both kinds of steps are tried


def test_the_paper_s_rollout_is_divided_as_ever() -> None:
    trial = optuna.trial.FixedTrial({"batch_size": 125, "fisher_rank": 64})
    space = search_space("smac")
    assert space["batch_size"](trial, "batch_size") == 125 and space["fisher_rank"](trial, "fisher_rank") == 64
    assert set(trial.distributions["batch_size"].choices) == {None, 500, 250, 125}
    assert trial.distributions["fisher_rank"].choices == (1, 16, 64, "full")


ONE_EVALUATION = ("--n-evaluations", "1", "--eval-episodes", "1", "--no-optim-plots", "--seed", "0")
SEARCH = (*TRAIN, "-optimize", "--n-trials", "6", *ONE_EVALUATION)


def test_a_search_on_a_short_rollout_of_two_environments(capsys: pytest.CaptureFixture[str]) -> None:
    """Of the batches of the paper's rollout, none fits."""
    assert main([*SEARCH, "--pruner", "none", "-params", "n_steps:16", "n_envs:2"]) == 0
    assert "must be None or between 1 and" not in capsys.readouterr().out


def test_a_search_with_a_wrong_setting_ends_before_its_first_trial() -> None:
    with pytest.raises(ValueError, match="critic_damping must be a finite number > 0, got -1"):
        main([*SEARCH, "-params", "critic_damping:-1", "--storage", "sqlite:///study.db", "--study-name", "wrong"])
    assert not Path("study.db").exists()


def test_a_search_in_which_no_trial_completes_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    fails = iter(["the first", "the second", "the third"])

    def create_envs(manager: ExperimentManager, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("eval_env"):
            raise FloatingPointError(f"{next(fails)} error")
        return original(manager, *args, **kwargs)

    original = ExperimentManager.create_envs
    monkeypatch.setattr(ExperimentManager, "create_envs", create_envs)
    message = "No trial completed (3 pruned). The first error was that of trial 0: FloatingPointError: the first error"
    with pytest.raises(ValueError, match=re.escape(message)):
        main([*SEARCH, "--n-trials", "3", "-params", "n_steps:16"])


def test_errors_of_training_are_kept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def learn(*args: Any, **kwargs: Any) -> None:
        raise ValueError("diverged")

    monkeypatch.setattr(ALGORITHMS["smac"], "learn", learn)
    message = "No trial completed (2 pruned). The first error was that of trial 0: ValueError: diverged"
    with pytest.raises(ValueError, match=re.escape(message)):
        main([*SEARCH, "--n-trials", "2", "-params", "n_steps:16"])
