"""Statistics inside the policy: right, seen alike by all of one iteration, saved with the model, frozen outside training."""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from torch import nn
from torch.nn import functional as F

from sb3_smac import SMAC
from sb3_smac.common import natural_actor_critic
from sb3_smac.common.critic import fit_critic
from sb3_smac.common.normalizer import ObservationNormalizer, ReturnNormalizer, RunningMoments, last_linear, unit_scale
from sb3_smac.common.observation_statistics import update_observation_statistics
from sb3_smac.common.policies import CnnPolicy, MlpPolicy
from tests.algorithms import TABLE, SampleEnv, every_algorithm, is_same, make, snapshot

VECTOR = spaces.Box(np.array([-1.0, 100.0, -1e-3]), np.array([1.0, 101.0, 1e-3]), dtype=np.float64)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
ACTIONS = spaces.Box(-1, 1, (2,))
OFF = {"normalize_observations": False, "normalize_returns": False}


def sample_env(observation_space: spaces.Space = VECTOR) -> SampleEnv:
    return SampleEnv(observation_space, ACTIONS)


def vec_env(observation_space: spaces.Space = VECTOR, n_envs: int = 2) -> VecEnv:
    return make_vec_env(lambda: sample_env(observation_space), n_envs=n_envs)


def trained_policy(seed: int = 0, **arguments: Any) -> tuple[MlpPolicy, th.Tensor]:
    """A policy with statistics of its own, and observations."""
    th.manual_seed(seed)
    arguments = {"normalize_observations": True, "normalize_returns": True, "net_arch": [8], **arguments}
    policy = MlpPolicy(VECTOR, ACTIONS, lambda _: 1e-3, **arguments)
    observations = th.as_tensor(np.stack([VECTOR.sample() for _ in range(50)]))
    for normalizer, samples in (
        (policy.observation_normalizer, observations),
        (policy.return_normalizer, 300 + 20 * th.randn(50)),
    ):
        if isinstance(normalizer, RunningMoments):
            normalizer.update(samples)
    return policy, observations


@pytest.mark.parametrize("sizes", [[300], [1] * 20, [7, 1, 250, 2]])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_those_of_all_samples(sizes: list[int], offset: float) -> None:
    """However they are cut into batches, also where the variance is a billionth of the mean's square."""
    generator = np.random.default_rng(0)
    data = generator.normal(offset, [1.0, 30.0, 1e-3], (sum(sizes), 3))
    moments = RunningMoments((3,))
    assert moments.mean.tolist() == [0, 0, 0] and moments.var.tolist() == [1, 1, 1]
    for batch in th.as_tensor(data).split(sizes):
        moments.update(batch)
    assert moments.mean.numpy() == pytest.approx(data.mean(axis=0), rel=1e-12, abs=1e-12)
    assert moments.var.numpy() == pytest.approx(data.var(axis=0), rel=1e-3 if offset else 1e-10)
    assert moments.count == sum(sizes)


def test_normalised_observations() -> None:
    """Only clipped before the first update; then as VecNormalize does it; in float32."""
    normalizer = ObservationNormalizer((3,))
    samples = th.as_tensor(np.random.default_rng(0).normal([0, 100, -5], [1, 0.01, 1000], (200, 3)))
    assert normalizer(samples).tolist() == samples.float().clamp(-10, 10).tolist()
    normalizer.update(samples.float())
    outliers = th.cat([samples, samples.mean(dim=0, keepdim=True) + th.tensor([[1e3, -1e3, 1e9]])])
    wrapper = VecNormalize(vec_env())
    wrapper.obs_rms.mean, wrapper.obs_rms.var = samples.float().double().mean(dim=0).numpy(), np.var(
        samples.float().double().numpy(), axis=0
    )
    normalised = normalizer(outliers)
    assert normalised.dtype == th.float32
    assert normalised.numpy() == pytest.approx(wrapper.normalize_obs(outliers.float().double().numpy()), rel=1e-5, abs=1e-5)
    assert normalised[-1].tolist() == [10, -10, 10]
    assert th.equal(normalised, normalizer(outliers.float()))  # the environment's float64 and the rollout buffer's float32


