"""The policy that collects rollouts is the one that updates train, whatever the user has made of it."""

import copy
import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import A2C
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_smac import SMAC, NaturalActorCritic
from sb3_smac.common.evaluation import TOLERANCE
from sb3_smac.maths import flat_gradient
from tests import own_policies
from tests.algorithms import TABLE, is_finite, make
from tests.own_policies import CASES, Case

# A middle rank besides those of the table
ALGORITHMS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in TABLE},
    "smac_rank_3": ("smac", {"fisher_rank": 3}),
}
every_algorithm_and_rank = pytest.mark.parametrize("algo", ALGORITHMS)
STEPS = 16


def build(algo: str, case: Case, env: Any = None, **arguments: Any) -> NaturalActorCritic:
    """A cheap model with the policy of a case."""
    name, own = ALGORITHMS[algo]
    kwargs = {"net_arch": [8], **case.kwargs}
    settings = {"n_steps": STEPS, "target_kl": 0.01, **own, **case.arguments, **arguments}
    env = DummyVecEnv([case.env]) if env is None else env
    return make(name, env, policy=case.policy, policy_kwargs=kwargs, **settings)


@contextmanager
def watched(model: NaturalActorCritic) -> Iterator[list[int]]:
    """
    While the block runs, check at the first actor batch of each update that what is differentiated is what acted, and that
    the policy gradient is that of ``evaluate_actions``, which A2C differentiates. Yields a list with an entry per update.
    """
    updates: list[int] = []
    pending: list[Any] = []
    steps, direction = model._actor_steps, model.actor_direction

    def begin(evaluator: Any, rollout: Any, advantages: th.Tensor, acted: Any) -> Any:
        pending[:] = [rollout]
        assert close(acted.log_prob, rollout.old_log_prob)
        return steps(evaluator, rollout, advantages, acted)

    def first(batch: Any) -> th.Tensor:
        if pending:
            rollout = pending.pop()
            stored = rollout.old_log_prob[: len(batch.advantages)]
            policy, actions = model.policy, batch.actions
            if isinstance(model.action_space, gym.spaces.Discrete):
                actions = actions.long().flatten()
            if not has_other_training_mode(policy):  # else the pass of the batch has moved what evaluation mode uses
                policy.set_training_mode(False)
                _, log_prob, _ = policy.evaluate_actions(batch.observations, actions)
                assert close(log_prob, stored)
                assert close(batch.evaluation.log_prob, stored)
                outside = [
                    parameter for parameter in policy.parameters() if all(parameter is not own for own in batch.parameters)
                ]
                objective = (batch.advantages * log_prob).mean()
                expected = flat_gradient(objective, [*batch.parameters, *outside])
                inside = len(batch.gradient)
                assert th.allclose(batch.gradient, expected[:inside], rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
                assert not expected[inside:].any()
                policy.set_training_mode(True)
            updates.append(len(batch.parameters))
        return direction(batch)

    model._actor_steps, model.actor_direction = begin, first  # type: ignore[method-assign]
    try:
        yield updates
    finally:
        del model._actor_steps, model.actor_direction


def has_other_training_mode(policy: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm1d | nn.Dropout) for module in policy.modules())


def close(actual: th.Tensor, expected: th.Tensor) -> bool:
    return bool(((actual - expected).abs() <= TOLERANCE * expected.abs().clamp(min=1)).all())


def moved_by(model: Any, train: Callable[[], Any]) -> set[str]:
    """Names of the parameters that change."""
    before = {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}
    train()
    return {name for name, parameter in model.policy.named_parameters() if not th.equal(before[name], parameter)}


def unprefixed(names: set[str]) -> set[str]:
    return {name.removeprefix("_orig_mod.") for name in names}


@every_algorithm_and_rank
@pytest.mark.parametrize("case", CASES)
def test_the_log_probabilities_that_scores_are_taken_of_are_those_of_the_rollout(algo: str, case: str) -> None:
    """At the first actor batch of each update; also where statistics of observations have changed in between."""
    model = build(algo, CASES[case])
    with watched(model) as updates, warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(3 * STEPS)
    assert len(updates) == 3
    assert is_finite(model)


