"""Statistics inside the policy: right, seen alike by all of one iteration, saved with the model, frozen outside training."""

import copy
import io
from collections.abc import Callable
from typing import Any
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from numpy.testing import assert_allclose
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecFrameStack, VecNormalize
from torch import nn

from sb3_smac import ACSGD, SMAC, fast
from sb3_smac.common import critic, natural_actor_critic
from sb3_smac.common.critic import fit_by_gradients
from sb3_smac.common.normalizer import ObservationNormalizer, ReturnNormalizer, RunningMoments, last_linear, unit_scale
from sb3_smac.common.observation_statistics import update_observation_statistics
from sb3_smac.common.policies import CnnPolicy, MlpPolicy
from tests.algorithms import SampleEnv, is_same, make, snapshot
from tests.own_policies import BatchNorm, Convolved, Residual

VECTOR = spaces.Box(np.array([-1.0, 100.0, -1e-3]), np.array([1.0, 101.0, 1e-3]), dtype=np.float64)
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
DICT = spaces.Dict({"a": VECTOR})
ACTIONS = spaces.Box(-1, 1, (2,))
ON = {"normalize_observations": True, "normalize_returns": True}
OFF = {"normalize_observations": False, "normalize_returns": False}


def sample_env(observation_space: spaces.Space = VECTOR) -> SampleEnv:
    return SampleEnv(observation_space, ACTIONS)


def vec_env() -> VecEnv:
    return make_vec_env(sample_env, n_envs=2)


def samples_of(space: spaces.Space, n_samples: int) -> th.Tensor:
    return th.as_tensor(np.stack([space.sample() for _ in range(n_samples)]))


def trained_policy(**arguments: Any) -> tuple[MlpPolicy, th.Tensor]:
    """A policy with statistics of its own, and the observations that they are of."""
    th.manual_seed(0)
    policy = MlpPolicy(VECTOR, ACTIONS, lambda _: 1e-3, **{**ON, "net_arch": [8], **arguments})
    observations = samples_of(VECTOR, 50)
    for normalizer, samples in (
        (policy.observation_normalizer, observations),
        (policy.return_normalizer, 300 + 20 * th.randn(50)),
    ):
        if isinstance(normalizer, RunningMoments):
            normalizer.update(samples)
    return policy, observations


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_moments_are_those_of_all_samples(offset: float) -> None:
    """However they are cut into batches, also where the variance is a billionth of the mean's square."""
    sizes = [1, 1, 7, 250, 2]
    data = np.random.default_rng(0).normal(offset, [1.0, 30.0, 1e-3], (sum(sizes), 3))
    moments = RunningMoments((3,))
    assert moments.mean.tolist() == [0, 0, 0] and moments.var.tolist() == [1, 1, 1]
    for batch in th.as_tensor(data).split(sizes):
        moments.update(batch)
    assert_allclose(moments.mean, data.mean(axis=0), rtol=1e-12, atol=1e-12)
    assert_allclose(moments.var, data.var(axis=0), rtol=1e-3 if offset else 1e-10)
    assert moments.count == sum(sizes)


def test_normalised_observations() -> None:
    """Only clipped before the first update; then as VecNormalize does it, in float32; a constant becomes 0."""
    normalizer, wrapper = ObservationNormalizer((4,)), VecNormalize(vec_env())
    samples = th.as_tensor(np.random.default_rng(0).normal([0, 100, -5, 1e5], [1, 0.01, 1000, 0], (200, 4)))
    assert th.equal(normalizer(samples), samples.float().clamp(-10, 10))
    seen = samples.float().double()
    normalizer.update(samples.float())
    wrapper.obs_rms.mean, wrapper.obs_rms.var = seen.mean(dim=0).numpy(), seen.var(dim=0, correction=0).numpy()
    outliers = th.cat([samples, samples.mean(dim=0, keepdim=True) + th.tensor([[1e3, -1e3, 1e9, 0.0]])])
    normalised = normalizer(outliers)
    assert normalised.dtype == th.float32
    assert_allclose(normalised, wrapper.normalize_obs(outliers.float().double().numpy()), rtol=1e-5, atol=1e-5)
    assert normalised[-1].tolist() == [10, -10, 10, 0]
    assert th.equal(normalised, normalizer(outliers.float()))  # the environment's float64 and the rollout buffer's float32


