"""Plain policies do what Stable-Baselines3's do, bit for bit where they act; all others are left to Stable-Baselines3."""

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common import policies as sb3_policies
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import FlattenExtractor, MlpExtractor
from torch import nn
from torch.nn.utils import parametrizations

from sb3_smac import SMAC, NaturalActorCritic
from sb3_smac.common import actor_batch, natural_actor_critic
from sb3_smac.common.actor_batch import ActorBatch, make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.common.parameters import make_optimizer
from sb3_smac.common.policies import FAST_FORWARDS, CnnPolicy, MlpPolicy, MultiInputPolicy
from sb3_smac.common.trust_region import frozen, mean_kl
from sb3_smac.fast.plain_policy import PlainPolicy, RolloutForward, is_samplewise, plain_forward, scale_calls
from sb3_smac.maths import FisherVectorProduct, Mlp, flat_gradient, flatten
from tests.algorithms import TABLE, SampleEnv, every_algorithm, is_finite, is_same, make, snapshot
from tests.dense_reference import DoublePolicy, assert_close, fisher, make_policy
from tests.test_non_finite import FaultyEnv

VECTOR = spaces.Box(-1.0, 1.0, (3,))
BOX, DISCRETE = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3)
EVERY_ACTION_SPACE = {"box": BOX, "discrete": DISCRETE}
every_action_space = pytest.mark.parametrize("action_space", EVERY_ACTION_SPACE.values(), ids=EVERY_ACTION_SPACE)


class History(BaseCallback):
    """Everything that a rollout produces, and whether the policy's forward was the plain one."""

    def __init__(self, act: Callable[[NaturalActorCritic, int], Any] | None = None) -> None:
        super().__init__()
        self.act = act
        self.steps: list[Any] = []
        self.plain: set[bool] = set()

    def _on_step(self) -> bool:
        self.plain.add(is_plain(self.model.policy))
        names = ("actions", "clipped_actions", "values", "log_probs", "rewards", "dones", "new_obs")
        step = {name: copy.deepcopy(self.locals[name]) for name in names}
        if self.act is not None:
            assert isinstance(self.model, NaturalActorCritic)
            step["own"] = self.act(self.model, self.n_calls)
        self.steps.append(step)
        return True


def is_plain(policy: nn.Module) -> bool:
    """Whether the rollout that is being collected takes the plain forward pass."""
    forward = FAST_FORWARDS.get(policy)
    return isinstance(forward, RolloutForward) and forward.view is not None


@contextlib.contextmanager
def forward_of_sb3() -> Any:
    """Rollouts as Stable-Baselines3 collects them."""
    with mock.patch.object(natural_actor_critic, "plain_forward", lambda policy: contextlib.nullcontext()):
        yield


@contextlib.contextmanager
def no_plain_policies() -> Any:
    """Everything as for a policy that is not plain."""
    with mock.patch.object(PlainPolicy, "of", lambda policy: None):
        yield


def assert_same_training(
    build: Callable[[], NaturalActorCritic],
    on_step: Callable[[NaturalActorCritic, int], Any] | None = None,
    rollouts: int = 2,
    falls_back: bool = False,
) -> None:
    """The model trains to the same bits with the plain forward as with Stable-Baselines3's, which it then never calls."""
    results = []
    for context in (forward_of_sb3(), contextlib.nullcontext()):
        model, history = build(), History(on_step)
        start = snapshot(model)
        with context, mock.patch.object(
            sb3_policies.ActorCriticPolicy, "forward", autospec=True, side_effect=sb3_policies.ActorCriticPolicy.forward
        ) as sb3_forward:
            model.learn(rollouts * model.n_steps * model.n_envs, callback=history, reset_num_timesteps=False)
        returns = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer or ()]
        results.append((history.steps, snapshot(model), returns, th.get_rng_state(), np.random.get_state()))
        assert is_finite(model) and not is_same(start["policy"], results[-1][1]["policy"])
        assert model.policy not in FAST_FORWARDS
        if len(results) == 2 and not falls_back:
            # a policy that has been changed since it acted is asked once more how it acts
            assert history.plain == {True} and sb3_forward.call_count <= (0 if on_step is None else rollouts)
        if len(results) == 1:
            assert history.plain == {False} and sb3_forward.call_count >= rollouts * model.n_steps
    assert is_same(*results)


def sample_model(
    algo: str = "smac", n_envs: int = 1, action_space: spaces.Space = BOX, **arguments: Any
) -> NaturalActorCritic:
    observation_space = arguments.pop("observation_space", VECTOR)
    env = make_vec_env(lambda: SampleEnv(observation_space, action_space), n_envs=n_envs)
    return make(algo, env, **{"n_steps": 16, "target_kl": 0.01, **arguments})


