"""Statistics of a report, against values computed by hand and against rliable's own."""

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("rliable")

from scipy.stats import t as student  # noqa: E402

from sb3_smac.benchmark import statistics  # noqa: E402
from sb3_smac.benchmark.statistics import BINS, SMOOTHING  # noqa: E402


def episodes(timesteps: list[int], returns: list[float]) -> "pd.DataFrame":
    lengths = np.diff([0, *timesteps])
    return pd.DataFrame({"timestep": timesteps, "return": returns, "length": lengths})


def test_the_final_return_is_of_the_last_tenth() -> None:
    table = episodes([50, 90, 91, 100], [1.0, 2.0, 30.0, 50.0])
    assert statistics.final_return(table, budget=100) == 40  # what ends at 90 does not count
    assert statistics.final_return(table, budget=1000) == 50  # nothing ends in it: the last episode
    assert np.isnan(statistics.final_return(episodes([], []), budget=100))


def test_what_is_lost_is_the_best_tenth_less_the_last() -> None:
    table = episodes([50, 100, 101, 900, 950], [10.0, 20.0, 40.0, 3.0, 7.0])
    assert statistics.lost_return(table, 1000) == 40 - 7
    assert statistics.lost_return(table.head(2), 1000) == 0
    assert statistics.lost_return(table.head(4), 1000) == 40 - 3  # no episode ended later
    assert np.isnan(statistics.lost_return(table.head(0), 1000))


def test_every_timestep_counts_in_the_area() -> None:
    # 10 steps at 1, 30 at 5: (10 + 150) / 40
    assert statistics.mean_training_return(episodes([10, 40], [1.0, 5.0])) == 4
    assert np.isnan(statistics.mean_training_return(episodes([], [])))


def test_a_curve_is_the_exponential_mean_of_bins() -> None:
    """Of 1000 timesteps, 1 to 10 are the first bin, 11 to 20 the second; what is beyond the budget is in the last."""
    s = SMOOTHING
    table = pd.DataFrame({"timestep": [11, 20, 21, 50, 991, 1024], "value": [0.0, 2.0, 2.0, 4.0, 7.0, 9.0]})
    expected = [
        np.nan,
        1,
        ((1 - s) * 1 + 2) / ((1 - s) + 1),
        ((1 - s) * 1 + 2) / ((1 - s) + 1),  # an empty bin keeps the mean
        ((1 - s) ** 3 * 1 + (1 - s) ** 2 * 2 + 4) / ((1 - s) ** 3 + (1 - s) ** 2 + 1),
    ]
    curve = statistics.curve(table, "value", 1000)
    assert curve.shape == (BINS,)
    np.testing.assert_allclose(curve[:5], expected)
    np.testing.assert_allclose(curve[-1], 8, atol=1e-9)  # what came before has no weight any more
    assert statistics.bin_ends(1000)[[0, 1, -1]].tolist() == [10, 20, 1000]


@pytest.mark.parametrize("budget", [250, 1000])
def test_bins_of_any_budget(budget: int) -> None:
    """No bin is empty; and a curve of a constant is the constant."""
    timesteps = np.arange(1, budget + 1)
    rising = statistics.curve(pd.DataFrame({"timestep": timesteps, "value": timesteps}), "value", budget)
    assert (np.diff(rising) > 0).all() and (rising <= statistics.bin_ends(budget)).all()
    np.testing.assert_allclose(statistics.curve(pd.DataFrame({"timestep": timesteps, "value": 3.0}), "value", budget), 3)


def test_first_passages() -> None:
    rising, low = np.full(BINS, np.nan), np.full(BINS, -110.0)
    rising[10:] = np.linspace(-100, -11, 90)  # -100 in the eleventh bin, then one more each
    curves = {"rising": rising, "low": low}  # from -110 to -11: what misses a threshold by 0.99 has reached it

    def passages(threshold: float) -> list[float]:
        return list(statistics.first_passages(curves, 1_000_000, threshold).values())

    np.testing.assert_equal(passages(-89.5), [210_000, np.nan])  # at -90
    np.testing.assert_equal(passages(-90.02), [200_000, np.nan])  # at -91, which misses it by 0.98
    np.testing.assert_equal(passages(-1000), [110_000, 10_000])
    np.testing.assert_equal(passages(-10.5), [1_000_000, np.nan])
    np.testing.assert_equal(passages(-9.5), [np.nan, np.nan])
    np.testing.assert_equal(passages(np.nan), [np.nan, np.nan])