@pytest.mark.parametrize("share", [False, True])
def test_the_policy_normalises_what_it_sees(share: bool) -> None:
    """
    A policy on raw observations is the same networks on observations that were normalised by hand. Statistics of returns
    change nothing: the last layer puts out values in units of the reward.
    """
    policy, observations = trained_policy(share_features_extractor=share)
    plain, _ = trained_policy(share_features_extractor=share, **OFF)
    plain.load_state_dict({key: value for key, value in policy.state_dict().items() if "_normalizer." not in key})
    raw = observations.float().double()
    by_hand = ((raw - raw.mean(dim=0)) / (raw.var(dim=0, correction=0) + 1e-8).sqrt()).clamp(-10, 10).float()
    with th.no_grad():
        for actual, expected in zip(policy(observations, True), plain(by_hand, True), strict=True):
            assert actual.dtype == th.float32
            assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("algo", ["smac", "smac_full", "accg"])
def test_one_iteration_sees_one_set_of_statistics(algo: str) -> None:
    """
    Behaviour, scores, steps and values of iteration k all see the statistics of the k rollouts before it. With those of its
    own rollout, the policy is evaluated at the very end, for the KL divergence that is logged.
    """
    model = make(algo, vec_env(), target_kl=0.01, batch_size=20)
    seen: dict[int, dict[tuple[float, ...], None]] = {}
    model.policy.observation_normalizer.register_forward_pre_hook(
        lambda module, _: seen.setdefault(model._n_updates, {}).setdefault((*module.mean.tolist(), *module.var.tolist()))
    )
    train, rollouts = model.train, [np.array([[-1.0] * 3, [1.0] * 3])]

    def train_and_keep() -> None:
        rollouts.append(model.rollout_buffer.observations.reshape(-1, 3).astype(np.float64))
        train()

    model.train = train_and_keep  # type: ignore[method-assign]
    model.learn(3 * 64)
    assert sorted(seen) == [0, 1, 2]
    for updates, in_order in seen.items():
        for n_rollouts, found in zip((updates, updates + 1), in_order, strict=True):
            so_far = np.concatenate(rollouts[1 : n_rollouts + 1] or rollouts[:1])
            assert found == pytest.approx((*so_far.mean(axis=0), *so_far.var(axis=0)), rel=1e-9)


def critic_of(policy: MlpPolicy) -> tuple[nn.Linear, ReturnNormalizer, Callable[[], th.Tensor]]:
    """What a critic is fitted by: its last layer, the statistics, and its values of some observations."""
    observations = samples_of(VECTOR, 20)
    return policy.value_net, policy.return_normalizer, lambda: policy.predict_values(observations)  # type: ignore[return-value]


def untrained_critic() -> tuple[nn.Linear, ReturnNormalizer, Callable[[], th.Tensor]]:
    return critic_of(MlpPolicy(VECTOR, ACTIONS, lambda _: 1e-3, normalize_returns=True))


@th.no_grad()
def test_statistics_preserve_values() -> None:
    """PopArt: new statistics of the returns, the same values, which are of unit scale while the critic is fitted."""
    head, moments, values = critic_of(trained_policy()[0])
    for mean, std in ((300, 20), (-1e4, 5), (7, 1e3)):
        returns, before = mean + std * th.randn(50), values()
        with unit_scale(head, moments, returns, values, is_untrained=False) as (targets, scale):
            assert scale == moments.std.item()
            assert_allclose(values(), (before - moments.mean) / moments.std, rtol=1e-4, atol=1e-5)
            assert_allclose(targets, (returns - moments.mean) / moments.std, rtol=1e-5, atol=1e-5)
        assert_allclose(values(), before, atol=1e-5 * scale)
    assert moments.count == 200


@th.no_grad()
def test_values_of_an_untrained_critic_are_lifted_to_the_returns() -> None:
    """It starts in unit scale: the returns' own mean and deviation are what it cannot know."""
    head, moments, values = untrained_critic()
    before, weights = values(), head.weight.clone()
    with unit_scale(head, moments, th.tensor([100.0, 300.0]), values, is_untrained=True) as (targets, scale):
        assert th.equal(head.weight, weights)
        assert targets.tolist() == [-1, 1] and scale == pytest.approx(100)
    assert_allclose(values(), 200 + 100 * before, rtol=1e-5)


