"""Where an update's tensors are, when it waits for them, and how many it holds: on a CPU, of what matters on a GPU."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_smac.common.critic import fit_critic
from sb3_smac.common.evaluation import Evaluator
from sb3_smac.fast.plain_policy import PlainPolicy
from tests.algorithms import ACTION_SPACES, VECTOR, SampleEnv, is_finite, is_same, make, snapshot
from tests.dense_reference import collect
from tests.own_policies import Residual

SYNCHRONISATION = "_local_scalar_dense"


POLICIES: dict[str, dict[str, Any]] = {
    "plain_box": {},
    "plain_discrete": {"action_space": ACTION_SPACES["Discrete"]},
    "factored": {"policy_kwargs": {"net_arch": [8], "activation_fn": nn.ELU}},
    # nothing is written out or factored
    "unknown": {"policy_kwargs": {"net_arch": [8], "features_extractor_class": Residual}},
    "gsde": {"use_sde": True},
    "multi_discrete": {"action_space": ACTION_SPACES["MultiDiscrete"]},
    "dict": {"policy": "MultiInputPolicy", "observation_space": spaces.Dict({"a": VECTOR})},
    "image": {
        "policy": "CnnPolicy",
        "observation_space": spaces.Box(0, 255, (1, 36, 36), np.uint8),
        "policy_kwargs": {"net_arch": [4], "features_extractor_kwargs": {"features_dim": 4}},
    },
}
VARIANTS: list[dict[str, Any]] = [
    {"target_kl": None},
    {"line_search": True, "ent_coef": 0.01, "max_grad_norm": 0.5},
    {"batch_size": 6, "target_kl": None, "learning_rate": 1e-3},
    {"batch_size": 1, "target_kl": None, "line_search": False, "learning_rate": 1e-3},
    {"critic_target": "monte_carlo", "critic_batch_size": None},
    {"critic_optimizer": "gauss_newton"},
    {"normalize_observations": False, "normalize_returns": False, "normalize_advantage": False},
    {"fisher_rank": 2},
    {"fisher_rank": 5, "ent_coef": 0.01},
    {"fisher_rank": "full"},
    {"fisher_rank": "full", "ent_coef": 0.01},
]


def sample_model(algo: str = "smac", action_space: spaces.Space = ACTION_SPACES["Box"], **arguments: Any) -> Any:
    observation_space = arguments.pop("observation_space", VECTOR)
    env = make_vec_env(lambda: SampleEnv(observation_space, action_space), n_envs=2)
    return make(algo, env, **{"n_steps": 8, "critic_batch_size": 5, **arguments})


def updated_with_default_device(device: str, **arguments: Any) -> dict[str, Any]:
    """Two updates (the second knows observations' statistics and a step's curvature) with a default device of torch's."""
    model = sample_model(**arguments)
    for _ in range(2):
        collect(model)
        before = snapshot(model)
        with th.device(device):
            model.train()
        assert is_finite(model) and not is_same(before["policy"], snapshot(model)["policy"])
        assert all(tensor.device.type == "cpu" for tensor in model.policy.state_dict().values())
    return snapshot(model)


@pytest.mark.parametrize(
    ("algo", "policy", "variant"),
    [
        *[("smac", policy, {}) for policy in POLICIES],
        *[(algo, policy, {}) for algo in ("accg", "acsgd", "acadam") for policy in ("plain_box", "unknown")],
        *[("smac", policy, variant) for variant in VARIANTS for policy in ("plain_box", "unknown")],
        *[(algo, "gsde", {}) for algo in ("smac_full", "accg")],
    ],
    ids=str,
)
def test_tensors_are_made_on_the_models_device(algo: str, policy: str, variant: dict[str, Any]) -> None:
    """A tensor that is made without a device lands on "meta", where no number comes back from."""
    arguments = {"algo": algo, **POLICIES[policy], **variant}
    assert is_same(updated_with_default_device("meta", **arguments), updated_with_default_device("cpu", **arguments))


class Operations(TorchDispatchMode):
    """Counts torch's operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def synchronisations_of_the_critic(n_critic_updates: int, **arguments: Any) -> tuple[int, int]:
    """How often the critic's regression reads a number, and how many operations it consists of."""
    model = sample_model(n_critic_updates=n_critic_updates, **arguments)
    collect(model)
    rollout = next(model.rollout_buffer.get())
    with Operations() as operations:
        fit_critic(model, Evaluator(model.policy), rollout, is_untrained=False)
    return operations.counts[SYNCHRONISATION], operations.counts.total()


