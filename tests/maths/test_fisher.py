"""Fisher-vector products against the dense Fisher matrix of every kind of policy."""

from typing import Any

import pytest
import torch as th
from torch import nn

from sb3_smac.common.trust_region import frozen, mean_kl
from sb3_smac.maths import FisherVectorProduct
from tests.dense_reference import CASES, actor, assert_close, fisher, make_policy, vector

OBSERVATIONS = th.randn(7, 3, generator=th.Generator().manual_seed(0))


def as_matrix(policy: nn.Module, parameters: list[nn.Parameter]) -> th.Tensor:
    """Column by column."""
    distribution = policy.get_distribution(OBSERVATIONS)
    product = FisherVectorProduct(mean_kl(frozen(distribution), distribution), parameters)
    return th.stack([product(unit) for unit in th.eye(len(vector(parameters))).double()], dim=1)


GSDE = [
    {"full_std": full_std, "use_expln": use_expln, "log_std_init": -0.5}
    for full_std in (True, False)
    for use_expln in (True, False)
]


@pytest.mark.parametrize(
    ("space", "arguments"),
    [*((space, arguments) for space in CASES for arguments in ({}, {"net_arch": []})), *(("gsde", kind) for kind in GSDE)],
)
def test_is_the_dense_fisher(space: str, arguments: dict[str, Any]) -> None:
    """With the expectation over actions exact on the dense side."""
    policy = make_policy(space, **arguments)
    dense = fisher(policy, actor(policy), OBSERVATIONS)
    assert dense.norm() > 0.1
    assert_close(as_matrix(policy, actor(policy)), dense, relative=1e-10)


def test_parameters_without_influence_keep_their_place() -> None:
    """Rows and columns of zeros for the critic's parameters and for frozen ones, the Fisher of the others between them."""
    policy = make_policy("box")
    dense = fisher(policy, actor(policy), OBSERVATIONS)
    policy.log_std.requires_grad_(False)  # the first two entries
    dense[:2], dense[:, :2] = 0, 0
    parameters = list(policy.parameters())
    of_actor = th.cat([th.full((each.numel(),), any(each is own for own in actor(policy))) for each in parameters])
    expected = th.zeros(len(of_actor), len(of_actor)).double()
    expected[th.outer(of_actor, of_actor)] = dense.flatten()
    matrix = as_matrix(policy, parameters)
    assert_close(matrix, expected, relative=1e-10)
    assert th.equal(matrix == 0, expected == 0)
