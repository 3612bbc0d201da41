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
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn
from torch.nn.utils import parametrizations

from sb3_smac import NaturalActorCritic
from sb3_smac.common import natural_actor_critic
from sb3_smac.common.actor_batch import make_actor_batch
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.common.parameters import make_optimizer
from sb3_smac.common.policies import FAST_FORWARDS, MlpPolicy
from sb3_smac.fast.plain_policy import PlainPolicy, RolloutForward, is_samplewise, plain_forward, scale_calls
from sb3_smac.maths import Mlp, Scores, flat_gradient, flatten
from tests.algorithms import VECTOR, SampleEnv, is_finite, is_same, make, reloaded, snapshot
from tests.dense_reference import DoublePolicy, actor, assert_close, fisher, jacobian, make_policy
from tests.own_policies import CASES, BatchNorm

BOX, DISCRETE = spaces.Box(-1.0, 1.0, (2,)), spaces.Discrete(3)
# Torch's random numbers come another way when there are sixteen and more
ACTION_SPACES: dict[str, spaces.Space] = {
    "one": spaces.Box(-1, 1, (1,)),
    "many": spaces.Box(-1, 1, (17,)),
    "matrix": spaces.Box(-1, 1, (2, 3)),
    "float64": spaces.Box(-1, 1, (1,), np.float64),
    "two": spaces.Discrete(2),
    "forty": spaces.Discrete(40),
}
box_and_discrete = pytest.mark.parametrize("action_space", [BOX, DISCRETE], ids=["box", "discrete"])


class History(BaseCallback):
    """
    Everything that a rollout produces, and whether the policy's forward was the plain one.

    :param act: what a user does, once in each of two rollouts of 16 steps
    """

    def __init__(self, act: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self.act = act
        self.steps: list[Any] = []
        self.plain: set[bool] = set()

    def _on_step(self) -> bool:
        self.plain.add(is_plain(self.model.policy))
        names = ("actions", "clipped_actions", "values", "log_probs", "rewards", "dones", "new_obs")
        self.steps.append({name: copy.deepcopy(self.locals[name]) for name in names})
        if self.act is not None and self.n_calls % 20 == 5:
            self.steps.append(self.act(self.model))
        return True


def is_plain(policy: nn.Module) -> bool:
    """Whether the rollout that is being collected takes the plain forward pass."""
    forward = FAST_FORWARDS.get(policy)
    return isinstance(forward, RolloutForward) and forward.view is not None


def assert_same_training(
    build: Callable[[], NaturalActorCritic],
    act: Callable[[Any], Any] | None = None,
    falls_back: bool = False,
) -> None:
    """The model trains to the same bits with the plain forward as with Stable-Baselines3's, which it then never calls."""
    results = []
    without_plain_forward = mock.patch.object(natural_actor_critic, "plain_forward", contextlib.nullcontext)
    for context in (without_plain_forward, contextlib.nullcontext()):
        model, history = build(), History(act)
        start = snapshot(model)
        with (
            context,
            mock.patch.object(
                sb3_policies.ActorCriticPolicy, "forward", autospec=True, side_effect=sb3_policies.ActorCriticPolicy.forward
            ) as sb3_forward,
        ):
            model.learn(2 * model.n_steps * model.n_envs, callback=history, reset_num_timesteps=False)
        returns = [(episode["r"], episode["l"]) for episode in model.ep_info_buffer or ()]
        results.append((history.steps, snapshot(model), returns, th.get_rng_state(), np.random.get_state()))
        assert is_finite(model) and not is_same(start["policy"], results[-1][1]["policy"])
        assert model.policy not in FAST_FORWARDS
        if context is without_plain_forward:
            assert history.plain == {False} and sb3_forward.call_count >= 2 * model.n_steps
        elif not falls_back:
            # a policy that has been changed since it acted is asked once more how it acts
            assert history.plain == {True} and sb3_forward.call_count <= (0 if act is None else 2)
    assert is_same(*results)


def no_plain_policies() -> Any:
    """Everything as for a policy that is not plain."""
    return mock.patch.object(PlainPolicy, "of", lambda policy: None)


def trained_both_ways(build: Callable[[], NaturalActorCritic], n_steps: int = 32) -> list[NaturalActorCritic]:
    """Without any plain policies, and with them."""
    models = []
    for context in (no_plain_policies(), contextlib.nullcontext()):
        with context:
            models.append(build().learn(n_steps))
    return models


def sample_model(
    algo: str = "smac", n_envs: int = 1, action_space: spaces.Space = BOX, **arguments: Any
) -> NaturalActorCritic:
    observation_space = arguments.pop("observation_space", VECTOR)
    env = make_vec_env(lambda: SampleEnv(observation_space, action_space), n_envs=n_envs)
    return make(algo, env, **{"n_steps": 16, "target_kl": 0.01, **arguments})


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


# ------------------------------------------------------------------------------------------------------------------- rollouts


CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {"policy_kwargs": {}},
    "relu": {"policy_kwargs": {"net_arch": [8, 8], "activation_fn": nn.ReLU}},
    "no_layers": {"policy_kwargs": {"net_arch": []}},
    "no_actor_layers": {"policy_kwargs": {"net_arch": {"pi": [], "vf": [6]}}},
    "separate_extractors": {"policy_kwargs": {"net_arch": [4], "share_features_extractor": False}},
    "subclass": {"policy": type("Renamed", (MlpPolicy,), {})},
    "no_normalisation": {"normalize_observations": False, "normalize_returns": False},
    "observations_only": {"normalize_returns": False},
    "float64_observations": {"observation_space": spaces.Box(-1, 1, (3,), np.float64)},
    "integer_observations": {"observation_space": spaces.Box(0, 255, (3,), np.uint8)},
    "matrix_observations": {"observation_space": spaces.Box(-1, 1, (2, 3))},
}