@every_algorithm
@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("env", ["Pendulum-v1", "CartPole-v1"])
def test_trainings_are_bit_for_bit_those_with_sb3s_forward(algo: str, env: str, n_envs: int) -> None:
    assert_same_training(lambda: make(algo, make_vec_env(env, n_envs=n_envs, seed=0)), rollouts=3)


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "relu": {"policy_kwargs": {"net_arch": [8, 8], "activation_fn": nn.ReLU}},
    "no_normalisation": {"normalize_observations": False, "normalize_returns": False},
    "observations_only": {"normalize_returns": False},
    "returns_only": {"normalize_observations": False},
    "no_layers": {"policy_kwargs": {"net_arch": []}},
    "no_actor_layers": {"policy_kwargs": {"net_arch": {"pi": [], "vf": [6]}}},
    "different": {"policy_kwargs": {"net_arch": {"pi": [6, 4], "vf": [5]}}},
    "default": {"policy_kwargs": {}},
    "narrow": {"policy_kwargs": {"net_arch": [4], "log_std_init": -2.3}},
    "wide": {"policy_kwargs": {"net_arch": [4], "log_std_init": 1.1}},
    "not_orthogonal": {"policy_kwargs": {"net_arch": [4], "ortho_init": False}},
    "separate_extractors": {"policy_kwargs": {"net_arch": [4], "share_features_extractor": False}},
    "subclass": {"policy": type("Renamed", (MlpPolicy,), {})},
    "single_sample": {"batch_size": 1, "target_kl": None, "learning_rate": 1e-3},
    "minibatches": {"batch_size": 5, "max_grad_norm": 0.5, "ent_coef": 0.01},
    "float64_observations": {"observation_space": spaces.Box(-1, 1, (3,), np.float64)},
    "integer_observations": {"observation_space": spaces.Box(0, 255, (3,), np.uint8)},
    "matrix_observations": {"observation_space": spaces.Box(-1, 1, (2, 3))},
}


@every_action_space
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(name: str, action_space: spaces.Space) -> None:
    assert_same_training(lambda: sample_model(n_envs=2, action_space=action_space, **CONFIGURATIONS[name]))


@pytest.mark.parametrize("n_envs", [1, 8])
@pytest.mark.parametrize(
    "action_space",
    [
        spaces.Box(-1, 1, (2, 3)),
        spaces.Box(-1, 1, (17,)),
        spaces.Box(-1, 1, (1,), np.float64),
        spaces.Discrete(2),
        spaces.Discrete(40),
    ],
    ids=["matrix", "many", "float64", "two", "forty"],
)
def test_action_spaces(action_space: spaces.Space, n_envs: int) -> None:
    """Torch's random numbers come another way when there are sixteen and more."""
    assert_same_training(lambda: sample_model(n_envs=n_envs, action_space=action_space))


@every_algorithm
@every_action_space
def test_loaded_models(algo: str, action_space: spaces.Space, tmp_path: Path) -> None:
    path = tmp_path / "model"
    trained = sample_model(algo, 2, action_space).learn(64)
    trained.save(path)

    def load() -> NaturalActorCritic:
        env = make_vec_env(lambda: SampleEnv(VECTOR, action_space), n_envs=2, seed=1)
        model = TABLE[algo].cls.load(path, env=env, device="cpu")
        model.set_random_seed(5)
        return model

    assert_same_training(load)


@th.no_grad()
def scale_weights(model: NaturalActorCritic, step: int) -> None:
    if step % 5 == 0:
        for parameter in model.policy.parameters():
            parameter.mul_(1.1)


def shift_log_std(model: NaturalActorCritic, step: int) -> None:
    if step % 5 == 0:
        model.policy.log_std.data += 0.1 if step % 2 else -0.3


def write_log_std_in_numpy(model: NaturalActorCritic, step: int) -> None:
    """Which leaves no trace in the tensor's version."""
    model.policy.log_std.detach().numpy()[0] = -0.01 * step


def replace_log_std(model: NaturalActorCritic, step: int) -> None:
    if step % 20 == 5:
        model.policy.log_std = nn.Parameter(model.policy.log_std.detach() - 0.1)


def replace_weight(model: NaturalActorCritic, step: int) -> None:
    if step % 20 == 5:
        layer = model.policy.action_net
        layer.weight = nn.Parameter(layer.weight.detach() + 0.1)


def load_state(model: NaturalActorCritic, step: int) -> None:
    if step % 20 == 5:
        state = model.policy.state_dict()
        model.policy.load_state_dict({name: value * 1.05 for name, value in state.items()})


def move_normalizer(model: NaturalActorCritic, step: int) -> None:
    if step % 5 == 0:
        model.policy.observation_normalizer.update(th.full((3, 3), float(step)))
        model.policy.return_normalizer.update(th.full((3,), float(step)))


CHANGES = [scale_weights, shift_log_std, write_log_std_in_numpy, replace_log_std, replace_weight, load_state, move_normalizer]


@pytest.mark.parametrize("change", CHANGES)
@every_action_space
def test_parameters_changed_in_the_middle_of_a_rollout(change: Callable[..., None], action_space: spaces.Space) -> None:
    """The next action is the changed policy's."""
    if "log_std" in change.__name__ and action_space is DISCRETE:
        pytest.skip("no log_std")
    assert_same_training(lambda: sample_model(n_envs=2, action_space=action_space), on_step=change)


def test_parameters_changed_between_rollouts() -> None:
    """By the user's hand, with layers replaced and others frozen."""

    def build() -> NaturalActorCritic:
        model = sample_model(n_envs=2).learn(32)
        th.manual_seed(8)
        model.set_parameters(
            {"policy": {key: 0.9 * value for key, value in model.policy.state_dict().items()}}, exact_match=False
        )
        model.policy.action_net = nn.Linear(8, 2)
        model.policy.mlp_extractor.policy_net[0].weight.requires_grad_(False)
        return model

    assert_same_training(build)


