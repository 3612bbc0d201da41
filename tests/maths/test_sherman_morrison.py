"""The rank-1 solve against ``torch.linalg.solve`` on the explicit matrix."""

import pytest
import torch as th
from hypothesis import given
from hypothesis import strategies as st

from sb3_smac.maths import recentring_baseline, sherman_morrison_solve
from tests.dense_reference import assert_close, properties

dampings = st.floats(1e-3, 1e3)
entries = st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[th.Tensor, th.Tensor]:
    """Two vectors of one length, zeros and parallel ones among them."""
    rows = draw(st.lists(st.tuples(entries, entries), min_size=1, max_size=12))
    u, v = th.tensor(rows, dtype=th.float64).T
    return u, draw(st.sampled_from([v, 3 * u]))


def explicit(update: th.Tensor, damping: float) -> th.Tensor:
    return damping * th.eye(len(update), dtype=update.dtype) + th.outer(update, update)


@properties
@given(pairs(), dampings)
def test_solves_the_explicit_system(vectors: tuple[th.Tensor, th.Tensor], damping: float) -> None:
    """And leaves its arguments alone."""
    u, v = (each.clone() for each in vectors)
    assert_close(sherman_morrison_solve(v, u, damping), th.linalg.solve(explicit(u, damping), v), relative=1e-8)
    assert th.equal(u, vectors[0]) and th.equal(v, vectors[1])


@properties
@given(st.integers(1, 8), st.integers(1, 8), dampings, st.integers(0, 2**31))
def test_rank_1_step_is_the_gradient_of_recentred_advantages(n_samples: int, d: int, damping: float, seed: int) -> None:
    """``F̂⁻¹ g = (1/λ) (1/N) Σ (A_i − b) s_i``: what the README says that the step does."""
    th.manual_seed(seed)
    scores, advantages = th.randn(n_samples, d).double(), th.randn(n_samples).double()
    gradient, mean_score = scores.T @ advantages / n_samples, scores.mean(dim=0)
    baseline = recentring_baseline(gradient, mean_score, damping)
    assert baseline.shape == ()
    recentred = scores.T @ (advantages - baseline) / (damping * n_samples)
    assert_close(recentred, th.linalg.solve(explicit(mean_score, damping), gradient), relative=1e-8)


def test_one_transition_in_closed_form() -> None:
    """With s̄ = s and g = A s the solution is ``A s / (λ + ‖s‖²)`` (eq. 5); here ‖s‖² = 9, so that is s / 5."""
    score = th.tensor([1.0, 2.0, 2.0], dtype=th.float64)
    assert_close(sherman_morrison_solve(2 * score, score, 1.0), score / 5, relative=1e-15)


@properties
@given(pairs())
def test_heavy_damping_leaves_the_gradient(vectors: tuple[th.Tensor, th.Tensor]) -> None:
    """λ → ∞: λ F̂⁻¹ v → v."""
    u, v = vectors
    assert_close(1e12 * sherman_morrison_solve(v, u, 1e12), v, relative=1e-8)


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_refuses_dampings(damping: float) -> None:
    with pytest.raises(ValueError, match=f"damping must be greater than 0, got {damping}"):
        sherman_morrison_solve(th.ones(3), th.ones(3), damping)


@pytest.mark.parametrize(("first", "second"), [((3,), (4,)), ((3,), (1,)), ((3, 1), (3, 1)), ((), ())])
def test_refuses_shapes(first: tuple, second: tuple) -> None:
    with pytest.raises(ValueError) as raised:
        sherman_morrison_solve(th.ones(first), th.ones(second), 1.0)
    assert f"one-dimensional and equally long, got shapes {first} and {second}" in str(raised.value)