@box_and_discrete
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(name: str, action_space: spaces.Space) -> None:
    assert_same_training(lambda: sample_model(n_envs=2, action_space=action_space, **CONFIGURATIONS[name]))


@pytest.mark.parametrize("n_envs", [1, 8])
@pytest.mark.parametrize("name", ACTION_SPACES)
def test_action_spaces(name: str, n_envs: int) -> None:
    assert_same_training(lambda: sample_model(n_envs=n_envs, action_space=ACTION_SPACES[name]))


def test_loaded_models() -> None:
    def build() -> NaturalActorCritic:
        model = sample_model().learn(16)
        return reloaded(model, env=model.get_env())

    assert_same_training(build)


def move_statistics(policy: Any) -> None:
    policy.observation_normalizer.update(th.full((3, 3), 5.0))
    policy.return_normalizer.update(th.full((3,), 5.0))


def double_by_hook(policy: Any) -> None:
    policy.action_net.register_forward_hook(lambda module, inputs, output: 2 * output)


def wrap_forward(policy: Any) -> None:
    """It is the user's from then on: each of its calls shows in the random numbers."""
    forward = policy.forward
    policy.forward = lambda *args, **kwargs: (th.rand(1), forward(*args, **kwargs))[1]


CHANGES: dict[str, Callable[[Any], object]] = {
    "state": lambda policy: policy.load_state_dict({key: 1.05 * value for key, value in policy.state_dict().items()}),
    "statistics": move_statistics,
    "weight": lambda policy: setattr(policy.action_net, "weight", nn.Parameter(policy.action_net.weight.detach() + 0.1)),
    "log_std": lambda policy: setattr(policy, "log_std", nn.Parameter(policy.log_std.detach() - 0.1)),
    # which leaves no trace in the tensor's version
    "log_std_in_numpy": lambda policy: policy.log_std.detach().numpy().fill(-0.3),
    "action_net": lambda policy: setattr(policy, "action_net", nn.Linear(8, policy.action_net.out_features)),
    "value_net": lambda policy: setattr(policy.mlp_extractor, "value_net", nn.Sequential(nn.Linear(3, 8), nn.ReLU())),
    "activation": lambda policy: policy.mlp_extractor.policy_net.__setitem__(1, nn.ReLU()),
    "other_activation": lambda policy: policy.mlp_extractor.value_net.__setitem__(1, nn.ELU()),
    "hook": double_by_hook,
    "forward": wrap_forward,
}
LAST_CHANGES = {"other_activation", "hook", "forward"}