def forward_with_gradients(model: NaturalActorCritic, step: int) -> Any:
    observations = th.as_tensor(model._last_obs)
    with th.enable_grad():
        actions, values, log_probs = model.policy(observations)
        gradient = flat_gradient(values.sum() + log_probs.sum(), list(model.policy.parameters()))
    assert values.requires_grad and gradient.norm() > 0
    return [each.detach().clone() for each in (actions, values, log_probs, gradient)]


def forward_deterministically(model: NaturalActorCritic, step: int) -> Any:
    observations = th.as_tensor(model._last_obs)
    with th.no_grad():
        outputs = model.policy(observations, deterministic=True)
        assert th.equal(outputs[0], model.policy.get_distribution(observations).mode())
        return [*outputs, *model.policy(observations, True)]


def evaluate_and_predict(model: NaturalActorCritic, step: int) -> Any:
    """And a forward pass of its own, without gradients, which draws random numbers."""
    observations = th.as_tensor(model._last_obs)
    with th.no_grad():
        actions, values, log_probs = model.policy(observations)
        again = model.policy.evaluate_actions(observations, actions)
    assert_close(again[1], log_probs, relative=1e-5)
    return [actions, values, log_probs, *again, model.predict(model._last_obs)[0]]


@pytest.mark.parametrize("call", [forward_with_gradients, forward_deterministically, evaluate_and_predict])
@every_action_space
def test_calls_of_the_policy_in_the_middle_of_a_rollout(call: Callable[..., Any], action_space: spaces.Space) -> None:
    assert_same_training(lambda: sample_model(n_envs=2, action_space=action_space), on_step=call, falls_back=True)


def replace_action_net(model: NaturalActorCritic, step: int) -> None:
    if step == 5:
        model.policy.action_net = copy.deepcopy(model.policy.action_net)
        model.policy.action_net.bias.data += 0.3


def replace_value_net(model: NaturalActorCritic, step: int) -> None:
    if step == 5:
        model.policy.mlp_extractor.value_net = nn.Sequential(nn.Linear(3, 8), nn.ReLU())


def replace_activation(model: NaturalActorCritic, step: int) -> None:
    if step == 5:
        model.policy.mlp_extractor.policy_net[1] = nn.ReLU()


def add_layer(model: NaturalActorCritic, step: int) -> None:
    if step == 5:
        model.policy.mlp_extractor.policy_net.append(nn.ELU())


def register_hook(model: NaturalActorCritic, step: int) -> None:
    if step == 5:
        model.policy.action_net.register_forward_hook(lambda module, inputs, output: 2 * output)


@pytest.mark.parametrize(
    ("change", "falls_back"),
    [
        *((replace_action_net, False), (replace_value_net, False), (replace_activation, False)),
        *((add_layer, True), (register_hook, True)),
    ],
)
def test_modules_changed_in_the_middle_of_a_rollout(change: Callable[..., None], falls_back: bool) -> None:
    """At the next step, the plain forward is that of the new modules, or no more."""
    assert_same_training(sample_model, change, falls_back=falls_back)


def test_a_forward_that_a_callback_wraps_stays() -> None:
    """It is the user's, called at every step from then on."""

    def wrap(model: NaturalActorCritic, step: int) -> None:
        if step == 5:
            forward = model.policy.forward
            model.policy.forward = lambda *args: (calls.append(step), forward(*args))[1]

    calls: list[int] = []
    model = sample_model()
    model.learn(48, callback=History(wrap))
    assert len(calls) == 43 and "forward" in vars(model.policy)


def test_copies_and_files_made_in_the_middle_of_a_rollout(tmp_path: Path) -> None:
    """They are whole policies of their own: the original's later life does not reach them."""

    def keep(model: NaturalActorCritic, step: int) -> None:
        if step == 5:
            model.policy.save(tmp_path / "policy")
            model.save(tmp_path / "model")
            copies.append((copy.deepcopy(model.policy), snapshot(model)["policy"]))

    copies: list[Any] = []
    model = sample_model()
    model.learn(48, callback=History(keep))
    policy, state = copies[0]
    assert "forward" not in vars(policy) and PlainPolicy.of(policy) is not None
    files = MlpPolicy.load(tmp_path / "policy"), SMAC.load(tmp_path / "model").policy
    observations = th.rand(4, 3)
    for each in (policy, *files):
        assert is_same(each.state_dict(), state)
        with th.no_grad():
            each.action_net.bias += 1.0
            th.manual_seed(0)
            moved, values, log_probs = each(observations)
        expected = each.evaluate_actions(observations, moved)
        assert th.equal(values, expected[0])
        assert_close(log_probs, expected[1], relative=1e-5)
    assert model.policy.action_net.bias.norm() < 0.5
    model.learn(16, reset_num_timesteps=False)


class Interruption(Exception):
    """Raised in the middle of a rollout."""