def test_a_constant_return_breaks_nothing() -> None:
    """No deviation at first, and a jump afterwards: the last layer stays in the units it is trained in."""
    head, moments, values = untrained_critic()
    for index, returns in enumerate((5.0, 5.0, 500.0)):
        with unit_scale(head, moments, th.full((10,), returns), values, is_untrained=index == 0):
            assert all(parameter.abs().max() < 5 for parameter in head.parameters())


def test_without_statistics_only_huge_returns_are_scaled() -> None:
    """Whose squares are no float32."""
    head, _, values = untrained_critic()
    for largest, expected, unit in ((-1e10, [1.0, -1e10], 1.0), (-1e30, [0.0, -1.0], 1e30)):
        with unit_scale(head, None, th.tensor([1.0, largest]), values, is_untrained=True) as (targets, scale):
            assert targets.tolist() == pytest.approx(expected) and scale == pytest.approx(unit)


def test_a_last_layer_of_another_kind() -> None:
    """
    One that ends in no linear layer, or whose output is not the value, is fitted as it is; one without a bias is scaled alone;
    one that the user has frozen keeps its weights and its statistics, bit for bit.
    """
    inputs, returns, layer = th.randn(5, 3), th.tensor([10.0, 30.0]), nn.Linear(3, 1)
    assert last_linear(nn.Sequential(nn.Linear(3, 1), nn.Tanh())) is last_linear(nn.Identity()) is last_linear(None) is None
    assert last_linear(nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh(), layer))) is layer
    for head, values in ((None, lambda: inputs), (layer, lambda: layer(inputs).exp())):
        moments = ReturnNormalizer()
        with unit_scale(head, moments, returns, values, is_untrained=False) as (targets, scale):
            assert th.equal(targets, returns) and scale == 1
        assert moments.count == 0

    layer = nn.Linear(3, 1, bias=False)
    weight = layer.weight.detach().clone()
    with unit_scale(layer, ReturnNormalizer(), returns, lambda: layer(inputs), is_untrained=False) as (targets, scale):
        assert (scale, targets.tolist()) == (pytest.approx(10), pytest.approx([1, 3]))
        assert_allclose(layer.weight.detach(), weight / 10, rtol=1e-6)
    assert_allclose(layer.weight.detach(), weight, rtol=1e-6)

    policy, _ = trained_policy()
    policy.value_net.weight.requires_grad_(False)
    before = copy.deepcopy(policy.state_dict())
    head, moments, values = critic_of(policy)
    for is_untrained in (False, True):
        with unit_scale(head, moments, 1000 * returns, values, is_untrained):
            pass
    after = policy.state_dict()
    assert after.pop("value_net.bias").item() == pytest.approx(before.pop("value_net.bias").item(), abs=1e-5)  # not frozen
    assert is_same(before, after)


def test_the_critic_is_fitted_to_normalised_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    """In units of the statistics, in which an untrained error is near 1; it is logged in the reward's."""
    losses: list[float] = []

    def fit(evaluator: Any, rollout: Any, targets: th.Tensor, *others: Any) -> float:
        moments = evaluator.policy.return_normalizer
        assert moments.count == 32 * (len(losses) + 1)
        assert_allclose(targets, (rollout.returns - moments.mean) / moments.std, rtol=1e-4, atol=1e-5)
        loss = fit_by_gradients(evaluator, rollout, targets, *others)
        losses.append(loss)
        return loss

    monkeypatch.setattr(critic, "fit_by_gradients", fit)
    model = make("smac", critic_learning_rate=1e-9).learn(3 * 32)
    logged = model.logger.name_to_value["train/value_loss"]
    assert len(losses) == 3 and 0.5 < losses[0] < 5
    assert logged == pytest.approx(losses[-1] * model.policy.return_normalizer.std.item() ** 2)


