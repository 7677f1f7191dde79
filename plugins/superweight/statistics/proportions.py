"""Exact comparison of paired 0/1 scores: does the candidate lose more than a margin of the items?

Of n items the baseline alone gets `lost` right and the candidate alone `gained`; the rest say nothing about which is
better. The loss is P(lost) − P(gained). How often the two disagree at all, the discordance P(lost) + P(gained), is
unknown too, and the error rate of a test depends on it: the asymptotic tests exceed their nominal rate for some values.
The p-value here is the largest probability of a table at least as favourable as the one seen, over all
discordances that are compatible with it (Hsueh, Liu & Chen, Biometrics 57, 2001; restricted to a confidence set as in
Berger & Boos, JASA 89, 1994). How favourable a table is, is told by the upper limit of Tango's score interval
(Statistics in Medicine 17, 1998). That order does not depend on the margin, so the p-value falls as the margin grows,
and the interval, which is its inversion (Buehler, JASA 52, 1957), says the same as the verdict.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from superweight.statistics.interval import Interval

Floats = npt.NDArray[np.float64]

#: Normal quantile of the Tango limit that orders the tables: one-sided 2.5 %, where the test has most power.
ORDERING = 1.959963984540054
#: Probability that the true discordance is outside the values looked at; added to every p-value.
OUTSIDE = 1e-6
#: Two scores closer than this are a tie, and a tie counts as favourable.
_TIE = 1e-9
_GRID, _REFINED = 33, 9


def p_value(gained: int, lost: int, n: int, margin: float) -> float:
    """P-value against the hypothesis that the true loss is `margin` or more.

    The other direction, against a loss of `margin` or less, is `p_value(lost, gained, n, -margin)`.

    Args:
        gained: items that only the candidate gets right.
        lost: items that only the baseline gets right.
        n: all items.
        margin: share of the items, in (−1, 1).

    Returns:
        A number in [1e-6, 1]; it does not increase with the margin.

    """
    if lost == n:
        return 1.0
    low, high = _plausible(gained + lost, n)
    return min(1.0, OUTSIDE + _largest(_region(gained, lost, n), n, margin, low, high))


@lru_cache(maxsize=4096)
def upper_bound(gained: int, lost: int, n: int, alpha: float) -> float:
    """Upper confidence bound of the loss: the smallest margin whose p-value is `alpha`.

    Args:
        gained: items that only the candidate gets right.
        lost: items that only the baseline gets right.
        n: all items.
        alpha: one-sided, above 1e-6.

    Returns:
        A share of the items in (−1, 1].

    """
    if lost == n:
        return 1.0
    target = float(special.ndtri(alpha))

    def excess(margin: float) -> float:
        # Nearly a straight line in the margin, so that few evaluations are needed.
        return float(special.ndtri(min(p_value(gained, lost, n, margin), 1 - OUTSIDE))) - target

    end = _plausible(gained + lost, n)[1]
    low, high = -end, end + _TIE  # the p-value is nearly one at −end, and 1e-6 beyond end
    if excess(high) >= 0:
        return 1.0
    estimate = (lost - gained) / n
    guess = estimate - (score_bound(gained, lost, n) - estimate) * target / ORDERING
    for nearby in (guess - (guess - estimate) / 20, guess + (guess - estimate) / 20):
        if low < nearby < high:
            low, high = (nearby, high) if excess(nearby) > 0 else (low, nearby)
    return min(1.0, float(optimize.brentq(excess, low, high, xtol=_TIE)) + _TIE)


def exact_interval(gained: int, lost: int, n: int, alpha: float) -> Interval:
    """Interval of the loss that misses the truth with probability `alpha` at most on either side."""
    return Interval(-upper_bound(lost, gained, n, alpha), upper_bound(gained, lost, n, alpha))


def most_lost(discordant: int, n: int, margin: float, alpha: float) -> int:
    """The test as a rule: with so many discordant items, a loss of `margin` is excluded if at most this many are lost.

    Args:
        discordant: gained plus lost.
        n: all items.
        margin: share of the items, in (−1, 1).
        alpha: one-sided.

    Returns:
        The largest number of lost items with `p_value(...) <= alpha`, −1 if there is none.

    """
    below, above = -1, discordant + 1
    guess = _score_rule(discordant, n, margin, -float(special.ndtri(alpha)))
    step = 1
    while above - below > 1:
        middle = min(max(guess, below + 1), above - 1)
        if p_value(discordant - middle, middle, n, margin) <= alpha:
            below, guess = middle, middle + step
        else:
            above, guess = middle, middle - step
        step *= 2
    return below


def score(gained: Floats | float, lost: Floats | float, n: int, loss: float) -> Floats:
    """Tango's score statistic of the hypothesis that the true loss is `loss`; high where more is lost.

    The discordance is replaced by its maximum-likelihood estimate under the hypothesis.
    """
    variance = n * null_variance(gained, lost, n, loss)
    deviation = lost - gained - n * loss
    with np.errstate(divide="ignore", invalid="ignore"):
        z = deviation / np.sqrt(variance)
    degenerate = np.where(deviation == 0, 0.0, np.copysign(np.inf, deviation))
    return np.where(variance > 0, z, degenerate)


def null_variance(gained: Floats | float, lost: Floats | float, n: float, loss: float) -> Floats:
    """Variance of one item's loss, estimated by maximum likelihood under the hypothesis that its mean is `loss`.

    Shares instead of counts do as well, with n = 1.
    """
    b = (2 * n - lost + gained) * loss - gained - lost
    c = -gained * loss * (1 - loss)
    # p: the share of gained items, estimated; the larger root of 2n·p² + b·p + c
    p = np.maximum((np.sqrt(np.maximum(b * b - 8 * n * c, 0.0)) - b) / (4 * n), 0.0)
    return np.asarray(2 * p + loss * (1 - loss))


def score_bound(gained: int, lost: int, n: int) -> float:
    """Upper limit of Tango's score interval for the loss, one-sided 2.5 %: asymptotic, used to order tables."""

    def excess(loss: float) -> float:
        return float(score(gained, lost, n, loss)) + ORDERING

    edge = 1 - 1e-12
    if excess(edge) > 0:
        return 1.0
    return float(optimize.brentq(excess, max((lost - gained) / n, -edge), edge, xtol=1e-15, rtol=1e-14))


