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


@st.composite
def score_batches(draw: st.DrawFn) -> tuple[th.Tensor, th.Tensor]:
    """Scores S (N, d) and advantages A (N,)."""
    shape, seed = (draw(st.integers(1, 8)), draw(st.integers(1, 8))), draw(st.integers(0, 2**32))
    generator = th.Generator().manual_seed(seed)
    return tuple(th.randn(size, generator=generator, dtype=th.float64) for size in (shape, shape[:1]))


def explicit(update: th.Tensor, damping: float) -> th.Tensor:
    return damping * th.eye(len(update), dtype=update.dtype) + th.outer(update, update)


@properties
@given(pairs(), dampings)
def test_solves_the_explicit_system(vectors: tuple[th.Tensor, th.Tensor], damping: float) -> None:
    u, v = vectors
    assert_close(sherman_morrison_solve(v, u, damping), th.linalg.solve(explicit(u, damping), v), relative=1e-8)


@properties
@given(score_batches(), dampings)
def test_rank_1_step_is_the_gradient_of_recentred_advantages(batch: tuple[th.Tensor, th.Tensor], damping: float) -> None:
    """``F̂⁻¹ g = (1/λ) (1/N) Σ (A_i − b) s_i``: what the README says that the step does."""
    scores, advantages = batch
    gradient, mean_score = scores.T @ advantages / len(scores), scores.mean(dim=0)
    baseline = recentring_baseline(gradient, mean_score, damping)
    recentred = scores.T @ (advantages - baseline) / (damping * len(scores))
    assert baseline.shape == ()
    assert_close(recentred, th.linalg.solve(explicit(mean_score, damping), gradient), relative=1e-8)
    assert_close(recentred, sherman_morrison_solve(gradient, mean_score, damping), relative=1e-8)


def test_one_transition_in_closed_form() -> None:
    """With s̄ = s and g = A s the solution is ``A s / (λ + ‖s‖²)`` (eq. 5); here ‖s‖² = 9, so that is s / 5."""
    score = th.tensor([1.0, 2.0, 2.0], dtype=th.float64)
    assert_close(sherman_morrison_solve(2 * score, score, 1.0), score / 5, relative=1e-15)


def test_scales_the_direction_of_the_update_and_all_others_differently() -> None:
    """1/(λ + ‖u‖²) along u, 1/λ across it."""
    u, across = th.tensor([3.0, 4.0], dtype=th.float64), th.tensor([4.0, -3.0], dtype=th.float64)
    assert_close(sherman_morrison_solve(u + across, u, 0.5), u / 25.5 + across / 0.5, relative=1e-14)


@properties
@given(pairs())
def test_heavy_damping_leaves_the_gradient(vectors: tuple[th.Tensor, th.Tensor]) -> None:
    """λ → ∞: λ F̂⁻¹ v → v."""
    u, v = vectors
    assert_close(1e12 * sherman_morrison_solve(v, u, 1e12), v, relative=1e-8)


def test_leaves_its_arguments_alone() -> None:
    u, v = th.ones(3), th.arange(3.0)
    sherman_morrison_solve(v, u, 0.1)
    assert th.equal(u, th.ones(3)) and th.equal(v, th.arange(3.0))


@pytest.mark.parametrize(
    ("v_shape", "u_shape", "damping", "message"),
    [
        ((3,), (3,), 0.0, "damping must be greater than 0, got 0.0"),
        ((3,), (3,), -1.0, "damping must be greater than 0, got -1.0"),
        ((3,), (3,), float("nan"), "damping must be greater than 0, got nan"),
        ((3,), (4,), 1.0, r"shapes \(3,\) and \(4,\)"),
        ((3,), (1,), 1.0, r"shapes \(3,\) and \(1,\)"),
        ((3, 1), (3, 1), 1.0, r"shapes \(3, 1\) and \(3, 1\)"),
        ((), (), 1.0, r"shapes \(\) and \(\)"),
    ],
)
def test_refuses_bad_input(v_shape: tuple, u_shape: tuple, damping: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sherman_morrison_solve(th.ones(v_shape), th.ones(u_shape), damping)
