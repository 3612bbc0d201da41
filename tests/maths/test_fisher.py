"""Fisher-vector products against the dense Fisher matrix of every kind of policy."""

import pytest
import torch as th
from torch import nn

from sb3_smac.common.trust_region import frozen, mean_kl
from sb3_smac.maths import FisherVectorProduct
from tests.dense_reference import actor, assert_close, every_space, fisher, make_policy, vector

OBSERVATIONS = th.randn(7, 3, generator=th.Generator().manual_seed(0))


def product_of(policy: nn.Module, parameters: list[nn.Parameter]) -> FisherVectorProduct:
    distribution = policy.get_distribution(OBSERVATIONS)
    return FisherVectorProduct(mean_kl(frozen(distribution), distribution), parameters)


def as_matrix(product: FisherVectorProduct, size: int) -> th.Tensor:
    return th.stack([product(unit) for unit in th.eye(size, dtype=th.float64)], dim=1)


@every_space
@pytest.mark.parametrize("net_arch", [[], {"pi": [3], "vf": [3]}], ids=["linear", "hidden"])
def test_is_the_dense_fisher(space: str, net_arch: list | dict) -> None:
    """Column by column, with the expectation over actions exact on the dense side."""
    policy = make_policy(space, net_arch=net_arch)
    parameters = actor(policy)
    dense = fisher(policy, parameters, OBSERVATIONS)
    assert dense.norm() > 0.1
    assert_close(as_matrix(product_of(policy, parameters), len(dense)), dense, relative=1e-10)


@pytest.mark.parametrize("full_std", [True, False])
@pytest.mark.parametrize("use_expln", [True, False])
def test_is_the_dense_fisher_of_every_kind_of_gsde(full_std: bool, use_expln: bool) -> None:
    policy = make_policy("gsde", full_std=full_std, use_expln=use_expln, log_std_init=-0.5)
    dense = fisher(policy, actor(policy), OBSERVATIONS)
    assert_close(as_matrix(product_of(policy, actor(policy)), len(dense)), dense, relative=1e-10)


def test_parameters_without_influence_keep_their_place() -> None:
    """Rows and columns of zeros for the critic's parameters, the Fisher of the actor between them."""
    policy = make_policy("discrete")
    parameters = list(policy.parameters())
    matrix = as_matrix(product_of(policy, parameters), len(vector(parameters)))
    of_actor = th.cat([th.full((p.numel(),), any(p is a for a in actor(policy))) for p in parameters])
    assert matrix[~of_actor].eq(0).all() and matrix[:, ~of_actor].eq(0).all()
    assert_close(matrix[of_actor][:, of_actor], fisher(policy, actor(policy), OBSERVATIONS), relative=1e-10)


def test_frozen_parameters_keep_their_place() -> None:
    policy = make_policy("box")
    dense = fisher(policy, actor(policy), OBSERVATIONS)
    policy.log_std.requires_grad_(False)  # the first two entries
    dense[:2], dense[:, :2] = 0, 0
    assert_close(as_matrix(product_of(policy, actor(policy)), len(dense)), dense, relative=1e-10)