def test_constant_observations_stay_finite() -> None:
    normalizer = ObservationNormalizer((2,))
    normalizer.update(th.tensor([[0.1, 1e5]]).expand(32, 2))
    assert normalizer(th.tensor([[0.1, 1e5]])).tolist() == [[0, 0]]


@pytest.mark.parametrize("share", [False, True])
def test_every_entrance_of_the_policy_normalises(share: bool) -> None:
    """
    A policy on raw observations is the same networks on observations that were normalised by hand. Statistics of returns
    change nothing: the last layer puts out values in units of the reward.
    """
    policy, observations = trained_policy(share_features_extractor=share)
    plain, _ = trained_policy(share_features_extractor=share, normalize_observations=False, normalize_returns=False)
    statistics = ("observation_normalizer.", "return_normalizer.")
    plain.load_state_dict({key: value for key, value in policy.state_dict().items() if not key.startswith(statistics)})
    raw = observations.float().double()
    by_hand = ((raw - raw.mean(dim=0)) / (raw.var(dim=0, correction=0) + 1e-8).sqrt()).clamp(-10, 10).float()

    def close(actual: Any, expected: Any) -> None:
        assert th.as_tensor(actual).numpy() == pytest.approx(th.as_tensor(expected).detach().numpy(), rel=1e-5, abs=1e-5)

    with th.no_grad():
        actions, values, log_prob = policy(observations, deterministic=True)
        plain_actions, plain_values, plain_log_prob = plain(by_hand, deterministic=True)
        close(actions, plain_actions)
        close(values, plain_values)
        close(log_prob, plain_log_prob)
        values, log_prob, _ = policy.evaluate_actions(observations, actions)
        close(values, plain_values)
        close(log_prob, plain_log_prob)
        close(policy.predict_values(observations), plain_values)
        close(policy.get_distribution(observations).mode(), plain_actions)
        close(policy.predict(observations.numpy(), deterministic=True)[0], plain_actions.clamp(-1, 1))
        assert values.dtype == th.float32


@every_algorithm
def test_one_iteration_sees_one_set_of_statistics(algo: str) -> None:
    """
    Behaviour, scores, steps and values of iteration k all see the statistics of the k rollouts before it. With those of its
    own rollout, the policy is evaluated at the very end, for the KL divergence that is logged.
    """
    model = make(algo, vec_env(), target_kl=0.01, batch_size=20)
    normalizer, seen, rollouts = model.policy.observation_normalizer, {}, []
    assert isinstance(normalizer, ObservationNormalizer)
    normalizer.register_forward_pre_hook(
        lambda module, _: seen.setdefault(model._n_updates, {}).setdefault((*module.mean.tolist(), *module.var.tolist()))
    )
    train = model.train

    def train_and_keep() -> None:
        rollouts.append(model.rollout_buffer.observations.reshape(-1, 3).astype(np.float64))
        train()

    model.train = train_and_keep  # type: ignore[method-assign]
    model.learn(4 * 64)

    def statistics(n_rollouts: int) -> tuple[float, ...]:
        so_far = np.concatenate(rollouts[:n_rollouts]) if n_rollouts else np.array([[-1.0] * 3, [1.0] * 3])
        return (*so_far.mean(axis=0), *so_far.var(axis=0))

    assert sorted(seen) == [0, 1, 2, 3]
    for updates, in_order in seen.items():
        first, last = in_order
        assert first == pytest.approx(statistics(updates), rel=1e-9)
        assert last == pytest.approx(statistics(updates + 1), rel=1e-9)