@box_and_discrete
@pytest.mark.parametrize("name", CHANGES)
def test_changes_in_the_middle_of_a_rollout(name: str, action_space: spaces.Space) -> None:
    """The next action is the changed policy's: its plain forward is another one, or there is none any more."""
    if "log_std" in name and action_space is DISCRETE:
        pytest.skip("no log_std")
    assert_same_training(
        lambda: sample_model(n_envs=2, action_space=action_space),
        lambda model: CHANGES[name](model.policy),
        falls_back=name in LAST_CHANGES,
    )


def call_in_every_way(model: NaturalActorCritic) -> Any:
    """With gradients, for the mode, and for a sample that the policy then evaluates."""
    policy, observations = model.policy, th.as_tensor(model._last_obs)
    with th.enable_grad():
        outputs = policy(observations)
        gradient = flat_gradient(outputs[1].sum() + outputs[2].sum(), list(policy.parameters()))
    assert gradient.norm() > 0
    with th.no_grad():
        modes = policy(observations, deterministic=True)
        assert th.equal(modes[0], policy.get_distribution(observations).mode())
        actions, values, log_probs = policy(observations)
        evaluated = policy.evaluate_actions(observations, actions)
    assert_close(evaluated[1], log_probs, relative=1e-5)
    detached = [each.detach().clone() for each in (*outputs, gradient)]
    return [*detached, *modes, actions, values, log_probs, *evaluated, model.predict(model._last_obs)[0]]


@box_and_discrete
def test_calls_of_the_policy_in_the_middle_of_a_rollout(action_space: spaces.Space) -> None:
    assert_same_training(lambda: sample_model(n_envs=2, action_space=action_space), call_in_every_way, falls_back=True)


def test_only_rollouts_are_plain() -> None:
    """Updates are not, and nothing is after an error in a rollout."""

    def interrupt(model: NaturalActorCritic) -> None:
        assert is_plain(model.policy)
        raise KeyboardInterrupt

    model, in_updates = sample_model(), []
    with mock.patch.object(model, "train", lambda: in_updates.append(is_plain(model.policy))):
        model.learn(16)
    assert in_updates == [False]
    with pytest.raises(KeyboardInterrupt):
        model.learn(16, callback=History(interrupt))
    assert model.policy not in FAST_FORWARDS


def test_the_plain_forward_is_that_of_one_rollout(tmp_path: Path) -> None:
    """Not of a rollout within it, of copies and files of the policy, or of what is no policy of this package."""
    policy, other = random_policy(BOX), nn.Linear(1, 1)
    with plain_forward(policy), plain_forward(other):
        outer = FAST_FORWARDS[policy]
        with plain_forward(policy):
            assert FAST_FORWARDS[policy] is not outer
        assert FAST_FORWARDS[policy] is outer
        policy.save(tmp_path / "policy")
        for each in (copy.deepcopy(policy), MlpPolicy.load(tmp_path / "policy"), other):
            assert each not in FAST_FORWARDS
    assert policy not in FAST_FORWARDS


# ---------------------------------------------------------------------------------------------------- the forward pass itself


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("name", ACTION_SPACES)
def test_forward(name: str, scale: float) -> None:
    """The same bits from the same random numbers, of which as many are drawn; among logits far apart, too."""
    policy = random_policy(ACTION_SPACES[name], scale)
    if hasattr(policy, "log_std"):
        policy.log_std.data.normal_()
    view = PlainPolicy.of(policy)
    for n_samples in (1, 2, 3, 8, 16, 17, 64):
        observations = 2 + 3 * th.randn(n_samples, 3)
        for seed in range(5):
            results = []
            for forward in (policy.forward, view.forward):
                th.manual_seed(seed)
                with th.no_grad():
                    results.append((forward(observations), th.get_rng_state()))
            assert is_same(*results)