@pytest.mark.parametrize(
    ("policy", "max_grad_norm"),
    [("plain_box", None), ("plain_box", 0.5), ("factored", None), ("unknown", 0.5), ("dict", None)],
)
def test_minibatches_of_the_critic_wait_for_nothing(policy: str, max_grad_norm: float | None) -> None:
    """However many there are: a number is read when they are all done."""
    arguments = {**POLICIES[policy], "max_grad_norm": max_grad_norm}
    once, few = synchronisations_of_the_critic(1, **arguments)
    often, many = synchronisations_of_the_critic(12, **arguments)
    assert often == once
    assert many > 3 * few  # there was more to do, and it was seen


def test_reading_a_number_is_seen() -> None:
    with Operations() as operations:
        th.ones(2).sum().item()
    assert operations.counts[SYNCHRONISATION] == 1


class Storages(TorchDispatchMode):
    """
    Sizes of the tensors that are alive, by what torch's operations return.

    :param smallest: number of bytes below which memory is not counted
    """

    def __init__(self, smallest: int) -> None:
        super().__init__()
        self.smallest = smallest
        self.largest = self.peak = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def ignore(self, tensors: Iterator[th.Tensor]) -> None:
        """What was there before."""
        self._old = [StorageWeakRef(tensor.untyped_storage()) for tensor in tensors]
        self._ignored = {reference.cdata for reference in self._old}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for output in outputs if isinstance(outputs, list | tuple) else [outputs]:
            if isinstance(output, th.Tensor):
                self._note(output.untyped_storage())
        self._alive = {key: value for key, value in self._alive.items() if not value[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self._alive.values()))
        return outputs

    def _note(self, storage: th.UntypedStorage) -> None:
        reference = StorageWeakRef(storage)
        if storage.nbytes() >= self.smallest and reference.cdata not in self._ignored:
            self._alive[reference.cdata] = (reference, storage.nbytes())
            self.largest = max(self.largest, storage.nbytes())


N = 24
# N activations of a layer are less than an eighth of the parameters, which are nearly all the actor's
WIDE: dict[str, Any] = {"policy_kwargs": {"net_arch": {"pi": [256, 256], "vf": [4]}}, "n_critic_updates": 1}


def held(algo: str, **arguments: Any) -> tuple[float, float]:
    """
    Memory of an update, in vectors of the actor's d parameters, without those that were there before.

    :return: how many are alive at once, and how many the largest tensor makes
    """
    model = sample_model(algo, **{"n_steps": N // 2, **WIDE, **arguments})
    collect(model)
    model.train()  # optimizers have their state
    collect(model)
    d = sum(parameter.numel() for parameter in model.actor_parameters)
    assert max(parameter.numel() for parameter in model.actor_parameters) > 0.9 * d
    storages = Storages(smallest=4 * d // 8)
    state = [*model.policy.state_dict().values(), *(getattr(model, "_displacement", th.ones(1)),)]
    storages.ignore(iter(state))
    with storages:
        model.train()
    return storages.peak / (4 * d), storages.largest / (4 * d)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"target_kl": None, "action_space": ACTION_SPACES["Discrete"]},
        {"line_search": True, "max_grad_norm": 0.5},
        {"batch_size": 6},
        {"batch_size": 1, "target_kl": None},
    ],
    ids=str,
)
def test_a_rank_1_update_holds_four_vectors_of_the_parameters_size(arguments: dict[str, Any]) -> None:
    """
    Among them the copy from which a failed update is undone; nothing of size N × d.

    Where a vector is checked to be finite, one of the four is torch's, with three masks of a quarter of that size.
    """
    peak, largest = held("smac", **arguments)
    assert 1.9 < peak < 5  # and the measurement sees that copy, and the step's start
    assert largest < 1.1


@pytest.mark.parametrize(
    ("algo", "policy"), [("smac_full", "plain_box"), ("smac_full", "unknown"), ("accg", "plain_box"), ("acadam", "plain_box")]
)
def test_no_update_forms_the_scores(algo: str, policy: str) -> None:
    """Nothing as large as N × d; not for the Gram matrix either, where the layers are known."""
    arguments = {**WIDE["policy_kwargs"], **({"features_extractor_class": Residual} if policy == "unknown" else {})}
    peak, largest = held(algo, policy_kwargs=arguments)
    assert largest < 1.1
    assert peak < 12 < N


def test_the_policies_of_this_file_are_what_they_are_called() -> None:
    for name, arguments in POLICIES.items():
        assert (PlainPolicy.of(sample_model(**arguments).policy) is not None) is name.startswith("plain"), name