@pytest.mark.parametrize("error", [Interruption, KeyboardInterrupt, ValueError])
def test_the_policy_is_itself_again_after_an_error(error: type[BaseException]) -> None:
    def fail(model: NaturalActorCritic, step: int) -> None:
        assert is_plain(model.policy)
        if step == 5:
            raise error

    model = sample_model()
    with pytest.raises(error):
        model.learn(32, callback=History(fail))
    assert model.policy not in FAST_FORWARDS and model.policy.forward.__func__ is type(model.policy).forward
    model.learn(32)


def test_the_policy_is_itself_again_after_a_rollout_and_after_a_callback_stops_it() -> None:
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            assert is_plain(self.model.policy)
            return self.n_calls < 20

        def _on_rollout_end(self) -> None:
            seen.append(is_plain(self.model.policy))

    seen: list[bool] = []
    model = sample_model()
    train = model.train
    model.train = lambda: (seen.append(is_plain(model.policy)), train())  # type: ignore[method-assign]
    model.learn(64, callback=Stop())
    assert seen[1] is False and model.num_timesteps == 20
    assert model.policy not in FAST_FORWARDS


def test_what_is_no_actor_critic_policy_is_left_alone() -> None:
    module = nn.Linear(1, 1)
    with plain_forward(module):
        assert module not in FAST_FORWARDS


# ---------------------------------------------------------------------------------------------------- the forward pass itself


def random_policy(action_space: spaces.Space, scale: float = 1.0, **arguments: Any) -> MlpPolicy:
    """Statistics on, and weights far from their initial values."""
    th.manual_seed(0)
    arguments = {"net_arch": [8], "normalize_observations": True, "normalize_returns": True, **arguments}
    policy = MlpPolicy(VECTOR, action_space, lambda _: 1e-3, **arguments)
    with th.no_grad():
        if policy.normalize_observations:
            policy.observation_normalizer.update(2 + 3 * th.randn(50, 3))
        for parameter in policy.action_net.parameters():
            parameter.normal_().mul_(scale)
    return policy


def plain(policy: sb3_policies.ActorCriticPolicy) -> PlainPolicy:
    view = PlainPolicy.of(policy)
    assert view is not None
    return view


def in_a_rollout(policy: sb3_policies.ActorCriticPolicy) -> Callable[[th.Tensor], Any]:
    """The policy's forward pass as a rollout has it."""

    def forward(observations: th.Tensor) -> Any:
        with plain_forward(policy):
            return policy.forward(observations)

    return forward


@pytest.mark.parametrize("n_samples", [1, 2, 3, 8, 16, 17, 64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    "action_space", [spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (17,)), DISCRETE, spaces.Discrete(33)], ids=str
)
def test_forward(action_space: spaces.Space, scale: float, n_samples: int) -> None:
    """The same bits from the same random numbers, of which as many are drawn; among logits far apart, too."""
    policy = random_policy(action_space, scale)
    if isinstance(action_space, spaces.Box):
        policy.log_std.data.normal_()
    view, observations = plain(policy), 2 + 3 * th.randn(n_samples, 3)
    with th.no_grad():
        for seed in range(5):
            th.manual_seed(seed)
            expected, state = policy.forward(observations), th.get_rng_state()
            th.manual_seed(seed)
            assert is_same(view.forward(observations), expected)
            assert th.equal(th.get_rng_state(), state)


@pytest.mark.parametrize("log_std", [-60.0, -20.0, 20.0, 80.0, 200.0, np.inf])
def test_extreme_deviations(log_std: float) -> None:
    policy = random_policy(BOX)
    policy.log_std.data.fill_(log_std)
    results = []
    with th.no_grad(), np.errstate(all="ignore"):
        for forward in (policy.forward, in_a_rollout(policy)):
            th.manual_seed(0)
            results.append([each.nan_to_num(nan=12345.0) for each in forward(th.ones(4, 3))])
    assert is_same(*results)


@pytest.mark.parametrize("log_std", [np.nan, -np.inf, -200.0])
def test_deviations_that_torch_refuses(log_std: float) -> None:
    """With torch's own message."""
    policy = random_policy(BOX)
    policy.log_std.data[1] = log_std
    messages = []
    for forward in (policy.forward, in_a_rollout(policy)):
        with th.no_grad(), pytest.raises(ValueError, match="to satisfy the constraint") as error:
            forward(th.ones(4, 3))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@every_action_space
def test_observations_that_are_not_finite(action_space: spaces.Space) -> None:
    policy = random_policy(action_space)
    messages = []
    for forward in (policy.forward, in_a_rollout(policy)):
        with th.no_grad(), pytest.raises(ValueError) as error:
            forward(th.tensor([[1.0, np.nan, 0.0]]))
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("space", ["Box", "Discrete"])
def test_errors_of_environments_are_the_same(space: str, value: float) -> None:
    def message() -> str:
        with pytest.raises(ValueError) as error:
            make("smac", FaultyEnv("observation", 45, value, action_space=space)).learn(96)
        return f"{type(error.value).__name__}: {error.value}"

    with forward_of_sb3():
        expected = message()
    assert message() == expected


# ---------------------------------------------------------------------------------------------- everything else falls back


class OwnExtractor(FlattenExtractor):
    """Looks like Stable-Baselines3's."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return 2 * super().forward(observations)


class OwnMlpExtractor(MlpExtractor):
    """Looks like Stable-Baselines3's."""

    def forward_actor(self, features: th.Tensor) -> th.Tensor:
        return 2 * super().forward_actor(features)