POLICIES: dict[str, Any] = {
    "separate": {},
    "no_layers": {"policy_kwargs": {"net_arch": []}},
    "gsde": {"use_sde": True},
    # no linear layer takes what is normalised: none can make up for new statistics
    "convolved": {"policy_kwargs": {"net_arch": [8], "features_extractor_class": Convolved}},
    "batch_norm": {"policy_kwargs": {"net_arch": [8], "features_extractor_class": BatchNorm}},
    # it goes into a linear layer, and past it
    "residual": {"policy_kwargs": {"net_arch": [8], "features_extractor_class": Residual}},
}


@pytest.mark.parametrize("case", POLICIES)
def test_new_statistics_move_the_policy_by_little(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a tenth of the step's KL divergence (a fifth at most), but in the first update, before which nothing is learned."""
    shares: list[float] = []

    def compare(model: Any, evaluator: Any, rollout: Any, acted: Any, moved: Any, is_untrained: bool) -> float:
        std = model.policy.observation_normalizer.std.clone()
        before = evaluator.as_it_acts(rollout.observations, rollout.actions)
        kl = update_observation_statistics(model, evaluator, rollout, acted, moved, is_untrained)
        after = evaluator.as_it_acts(rollout.observations, rollout.actions)
        assert kl == pytest.approx(acted.kl(after), rel=1e-4, abs=1e-6)
        assert not th.equal(std, model.policy.observation_normalizer.std)
        shares.append(before.kl(after) / acted.kl(before))
        return kl

    monkeypatch.setattr(natural_actor_critic, "update_observation_statistics", compare)
    make("smac", vec_env(), **{"target_kl": 0.01, **POLICIES[case]}).learn(4 * 64)
    assert len(shares) == 4 and shares[0] > 0.02 and max(shares[1:]) < 0.21


@th.no_grad()
def test_folding_keeps_what_a_layer_puts_out() -> None:
    """All of a change, none of it, and a dimension whose deviation grows more than tenfold, which is left alone."""
    generator = th.Generator().manual_seed(0)
    samples = th.randn(200, 3, generator=generator) * th.tensor([1.0, 5.0, 1e-3]) + th.tensor([0.0, 30.0, 1.0])
    normalizer, layer = ObservationNormalizer((3,)), nn.Linear(3, 4)
    normalizer.update(samples)
    before, outputs, weight = copy.deepcopy(normalizer), layer(normalizer(samples)), layer.weight.clone()
    normalizer.update(2 + 1.5 * samples)
    normalizer.fold(before, 1.0, [layer])
    assert_allclose(layer.weight, weight, rtol=1e-6)
    normalizer.fold(before, 0.0, [layer])
    assert (normalizer.std <= 10 * before.std).tolist() == [True, True, False]
    assert th.equal(layer.weight[:, 2], weight[:, 2])
    layer.weight[:, 2] = 0
    assert_allclose(layer(normalizer(samples)), outputs - before(samples)[:, 2:] * weight[:, 2], atol=1e-4)


def test_statistics_are_saved_and_change_in_training_alone() -> None:
    """Saved also with the policy alone."""
    model, file = make("smac", vec_env()).learn(64), io.BytesIO()
    before = snapshot(model)
    evaluate_policy(model, vec_env(), n_eval_episodes=2, deterministic=False)
    model.policy.save(file)
    file.seek(0)
    assert is_same(before, snapshot(model)) and is_same(before["policy"], MlpPolicy.load(file).state_dict())
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
    "dict": (lambda: sample_env(DICT), "MultiInputPolicy", (False, True)),
    "VecNormalize": (lambda: VecNormalize(vec_env()), "MlpPolicy", (False, False)),
    "VecNormalize within": (lambda: VecFrameStack(VecNormalize(vec_env()), 2), "MlpPolicy", (False, False)),
    "VecNormalize(norm_obs=False)": (lambda: VecNormalize(vec_env(), norm_obs=False), "MlpPolicy", (True, False)),
    "VecNormalize(norm_reward=False)": (lambda: VecNormalize(vec_env(), norm_reward=False), "MlpPolicy", (False, True)),
}


