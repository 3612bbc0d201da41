"""The policy that collects rollouts is the one that updates train, whatever the user has made of it."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_smac import NaturalActorCritic
from sb3_smac.common.evaluation import TOLERANCE
from sb3_smac.maths import flat_gradient
from tests import own_policies
from tests.algorithms import is_finite, is_same, make, reloaded, snapshot
from tests.own_policies import CASES, CONTINUOUS, DETERMINISTIC, DISCRETE, Case

STEPS = 16
PLAIN = Case("MlpPolicy", CONTINUOUS)


def build(algo: str, case: Case = PLAIN, env: Any = None, **arguments: Any) -> NaturalActorCritic:
    """A cheap model with the policy of a case."""
    settings = {"n_steps": STEPS, "target_kl": 0.01, **case.arguments, **arguments}
    env = DummyVecEnv([case.env]) if env is None else env
    return make(algo, env, policy=case.policy, policy_kwargs={"net_arch": [8], **case.kwargs}, **settings)


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
            stored = pending.pop().old_log_prob[: len(batch.advantages)]
            if not any(isinstance(module, nn.BatchNorm1d | nn.Dropout) for module in model.policy.modules()):
                check_batch(model, batch, stored)  # (else the pass of the batch has moved what evaluation mode uses)
            updates.append(len(batch.parameters))
        return direction(batch)

    model._actor_steps, model.actor_direction = begin, first  # type: ignore[method-assign]
    try:
        yield updates
    finally:
        del model._actor_steps, model.actor_direction


def check_batch(model: NaturalActorCritic, batch: Any, stored: th.Tensor) -> None:
    policy, actions = model.policy, batch.actions
    if isinstance(model.action_space, spaces.Discrete):
        actions = actions.long().flatten()
    policy.set_training_mode(False)
    _, log_prob, _ = policy.evaluate_actions(batch.observations, actions)
    assert close(log_prob, stored) and close(batch.evaluation.log_prob, stored)
    outside = [parameter for parameter in policy.parameters() if all(parameter is not own for own in batch.parameters)]
    expected = flat_gradient((batch.advantages * log_prob).mean(), [*batch.parameters, *outside])
    inside = len(batch.gradient)
    assert th.allclose(batch.gradient, expected[:inside], rtol=1e-3, atol=1e-5 * float(expected.abs().max()))
    assert not expected[inside:].any()
    policy.set_training_mode(True)


def close(actual: th.Tensor, expected: th.Tensor) -> bool:
    return bool(((actual - expected).abs() <= TOLERANCE * expected.abs().clamp(min=1)).all())


def moved_by(model: Any, n_steps: int, **arguments: Any) -> set[str]:
    """Names of the parameters that training changes."""
    before = {name: parameter.detach().clone() for name, parameter in model.policy.named_parameters()}
    model.learn(n_steps, **arguments)
    return {name for name, parameter in model.policy.named_parameters() if not th.equal(before[name], parameter)}


@pytest.mark.parametrize(
    ("algo", "arguments"), [("smac", {"fisher_rank": 3}), ("smac_full", {"batch_size": 6}), ("accg", {})], ids=str
)
@pytest.mark.parametrize("case", CASES)
def test_the_log_probabilities_that_scores_are_taken_of_are_those_of_the_rollout(
    algo: str, arguments: dict[str, Any], case: str
) -> None:
    """At the first actor batch of each update; also where statistics of observations have changed in between."""
    model = build(algo, CASES[case], **arguments)
    with watched(model) as updates, warnings.catch_warnings():
        warnings.simplefilter("error")
        model.learn(2 * STEPS)
    assert len(updates) == 2
    assert is_finite(model)


@pytest.mark.parametrize("case", DETERMINISTIC)
def test_what_a2c_moves_is_moved(case: str) -> None:
    """The same parameters, and no other."""
    chosen = CASES[case]
    policy = NaturalActorCritic.policy_aliases.get(chosen.policy, chosen.policy)
    kwargs = {"net_arch": [8], **chosen.kwargs}
    a2c = A2C(policy, DummyVecEnv([chosen.env]), n_steps=STEPS, policy_kwargs=kwargs, seed=0, device="cpu", **chosen.arguments)
    of_a2c, model = moved_by(a2c, STEPS), build("smac", chosen)
    if chosen.arguments.get("use_sde"):
        assert moved_by(model, 2 * STEPS) >= of_a2c - {"log_std"}
    else:
        assert moved_by(model, STEPS) == of_a2c


@pytest.mark.parametrize("policy", [own_policies.ForwardOnly, own_policies.ValuesOfForwardOnly])
def test_what_cannot_be_trained_is_refused(policy: type) -> None:
    """With the methods that would have to agree, before anything is trained."""
    model = build("smac", Case(policy, DISCRETE))
    before = snapshot(model)
    with pytest.raises(ValueError, match=rf"{policy.__name__}.*evaluate_actions.*forward"):
        model.learn(STEPS)
    assert is_same(before, snapshot(model))


# What users put into a policy that is built


class Adapted(nn.Module):
    """An adapter by the usual trick: a frozen layer and a trained one of low rank beside it."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.adapter = nn.Sequential(nn.Linear(layer.in_features, 1), nn.Linear(1, layer.out_features))

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return self.layer(inputs) + self.adapter(inputs)