class OwnMlpPolicy(MlpPolicy):
    """With another network."""

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = OwnMlpExtractor(self.features_dim, self.net_arch, self.activation_fn, "cpu")


class Residual(nn.Sequential):
    """Adds what comes in."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs[:, :1] + super().forward(inputs)


class Squared(nn.Module):
    """An activation of the user's own."""

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        return inputs.square()


class DroppingPolicy(MlpPolicy):
    """With dropout among its layers."""

    def _build_mlp_extractor(self) -> None:
        super()._build_mlp_extractor()
        self.mlp_extractor.policy_net.append(nn.Dropout(0.5))


def with_networks(change: Callable[[Any], None], **arguments: Any) -> Callable[[], NaturalActorCritic]:
    """A policy class whose networks are changed as soon as they are built: the model knows no others."""

    class Changed(MlpPolicy):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            change(self)

    return lambda: sample_model(policy=Changed, **arguments)


def replace_network(policy: Any) -> None:
    policy.mlp_extractor.policy_net = nn.Flatten()
    policy.action_net = nn.Linear(3, 2)


def make_residual(policy: Any) -> None:
    policy.mlp_extractor.value_net = Residual(*policy.mlp_extractor.value_net)


def tie_weights(policy: Any) -> None:
    policy.mlp_extractor.value_net[2].weight = policy.mlp_extractor.value_net[4].weight
    policy.mlp_extractor.policy_net[2].weight = policy.mlp_extractor.policy_net[4].weight


def set_forward_actor(policy: Any) -> None:
    forward = policy.mlp_extractor.forward_actor
    policy.mlp_extractor.forward_actor = lambda features: 2 * forward(features)


def set_forward(policy: Any) -> None:
    forward = policy.action_net.forward
    policy.action_net.forward = lambda features: 2 * forward(features)