@pytest.mark.parametrize("case", DEFAULTS)
def test_what_is_on_by_default(case: str) -> None:
    """What nothing else normalises; the choice holds in training and survives saving."""
    make_env, policy, expected = DEFAULTS[case]
    model = make("smac", make_env(), policy, n_steps=4, target_kl=0.01).learn(8)
    assert tuple(model._normalizes.values()) == expected
    assert model.normalize_observations is model.normalize_returns is None
    assert tuple(f"{name}_normalizer.mean" in model.policy.state_dict() for name in ("observation", "return")) == expected
    assert not OFF.keys() & model.policy_kwargs.keys()
    file = io.BytesIO()
    model.save(file)
    assert SMAC.load(file, env=vec_env() if expected[0] else None)._normalizes == model._normalizes


def test_what_was_asked_for_is_done() -> None:
    """Whatever the default would be. Off is bit for bit what the policy class of Stable-Baselines3 does."""
    model = make("smac", VecNormalize(vec_env()), **ON).learn(64)
    assert model.policy.observation_normalizer.count == model.policy.return_normalizer.count == 64
    classes = (MlpPolicy, sb3_policies.ActorCriticPolicy)  # the latter knows of no statistics
    ours, theirs = (snapshot(make("smac", vec_env(), policy, **OFF).learn(128)) for policy in classes)
    assert is_same(ours, theirs)


def test_normalisation_that_is_impossible_is_refused() -> None:
    """When the model is built, naming the argument, its value, and what is accepted."""
    for space, policy in ((IMAGE, "CnnPolicy"), (spaces.Discrete(3), "MlpPolicy"), (DICT, "MultiInputPolicy")):
        with pytest.raises(ValueError, match=r"normalize_observations must be .*False .*one-dimensional Box, got True for"):
            make("smac", sample_env(space), policy, normalize_observations=True)
    for name in OFF:
        with pytest.raises(ValueError, match=rf"{name} must be None or False .*sb3_smac's, got True with ActorCriticPolicy"):
            make("smac", sample_env(), sb3_policies.ActorCriticPolicy, **{name: True})
    with pytest.raises(ValueError, match="normalize_observations must be False"):
        CnnPolicy(spaces.Box(0, 255, (1, 36, 36), np.uint8), ACTIONS, lambda _: 1e-3, normalize_observations=True)


@pytest.mark.parametrize("name", OFF)
@pytest.mark.parametrize("trained", [False, True])
def test_parameters_that_were_trained_otherwise_are_refused(name: str, trained: bool) -> None:
    """A loaded model cannot be told to drop, or to make up, statistics."""
    file = io.BytesIO()
    make("acsgd", sample_env(), **{name: trained}).save(file)
    with pytest.raises(ValueError, match=f"{name} must be {trained} for these parameters.*got {not trained}"):
        ACSGD.load(file, **{name: not trained})


def test_models_from_before_have_no_statistics() -> None:
    """A file that does not know the arguments is of a model that was trained without them."""
    model, file = make("smac", sample_env(), **OFF).learn(32), io.BytesIO()
    model.save(file, exclude=[*OFF, "_normalizes", "_checksum_when_built"])
    loaded = SMAC.load(file, env=sample_env())
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


@pytest.mark.parametrize(("arguments", "least", "most"), [({}, 0.0, 0.1), (OFF, 0.25, np.inf)], ids=["default", "off"])
def test_learning_on_raw_observations(arguments: dict[str, Any], least: float, most: float) -> None:
    """Where the plain policy sees nothing, the default one learns; chance is a mean squared error of 1/3."""
    model = SMAC("MlpPolicy", make_vec_env(Shifted, n_envs=16), n_steps=16, seed=0, device="cpu", **arguments).learn(3072)
    best = np.linspace(-1, 1, 41)
    actions, _ = model.predict((500 + best)[:, None], deterministic=True)
    assert least <= np.square(actions[:, 0] - best).mean() <= most


def test_a_layer_that_actor_and_critic_share_is_folded_once() -> None:
    def learned() -> SMAC:
        model = SMAC("MlpPolicy", "Pendulum-v1", n_steps=64, seed=0, device="cpu")
        model.policy.mlp_extractor.value_net = model.policy.mlp_extractor.policy_net
        return model.learn(192)

    fast_one = learned()
    with mock.patch.object(fast, "enabled", False):
        other = learned()
    counts = [model.policy.observation_normalizer.count.item() for model in (fast_one, other)]
    assert counts[0] == counts[1] > 0