def outcomes(policy: sb3_policies.ActorCriticPolicy, observations: th.Tensor) -> list[Any]:
    """What its forward gives outside a rollout and in one, or the error's message."""
    found: list[Any] = []
    for context in (contextlib.nullcontext(), plain_forward(policy)):
        th.manual_seed(0)
        try:
            with context, th.no_grad(), np.errstate(all="ignore"):
                found.append([each.nan_to_num(nan=12345.0) for each in policy.forward(observations)])
        except ValueError as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize(
    ("log_std", "is_refused"), [(-60.0, False), (80.0, False), (200.0, False), (-200.0, True), (np.nan, True)]
)
def test_extreme_deviations(log_std: float, is_refused: bool) -> None:
    """Whose squares are 0 or infinite, or they themselves; what torch refuses has torch's own message."""
    policy = random_policy(BOX)
    policy.log_std.data[1] = log_std
    expected, found = outcomes(policy, th.ones(4, 3))
    assert is_same(found, expected)
    assert ("to satisfy the constraint" in expected) is is_refused


@box_and_discrete
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_observations_that_are_not_finite(action_space: spaces.Space, value: float) -> None:
    """Tanh makes infinity finite."""
    expected, found = outcomes(random_policy(action_space), th.tensor([[1.0, value, 0.0]]))
    assert is_same(found, expected)
    assert isinstance(expected, str) is bool(np.isnan(value))


# ---------------------------------------------------------------------------------------------- everything else falls back


PLAIN = {"MlpPolicy", "SB3", "flat-not-shared"}
SAMPLEWISE = {"Cnn", "Dict", "DictOfSB3", "gSDE", "gSDE-full-features"}


@pytest.mark.parametrize("name", CASES)
def test_what_is_known_of_policies(name: str) -> None:
    """Whether they are plain, and whether samples are known not to depend on each other."""
    case = CASES[name]
    model = make(
        "smac", DummyVecEnv([case.env]), case.policy, policy_kwargs={"net_arch": [8], **case.kwargs}, **case.arguments
    )
    assert (PlainPolicy.of(model.policy) is not None) is (name in PLAIN)
    assert is_samplewise(model.policy) is (name in PLAIN | SAMPLEWISE or name.startswith("MlpPolicy-"))


def take_images(policy: Any) -> None:
    policy.observation_space = spaces.Box(0, 255, (1, 36, 36), np.uint8)


def fix_deviation(policy: Any) -> None:
    """log σ is no parameter."""
    del policy.log_std
    policy.register_buffer("log_std", th.zeros(2))


def share_deviation(policy: Any) -> None:
    """One log σ for all dimensions of an action."""
    policy.log_std = nn.Parameter(th.zeros(1))


def subclass(module: nn.Module) -> None:
    """It looks as it did, and may do anything."""
    module.__class__ = type("Own", (type(module),), {})


def set_method(module: nn.Module, name: str) -> None:
    """One of the instance's own."""
    setattr(module, name, getattr(module, name))


