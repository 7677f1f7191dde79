"""Intervals against brute force, a library, and simulated coverage."""

import math
import random

import numpy as np
import pytest
from scipy import optimize, stats

from superweight.verdict.intervals import paired_mean_interval, tango_interval


def test_paired_mean_interval_is_students_t():
    differences = [0.3, -0.1, 0.25, 0.4, 0.05, 0.2]
    low, high = paired_mean_interval(differences, 0.95)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-12)


@pytest.mark.parametrize("differences", [[], [0.1], [0.1, math.nan], [0.1, math.inf]])
def test_what_cannot_be_estimated_has_no_bounds(differences):
    assert paired_mean_interval(differences, 0.95) == (-math.inf, math.inf)


def brute_force_score(gained: int, lost: int, n: int, difference: float) -> float:
    """The score statistic with its nuisance parameter found by numerical maximum likelihood instead of a formula."""
    low = max(0.0, -difference)
    high = (1 - difference) / 2

    def minus_log_likelihood(p_lost: float) -> float:
        cells = ((gained, p_lost + difference), (lost, p_lost), (n - gained - lost, 1 - 2 * p_lost - difference))
        return -sum(k * math.log(max(p, 1e-300)) for k, p in cells if k)

    p_lost = optimize.minimize_scalar(
        minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    ).x
    variance = n * (2 * p_lost + difference - difference**2)
    return (gained - lost - n * difference) / math.sqrt(variance)


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 4, 100), (0, 7, 60), (12, 20, 250), (5, 5, 40), (0, 1, 100)])
def test_tango_bounds_are_where_the_score_meets_the_quantile(gained, lost, n):
    low, high = tango_interval(gained, lost, n, 0.95)
    assert brute_force_score(gained, lost, n, low) == pytest.approx(1.959964, abs=1e-3)
    assert brute_force_score(gained, lost, n, high) == pytest.approx(-1.959964, abs=1e-3)
    assert low < (gained - lost) / n < high


def test_tango_swaps_with_its_arguments():
    low, high = tango_interval(3, 9, 120, 0.9)
    assert tango_interval(9, 3, 120, 0.9) == pytest.approx((-high, -low), abs=1e-9)


def test_no_discordant_item_still_leaves_doubt():
    """With b = c = 0 the bound solves z² = n·d/(1 − d), so d = z²/(n + z²)."""
    z2 = stats.norm.ppf(0.975) ** 2
    assert tango_interval(0, 0, 100, 0.95) == pytest.approx((-z2 / (100 + z2), z2 / (100 + z2)), abs=1e-9)


def test_extremes_stay_within_one():
    assert tango_interval(50, 0, 50, 0.95).high == pytest.approx(1.0)
    assert tango_interval(0, 50, 50, 0.95).low == pytest.approx(-1.0)
    assert tango_interval(0, 0, 0, 0.95) == (-1.0, 1.0)


@pytest.mark.parametrize(("p_gained", "p_lost", "n"), [(0.02, 0.04, 100), (0.05, 0.05, 60), (0.01, 0.06, 250)])
def test_tango_covers_the_truth_about_as_often_as_it_says(p_gained, p_lost, n):
    generator = np.random.default_rng(20241107)
    draws = generator.multinomial(n, [p_gained, p_lost, 1 - p_gained - p_lost], size=3000)
    intervals = {(g, lost): tango_interval(int(g), int(lost), n, 0.95) for g, lost, _ in draws}
    hits = [intervals[g, lost].low <= p_gained - p_lost <= intervals[g, lost].high for g, lost, _ in draws]
    assert 0.93 <= np.mean(hits) <= 0.985


def test_every_small_table_has_an_ordered_interval():
    for n in (1, 2, 7):
        for gained in range(n + 1):
            for lost in range(n + 1 - gained):
                low, high = tango_interval(gained, lost, n, random.Random(gained).choice([0.8, 0.95]))
                assert -1 <= low <= (gained - lost) / n <= high <= 1
