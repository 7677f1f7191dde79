"""Confidence intervals for paired comparisons: the same items under the baseline and under the candidate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import optimize, stats


class Interval(NamedTuple):
    """A two-sided confidence interval; either end may be infinite."""

    low: float
    high: float


def paired_mean_interval(differences: Sequence[float], confidence: float) -> Interval:
    """Student's t interval for the mean of paired differences.

    Args:
        differences: candidate minus baseline, one a window or item; at least two.
        confidence: two-sided, 0.95 for 95 %.

    Returns:
        The interval; `(-inf, inf)` if any difference is not finite or there are fewer than two.

    """
    n = len(differences)
    if n < 2 or not all(math.isfinite(d) for d in differences):
        return Interval(-math.inf, math.inf)
    mean = math.fsum(differences) / n
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance / n)
    return Interval(mean - half, mean + half)


def tango_interval(gained: int, lost: int, n: int, confidence: float) -> Interval:
    """Score interval for the difference of two paired proportions (Tango, Statistics in Medicine 17, 1998).

    Unlike the Wald interval it keeps a sensible width when few or no items change their answer.

    Args:
        gained: items that only the candidate gets right.
        lost: items that only the baseline gets right.
        n: all items.
        confidence: two-sided.

    Returns:
        The interval of (candidate − baseline), within [−1, 1].

    """
    if n < 1:
        return Interval(-1.0, 1.0)
    z = float(stats.norm.ppf((1 + confidence) / 2))
    estimate = (gained - lost) / n

    def excess(difference: float) -> float:
        return _score(gained, lost, n, difference)

    edge = 1 - 1e-12
    low = -1.0 if excess(-edge) <= z else float(optimize.brentq(lambda d: excess(d) - z, -edge, estimate))
    high = 1.0 if excess(edge) >= -z else float(optimize.brentq(lambda d: excess(d) + z, estimate, edge))
    return Interval(low, high)


def _score(gained: int, lost: int, n: int, difference: float) -> float:
    """Tango's score statistic for the null hypothesis that the true difference is `difference`."""
    b = (2 * n - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    discordant = max((math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n), 0.0)
    variance = n * (2 * discordant + difference * (1 - difference))
    deviation = gained - lost - n * difference
    if variance <= 0:
        return 0.0 if deviation == 0 else math.copysign(math.inf, deviation)
    return deviation / math.sqrt(variance)