class FixedDeviation(MlpPolicy):
    """log σ is no parameter."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        log_std = self.log_std.data
        del self.log_std
        self.register_buffer("log_std", log_std)


class SharedDeviation(MlpPolicy):
    """One log σ for all dimensions of an action."""

    def _build(self, lr_schedule: Any) -> None:
        super()._build(lr_schedule)
        self.log_std = nn.Parameter(th.zeros(1))


OTHERS: dict[str, Callable[[], NaturalActorCritic]] = {
    "gsde": lambda: sample_model(use_sde=True),
    "squashed_gsde": lambda: sample_model(use_sde=True, policy_kwargs={"net_arch": [8], "squash_output": True}),
    "multi_discrete": lambda: sample_model(action_space=spaces.MultiDiscrete([2, 3])),
    "multi_binary": lambda: sample_model(action_space=spaces.MultiBinary(3)),
    "dict": lambda: sample_model(policy="MultiInputPolicy", observation_space=spaces.Dict({"a": VECTOR})),
    "discrete_observations": lambda: sample_model(observation_space=spaces.Discrete(4)),
    "image_through_mlp": lambda: sample_model(observation_space=spaces.Box(0, 255, (1, 36, 36), np.uint8)),
    "image": lambda: sample_model(policy="CnnPolicy", observation_space=spaces.Box(0, 255, (1, 36, 36), np.uint8)),
    "elu": lambda: sample_model(policy_kwargs={"net_arch": [8], "activation_fn": nn.ELU}),
    "own_activation": lambda: sample_model(policy_kwargs={"net_arch": [8], "activation_fn": Squared}),
    "own_extractor": lambda: sample_model(policy_kwargs={"net_arch": [8], "features_extractor_class": OwnExtractor}),
    "own_mlp_extractor": lambda: sample_model(policy=OwnMlpPolicy),
    "dropout": lambda: sample_model(policy=DroppingPolicy),
    "parametrized_actor": with_networks(lambda policy: parametrizations.weight_norm(policy.action_net)),
    "parametrized_critic": with_networks(lambda policy: parametrizations.spectral_norm(policy.value_net)),
    "replaced_network": with_networks(replace_network),
    "residual": with_networks(make_residual),
    "tied_weights": with_networks(tie_weights, policy_kwargs={"net_arch": [8, 8, 8]}),
    "forward_actor_of_the_instance": with_networks(set_forward_actor),
    "forward_of_a_layer": with_networks(set_forward),
    "fixed_deviation": lambda: sample_model(policy=FixedDeviation),
    "shared_deviation": lambda: sample_model(policy=SharedDeviation),
    "shared_deviation_of_single_samples": lambda: sample_model(policy=SharedDeviation, batch_size=1, target_kl=None),
    "shared_deviation_at_full_rank": lambda: sample_model(policy=SharedDeviation, fisher_rank="full"),
    "shared_deviation_by_conjugate_gradient": lambda: sample_model("accg", policy=SharedDeviation),
    "own_normalizer": with_networks(lambda policy: setattr(policy, "observation_normalizer", nn.Tanh())),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.filterwarnings("ignore:You are using")
def test_others_are_left_to_sb3(name: str) -> None:
    """They train as without any plain policies, to the last bit."""
    results = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        with context:
            model = OTHERS[name]()
            before = snapshot(model)["policy"]
            model.learn(32)
        results.append(snapshot(model))
        assert is_finite(model) and not is_same(before, results[-1]["policy"])
    assert PlainPolicy.of(model.policy) is None
    assert is_same(*results)


OVERRIDABLE = [
    *("forward", "__call__", "extract_features"),
    *("predict_values", "get_distribution", "_get_action_dist_from_latent"),
]


@pytest.mark.parametrize("of_class", [True, False])
@pytest.mark.parametrize("method", OVERRIDABLE)
def test_policies_with_methods_of_their_own(method: str, of_class: bool) -> None:
    """Overridden by a class or on the instance, a method is called as often as without plain policies."""
    counts = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        calls: list[str] = []

        def own(policy: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(method)  # noqa: B023
            return getattr(MlpPolicy, method)(policy, *args, **kwargs)

        with context:
            model = sample_model(policy=type("Own", (MlpPolicy,), {method: own}) if of_class else MlpPolicy)
            if not of_class:
                vars(model.policy)[method] = own.__get__(model.policy)
            calls.clear()
            model.learn(32)
        counts.append(len(calls))
    assert PlainPolicy.of(model.policy) is None and not is_samplewise(model.policy)
    assert counts[0] == counts[1]
    assert counts[0] > 0 or (method == "__call__" and not of_class)  # Python looks it up in the class
    assert (method in vars(model.policy)) is not of_class


def test_wrong_precision() -> None:
    assert PlainPolicy.of(random_policy(BOX).double()) is None
    assert PlainPolicy.of(make_policy("box")) is None


@pytest.mark.parametrize("device", ["meta"])
def test_other_devices(device: str) -> None:
    assert PlainPolicy.of(random_policy(BOX).to(device)) is None


MODULES = [name for name, _ in random_policy(BOX).named_modules()]
PARAMETERS = [name for name, _ in random_policy(BOX).named_parameters()]


@pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "policy")
def test_hooks_of_modules_are_called(module: str) -> None:
    """As often as without plain policies; and the policy is plain again without them."""
    counts = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        model, calls = sample_model(), []  # type: ignore[var-annotated]
        handle = model.policy.get_submodule(module).register_forward_hook(lambda *_, calls=calls: calls.append(1))
        with context:
            model.learn(32)
        counts.append(len(calls))
    assert counts[0] == counts[1]
    # action_dist is no module, statistics of returns are no layer, and nothing else of these lies idle
    assert counts[0] > 0 or module in ("mlp_extractor", "pi_features_extractor", "vf_features_extractor", "return_normalizer")
    assert PlainPolicy.of(model.policy) is None and not is_samplewise(model.policy)
    handle.remove()
    assert PlainPolicy.of(model.policy) is not None and is_samplewise(model.policy)


@pytest.mark.parametrize("parameter", PARAMETERS)
@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_hooks_of_parameters_are_called(algo: str, parameter: str) -> None:
    """They change the gradient in the update as they do without plain policies."""
    results = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        with context:
            model = sample_model(algo)
            model.policy.get_parameter(parameter).register_hook(lambda gradient: 0.5 * gradient)
            model.learn(32)
        results.append(snapshot(model))
    assert is_same(*results)
    with no_plain_policies():
        model = sample_model(algo).learn(32)
    assert not is_same(results[0], snapshot(model))


# ------------------------------------------------------------------------------------------------------------------- updates


@every_algorithm
@every_action_space
@pytest.mark.parametrize("normalize", [True, False])
def test_updates_are_those_of_autograd(algo: str, action_space: spaces.Space, normalize: bool) -> None:
    """One update of actor and critic, whose gradients are written out for plain policies, to float32's rounding."""
    results = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        with context:
            model = sample_model(
                algo,
                action_space=action_space,
                target_kl=None,
                learning_rate=0.01,
                critic_batch_size=5,
                normalize_observations=normalize,
                normalize_returns=normalize,
                policy_kwargs={"net_arch": [8, 8], "optimizer_class": th.optim.SGD},
                line_search=False,
            )
            start = flatten(model.policy.parameters())
            model.learn(32)
        results.append((flatten(model.policy.parameters()) - start, model))
    assert results[0][0].norm() > 1e-4
    assert_close(results[1][0], results[0][0], relative=2e-4)
    losses = [model.logger.name_to_value.get("train/value_loss") for _, model in results]
    assert losses[0] is None or losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize(
    "name", ["mlp_extractor.policy_net.0.weight", "mlp_extractor.value_net.0.bias", "log_std", "value_net.weight"]
)
@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_frozen_parameters(algo: str, name: str) -> None:
    """They stay, and the others move as without plain policies."""
    results = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        with context:
            model = sample_model(algo, batch_size=1 if algo == "smac" else None, target_kl=None, learning_rate=1e-3)
            parameter = model.policy.get_parameter(name).requires_grad_(False)
            before = parameter.clone()
            model.learn(32)
        assert th.equal(parameter, before) and parameter.grad is None
        results.append(flatten(model.policy.parameters()))
    assert_close(*results, relative=1e-5)


def without_biases(policy: MlpPolicy) -> MlpPolicy:
    networks = policy.mlp_extractor
    networks.policy_net[0] = nn.Linear(3, 8, bias=False)
    networks.value_net[0] = nn.Linear(3, 8, bias=False)
    policy.value_net = nn.Linear(policy.value_net.in_features, 1, bias=False)
    return policy