OTHERS_SAMPLEWISE: dict[str, Callable[[Any], object]] = {
    "float64": lambda policy: policy.double(),
    "another_device": lambda policy: policy.to("meta"),
    "images": take_images,
    "actor_with_elu": lambda policy: policy.mlp_extractor.policy_net.append(nn.ELU()),
    "critic_with_dropout": lambda policy: policy.mlp_extractor.value_net.append(nn.Dropout(0.5)),
    "not_sequential": lambda policy: setattr(policy.mlp_extractor, "policy_net", nn.Identity()),
    "own_normalizer": lambda policy: setattr(policy, "observation_normalizer", nn.Tanh()),
    "fixed_deviation": fix_deviation,
    "shared_deviation": share_deviation,
}
OTHERS: dict[str, Callable[[Any], object]] = {
    "own_activation": lambda policy: subclass(policy.mlp_extractor.policy_net[1]),
    "own_sequential": lambda policy: subclass(policy.mlp_extractor.value_net),
    "own_extractor": lambda policy: subclass(policy.features_extractor),
    "own_mlp_extractor": lambda policy: subclass(policy.mlp_extractor),
    "parametrized": lambda policy: parametrizations.weight_norm(policy.action_net),
    "method_of_the_extractor": lambda policy: set_method(policy.mlp_extractor, "forward_actor"),
    "method_of_a_layer": lambda policy: set_method(policy.value_net, "forward"),
    **OTHERS_SAMPLEWISE,
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_to_sb3(name: str) -> None:
    policy = random_policy(BOX)
    OTHERS[name](policy)
    assert PlainPolicy.of(policy) is None
    assert is_samplewise(policy) is (name in OTHERS_SAMPLEWISE)


def test_wrappers_are_left_alone() -> None:
    wrapped: Any = nn.DataParallel(random_policy(BOX))
    assert PlainPolicy.of(wrapped) is None and not is_samplewise(wrapped)


@pytest.mark.parametrize("algo", ["smac", "smac_full", "accg"])
@pytest.mark.parametrize("batch_size", [1, None])
def test_one_deviation_for_all_dimensions(algo: str, batch_size: int | None) -> None:
    """It is trained, though its score is not written out."""
    model = sample_model(algo, batch_size=batch_size)
    share_deviation(model.policy)
    model.learn(32)
    assert is_finite(model) and model.policy.log_std.item() != 0


def method(name: str, of_class: bool) -> Callable[[Any, list], Any]:
    """Overrides a method, in the policy's class or on the instance."""

    def override(policy: Any, calls: list) -> None:
        def own(self: Any, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return getattr(MlpPolicy, name)(self, *args, **kwargs)

        if of_class:
            policy.__class__ = type("Own", (MlpPolicy,), {name: own})
        else:
            vars(policy)[name] = own.__get__(policy)

    return override


def hook(name: str) -> Callable[[Any, list], Any]:
    return lambda policy, calls: policy.get_submodule(name).register_forward_hook(lambda *_: calls.append(name))


def gradient_hook(name: str) -> Callable[[Any, list], Any]:
    return lambda policy, calls: policy.get_parameter(name).register_hook(lambda _: calls.append(name))


METHODS = ["forward", "__call__", "extract_features", "predict_values", "get_distribution", "_get_action_dist_from_latent"]
CALLED: dict[str, Callable[[Any, list], Any]] = {
    **{f"{name} of the class": method(name, of_class=True) for name in METHODS},
    **{f"{name} of the instance": method(name, of_class=False) for name in METHODS},
    **{f"hook of {name or 'policy'}": hook(name) for name, _ in random_policy(BOX).named_modules()},
    **{f"hook of {name}": gradient_hook(name) for name, _ in random_policy(BOX).named_parameters()},
}
IDLE = {"hook of return_normalizer", "__call__ of the instance"}  # which Python looks up in the class


@pytest.mark.parametrize("name", CALLED)
def test_what_the_user_adds_is_called(name: str) -> None:
    """As often as without plain policies; and the policy is plain again without a hook."""
    calls: list[list] = []
    handles: list[Any] = []

    def build() -> NaturalActorCritic:
        model = sample_model()
        calls.append([])
        handles.append(CALLED[name](model.policy, calls[-1]))
        return model

    _, model = trained_both_ways(build)
    assert len(calls[0]) == len(calls[1])
    assert bool(calls[0]) is (name not in IDLE)
    assert PlainPolicy.of(model.policy) is None and not is_samplewise(model.policy)
    if "hook" in name:
        handles[-1].remove()
        assert PlainPolicy.of(model.policy) is not None and is_samplewise(model.policy)


# ------------------------------------------------------------------------------------------------------------------- updates


@pytest.mark.parametrize(
    "name", ["mlp_extractor.policy_net.0.weight", "mlp_extractor.value_net.0.bias", "log_std", "value_net.weight"]
)
@pytest.mark.parametrize("algo", ["smac", "accg"])
def test_frozen_parameters(algo: str, name: str) -> None:
    """They stay, and the others move as without plain policies."""

    def build() -> NaturalActorCritic:
        model = sample_model(algo, batch_size=1 if algo == "smac" else None, target_kl=None, learning_rate=1e-3)
        model.policy.get_parameter(name).requires_grad_(False)
        return model

    start, models = build(), trained_both_ways(build)
    for model in models:
        parameter = model.policy.get_parameter(name)
        assert th.equal(parameter, start.policy.get_parameter(name)) and parameter.grad is None
    assert_close(*(flatten(model.policy.parameters()) for model in models), relative=1e-5)


NETWORKS: dict[str, dict[str, Any]] = {
    "tanh": {"net_arch": [4, 3]},
    "relu": {"net_arch": [4], "activation_fn": nn.ReLU},
    "linear": {"net_arch": []},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("normalize", [True, False])
def test_value_gradients(network: str, normalize: bool) -> None:
    """Of the squared error of a minibatch; one minibatch leaves the next alone, and the parameters are read each time."""
    policy = random_policy(BOX, **NETWORKS[network], normalize_observations=normalize, normalize_returns=normalize)
    observations, returns = 2 + 3 * th.randn(40, 3), 300 + 20 * th.randn(40)
    view = PlainPolicy.of(policy)
    found = [th.full_like(parameter, 7.0) for parameter in view.critic.parameters]
    gradients = view.value_gradients(observations, returns, found)
    for indices in th.randperm(40).split(7):
        errors = policy.predict_values(observations[indices]).flatten() - returns[indices]
        loss = errors.square().mean()
        expected = flat_gradient(loss, view.critic.parameters)
        assert gradients(indices) == pytest.approx(loss.item(), rel=1e-4)
        assert_close(flatten(found), expected, relative=1e-4)
        assert all(parameter.grad is None for parameter in policy.parameters())
        policy.value_net.weight.data.mul_(1.5)


def double_view(policy: DoublePolicy) -> PlainPolicy:
    """A plain view in float64, which ``of`` would not give."""
    extractor = policy.mlp_extractor
    networks = [*extractor.policy_net, policy.action_net], [*extractor.value_net, policy.value_net]
    view = PlainPolicy(policy, *map(Mlp.of, networks))
    view.features = lambda observations: observations
    return view


@pytest.mark.parametrize("space", ["box", "discrete"])
@pytest.mark.parametrize("biases", [True, False])
@pytest.mark.parametrize("network", NETWORKS)
def test_fisher_vector_product_is_the_dense_fishers(space: str, biases: bool, network: str) -> None:
    """In float64."""
    policy = make_policy(space, **NETWORKS[network])
    if space == "box":
        policy.log_std.data.copy_(th.tensor([-0.7, 0.4]))
    if not biases:
        policy.action_net = nn.Linear(policy.action_net.in_features, policy.action_net.out_features, bias=False).double()
    view, observations = double_view(policy), th.randn(6, 3).double()
    parameters = actor(policy)[::-1]  # in another order than the network's own
    assert view.is_all(parameters)
    product, dense = view.fisher_vector_product(observations, parameters), fisher(policy, parameters, observations)
    for direction in th.randn(3, len(dense)).double():
        assert_close(product(direction), dense @ direction, relative=1e-12)


def test_with_a_deviation_that_is_not_learned() -> None:
    """Scores and the true Fisher have zeros where it is."""
    policy, observations = make_policy("box", **NETWORKS["tanh"]), th.randn(6, 3).double()
    is_log_std = th.cat([th.full((p.numel(),), p is policy.log_std) for p in actor(policy)])
    dense_fisher = fisher(policy, actor(policy), observations)
    distribution = policy.get_distribution(observations)
    actions = distribution.sample().detach()
    dense = jacobian(distribution.log_prob(actions), actor(policy))
    dense[:, is_log_std] = dense_fisher[is_log_std] = 0.0
    policy.log_std.requires_grad_(False)
    view = double_view(policy)
    activations = view.actor_activations(observations)
    factors = view.scores(view.distribution(activations[-1]), activations, actions)
    scores = Scores(distribution.log_prob(actions).detach(), actor(policy), factors=factors)
    assert_close(scores.mean(), dense.mean(dim=0), relative=1e-12)
    assert_close(scores.gram(), dense @ dense.T, relative=1e-12)
    direction = th.randn(len(is_log_std)).double()
    assert_close(scores.product(direction), dense @ direction, relative=1e-12)
    assert_close(view.fisher_vector_product(observations, actor(policy))(direction), dense_fisher @ direction, relative=1e-12)


@pytest.mark.parametrize("space", ["box", "discrete"])
@pytest.mark.parametrize("network", NETWORKS)
def test_scores_are_the_dense_ones(space: str, network: str) -> None:
    """In float64."""
    policy, observations = make_policy(space, **NETWORKS[network]), th.randn(6, 3).double()
    view = double_view(policy)
    activations = view.actor_activations(observations)
    distribution = view.distribution(activations[-1])
    actions = distribution.sample()
    factors = view.scores(distribution, activations, actions)
    scores = Scores(distribution.log_prob(actions), actor(policy), factors=factors)
    dense = jacobian(policy.get_distribution(observations).log_prob(actions), actor(policy))
    assert_close(scores.mean(), dense.mean(dim=0), relative=1e-12)
    assert_close(scores.gram(), dense @ dense.T, relative=1e-12)


def test_which_parameters_are_all() -> None:
    policy = random_policy(BOX)
    view, own = PlainPolicy.of(policy), actor(policy)
    assert view.is_all(own) and view.is_all(own[::-1])
    assert not view.is_all(own[1:]) and not view.is_all(own[:-1])
    assert not view.is_all([*own, policy.value_net.weight])
    policy.log_std.requires_grad_(False)
    assert view.is_all(own) and view.has_fixed_std
    policy.action_net.bias.requires_grad_(False)
    assert not view.is_all(own)
    assert not view.is_all([parameter for parameter in own if parameter.requires_grad])
    assert not PlainPolicy.of(random_policy(DISCRETE)).is_all([])


def test_batch_normalisation_is_noticed() -> None:
    """Gradient and mean score are autograd's; taken layer by layer they would not be."""
    policy_kwargs = {"net_arch": [8], "features_extractor_class": BatchNorm, "ortho_init": False}
    model = sample_model(policy_kwargs=policy_kwargs, normalize_observations=False)
    th.manual_seed(0)
    observations, actions, advantages = th.randn(6, 3), th.randn(6, 2), th.randn(6)
    batch = make_actor_batch(Evaluator(model.policy), model.actor_parameters, observations, actions, advantages)
    model.policy.set_training_mode(True)
    log_prob = model.policy.get_distribution(observations).log_prob(actions)
    expected = flat_gradient((advantages * log_prob).mean(), model.actor_parameters, retain_graph=True)
    assert_close(batch.gradient, expected, relative=1e-5)
    assert_close(batch.scores.mean(), flat_gradient(log_prob.mean(), model.actor_parameters), relative=1e-5)


def test_scale_calls() -> None:
    """Of a Gaussian policy, unless its deviation is frozen or comes about in another way."""

    def calls(policy: sb3_policies.ActorCriticPolicy) -> list[Any]:
        return scale_calls(policy, policy.get_distribution(th.ones(4, 3)))

    policy = random_policy(BOX)
    ((parameter, output),) = calls(policy)
    assert parameter is policy.log_std and output.requires_grad
    assert th.equal(output, policy.log_std.exp().expand(4, 2))
    assert calls(random_policy(DISCRETE)) == calls(random_policy(BOX, use_sde=True)) == []
    own_method = method("get_distribution", of_class=True)
    for change in (fix_deviation, share_deviation, lambda each: own_method(each, []), lambda each: each.requires_grad_(False)):
        policy = random_policy(BOX)
        change(policy)
        assert calls(policy) == []


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


@pytest.mark.parametrize("optimizer", [th.optim.SGD, type("Own", (th.optim.Adam,), {}), th.optim.Adam])
def test_other_optimizers_are_not_fused(optimizer: type[th.optim.Optimizer]) -> None:
    """And Adam itself is not where there is no such implementation."""
    parameter = nn.Parameter(th.ones(2, device="meta" if optimizer is th.optim.Adam else "cpu"))
    chosen = make_optimizer(optimizer, [parameter], 0.1, {})
    assert not chosen.param_groups[0].get("fused")