@pytest.mark.parametrize("algo", ["smac", "accg"])
@pytest.mark.parametrize("case", CASES)
def test_minibatches(algo: str, case: str) -> None:
    """The first of several batches, the last one short."""
    model = build(algo, CASES[case], batch_size=6)
    with watched(model) as updates:
        model.learn(2 * STEPS)
    assert len(updates) == 2


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case.is_deterministic])
@pytest.mark.parametrize("algo", ["smac", "smac_full"])
def test_what_a2c_moves_is_moved(algo: str, case: str) -> None:
    """The same parameters, and no other."""
    kwargs = {"net_arch": [8], **CASES[case].kwargs}
    a2c = A2C(
        (CASES[case].policy if not isinstance(CASES[case].policy, str) else own_class(CASES[case].policy)),
        *(DummyVecEnv([CASES[case].env]),),
        **{"n_steps": STEPS, "policy_kwargs": kwargs, "seed": 0, "device": "cpu", **CASES[case].arguments},
    )
    model = build(algo, CASES[case])
    a2cs = moved_by(a2c, lambda: a2c.learn(STEPS))
    if not CASES[case].arguments.get("use_sde"):
        assert moved_by(model, lambda: model.learn(STEPS)) == a2cs
    else:
        assert moved_by(model, lambda: model.learn(2 * STEPS)) >= a2cs - {"log_std"}


def own_class(name: str) -> type:
    return NaturalActorCritic.policy_aliases[name]


@every_algorithm_and_rank
@pytest.mark.parametrize("policy", [own_policies.ForwardOnly, own_policies.ValuesOfForwardOnly])
def test_what_cannot_be_trained_is_refused(algo: str, policy: type) -> None:
    """With the methods that would have to agree, before anything is trained."""
    model = build(algo, Case(policy, own_policies.DISCRETE))
    before = copy.deepcopy(model.policy.state_dict())
    with pytest.raises(ValueError, match=rf"{policy.__name__}.*evaluate_actions.*forward"):
        model.learn(STEPS)
    assert all(th.equal(value, model.policy.state_dict()[name]) for name, value in before.items())