@every_algorithm
def test_the_update_starts_from_the_behaviour(algo: str) -> None:
    """The log-probabilities and values of the rollout are, when training starts, those of the policy: nothing has moved."""
    model = make(algo, vec_env(), target_kl=0.01)
    train, errors = model.train, []

    def compare_and_train() -> None:
        buffer = copy.deepcopy(model.rollout_buffer)
        log_probs, values = buffer.log_probs.copy(), buffer.values.copy()
        rollout = next(buffer.get(None))
        with th.no_grad():
            found = model.policy.evaluate_actions(rollout.observations, rollout.actions)
        errors.append(np.abs(np.sort(found[0].numpy().ravel()) - np.sort(values.ravel())).max())
        errors.append(np.abs(np.sort(found[1].numpy().ravel()) - np.sort(log_probs.ravel())).max())
        train()

    model.train = compare_and_train  # type: ignore[method-assign]
    model.learn(3 * 64)
    assert len(errors) == 6 and max(errors) < 1e-4


def critic_of(policy: MlpPolicy) -> Any:
    """What a critic is fitted by: its last layer, the statistics, and its values of some observations."""
    observations = th.as_tensor(np.stack([VECTOR.sample() for _ in range(20)]))
    return policy.value_net, policy.return_normalizer, lambda: policy.predict_values(observations)


class BatchNormExtractor(nn.Sequential):
    """No linear layer takes what is normalised: none can make up for new statistics."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(nn.Flatten(), nn.BatchNorm1d(observation_space.shape[0]))
        self.features_dim = observation_space.shape[0]


class Residual(nn.Sequential):
    """What is normalised goes into a linear layer, and past it."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs[:, :1] + super().forward(inputs)


class ResidualPolicy(MlpPolicy):
    """With an actor whose layers cannot make up for all of a change."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mlp_extractor.policy_net = Residual(*self.mlp_extractor.policy_net)


def test_statistics_preserve_values() -> None:
    """PopArt: new statistics of the returns, the same values, which are of unit scale while the critic is fitted."""
    policy, _ = trained_policy()
    head, moments, values = critic_of(policy)
    for mean, std in ((300, 20), (-1e4, 5), (7, 1e3)):
        returns = mean + std * th.randn(50)
        with th.no_grad():
            before = values()
            with unit_scale(head, moments, returns, values, is_untrained=False) as (targets, scale):
                assert scale == moments.std.item()
                assert values().numpy() == pytest.approx(((before - moments.mean) / moments.std).numpy(), rel=1e-4, abs=1e-5)
                assert targets.numpy() == pytest.approx(((returns - moments.mean) / moments.std).numpy(), rel=1e-5, abs=1e-5)
            assert values().numpy() == pytest.approx(before.numpy(), abs=1e-5 * scale)
    assert moments.count == 200


def test_values_of_an_untrained_critic_are_lifted_to_the_returns() -> None:
    """It starts in unit scale: the returns' own mean and deviation are what it cannot know."""
    policy = MlpPolicy(VECTOR, ACTIONS, lambda _: 1e-3, normalize_returns=True)
    head, moments, values = critic_of(policy)
    with th.no_grad():
        before, weights = values(), head.weight.clone()
        with unit_scale(head, moments, th.tensor([100.0, 300.0]), values, is_untrained=True) as (targets, scale):
            assert th.equal(head.weight, weights)
            assert targets.tolist() == [-1, 1] and scale == pytest.approx(100)
        assert values().numpy() == pytest.approx((200 + 100 * before).numpy(), rel=1e-5)


def test_a_constant_return_breaks_nothing() -> None:
    """No deviation at first, and a jump afterwards: the last layer stays in the units it is trained in."""
    policy = MlpPolicy(VECTOR, ACTIONS, lambda _: 1e-3, normalize_returns=True)
    head, moments, values = critic_of(policy)
    for index, returns in enumerate((5.0, 5.0, 500.0)):
        with unit_scale(head, moments, th.full((10,), returns), values, is_untrained=index == 0):
            assert all(parameter.abs().max() < 5 for parameter in head.parameters())


def test_without_statistics_only_huge_returns_are_scaled() -> None:
    """Whose squares are no float32."""
    policy, _ = trained_policy()
    head, _, values = critic_of(policy)
    with unit_scale(head, None, th.tensor([1.0, -1e10]), values, is_untrained=True) as (targets, scale):
        assert targets.tolist() == [1.0, -1e10] and scale == 1
    with unit_scale(head, None, th.tensor([1.0, -1e30]), values, is_untrained=True) as (targets, scale):
        assert targets.abs().max() == 1 and scale == pytest.approx(1e30)


