"""
What a report states about learning curves: pure functions of arrays and tables.

Returns are undiscounted training returns, one per episode, at the timestep of its end. Aggregates over tasks are rliable's:
"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (Agarwal et al., 2021), arXiv 2108.13264.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations

import numpy as np
import pandas as pd

FINAL_PART = 0.1
"""The part of the budget whose episodes make the final return."""

BINS = 100
"""Bins of a curve."""
SMOOTHING = 0.5
"""Weight of the newest bin in the exponentially weighted mean. The paper's is not known; with much less, a curve that still
rises lags so far behind that it does not reach its own final return."""

TOLERANCE = 0.01
"""Part of the range of a task's curves by which a threshold may be missed. Without it, a weighted mean never reaches the best
possible return."""

BOOTSTRAP = {"reps": 2000, "confidence_interval_size": 0.95}
BOOTSTRAP_SEED = 0

Scores = Mapping[str, np.ndarray]
"""For each label, shape (runs, tasks)."""


def final_return(episodes: pd.DataFrame, budget: int) -> float:
    """
    :param episodes: columns ``timestep`` and ``return``, ascending
    :param budget: timesteps of the run
    :return: mean return of the episodes that end in the last tenth of the budget; of the last one if none does; NaN if no
        episode ended
    """
    last = episodes["timestep"] > (1 - FINAL_PART) * budget
    return float(episodes["return"][last].mean() if last.any() else episodes["return"].tail(1).mean())


def lost_return(episodes: pd.DataFrame, budget: int) -> float:
    """
    What a run has lost again by its end: the mean return of its best tenth of the budget less that of the last one.

    :param episodes: columns ``timestep`` and ``return``, ascending
    :param budget: timesteps of the run
    :return: at least 0; tenths in which no episode ended do not count; NaN if none ended at all
    """
    tenths = ((episodes["timestep"] - 1) * 10 // budget).clip(upper=9)
    means = episodes["return"].groupby(tenths).mean()
    return float(means.max() - means.iloc[-1]) if len(means) else float("nan")


def mean_training_return(episodes: pd.DataFrame) -> float:
    """
    The area under the learning curve, divided by its length: every timestep counts with its episode's return, Σ rᵢ lᵢ / Σ lᵢ.

    :param episodes: columns ``return`` and ``length``
    :return: the mean, NaN if no episode ended
    """
    return float("nan") if episodes.empty else float(np.average(episodes["return"], weights=episodes["length"]))


def bin_ends(budget: int) -> np.ndarray:
    """
    :param budget: timesteps of the run
    :return: the last timestep of each bin, shape (BINS,)
    """
    return np.arange(1, BINS + 1) * budget / BINS


def curve(table: pd.DataFrame, column: str, budget: int) -> np.ndarray:
    """
    A run's curve as the paper draws it: the means vₜ of the equal bins that split the budget, and the exponentially weighted
    mean of those that are not empty, Σᵢ (1 − s)ⁱ vₜ₋ᵢ / Σᵢ (1 − s)ⁱ with s = ``SMOOTHING``.

    :param table: columns ``timestep``, counted from 1 (what is beyond the budget falls into the last bin), and ``column``
    :param column: what to draw
    :param budget: timesteps of the run
    :return: shape (BINS,), NaN before the first value
    """
    bins = ((table["timestep"] - 1) * BINS // budget).clip(upper=BINS - 1)
    means = table[column].groupby(bins).mean().reindex(range(BINS))
    return means.ewm(alpha=SMOOTHING).mean().to_numpy()


def first_passages(curves: Mapping[str, np.ndarray], budget: int, threshold: float) -> dict[str, float]:
    """
    When each curve of a task reaches a return, or comes as close as ``TOLERANCE``.

    :param curves: for each label, shape (BINS,)
    :param budget: timesteps of the runs
    :param threshold: the return
    :return: for each label, the end of the first bin at which the curve is there or above, NaN if there is none
    """
    values = np.stack([*curves.values()])
    finite = values[np.isfinite(values)]
    passed = values >= threshold - TOLERANCE * (np.ptp(finite) if finite.size else 0)  # (labels, BINS)
    first = np.where(passed.any(axis=1), bin_ends(budget)[passed.argmax(axis=1)], np.nan)
    return dict(zip(curves, first.tolist(), strict=True))


def difference(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """
    How far the mean of X is above that of Y, with the interval of Welch's t-test, which lets their spreads differ.

    :param x: one value per run
    :param y: ditto, of as many runs or others
    :return: the difference, and the ends of its interval of ``BOOTSTRAP``'s size; NaN with a single run
    """
    from scipy.stats import ttest_ind

    shift = float(x.mean() - y.mean())
    if min(len(x), len(y)) < 2:
        return shift, float("nan"), float("nan")
    if not np.ptp(x) and not np.ptp(y):
        return shift, shift, shift
    interval = ttest_ind(x, y, equal_var=False).confidence_interval(BOOTSTRAP["confidence_interval_size"])
    return shift, float(interval.low), float(interval.high)


def scaled(returns: Scores, low: np.ndarray, high: np.ndarray) -> dict[str, np.ndarray]:
    """
    Scale the returns of each task.

    :param returns: the returns
    :param low: what becomes 0, shape (tasks,)
    :param high: what becomes 1, shape (tasks,)
    :return: the scores, without the tasks in which ``high`` is not above ``low``
    """
    kept = high > low
    return {label: (values[:, kept] - low[kept]) / (high - low)[kept] for label, values in returns.items()}


def interquartile_means(scores: Scores) -> pd.DataFrame:
    """
    Mean of the middle half of all runs in all tasks.

    :param scores: the scores
    :return: columns ``label``, ``iqm``, ``low``, ``high`` (of an interval by bootstrap), ``runs``, ``tasks``
    """
    from rliable import library, metrics

    with _seeded():
        estimates, intervals = library.get_interval_estimates(
            scores, lambda x: np.array([metrics.aggregate_iqm(x)]), **BOOTSTRAP
        )
    rows = [(label, estimates[label][0], *intervals[label][:, 0], *scores[label].shape) for label in scores]
    return pd.DataFrame(rows, columns=["label", "iqm", "low", "high", "runs", "tasks"])


def probabilities_of_improvement(scores: Scores) -> pd.DataFrame:
    """
    Probability that a run of X has a higher score than a run of Y, a tie counting half; the mean over tasks. It is rliable's
    metric, for all tasks at once: its rank test of each task would take minutes in a bootstrap.

    :param scores: the scores
    :return: for each pair of labels, columns ``x``, ``y``, ``probability`` (that X beats Y), ``low``, ``high``
    """
    from rliable import library

    def probability(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([(np.sign(x[:, None] - y) + 1).mean() / 2])  # of (runs of X, runs of Y, tasks)

    pairs = {str(index): pair for index, pair in enumerate(combinations(scores, 2))}
    values = {
        name: [scores[x], scores[y]] for name, (x, y) in pairs.items()
    }  # a list: rliable resamples the two independently
    with _seeded():
        estimates, intervals = library.get_interval_estimates(values, probability, **BOOTSTRAP)
    rows = [(*pair, estimates[name][0], *intervals[name][:, 0]) for name, pair in pairs.items()]
    return pd.DataFrame(rows, columns=["x", "y", "probability", "low", "high"])


def performance_profiles(scores: Scores) -> pd.DataFrame:
    """
    :param scores: the scores
    :return: columns ``label``, ``score``, ``fraction`` (of all runs in all tasks above it), ``low``, ``high``
    """
    from rliable import library

    everything = np.concatenate([values.ravel() for values in scores.values()])
    thresholds = np.linspace(min(0.0, everything.min()), max(1.0, everything.max()), 101)
    with _seeded():
        fractions, intervals = library.create_performance_profile(scores, thresholds, **BOOTSTRAP)
    columns = ["label", "score", "fraction", "low", "high"]
    rows = [
        row for label in scores for row in zip([label] * 101, thresholds, fractions[label], *intervals[label], strict=True)
    ]
    return pd.DataFrame(rows, columns=columns)


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed NumPy's global generator, which rliable draws from whatever ``random_state`` it is given, and put it back."""
    state = np.random.get_state()
    np.random.seed(BOOTSTRAP_SEED)
    try:
        yield
    finally:
        np.random.set_state(state)