def test_a_rising_curve_reaches_its_own_final_return() -> None:
    """Of a straight line: the smoothing lags less than the middle of the last tenth does."""
    timesteps = [*range(100, 100_001, 100)]
    line = episodes(timesteps, [float(t) for t in timesteps])
    values = statistics.curve(line, "return", 100_000)
    passage = statistics.first_passages({"line": values}, 100_000, statistics.final_return(line, 100_000))
    assert 95_000 <= passage["line"] <= 100_000


def test_a_curve_at_the_best_possible_return_reaches_it() -> None:
    solved = pd.DataFrame({"timestep": range(1, BINS + 1), "return": np.repeat([0.0, 1000.0], [10, BINS - 10])})
    values = statistics.curve(solved, "return", BINS)
    # The weight of the zeros falls below 1 % in the seventh bin
    assert statistics.first_passages({"solved": values}, 100, 1000) == {"solved": 17}


def test_a_difference_has_welchs_interval() -> None:
    """Unequal spreads and counts: standard error² = Σ s²/n, and the degrees of freedom of Welch and Satterthwaite."""
    x, y = np.array([3.0, 5.0, 10.0, 6.0]), np.array([1.0, 2.0])
    parts = np.array([values.var(ddof=1) / len(values) for values in (x, y)])
    freedom = parts.sum() ** 2 / (parts**2 / [3, 1]).sum()
    half = student.ppf(0.975, freedom) * parts.sum() ** 0.5
    assert statistics.difference(x, y) == pytest.approx((4.5, 4.5 - half, 4.5 + half))
    assert statistics.difference(y, x) == pytest.approx((-4.5, -4.5 - half, -4.5 + half))
    assert statistics.difference(np.full(3, 7.0), np.full(2, 4.0)) == (3, 3, 3)
    shift, low, high = statistics.difference(x, y[:1])
    assert shift == 5 and np.isnan([low, high]).all()


def test_scaled_scores() -> None:
    returns = {"a": np.array([[4.0, 5.0, 1.0], [6.0, 5.0, 1.0]]), "b": np.array([[1.0, 5.0, 2.0]])}
    scores = statistics.scaled(returns, np.array([1.0, 5.0, 3.0]), np.array([11.0, 5.0, 2.0]))
    np.testing.assert_allclose(scores["a"], [[0.3], [0.5]])  # in the other two, the upper end is not above the lower
    np.testing.assert_allclose(scores["b"], [[0]])


def test_the_interquartile_mean() -> None:
    scores = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 700.0]])
    table = statistics.interquartile_means({"a": scores, "sure": np.full((3, 2), 0.5)}).set_index("label")
    assert table.loc["a", "iqm"] == 3.5  # of 2, 3, 4, 5
    assert table.loc["a", "low"] < 3.5 < table.loc["a", "high"]
    assert table.loc["sure"].tolist() == [0.5, 0.5, 0.5, 3, 2]


def test_probabilities_of_improvement() -> None:
    from rliable import metrics

    # 1 beats 0 and ties with 1; 3 beats 0 and 1
    x, y = np.array([[1.0], [3.0]]), np.array([[0.0], [1.0], [5.0]])
    table = statistics.probabilities_of_improvement({"x": x, "y": y, "again": x})
    assert table[["x", "y"]].to_numpy().tolist() == [["x", "y"], ["x", "again"], ["y", "again"]]
    np.testing.assert_allclose(table["probability"], [3.5 / 6, 0.5, 2.5 / 6])
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (5, 4)).astype(float), rng.integers(0, 6, (3, 4)).astype(float)  # with ties
    (row,) = statistics.probabilities_of_improvement({"x": x, "y": y}).itertuples()
    assert row.probability == pytest.approx(metrics.probability_of_improvement(x, y))
    assert 0 <= row.low < row.probability < row.high <= 1


def test_performance_profiles() -> None:
    table = statistics.performance_profiles({"a": np.array([[0.0, 0.5], [0.25, 1.0]])}).set_index("score")
    assert table["fraction"].iloc[[0, 20, 30, 100]].tolist() == [0.75, 0.75, 0.5, 0]
    assert (table["low"] <= table["fraction"]).all() and (table["fraction"] <= table["high"]).all()
    # The tasks' runs are resampled each on its own: in the first none is above 0.3, in the second all are
    assert table["low"].iloc[30] == table["high"].iloc[30] == 0.5


def test_the_bootstrap_repeats_and_leaves_numpys_generator_alone() -> None:
    scores = {"a": np.random.default_rng(1).normal(size=(5, 3))}
    np.random.seed(3)
    expected = np.random.random()
    np.random.seed(3)
    first = statistics.interquartile_means(scores)
    assert np.random.random() == expected
    assert first.equals(statistics.interquartile_means(scores))
