"""Comparing a candidate with the baseline on the same items: loss, interval, and a p-value in either direction.

The loss is how much worse the candidate is, positive if worse. Two hypotheses are tested against one margin, the
largest accepted loss: a small `p_pass` excludes a loss of the margin or more, a small `p_regression` a loss of the
margin or less. If neither is small the items cannot tell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from scipy import special

from superweight.statistics.autocorrelation import variance_inflation
from superweight.statistics.averages import finite, mean
from superweight.statistics.confidence_sequences import (
    betting_bound,
    betting_interval,
    log_capital,
    log_t_capital,
    t_half_width,
)
from superweight.statistics.interval import Interval
from superweight.statistics.proportions import exact_interval, p_value
from superweight.statistics.skewness import interval_stretch, sample_skewness, skew_guarded_t

TestKind = Literal["scores", "means", "share"]


@dataclass(frozen=True)
class ErrorBudget:
    """How the error rate of a comparison is spent.

    A share of it is for stopping early, by tests that hold at every n; the rest is for one analysis of all planned
    items, by tests for that n. By the union bound the two together keep to alpha.

    Attributes:
        alpha: largest probability of a wrong PASS, and of a wrong REGRESSION.
        early: share of alpha for deciding before all planned items are in; 0 for never.
        family: how many tests a regression is corrected for; only how sharp a test was depends on it, the correction
            itself is made where all of them are known.

    Raises:
        ValueError: if either is out of range.

    """

    alpha: float = 0.025
    early_share: float = 0.2
    family: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError(f"alpha is one-sided and must be above 0 and below 0.5, found {self.alpha}")
        if not 0 <= self.early_share < 1:
            raise ValueError(f"early is a share of alpha and must be at least 0 and below 1, found {self.early_share}")

    def share(self, n: int, planned: int) -> float:
        """The share of alpha that is for an analysis of n of the planned items."""
        return 1 - self.early_share if n == planned else self.early_share


@dataclass(frozen=True)
class PairedTest:
    """What the items say about one figure of a candidate.

    Attributes:
        n: items that were compared.
        planned: items that would be compared without stopping early.
        loss: estimate, positive if the candidate is worse.
        interval: of the loss; misses it with at most the design's alpha on either side.
        p_pass: against a loss of the margin or more; PASS if at most the design's alpha.
        p_regression: against a loss of the margin or less.
        spread: standard deviation of the paired losses, widened where neighbours are alike; infinite below two items.
        method: the tests, in words.
        kind: 0/1 scores, real-valued losses, or one share.
        early: share of alpha that the design keeps for stopping early.
        discordance: share of items on which the two models' 0/1 scores differ; the share itself, if that is compared.
        skewness: of real-valued losses.

    """

    n: int
    planned: int
    loss: float
    interval: Interval
    p_pass: float
    p_regression: float
    spread: float
    method: str
    kind: TestKind = "means"
    early_share: float = 0.0
    discordance: float = 0.0
    skewness: float = 0.0

    @property
    def stopped_early(self) -> bool:
        """Whether fewer items than planned were compared."""
        return self.n < self.planned


def compare_scores(gained: int, lost: int, n: int, *, planned: int, margin: float, design: ErrorBudget) -> PairedTest:
    """Paired 0/1 scores: what share of the items does the candidate lose, net of those it gains?

    All planned items are analysed by an exact unconditional test, fewer by a confidence sequence.

    Args:
        gained: items that only the candidate gets right.
        lost: items that only the baseline gets right.
        n: items compared so far.
        planned: items to compare at most.
        margin: largest accepted loss, in [0, 1).
        design: how the error rate is spent.

    Raises:
        ValueError: if the counts do not fit together, or the margin is not a share.

    """
    _check_counts(n, planned, gained, lost)
    _check_margin(margin)
    share = design.share(n, planned)
    alpha = design.alpha * share
    if not n or not share:
        tests = _Tests(1.0, 1.0, Interval(-1.0, 1.0))
    elif n == planned:
        tests = _Tests(
            p_value(gained, lost, n, margin),
            p_value(lost, gained, n, -margin),
            exact_interval(gained, lost, n, alpha),
        )
    else:
        tests = _Tests(
            _one_over(float(log_capital(gained, lost, n, margin))),
            _one_over(float(log_capital(lost, gained, n, -margin))),
            betting_interval(gained, lost, n, alpha),
        )
    loss, discordance = ((lost - gained) / n, (lost + gained) / n) if n else (0.0, 0.0)
    return tests.as_paired_test(
        "scores", n, planned, design, loss=loss, spread=_spread(discordance - loss**2, n), discordance=discordance
    )


def compare_share(count: int, n: int, *, planned: int, margin: float, design: ErrorBudget) -> PairedTest:
    """One share, such as that of the answers that changed, against the largest accepted one.

    All planned items are analysed by the exact binomial test, fewer by a confidence sequence. The share is the loss.

    Args:
        count: items that have the property.
        n: items looked at so far.
        planned: items to look at, at most.
        margin: largest accepted share, in [0, 1).
        design: how the error rate is spent.

    Raises:
        ValueError: if the counts do not fit together, or the margin is not a share.

    """
    _check_counts(n, planned, count)
    _check_margin(margin)
    share = design.share(n, planned)
    alpha = design.alpha * share
    if not n or not share:
        tests = _Tests(1.0, 1.0, Interval(0.0, 1.0))
    elif n == planned:
        tests = _Tests(
            float(special.bdtr(count, n, margin)),
            float(special.bdtrc(count - 1, n, margin)) if count else 1.0,
            Interval(
                float(special.betaincinv(count, n - count + 1, alpha)) if count else 0.0,
                float(special.betaincinv(count + 1, n - count, 1 - alpha)) if count < n else 1.0,
            ),
        )
    else:
        # Nothing can be gained, so a high share is bet on as a low share of the other items: that allows larger bets.
        tests = _Tests(
            _one_over(float(log_capital(0, count, n, margin))),
            _one_over(float(log_capital(0, n - count, n, 1 - margin))) if margin else float(count == 0),
            Interval(1 - betting_bound(0, n - count, n, alpha), betting_bound(0, count, n, alpha)),
        )
    found = count / n if n else 0.0
    return tests.as_paired_test(
        "share", n, planned, design, loss=found, spread=_spread(found - found**2, n), discordance=found
    )


def compare_means(
    losses: Sequence[float], *, planned: int, margin: float, design: ErrorBudget, places: Sequence[int] | None = None
) -> PairedTest:
    """Real-valued paired losses: how much does the candidate lose in the mean?

    All planned items are analysed by Student's t, fewer by an anytime-valid t test, both guarded against skewed losses.
    Otherwise losses must be normal, or many enough that their mean is: nats a token, averaged over windows of hundreds
    of tokens, are near enough.

    A loss of infinity or NaN says that the candidate gives no number where the baseline does, which is a regression
    whatever the other losses are. A loss of minus infinity says that the baseline is broken: nothing can be decided.

    Args:
        losses: one an item or window, as visited.
        planned: items to compare at most.
        margin: largest accepted loss, in the unit of the losses.
        design: how the error rate is spent.
        places: where in the text each window is, so that the likeness of neighbours is taken account of.

    Raises:
        ValueError: if there are more losses than planned.

    """
    n = len(losses)
    _check_counts(n, planned)
    share = design.share(n, planned)
    loss = mean(losses) if n and finite(losses) else 0.0
    spread, skewed = math.inf, 0.0
    tests = _Tests(1.0, 1.0, Interval(-math.inf, math.inf))
    if -math.inf in losses:
        loss = -math.inf
    elif not finite(losses):
        loss = math.inf
        tests = _Tests(1.0, 0.0, Interval(math.inf, math.inf))
    elif n >= 2:
        alike = 1.0 if places is None else variance_inflation(losses, places)
        spread = math.sqrt(math.fsum((value - loss) ** 2 for value in losses) / (n - 1) * alike)
        if share:
            error, skewed = spread / math.sqrt(n), sample_skewness(losses)
            tests = _t_tests(loss, error, skewed, n, margin, design.alpha * share, final=n == planned)
    return tests.as_paired_test("means", n, planned, design, loss=loss, spread=spread, skewness=skewed)


_METHODS: dict[TestKind, tuple[str, str]] = {
    "scores": ("exact score test of paired proportions", "confidence sequence by betting"),
    "share": ("exact binomial test", "confidence sequence by betting"),
    "means": ("paired Student t", "anytime-valid paired t"),
}
"""The test of all planned items, and that of fewer."""


class _Tests(NamedTuple):
    """P-values before the design's share is accounted for, and the interval at the share's level."""

    p_pass: float
    p_regression: float
    interval: Interval

    def as_paired_test(
        self,
        kind: TestKind,
        n: int,
        planned: int,
        design: ErrorBudget,
        *,
        loss: float,
        spread: float,
        discordance: float = 0.0,
        skewness: float = 0.0,
    ) -> PairedTest:
        """With p-values to compare with the whole of alpha."""
        share = design.share(n, planned)
        return PairedTest(
            n=n,
            planned=planned,
            loss=loss,
            interval=self.interval,
            p_pass=_spent(self.p_pass, share),
            p_regression=_spent(self.p_regression, share),
            spread=spread,
            method=_METHODS[kind][n != planned],
            kind=kind,
            early_share=design.early_share,
            discordance=discordance,
            skewness=skewness,
        )


def _spent(p: float, share: float) -> float:
    """A p-value to compare with the whole of alpha, where only a share of alpha may be used."""
    return min(1.0, p / share) if share else p


def _t_tests(
    average: float, error: float, skewed: float, n: int, margin: float, alpha: float, *, final: bool
) -> _Tests:
    """Student's t or its anytime-valid sibling, from the mean, its standard error, and the values' skewness."""
    excess = average - margin
    # Losses that are all the same decide by their sign; a no-op loses exactly nothing everywhere, and must pass.
    t = excess / error if error else math.copysign(math.inf, excess) if excess else 0.0
    low, high = float(skew_guarded_t(t, skewed, n)), float(skew_guarded_t(-t, -skewed, n))
    if final:
        p_pass, p_regression = float(special.stdtr(n - 1, low)), float(special.stdtr(n - 1, high))
        reach = -float(special.stdtrit(n - 1, alpha))
    else:
        p_pass, p_regression = _one_over(float(log_t_capital(low, n))), _one_over(float(log_t_capital(high, n)))
        reach = t_half_width(n, alpha)
    half = reach * error if error or math.isfinite(reach) else math.inf
    below, above = (half * float(interval_stretch(side * skewed, n)) for side in (-1, 1))
    return _Tests(p_pass, p_regression, Interval(average - below, average + above))


def _one_over(log_capital: float) -> float:
    return math.exp(-max(log_capital, 0.0))


def _spread(variance: float, n: int) -> float:
    return math.sqrt(max(variance, 0.0) * n / (n - 1)) if n >= 2 else math.inf


def _check_counts(n: int, planned: int, *counts: int) -> None:
    if not 0 <= sum(counts) <= n <= planned or min(counts, default=0) < 0:
        raise ValueError(f"counts {counts} of {n} items of {planned} planned do not fit together")


def _check_margin(margin: float) -> None:
    if not 0 <= margin < 1:
        raise ValueError(f"a margin of a share must be at least 0 and below 1, found {margin}")