SHAPES: dict[str, dict[str, Any]] = {
    "tanh": {"net_arch": [8, 6]},
    "relu": {"net_arch": [8, 6], "activation_fn": nn.ReLU},
    "linear": {"net_arch": []},
    "not_normalized": {"net_arch": [8], "normalize_observations": False, "normalize_returns": False},
}


@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_gradients(shape: str, biases: bool) -> None:
    """Of the squared error of a minibatch; one minibatch leaves the next alone."""
    if shape == "linear" and not biases:
        pytest.skip("no hidden layers")
    policy = random_policy(BOX, **SHAPES[shape])
    policy = policy if biases else without_biases(policy)
    observations, returns = 2 + 3 * th.randn(40, 3), 300 + 20 * th.randn(40)
    view = plain(policy)
    found = [th.full_like(parameter, 7.0) for parameter in view.critic.parameters]
    gradients = view.value_gradients(observations, returns, found)
    for indices in th.randperm(40).split(7):
        errors = policy.predict_values(observations[indices]).flatten() - returns[indices]
        loss = errors.square().mean()
        expected = flat_gradient(loss, view.critic.parameters)
        assert gradients(indices) == pytest.approx(loss.item(), rel=1e-4)
        assert_close(flatten(found), expected, relative=1e-4)
        assert all(parameter.grad is None for parameter in policy.parameters())
    with th.no_grad():  # the parameters are read each time
        policy.value_net.weight.mul_(2.0)
    loss = (policy.predict_values(observations).flatten() - returns).square().mean()
    assert gradients(th.arange(40)) == pytest.approx(loss.item(), rel=1e-4)


def double_view(policy: DoublePolicy) -> PlainPolicy:
    """A plain view in float64, which ``of`` would not give."""
    extractor = policy.mlp_extractor
    actor, critic = Mlp.of([*extractor.policy_net, policy.action_net]), Mlp.of([*extractor.value_net, policy.value_net])
    assert actor is not None and critic is not None
    view = PlainPolicy(policy, actor, critic)
    view.features = lambda observations: observations  # type: ignore[method-assign]
    return view


@pytest.mark.parametrize("space", ["box", "discrete"])
@pytest.mark.parametrize(
    "network", [{"net_arch": [4, 3]}, {"net_arch": [4], "activation_fn": nn.ReLU}, {"net_arch": []}], ids=str
)
@pytest.mark.parametrize("biases", [True, False])
def test_fisher_vector_product_is_the_dense_fishers(space: str, network: dict[str, Any], biases: bool) -> None:
    """In float64, against the Fisher matrix and against two backward passes through the KL divergence."""
    policy = make_policy(space, **network)
    if space == "box":
        policy.log_std.data.copy_(th.tensor([-0.7, 0.4]))
    if not biases:
        width = policy.action_net.in_features
        policy.action_net = nn.Linear(width, policy.action_net.out_features, bias=False).double()
    view, observations = double_view(policy), th.randn(6, 3).double()
    # in another order than the network's own
    parameters = [*view.actor.parameters[::-1], *([policy.log_std] if space == "box" else [])]
    assert view.is_all(parameters)
    product, dense = view.fisher_vector_product(observations, parameters), fisher(policy, parameters, observations)
    distribution = copy.copy(policy.get_distribution(observations))
    autograd = FisherVectorProduct(mean_kl(frozen(distribution), distribution), parameters)
    for _ in range(3):
        direction = th.randn(len(dense)).double()
        assert_close(product(direction), dense @ direction, relative=1e-12)
        assert_close(product(direction), autograd(direction), relative=1e-11)


@every_action_space
def test_fisher_vector_product_with_normalized_observations(action_space: spaces.Space) -> None:
    """In float32, as AC-CG has it."""
    policy = random_policy(action_space, scale=0.3)
    view, observations = plain(policy), 2 + 3 * th.randn(20, 3)
    parameters = [parameter for name, parameter in policy.named_parameters() if "value" not in name]
    distribution = copy.copy(policy.get_distribution(observations))
    autograd = FisherVectorProduct(mean_kl(frozen(distribution), distribution), parameters)
    direction = th.randn(sum(parameter.numel() for parameter in parameters))
    assert_close(view.fisher_vector_product(observations, parameters)(direction), autograd(direction), relative=1e-4)


def test_which_parameters_are_all() -> None:
    policy = random_policy(BOX)
    view = plain(policy)
    own = [*view.actor.parameters, policy.log_std]
    assert view.is_all(own) and view.is_all(own[::-1])
    assert not view.is_all(own[1:]) and not view.is_all(own[:-1])
    assert not view.is_all([*own, policy.value_net.weight])
    policy.log_std.requires_grad_(False)
    assert not view.is_all(own) and not view.is_all(own[:-1])
    assert plain(random_policy(DISCRETE)).is_all([]) is False


# ------------------------------------------------------------------------------------------- samples that depend on each other


