"""How sharp a comparison was, and how many items it would take to decide."""

from __future__ import annotations

import bisect
import math
from functools import lru_cache

from scipy import optimize, special

from superweight.statistics.noninferiority import PairedTest, TestKind
from superweight.statistics.proportions import null_variance, p_value
from superweight.statistics.skewness import interval_stretch

#: Beyond this nobody measures.
_MOST = 10_000_000


def detectable_loss(comparison: PairedTest, *, margin: float, alpha: float, power: float = 0.8) -> float:
    """Smallest true loss that so many items would call a REGRESSION with the given power.

    Real-valued losses: margin + (t(alpha) + t(power))·se, with quantiles of Student's t, the first of them as the guard
    against skewness moves it, and the standard error seen.

    0/1 scores: the loss L = margin + z(alpha)·se₀ + z(power)·se₁(L), with the standard errors that the test estimates
    under the hypothesis, and that the estimate has. A model that loses a share L of the items differs on L of them at
    least. Where that is more than the discordance seen, lost items are all there is, and the answer is exact: k of
    them, and none gained, are the fewest that the test calls a regression, and L is the loss at which k or more are
    lost with the given power. Shares are exact in the same way.

    Args:
        comparison: tells the kind, the number of items, and how much they vary.
        margin: largest accepted loss.
        alpha: one-sided level of the verdict, before the design's share for stopping early is taken off.
        power: probability of the verdict.

    Returns:
        A loss above the margin; infinite if so few items would detect none.

    """
    n, level = comparison.n, alpha * (1 - comparison.early_share)
    if comparison.kind == "means":
        if n < 2 or not math.isfinite(comparison.spread):
            return math.inf
        return margin + _t_distance(n, level, power, -comparison.skewness) * comparison.spread / math.sqrt(n)
    fewest = _fewest_lost(n, margin, level, comparison.kind)
    if fewest is None:
        return math.inf
    binomial = float(special.betaincinv(fewest, n - fewest + 1, power))
    if comparison.kind == "share" or binomial >= comparison.discordance:
        return binomial
    z_alpha, z_power = -float(special.ndtri(level)), float(special.ndtri(power))

    def missing(loss: float) -> float:
        at_margin, at_loss = _variances(comparison, margin, loss)
        return loss - margin - (z_alpha * math.sqrt(at_margin) + z_power * math.sqrt(at_loss)) / math.sqrt(n)

    return math.inf if missing(1.0) < 0 else float(optimize.brentq(missing, margin, 1.0))


def n_to_decide(comparison: PairedTest, *, margin: float, alpha: float, power: float = 0.8) -> int | None:
    """Items after which the verdict would be in, with the given power, if the loss and the spread seen are the truth.

    Args:
        comparison: tells the kind, the loss, and how much items vary.
        margin: largest accepted loss.
        alpha: one-sided level of the verdict, before the design's share for stopping early is taken off.
        power: probability of a verdict.

    Returns:
        A number of items, or None if it is more than ten million or nothing is known.

    """
    gap = abs(comparison.loss - margin)
    level = alpha * (1 - comparison.early_share)
    if not comparison.n or not gap or not math.isfinite(gap) or not math.isfinite(comparison.spread):
        return None
    z_alpha, z_power = -float(special.ndtri(level)), float(special.ndtri(power))
    if comparison.kind != "means":
        at_margin, at_loss = _variances(comparison, margin, comparison.loss)
        needed = ((z_alpha * math.sqrt(at_margin) + z_power * math.sqrt(at_loss)) / gap) ** 2
        return max(1, math.ceil(needed)) if needed <= _MOST else None
    scale = comparison.spread / gap
    if ((z_alpha + z_power) * scale) ** 2 > _MOST:
        return None
    n = max(2, math.ceil(((z_alpha + z_power) * scale) ** 2))
    skewness = comparison.skewness if comparison.loss < margin else -comparison.skewness
    while math.sqrt(n) < _t_distance(n, level, power, skewness) * scale:
        n += 1
    return n


def _t_distance(n: int, level: float, power: float, skewness: float) -> float:
    """From the margin to a mean that is called with the given power, in standard errors of n values."""
    # How far the guard stretches the interval differs from sample to sample; one standard error covers most of them.
    reach = -float(special.stdtrit(n - 1, level)) * float(interval_stretch(skewness, n, added=1.0))
    return reach + float(special.stdtrit(n - 1, power))


def _variances(comparison: PairedTest, margin: float, loss: float) -> tuple[float, float]:
    """Variance of an item's 0/1 loss if the true loss is `loss`: as a test of the margin estimates it, and as it is.

    The discordance is the one seen or, if larger, the one that the loss implies.
    """
    if comparison.kind == "share":
        return margin - margin**2, loss - loss**2
    discordance = max(comparison.discordance, abs(loss))
    at_margin = float(null_variance((discordance - loss) / 2, (discordance + loss) / 2, 1, margin))
    return at_margin, max(discordance - loss**2, 0.0)


@lru_cache(maxsize=1024)
def _fewest_lost(n: int, margin: float, level: float, kind: TestKind) -> int | None:
    """The fewest lost items that, with none gained, are called a regression; None if not even all are."""

    def decided(lost: int) -> bool:
        p = float(special.bdtrc(lost - 1, n, margin)) if kind == "share" else p_value(lost, 0, n, -margin)
        return p <= level

    if not n or not decided(n):
        return None
    return bisect.bisect_left(range(1, n + 1), True, key=decided) + 1