def deeper(n_outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 5), nn.PReLU(), nn.Linear(5, n_outputs))


def new_policy(model: Any, cls: Any) -> None:
    model.policy = cls(model.observation_space, model.action_space, lambda _: 1e-3, net_arch=[6])


def own_extractor(model: Any) -> None:
    policy = model.policy
    policy.features_extractor = policy.pi_features_extractor = own_policies.Residual(model.observation_space)
    policy.share_features_extractor = False
    policy.vf_features_extractor = own_policies.Residual(model.observation_space)
    policy.features_dim = policy.features_extractor.features_dim
    policy._build_mlp_extractor()


def compile_policy(model: Any) -> None:
    model.policy = th.compile(model.policy, backend="eager")


def freeze(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.requires_grad_(False)


def tie(extractor: Any) -> None:
    """Actor and critic on one layer."""
    extractor.value_net[0] = extractor.policy_net[0]


def sharpen(policy: Any) -> None:
    """A distribution of its own, by a method of the instance."""
    original = policy._get_action_dist_from_latent

    def sharper(latent: th.Tensor) -> Any:
        distribution = original(latent)
        distribution.distribution = th.distributions.Normal(distribution.distribution.mean * 2, 0.5)
        return distribution

    policy._get_action_dist_from_latent = sharper


CHANGES: dict[str, Callable[[Any], Any]] = {
    "deeper action_net": lambda model: setattr(model.policy, "action_net", deeper(2)),
    "deeper value_net": lambda model: setattr(model.policy, "value_net", deeper(1)),
    "log_std": lambda model: setattr(model.policy, "log_std", nn.Parameter(th.full((2,), -0.7))),
    "mlp_extractor": lambda model: model.policy._build_mlp_extractor(),
    "policy of SB3": lambda model: new_policy(model, sb3_policies.ActorCriticPolicy),
    "own policy": lambda model: new_policy(model, own_policies.OwnValues),
    "own extractor": own_extractor,
    "compiled": compile_policy,
    "compiled in place": lambda model: model.policy.compile(backend="eager"),
    "unfrozen": lambda model: model.policy.mlp_extractor.requires_grad_(True),
    "frozen actor": lambda model: freeze(model.actor_parameters),
    "frozen critic": lambda model: freeze(model.critic_parameters),
    "low rank": lambda model: setattr(model.policy, "action_net", Adapted(model.policy.action_net)),
    "parametrized": lambda model: nn.utils.parametrizations.weight_norm(model.policy.mlp_extractor.policy_net[0]),
    "tied": lambda model: tie(model.policy.mlp_extractor),
    "instance method": lambda model: sharpen(model.policy),
    "hook": lambda model: model.policy.action_net.register_forward_hook(lambda module, inputs, output: output / 2),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("algo", "trained"), [("acadam", True), ("accg", True), ("smac_full", False)])
def test_policies_that_are_changed_after_construction(algo: str, trained: bool, change: str) -> None:
    """What acts is trained, all of it, and it is what A2C would train that is given the same optimizer's parameters."""
    model = build(algo)
    if change == "unfrozen":
        model.policy.mlp_extractor.requires_grad_(False)
    if trained:
        model.learn(STEPS)
    CHANGES[change](model)
    policy = model.policy
    trainable = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    with watched(model) as updates:
        moved = moved_by(model, 3 * STEPS, reset_num_timesteps=False)
    assert len(updates) == (0 if change == "frozen actor" else 3)
    assert is_finite(model)
    unused = {
        # the first networks, which nobody uses any more
        "own policy": {name for name in trainable if not name.startswith("own_") and name != "log_std"},
        # a deviation that does not come from it
        "instance method": {"log_std"},
    }.get(change, set())
    assert moved == trainable - unused
    assert model.policy is policy


@pytest.mark.parametrize("change", ["log_std", "policy of SB3", "compiled"])
def test_policies_that_are_changed_by_a_callback(change: str) -> None:
    """In mid-rollout: the rest of the rollout comes from another policy, which is the one that is trained."""

    class Change(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == STEPS + 5:
                CHANGES[change](self.model)
            return True

    model = build("acadam")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the policy has been changed
        model.learn(2 * STEPS, callback=Change())
    with watched(model) as updates:
        moved = moved_by(model, STEPS, reset_num_timesteps=False)
    assert len(updates) == 1
    assert moved == {name for name, _ in model.policy.named_parameters()}


def test_a_compiled_policy_is_the_policy() -> None:
    """But for rounding: statistics of observations and returns included."""
    plain, model = build("smac"), build("smac")
    compile_policy(model)
    for each in (plain, model):
        each.set_random_seed(1)
        each.learn(3 * STEPS)
    inner = model.policy._orig_mod
    assert inner.observation_normalizer.count == inner.return_normalizer.count == 3 * STEPS
    for name, value in plain.policy.state_dict().items():
        assert th.allclose(value, inner.state_dict()[name], rtol=1e-3, atol=1e-5), name


class Wrapper(nn.Module):
    """Passes on what it does not have, as wrappers do."""

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


def test_other_wrappers() -> None:
    model = build("smac")
    inner = model.policy
    model.policy = Wrapper(inner)
    with watched(model) as updates:
        moved = moved_by(model, 2 * STEPS)
    assert len(updates) == 2
    assert moved == {f"module.{name}" for name, _ in inner.named_parameters()}
    assert inner.observation_normalizer.count == inner.return_normalizer.count == 2 * STEPS


def test_log_std_annealed_at_the_end_of_each_rollout() -> None:
    """The policy that trains is the annealed one: its rollout was its predecessor's, which is said."""

    class Anneal(BaseCallback):
        def _on_step(self) -> bool:
            return True

        def _on_rollout_end(self) -> None:
            self.model.policy.log_std.data.fill_(-0.2 * self.model.num_timesteps / STEPS)

    model = build("smac")
    with pytest.warns(UserWarning, match="no longer those of the policy"):
        model.learn(3 * STEPS, callback=Anneal())
    assert is_finite(model)
    assert model.logger.name_to_value["train/approx_kl"] <= 0.021


def test_vec_normalize() -> None:
    """Its statistics change between the steps of a rollout: the buffer keeps what the policy was given."""
    model = build("smac", env=VecNormalize(make_vec_env(CONTINUOUS, n_envs=2)))
    with watched(model) as updates:
        model.learn(4 * STEPS)
    assert len(updates) == 2


@pytest.mark.parametrize("case", ["OwnNetworkOfSB3", "OwnValues", "LearnedTemperature", "Residual", "gSDE"])
def test_saved_and_loaded(case: str) -> None:
    """Own policies train on after loading, from the same parameters, into the same ones."""
    model = build("acadam", CASES[case]).learn(STEPS)
    loaded = reloaded(model, env=DummyVecEnv([CASES[case].env]))
    assert is_same(snapshot(model), snapshot(loaded))
    with watched(loaded) as updates:
        moved = moved_by(loaded, 2 * STEPS)
    assert len(updates) == 2
    owned = set(map(id, [*loaded.actor_parameters, *loaded.critic_parameters]))
    assert moved == {name for name, parameter in loaded.policy.named_parameters() if id(parameter) in owned}
