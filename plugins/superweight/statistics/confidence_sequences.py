"""Confidence sequences: tests and intervals that may be looked at after every item and stop whenever they have decided.

Each is built on a capital that starts at one and, if the hypothesis is true, cannot be expected to grow. By Ville's
inequality it then ever exceeds 1/alpha with probability alpha at most, however often one looks, and for every n. One
over the capital is a p-value at any time.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from superweight.statistics.interval import Interval

Floats = npt.NDArray[np.float64]

#: Bets as shares of the largest that cannot ruin the bettor, and how the first capital is divided among them. The
#: fastest bet on a loss δ under a margin m with discordance q is about (m − δ)/q, and that is unknown, so the bets span
#: 0.02 to 1 evenly in the logarithm. Larger bets get more, in proportion to the root: they are the ones that decide
#: early, where stopping saves most. Over margins of 0.01 to 0.1, discordances of 0.01 to 0.3 and levels of 0.5 % the
#: mixture needs 1.3 times as many items as the best single bet, chosen in hindsight, and 1.5 times at worst; evenly
#: divided, 1.4 and 2.0.
BETS = np.geomspace(0.02, 1.0, 12)
STAKES = np.sqrt(BETS) / np.sqrt(BETS).sum()

#: Prior standard deviations of the standardised effect (mean over standard deviation) in the mixture t test. 16 decides
#: a destroyed model at about four windows, 1 a mild loss at moderate n, each for a third of the capital.
EFFECTS = np.array([1.0, 4.0, 16.0])


def log_capital(gained: npt.ArrayLike, lost: npt.ArrayLike, n: npt.ArrayLike, margin: float) -> Floats:
    """Log capital of bets against the hypothesis that the true loss of 0/1 scores is `margin` or more.

    A bet c multiplies its capital by 1 + c·(m − d)/(1 − m) at an item whose loss d is −1, 0 or 1. With c in [0, 1] that
    is never negative, its expectation is at most one if the expected loss is m or more, and it grows with m, so that
    the capital can be turned into a bound (Waudby-Smith & Ramdas, JRSS-B 86, 2024, arXiv:2010.09686). The capital is
    that of a mixture of bets, and depends on the counts alone.

    The other direction is `log_capital(lost, gained, n, -margin)`.

    Args:
        gained: items so far that only the candidate gets right; arrays broadcast.
        lost: items so far that only the baseline gets right.
        n: items so far.
        margin: share of the items, in (−1, 1).

    Returns:
        Log capital, in the shape of the arguments.

    """
    won, ruined, items = (np.asarray(count, dtype=np.float64)[..., None] for count in (gained, lost, n))
    even, win = BETS * margin / (1 - margin), BETS * (1 + margin) / (1 - margin)
    growth = (
        special.xlog1py(ruined, -BETS)  # 0 · log 0 = 0: the boldest bet survives until something is lost
        + special.xlog1py(items - won - ruined, even)
        + special.xlog1py(won, win)
    )
    result: Floats = special.logsumexp(growth, axis=-1, b=STAKES)
    return result


@lru_cache(maxsize=4096)
def betting_bound(gained: int, lost: int, n: int, alpha: float) -> float:
    """Upper confidence bound of the loss that holds at every n at once, with probability 1 − alpha."""
    if n == 0:
        return 1.0

    def excess(margin: float) -> float:
        return float(log_capital(gained, lost, n, margin)) + math.log(alpha)

    estimate, edge = (lost - gained) / n, 1 - 1e-9
    if excess(edge) <= 0:
        return 1.0
    return float(optimize.brentq(excess, max(estimate, -edge), edge, xtol=1e-12))


def betting_interval(gained: int, lost: int, n: int, alpha: float) -> Interval:
    """Confidence sequence of the loss of 0/1 scores; misses the truth ever with probability alpha on either side."""
    return Interval(-betting_bound(lost, gained, n, alpha), betting_bound(gained, lost, n, alpha))


def log_t_capital(t: npt.ArrayLike, n: npt.ArrayLike) -> Floats:
    """Log capital against the hypothesis that a mean is `m` or more, given the t statistic of n values and m.

    The likelihood ratio of the t statistics, mixed over standardised effects below zero with a half-normal
    prior; equivalently the Bayes factor with the right-Haar prior on the scale (Gönen et al., The American Statistician
    59, 2005), which is an e-process at every n (Lai, Annals of Statistics 4, 1976; Wang & Ramdas, arXiv:2310.03722).
    With k = 1 + n·c², ν = n − 1 and F the distribution function of Student's t with n degrees of freedom, it is

        k^(−1/2) · ((1 + t²/ν) / (1 + t²/(ν·k)))^(n/2) · 2·F(−n·c·t / √(ν·k + t²))

    averaged over the prior's standard deviations c. It falls as t rises, so where the mean exceeds m it is at most what
    it would be at m, path by path, and the test holds for all of the hypothesis. Values must be normal, or their means
    nearly so.

    The other direction is `log_t_capital(-t, n)`.

    Args:
        t: (mean − m)/(sd/√n); infinite if the standard deviation is zero. Arrays broadcast.
        n: values so far, at least two.

    Returns:
        Log capital, in the shape of the arguments.

    """
    # A finite stand-in for infinity: the capital is bounded in t, and this is within rounding of the bound.
    statistic = np.clip(np.asarray(t, dtype=np.float64), -1e100, 1e100)[..., None]
    items = np.asarray(n, dtype=np.float64)[..., None]
    nu, k, square = items - 1, 1 + items * EFFECTS**2, statistic**2
    ratio = np.log1p(square / nu) - np.log1p(square / (nu * k))
    side = special.stdtr(items, -items * EFFECTS * statistic / np.sqrt(nu * k + square))
    with np.errstate(divide="ignore"):
        growth = -np.log(k) / 2 + items / 2 * ratio + np.log(2 * side)
    result: Floats = special.logsumexp(growth, axis=-1) - math.log(len(EFFECTS))
    return result


@lru_cache(maxsize=4096)
def t_half_width(n: int, alpha: float) -> float:
    """How many standard errors a mean may be from the truth at n values, whatever n, with probability 1 − alpha.

    On one side. Infinite while n is too small for any data to decide.
    """

    def excess(log_t: float) -> float:
        return float(log_t_capital(-math.exp(log_t), n)) + math.log(alpha)

    if n < 2 or excess(200.0) <= 0:
        return math.inf
    return math.exp(float(optimize.brentq(excess, -1.0, 200.0, xtol=1e-13)))