def test_a_last_layer_of_another_kind() -> None:
    """
    One that ends in no linear layer, or whose output is not the value, is fitted as it is; one without a bias is scaled alone;
    one that the user has frozen keeps its weights and its statistics, bit for bit.
    """
    inputs, returns = th.randn(5, 3), th.tensor([10.0, 30.0])
    assert last_linear(nn.Sequential(nn.Linear(3, 1), nn.Tanh())) is None
    assert last_linear(nn.Identity()) is None and last_linear(None) is None
    layer = nn.Linear(3, 1)
    assert last_linear(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh(), layer))) is layer
    for head, values in ((None, lambda: inputs), (layer, lambda: layer(inputs).exp())):
        moments = ReturnNormalizer()
        with unit_scale(head, moments, returns, values, is_untrained=False) as (targets, scale):
            assert th.equal(targets, returns) and scale == 1
        assert moments.count == 0

    layer, moments = nn.Linear(3, 1, bias=False), ReturnNormalizer()
    weight = layer.weight.detach().clone()
    with unit_scale(layer, moments, returns, lambda: layer(inputs), is_untrained=False) as (targets, scale):
        assert (scale, targets.tolist()) == (pytest.approx(10), pytest.approx([1, 3]))
        assert layer.weight.detach().numpy() == pytest.approx(weight.numpy() / 10)
    assert layer.weight.detach().numpy() == pytest.approx(weight.numpy())

    policy, _ = trained_policy()
    policy.value_net.weight.requires_grad_(False)
    state = copy.deepcopy(policy.state_dict())
    head, moments, values = critic_of(policy)
    with unit_scale(head, moments, th.tensor([1e4, 3e4]), values, is_untrained=False):
        pass
    after = policy.state_dict()
    assert after.pop("value_net.bias").item() == pytest.approx(state.pop("value_net.bias").item(), abs=1e-5)  # not frozen
    assert is_same(state, after)


@every_algorithm
@pytest.mark.parametrize("max_grad_norm", [None, 0.1])
def test_the_critic_is_fitted_to_normalised_returns(
    algo: str, max_grad_norm: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its optimizer sees errors of unit scale: the same path as a plain critic's on targets that were normalised by hand."""

    def compare(model: Any, evaluator: Any, rollout: Any, is_untrained: bool) -> float | None:
        policy, optimizer = model.policy, model.policy.optimizer
        observations, returns = policy.observation_normalizer(rollout.observations), rollout.returns
        by_hand = copy.deepcopy(nn.Sequential(policy.mlp_extractor.value_net, policy.value_net))
        moments = copy.deepcopy(policy.return_normalizer)
        moments.update(returns)
        mean, std = moments.mean.float(), moments.std.float()
        head = by_hand[1]
        with th.no_grad():
            if not is_untrained:  # the last layer as PopArt corrects it
                head.weight.div_(std)
                head.bias.sub_(mean).div_(std)
        adam = type(optimizer)(by_hand.parameters(), **optimizer.defaults)
        adam.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        adam.param_groups[0]["lr"] = 0.01
        for _ in range(5):
            adam.zero_grad()
            F.mse_loss(by_hand(observations).flatten(), (returns - mean) / std).backward()
            if max_grad_norm is not None:
                nn.utils.clip_grad_norm_(by_hand.parameters(), max_grad_norm)
            adam.step()
        with th.no_grad():
            head.weight.mul_(std)
            head.bias.mul_(std).add_(mean)
        loss = fit_critic(model, evaluator, rollout, is_untrained)
        untrained.append(is_untrained)
        for ours, theirs in zip(model.critic_parameters, by_hand.parameters(), strict=True):
            assert ours.detach().numpy() == pytest.approx(theirs.detach().numpy(), rel=1e-3, abs=1e-4)
        return loss

    untrained: list[bool] = []
    monkeypatch.setattr(natural_actor_critic, "fit_critic", compare)
    arguments = {"target_kl": 0.01, "critic_batch_size": None, "n_critic_updates": 5, "critic_learning_rate": 0.01}
    make(algo, "Pendulum-v1", max_grad_norm=max_grad_norm, **arguments).learn(3 * 32)
    assert untrained == [True, False, False]


POLICIES: dict[str, Any] = {
    "separate": {},
    "no_layers": {"policy_kwargs": {"net_arch": []}},
    "relu": {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.ReLU}},
    "gsde": {"use_sde": True},
    "batch_norm": {"policy_kwargs": {"net_arch": [8], "features_extractor_class": BatchNormExtractor}},
    "residual": {"policy": ResidualPolicy},
}