class Bandit(gym.Env):
    """One state; the last of four actions pays."""

    observation_space, action_space = gym.spaces.Box(-1, 1, (2,)), gym.spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.ones(2, np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.ones(2, np.float32), float(action == 3), True, False, {}


@every_algorithm_and_rank
@pytest.mark.parametrize(
    "policy",
    [
        *(own_policies.OwnNetwork, own_policies.OwnNetworkOfSB3, own_policies.OwnValues, own_policies.FeaturesToOwnHead),
        *(own_policies.Temperature, own_policies.LearnedTemperature),
    ],
)
def test_own_policies_learn(algo: str, policy: type) -> None:
    """A bandit's best action becomes likely under what acts."""
    model = build(algo, Case(policy, Bandit), n_steps=64, target_kl=0.1)
    observation = th.ones(1, 2)

    def probability() -> float:
        with th.no_grad():
            return float(model.policy.evaluate_actions(observation, th.tensor([3]))[1].exp())

    before = probability()
    model.learn(64 * 12)
    assert probability() > max(0.6, before + 0.1)


# What users put into a policy that is built


def _action_net(model: Any) -> None:
    old = model.policy.action_net
    model.policy.action_net = nn.Linear(old.in_features, old.out_features)


def _deeper_action_net(model: Any) -> None:
    old = model.policy.action_net
    model.policy.action_net = nn.Sequential(nn.Linear(old.in_features, 5), nn.Tanh(), nn.Linear(5, old.out_features))


def _value_net(model: Any) -> None:
    model.policy.value_net = nn.Linear(model.policy.value_net.in_features, 1)


def _deeper_value_net(model: Any) -> None:
    model.policy.value_net = nn.Sequential(nn.Linear(model.policy.value_net.in_features, 5), nn.Tanh(), nn.Linear(5, 1))


def _log_std(model: Any) -> None:
    model.policy.log_std = nn.Parameter(th.full_like(model.policy.log_std, -0.7))


def _policy_layer(model: Any) -> None:
    old = model.policy.mlp_extractor.policy_net[0]
    model.policy.mlp_extractor.policy_net[0] = nn.Linear(old.in_features, old.out_features)


def _value_layer(model: Any) -> None:
    old = model.policy.mlp_extractor.value_net[0]
    model.policy.mlp_extractor.value_net[0] = nn.Linear(old.in_features, old.out_features)


def _mlp_extractor(model: Any) -> None:
    model.policy._build_mlp_extractor()


def _activation(model: Any) -> None:
    model.policy.mlp_extractor.policy_net[1] = nn.PReLU()


def _weight(model: Any) -> None:
    layer = model.policy.mlp_extractor.policy_net[0]
    layer.weight = nn.Parameter(layer.weight.detach() * 1.5)


def _policy(model: Any) -> None:
    old = model.policy
    model.policy = type(old)(old.observation_space, old.action_space, lambda _: 1e-3, net_arch=[6])


def _policy_of_sb3(model: Any) -> None:
    old = model.policy
    model.policy = sb3_policies.ActorCriticPolicy(old.observation_space, old.action_space, lambda _: 1e-3, net_arch=[6])


def _copied_policy(model: Any) -> None:
    model.policy = copy.deepcopy(model.policy)


def _own_policy(model: Any) -> None:
    old = model.policy
    model.policy = own_policies.OwnValues(old.observation_space, old.action_space, lambda _: 1e-3, net_arch=[6])


def _extractor(model: Any) -> None:
    extractor = own_policies.Residual(model.observation_space)
    critics = own_policies.Residual(model.observation_space)
    policy = model.policy
    policy.features_extractor = policy.pi_features_extractor = extractor
    policy.share_features_extractor, policy.vf_features_extractor = False, critics
    policy.features_dim = extractor.features_dim
    policy._build_mlp_extractor()


def _compiled(model: Any) -> None:
    model.policy = th.compile(model.policy, backend="eager")


def _compiled_in_place(model: Any) -> None:
    model.policy.compile(backend="eager")


def _unfrozen(model: Any) -> None:
    for parameter in model.policy.mlp_extractor.parameters():
        parameter.requires_grad_(True)


def _frozen_actor(model: Any) -> None:
    for parameter in model.actor_parameters:
        parameter.requires_grad_(False)


def _frozen_critic(model: Any) -> None:
    for parameter in model.critic_parameters:
        parameter.requires_grad_(False)


def _low_rank(model: Any) -> None:
    """An adapter by the usual trick: a frozen layer and a trained one beside it."""

    class Adapted(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.layer = layer.requires_grad_(False)
            self.adapter = nn.Sequential(nn.Linear(layer.in_features, 1), nn.Linear(1, layer.out_features))

        def forward(self, inputs: th.Tensor) -> th.Tensor:
            return self.layer(inputs) + self.adapter(inputs)

    model.policy.action_net = Adapted(model.policy.action_net)


def _parametrized(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.policy.mlp_extractor.policy_net[0])


def _tied(model: Any) -> None:
    """Actor and critic on one layer."""
    model.policy.mlp_extractor.value_net[0] = model.policy.mlp_extractor.policy_net[0]


def _instance_method(model: Any) -> None:
    """A distribution of its own, by a method of the instance."""
    policy = model.policy
    original = policy._get_action_dist_from_latent

    def sharper(latent: th.Tensor) -> Any:
        distribution = original(latent)
        distribution.distribution = th.distributions.Normal(distribution.distribution.mean * 2, 0.5)
        return distribution

    policy._get_action_dist_from_latent = sharper


def _hook(model: Any) -> None:
    model.policy.action_net.register_forward_hook(lambda module, inputs, output: output / 2)


CHANGES: dict[str, Callable[[Any], None]] = {
    function.__name__[1:]: function
    for function in (
        *(_action_net, _deeper_action_net, _value_net, _deeper_value_net, _log_std, _policy_layer, _value_layer),
        *(_mlp_extractor, _activation, _weight, _policy, _policy_of_sb3, _copied_policy, _own_policy, _extractor),
        *(_compiled, _compiled_in_place, _unfrozen, _frozen_actor, _frozen_critic, _low_rank, _parametrized, _tied),
        *(_instance_method, _hook),
    )
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("algo", "trained"), [*[(algo, True) for algo in ALGORITHMS], ("smac_full", False)])
def test_policies_that_are_changed_after_construction(algo: str, change: str, trained: bool) -> None:
    """What acts is trained, all of it, and it is what A2C would train that is given the same optimizer's parameters."""
    model = build(algo, Case("MlpPolicy", own_policies.CONTINUOUS))
    if change == "unfrozen":
        for parameter in model.policy.mlp_extractor.parameters():
            parameter.requires_grad_(False)
    if trained:
        model.learn(STEPS)
    CHANGES[change](model)
    policy = model.policy
    trainable = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    with watched(model) as updates:
        moved = moved_by(model, lambda: model.learn(3 * STEPS, reset_num_timesteps=False))
    assert len(updates) == (0 if change == "frozen_actor" else 3)
    assert is_finite(model)
    unused = {
        # the first networks, which nobody uses any more
        "own_policy": {name for name in trainable if not name.startswith("own_") and name != "log_std"},
        # a deviation that does not come from it
        "instance_method": {"log_std"},
    }.get(change, set())
    assert moved == trainable - unused
    assert model.policy is policy


@every_algorithm_and_rank
@pytest.mark.parametrize("change", ["action_net", "policy", "compiled", "log_std", "tied"])
def test_policies_that_are_changed_by_a_callback(algo: str, change: str) -> None:
    """In mid-rollout: the rest of the rollout comes from another policy, which is the one that is trained."""

    class Change(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == STEPS + 5:
                CHANGES[change](self.model)
            return True

    model = build(algo, Case("MlpPolicy", own_policies.CONTINUOUS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the policy has been changed
        model.learn(2 * STEPS, callback=Change())
    with watched(model) as updates:
        moved = moved_by(model, lambda: model.learn(STEPS, reset_num_timesteps=False))
    assert len(updates) == 1
    assert moved == {name for name, _ in model.policy.named_parameters()}


@every_algorithm_and_rank
def test_a_compiled_policy_is_the_policy(algo: str) -> None:
    """But for rounding: statistics of observations and returns included."""
    plain, compiled = (build(algo, Case("MlpPolicy", own_policies.CONTINUOUS)) for _ in range(2))
    compiled.policy = th.compile(compiled.policy, backend="eager")
    for model in (plain, compiled):
        model.set_random_seed(1)
        model.learn(3 * STEPS)
    inner = compiled.policy._orig_mod
    assert inner.observation_normalizer.count == inner.return_normalizer.count == 3 * STEPS
    for name, value in plain.policy.state_dict().items():
        assert th.allclose(value, inner.state_dict()[name], rtol=1e-3, atol=1e-5), name


@every_algorithm_and_rank
def test_other_wrappers(algo: str) -> None:
    """A module that passes on what it does not have, as wrappers do."""

    class Wrapper(nn.Module):
        def __init__(self, policy: nn.Module) -> None:
            super().__init__()
            self.module = policy

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                return getattr(super().__getattr__("module"), name)

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.module(*args, **kwargs)

    model = build(algo, Case("MlpPolicy", own_policies.CONTINUOUS))
    inner = model.policy
    model.policy = Wrapper(inner)
    with watched(model) as updates:
        moved = moved_by(model, lambda: model.learn(2 * STEPS))
    assert len(updates) == 2
    assert moved == {f"module.{name}" for name, _ in inner.named_parameters()}
    assert inner.observation_normalizer.count == inner.return_normalizer.count == 2 * STEPS


@every_algorithm_and_rank
def test_log_std_annealed_at_the_end_of_each_rollout(algo: str) -> None:
    """The policy that trains is the annealed one: its rollout was its predecessor's, which is said."""

    class Anneal(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.policy.log_std.data.fill_(-0.2 * self.model.num_timesteps / STEPS)

    model = build(algo, Case("MlpPolicy", own_policies.CONTINUOUS))
    with pytest.warns(UserWarning, match="no longer those of the policy"):
        model.learn(3 * STEPS, callback=Anneal())
    assert is_finite(model)
    assert model.logger.name_to_value["train/approx_kl"] <= 0.021


@every_algorithm_and_rank
def test_vec_normalize(algo: str) -> None:
    """Its statistics change between the steps of a rollout: the buffer keeps what the policy was given."""
    env = VecNormalize(make_vec_env(own_policies.CONTINUOUS, n_envs=2))
    model = build(algo, Case("MlpPolicy", own_policies.CONTINUOUS), env)
    with watched(model) as updates:
        model.learn(4 * STEPS)
    assert len(updates) == 2


@every_algorithm_and_rank
@pytest.mark.parametrize(
    "case", ["OwnNetwork-discrete", "OwnValuesOfSB3-continuous", "Mask", "LearnedTemperature-continuous", "Residual", "gSDE"]
)
def test_saved_and_loaded(algo: str, case: str) -> None:
    """Own policies train on after loading, from the same parameters, into the same ones."""
    model = build(algo, CASES[case]).learn(STEPS)
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    loaded = type(model).load(file, env=DummyVecEnv([CASES[case].env]), device="cpu")
    for name, value in model.policy.state_dict().items():
        assert th.equal(value, loaded.policy.state_dict()[name])
    with watched(loaded) as updates:
        moved = moved_by(loaded, lambda: loaded.learn(2 * STEPS))
    assert len(updates) == 2
    assert moved == {
        name
        for name, parameter in loaded.policy.named_parameters()
        if any(parameter is own for own in [*loaded.actor_parameters, *loaded.critic_parameters])
    }


@pytest.mark.parametrize("case", [None, "Temperature-discrete", "Temperature-continuous"])
def test_single_samples(case: str | None) -> None:
    """The written-out steps of the paper's variant are not taken by a policy that acts in another way."""
    chosen = CASES[case] if case else Case("MlpPolicy", own_policies.CONTINUOUS)
    model = build("smac", chosen, batch_size=1, target_kl=None, learning_rate=0.01)
    assert (model._plain_single_sample(own_evaluator(model)) is None) == (case is not None)
    moved_by(model, lambda: model.learn(2 * STEPS))
    assert is_finite(model)


def own_evaluator(model: SMAC) -> Any:
    from sb3_smac.common.evaluation import initial_evaluator

    observations, _ = model.policy.obs_to_tensor(np.zeros((2, 3), np.float32))
    return initial_evaluator(model.policy, observations)[0]