class BatchNormExtractor(FlattenExtractor):
    """With batch statistics a sample's log-probability depends on the other samples' observations."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        self.layers = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layers(super().forward(observations))


@pytest.mark.parametrize("fisher_rank", [1, "full"])
def test_batch_normalisation_is_noticed(fisher_rank: int | str) -> None:
    """Gradient and mean score are autograd's; taken layer by layer they would not be."""
    policy_kwargs = {"net_arch": [8], "features_extractor_class": BatchNormExtractor, "ortho_init": False}
    model = sample_model(policy_kwargs=policy_kwargs, normalize_observations=False, fisher_rank=fisher_rank)
    assert not is_samplewise(model.policy)
    th.manual_seed(0)
    observations, actions, advantages = th.randn(6, 3), th.randn(6, 2), th.randn(6)

    def make_batch() -> ActorBatch:
        return make_actor_batch(Evaluator(model.policy), model.actor_parameters, observations, actions, advantages)

    batch = make_batch()
    model.policy.set_training_mode(True)
    log_prob = model.policy.get_distribution(observations).log_prob(actions)
    expected = flat_gradient((advantages * log_prob).mean(), model.actor_parameters, retain_graph=True)
    assert_close(batch.gradient, expected, relative=1e-5)
    assert_close(batch.scores.mean(), flat_gradient(log_prob.mean(), model.actor_parameters), relative=1e-5)
    with mock.patch.object(actor_batch, "is_samplewise", lambda policy: True):
        wrong = make_batch()
    assert (wrong.gradient - expected).norm() > 0.01 * expected.norm()


IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
INDEPENDENT: dict[str, Callable[[], sb3_policies.ActorCriticPolicy]] = {
    "mlp": lambda: random_policy(BOX),
    "elu": lambda: random_policy(BOX, activation_fn=nn.ELU),
    "gsde": lambda: random_policy(BOX, use_sde=True),
    "multi_binary": lambda: random_policy(spaces.MultiBinary(2)),
    "cnn": lambda: CnnPolicy(IMAGE, BOX, lambda _: 0.0, net_arch=[3]),
    "dict": lambda: MultiInputPolicy(spaces.Dict({"a": VECTOR, "b": IMAGE}), BOX, lambda _: 0.0, net_arch=[3]),
    "sb3": lambda: sb3_policies.ActorCriticPolicy(VECTOR, BOX, lambda _: 0.0),
}


@pytest.mark.parametrize("name", INDEPENDENT)
def test_samplewise_policies(name: str) -> None:
    assert is_samplewise(INDEPENDENT[name]())


@pytest.mark.parametrize(
    "name", ["own_activation", "own_extractor", "own_mlp_extractor", "residual", "forward_actor_of_the_instance"]
)
def test_nothing_is_assumed_of_other_modules(name: str) -> None:
    assert not is_samplewise(OTHERS[name]().policy)


def test_scale_calls() -> None:
    """Of a Gaussian policy, unless its deviation is frozen or comes about in another way."""

    class Own(MlpPolicy):
        def get_distribution(self, obs: Any) -> Any:
            return super().get_distribution(obs)

    def calls(policy: sb3_policies.ActorCriticPolicy) -> list[Any]:
        return scale_calls(policy, policy.get_distribution(th.ones(4, 3)))

    policy = random_policy(BOX)
    ((parameter, output),) = calls(policy)
    assert parameter is policy.log_std and output.requires_grad
    assert th.equal(output, policy.log_std.exp().expand(4, 2))
    policy.log_std.requires_grad_(False)
    assert calls(policy) == []
    others = [random_policy(DISCRETE), random_policy(BOX, use_sde=True), Own(VECTOR, BOX, lambda _: 0.0)]
    assert [calls(each) for each in others] == [[], [], []]


# ----------------------------------------------------------------------------------------------------------------- optimizers


@pytest.mark.parametrize("optimizer", [th.optim.Adam, th.optim.AdamW])
def test_fused_optimizers_step_as_the_others(optimizer: type[th.optim.Optimizer]) -> None:
    """The same steps to rounding, with the user's arguments; and the user's choice of an implementation stands."""
    start, gradients = th.randn(7), th.randn(5, 7)
    results = []
    for own in ({}, {"fused": False}, {"foreach": True}):
        parameter = nn.Parameter(start.clone())
        chosen = make_optimizer(optimizer, [parameter], 0.1, {"eps": 1e-5, "weight_decay": 0.01, **own})
        group = chosen.param_groups[0]
        assert (group["lr"], group["eps"], group["weight_decay"]) == (0.1, 1e-5, 0.01)
        assert bool(group["fused"]) is (own == {}) and bool(group["foreach"]) is ("foreach" in own)
        for gradient in gradients:
            parameter.grad = gradient.clone()
            chosen.step()
        results.append(parameter.detach())
    assert_close(results[0], results[1], relative=1e-6)
    assert_close(results[0], results[2], relative=1e-6)


def test_other_optimizers_are_as_the_user_wants_them() -> None:
    class Own(th.optim.Adam):
        pass

    parameter = nn.Parameter(th.ones(2))
    assert "fused" not in make_optimizer(th.optim.SGD, [parameter], 0.1, {"momentum": 0.9}).param_groups[0] or not (
        make_optimizer(th.optim.SGD, [parameter], 0.1, {}).param_groups[0]["fused"]
    )
    assert not make_optimizer(Own, [parameter], 0.1, {}).param_groups[0]["fused"]
    meta = nn.Parameter(th.ones(2, device="meta"))
    assert not make_optimizer(th.optim.Adam, [meta], 0.1, {}).param_groups[0]["fused"]