@pytest.mark.parametrize("case", POLICIES)
def test_new_statistics_move_the_policy_by_little(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a tenth of the step's KL divergence (a fifth at most), but in the first update, before which nothing is learned."""

    def compare(model: Any, evaluator: Any, rollout: Any, acted: Any, moved: Any, is_untrained: bool) -> float:
        std = model.policy.observation_normalizer.std.clone()
        before = evaluator.as_it_acts(rollout.observations, rollout.actions)
        kl = update_observation_statistics(model, evaluator, rollout, acted, moved, is_untrained)
        after = evaluator.as_it_acts(rollout.observations, rollout.actions)
        assert kl == pytest.approx(acted.kl(after), rel=1e-4, abs=1e-6)
        changed.append(not th.equal(std, model.policy.observation_normalizer.std))
        shares.append(before.kl(after) / acted.kl(before))
        return kl

    shares: list[float] = []
    changed: list[bool] = []
    monkeypatch.setattr(natural_actor_critic, "update_observation_statistics", compare)
    make("smac", vec_env(), **{"target_kl": 0.01, **POLICIES[case]}).learn(4 * 64)
    assert changed == [True] * 4
    assert shares[0] > 0.1 and max(shares[1:]) < 0.21


def test_folding_keeps_what_a_layer_puts_out() -> None:
    """All of a change, none of it, and a dimension whose deviation grows more than tenfold, which is left alone."""
    generator = th.Generator().manual_seed(0)
    samples = th.randn(200, 3, generator=generator) * th.tensor([1.0, 5.0, 1e-3]) + th.tensor([0.0, 30.0, 1.0])
    normalizer, layer = ObservationNormalizer((3,)), nn.Linear(3, 4)
    normalizer.update(samples)
    before, outputs = copy.deepcopy(normalizer), layer(normalizer(samples)).detach()
    normalizer.update(2 + 1.5 * samples)
    weight = layer.weight.detach().clone()
    with th.no_grad():
        normalizer.fold(before, 1.0, [layer])
        assert layer.weight.numpy() == pytest.approx(weight.numpy(), rel=1e-6)
        normalizer.fold(before, 0.0, [layer])
    folded = (normalizer.std <= 10 * before.std).tolist()
    assert folded == [True, True, False]
    assert th.equal(layer.weight[:, 2], weight[:, 2]) and not th.equal(layer.weight[:, :2], weight[:, :2])
    with th.no_grad():  # without the third
        layer.weight[:, 2] = 0
        change = layer(normalizer(samples)) - (outputs - before(samples)[:, 2:] * weight[:, 2])
    assert change.abs().max() < 1e-4


@every_algorithm
def test_one_file_is_enough(algo: str, tmp_path: Path) -> None:
    """The saved model acts on raw observations as the trained one did; so does the policy alone."""
    model = make(algo, vec_env()).learn(128)
    model.save(tmp_path / "model")
    model.policy.save(str(tmp_path / "policy"))
    loaded = type(model).load(tmp_path / "model", env=vec_env())
    assert loaded.policy.normalize_observations is loaded.policy.normalize_returns is True
    policy = type(model.policy).load(str(tmp_path / "policy"))
    observations = np.stack([VECTOR.sample() for _ in range(20)])
    expected, _ = model.predict(observations, deterministic=True)
    assert is_same(model.policy.state_dict(), loaded.policy.state_dict())
    assert is_same(model.policy.state_dict(), policy.state_dict())
    assert is_same(loaded.predict(observations, deterministic=True)[0], expected)
    assert is_same(policy.predict(observations, deterministic=True)[0], expected)
    for values in (loaded.policy.predict_values, policy.predict_values):
        assert th.equal(values(th.as_tensor(observations)), model.policy.predict_values(th.as_tensor(observations)))
    fresh = make(algo, vec_env())
    assert not is_same(fresh.predict(observations, deterministic=True)[0], expected)
    fresh.set_parameters(model.get_parameters())
    assert is_same(fresh.predict(observations, deterministic=True)[0], expected)


@every_algorithm
def test_evaluation_changes_no_statistics(algo: str) -> None:
    model = make(algo, vec_env()).learn(64)
    before = snapshot(model)
    evaluate_policy(model, vec_env(), n_eval_episodes=3, deterministic=False)
    model.predict(VECTOR.sample())
    assert is_same(before, snapshot(model))
    model.learn(64, reset_num_timesteps=False)
    assert model.policy.observation_normalizer.count == model.policy.return_normalizer.count == 128


class Subclass(MlpPolicy):
    """A policy of the user's own, of this package's kind."""


DEFAULTS: dict[str, tuple[Callable[[], Any], Any, tuple[bool, bool]]] = {
    "vector": (sample_env, "MlpPolicy", (True, True)),
    "subclass": (sample_env, Subclass, (True, True)),
    "class of SB3": (sample_env, sb3_policies.ActorCriticPolicy, (False, False)),
    "image": (lambda: sample_env(IMAGE), "CnnPolicy", (False, True)),
    "matrix": (lambda: sample_env(spaces.Box(-1, 1, (2, 3))), "MlpPolicy", (False, True)),
    "discrete": (lambda: sample_env(spaces.Discrete(3)), "MlpPolicy", (False, True)),
    "multi_binary": (lambda: sample_env(spaces.MultiBinary(3)), "MlpPolicy", (False, True)),
    "dict": (lambda: sample_env(spaces.Dict({"a": VECTOR})), "MultiInputPolicy", (False, True)),
    "VecNormalize": (lambda: VecNormalize(vec_env()), "MlpPolicy", (False, False)),
    "VecNormalize within": (lambda: VecFrameStack(VecNormalize(vec_env()), 2), "MlpPolicy", (False, False)),
    "VecNormalize(norm_obs=False)": (lambda: VecNormalize(vec_env(), norm_obs=False), "MlpPolicy", (True, False)),
    "VecNormalize(norm_reward=False)": (lambda: VecNormalize(vec_env(), norm_reward=False), "MlpPolicy", (False, True)),
}


@every_algorithm
@pytest.mark.parametrize("case", DEFAULTS)
def test_what_is_on_by_default(algo: str, case: str) -> None:
    """What nothing else normalises; the choice holds in training and survives saving."""
    make_env, policy, expected = DEFAULTS[case]
    model = make(algo, make_env(), policy, n_steps=4, critic_batch_size=None, target_kl=0.01)
    assert tuple(model._normalizes[name] for name in OFF) == expected
    assert model.normalize_observations is model.normalize_returns is None
    model.learn(8)
    state = model.policy.state_dict()
    assert tuple(f"{name}_normalizer.mean" in state for name in ("observation", "return")) == expected
    assert not {"normalize_observations", "normalize_returns"} & model.policy_kwargs.keys()
    file = io.BytesIO()
    model.save(file)
    loaded = type(model).load(file, env=vec_env() if isinstance(model.observation_space, spaces.Box) and expected[0] else None)
    assert loaded._normalizes == model._normalizes


def test_what_was_asked_for_is_done() -> None:
    """Whatever the default would be."""
    model = make("smac", vec_env(), **OFF)
    assert not [key for key in model.policy.state_dict() if "normalizer" in key]
    model = make("smac", VecNormalize(vec_env()), normalize_observations=True, normalize_returns=True).learn(64)
    assert model.policy.observation_normalizer.count == model.policy.return_normalizer.count == 64


def test_switched_off_is_as_before() -> None:
    """Bit for bit what the policy class of Stable-Baselines3 does, which knows of no statistics."""
    ours, theirs = (
        make("smac", vec_env(), policy, **OFF).learn(128) for policy in (MlpPolicy, sb3_policies.ActorCriticPolicy)
    )
    assert is_same(snapshot(ours), snapshot(theirs))


@every_algorithm
def test_normalisation_that_is_impossible_is_refused(algo: str) -> None:
    """When the model is built, naming the argument, its value, and what is accepted."""
    for space, policy in (
        (IMAGE, "CnnPolicy"),
        (spaces.Discrete(3), "MlpPolicy"),
        (spaces.Dict({"a": VECTOR}), "MultiInputPolicy"),
    ):
        with pytest.raises(ValueError, match=r"normalize_observations must be .*False .*one-dimensional Box, got True for"):
            make(algo, sample_env(space), policy, normalize_observations=True)
    for name in OFF:
        with pytest.raises(ValueError, match=rf"{name} must be None or False .*sb3_smac's, got True with ActorCriticPolicy"):
            make(algo, sample_env(), sb3_policies.ActorCriticPolicy, **{name: True})
    with pytest.raises(ValueError, match="normalize_observations must be False"):
        CnnPolicy(spaces.Box(0, 255, (1, 36, 36), np.uint8), ACTIONS, lambda _: 1e-3, normalize_observations=True)


@every_algorithm
@pytest.mark.parametrize("name", OFF)
def test_parameters_that_were_trained_otherwise_are_refused(algo: str, name: str) -> None:
    """A loaded model cannot be told to drop, or to make up, statistics."""
    for trained in (False, True):
        file = io.BytesIO()
        make(algo, sample_env(), **{name: trained}).save(file)
        with pytest.raises(ValueError, match=f"{name} must be {trained} for these parameters.*got {not trained}"):
            TABLE[algo].cls.load(file, **{name: not trained})


@every_algorithm
def test_models_from_before_have_no_statistics(algo: str) -> None:
    """A file that does not know the arguments is of a model that was trained without them."""
    model = make(algo, sample_env(), **OFF).learn(32)
    file, old = io.BytesIO(), io.BytesIO()
    model.save(file)
    with zipfile.ZipFile(file) as new, zipfile.ZipFile(old, "w") as written:
        for name in new.namelist():
            content = new.read(name)
            if name == "data":
                newer = {*OFF, "_normalizes", "_checksum_when_built"}
                data = {key: value for key, value in json.loads(content).items() if key not in newer}
                assert len(data) == len(json.loads(content)) - len(newer)
                content = json.dumps(data).encode()
            written.writestr(name, content)
    old.seek(0)
    loaded = type(model).load(old, env=sample_env())
    assert loaded._normalizes == OFF
    assert is_same(snapshot(model), snapshot(loaded))
    loaded.learn(32)


class Shifted(gym.Env):
    """One step: the best action is a number that is seen as 500 plus a little; rewards are in the hundreds."""

    observation_space = spaces.Box(490.0, 510.0, (1,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.best = self.np_random.uniform(-1, 1)
        return np.array([500 + self.best]), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return np.array([500 + self.best]), float(1000 - 500 * (action[0] - self.best) ** 2), True, False, {}


def test_learning_on_raw_observations() -> None:
    """Where the plain policy sees nothing, the default one learns; chance is a mean squared error of 1/3."""

    def error(**arguments: Any) -> float:
        env = make_vec_env(Shifted, n_envs=16)
        model = SMAC("MlpPolicy", env, n_steps=16, seed=0, device="cpu", **arguments).learn(10_000)
        best = np.linspace(-1, 1, 41)
        actions, _ = model.predict((500 + best)[:, None], deterministic=True)
        return float(np.square(actions[:, 0] - best).mean())

    assert error() < 0.1
    assert error(**OFF) > 0.25