class _Region(NamedTuple):
    """All tables at least as favourable as one, by number of lost items."""

    lost: Floats  # 0, 1, …
    gained_from: Floats  # the fewest gained items that are as favourable; more than n − lost if none are
    log_choose: Floats  # log of n over lost


@lru_cache(maxsize=64)
def _region(gained: int, lost: int, n: int) -> _Region:
    top = _plausible(gained + lost, n)[1]
    ks = np.arange(min(n, math.ceil(n * top + _reach(n, top))) + 1.0)
    log_choose = special.gammaln(n + 1) - special.gammaln(ks + 1) - special.gammaln(n - ks + 1)
    bound = score_bound(gained, lost, n)
    # Bisection on whole numbers: (below, from_here] holds the first gained count that is favourable.
    below, from_here = np.full(ks.shape, -1.0), n - ks + 1
    while np.any(from_here - below > 1):
        middle = np.floor((below + from_here) / 2)
        favourable = score(middle, ks, n, bound) <= _TIE - ORDERING
        open_ = from_here - below > 1
        from_here = np.where(open_ & favourable, middle, from_here)
        below = np.where(open_ & ~favourable, middle, below)
    return _Region(ks, from_here, log_choose)


@lru_cache(maxsize=4096)
def _plausible(discordant: int, n: int) -> tuple[float, float]:
    """Clopper–Pearson interval of the discordance, wrong with probability `OUTSIDE`."""
    k = discordant
    low = 0.0 if k == 0 else float(special.betaincinv(k, n - k + 1, OUTSIDE / 2))
    high = 1.0 if k == n else float(special.betaincinv(k + 1, n - k, 1 - OUTSIDE / 2))
    return low, high


def _largest(region: _Region, n: int, margin: float, low: float, high: float) -> float:
    """Largest probability of the region over discordances in [low, high] and losses of at least `margin`.

    A region that holds a table holds every table with fewer lost or more gained items, so at a given discordance the
    largest probability is at the smallest loss: the margin, or −discordance if the margin is below that.
    """
    low = max(low, margin)
    if low > high:
        return 0.0
    # Denser towards the lower end, where few items are gained and the profile bends most.
    grid = low + (high - low) * np.linspace(0, 1, _GRID) ** 2
    best = 0.0
    for _ in range(3):
        profile = _probability(region, n, np.maximum(margin, -grid), grid)
        at = int(np.argmax(profile))
        best = max(best, float(profile[at]))
        grid = np.linspace(grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)], _REFINED)
    return best


def _probability(region: _Region, n: int, loss: Floats, discordance: Floats) -> Floats:
    """Probability of the region under each trinomial: lost is binomial, and so is gained given lost."""
    p_lost = np.clip((discordance + loss) / 2, 0, 1)
    p_gained = np.clip((discordance - loss) / 2, 0, 1)
    low, high = float(p_lost.min()), float(p_lost.max())
    start = max(math.floor(n * low - _reach(n, low)), 0)
    stop = math.ceil(n * high + _reach(n, high)) + 1
    lost, gained_from, log_choose = (column[start:stop] for column in region)
    p_lost = p_lost[:, None]  # (discordances, lost counts)
    p_given = np.clip(p_gained[:, None] / np.maximum(1 - p_lost, 1e-300), 0, 1)
    mass = np.exp(log_choose + special.xlogy(lost, p_lost) + special.xlog1py(n - lost, -p_lost))
    rest = n - lost
    possible = (gained_from > 0) & (gained_from <= rest)
    tail = special.betainc(np.where(possible, gained_from, 1), np.where(possible, rest - gained_from + 1, 1), p_given)
    tail = np.where(possible, tail, gained_from <= 0)
    result: Floats = np.sum(mass * tail, axis=1)
    return result


def _reach(n: int, p: float) -> float:
    """Distance from the mean beyond which a binomial has less than 1e-12 of its mass, by Bernstein's inequality."""
    return 7.5 * math.sqrt(n * p * (1 - p)) + 20


def _score_rule(discordant: int, n: int, margin: float, quantile: float) -> int:
    """`most_lost` of the asymptotic score test: where the search for the exact one begins."""
    lost = np.arange(discordant + 1.0)
    return int(np.count_nonzero(score(discordant - lost, lost, n, margin) <= -quantile)) - 1
