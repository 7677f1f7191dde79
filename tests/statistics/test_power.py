"""Detectable losses and needed items against the power of the tests themselves."""

import math

import numpy as np
import pytest
from scipy import stats

from superweight.statistics.noninferiority import ErrorBudget, compare_means, compare_scores, compare_share
from superweight.statistics.power import detectable_loss, n_to_decide
from superweight.statistics.proportions import most_lost, p_value

WHOLE = ErrorBudget(early_share=0)


def means(sd, n, loss=0.0):
    """n losses with exactly this mean and standard deviation, and no skewness."""
    values = stats.norm.ppf((np.arange(n) + 0.5) / n)
    return compare_means((stats.zscore(values, ddof=1) * sd + loss).tolist(), planned=n, margin=0.05, design=WHOLE)


def share(n, loss, sd, verdict, replicates=3000):
    """How often normal losses of this mean and standard deviation get a verdict."""
    rng = np.random.default_rng(n)
    found = [
        compare_means(rng.normal(loss, sd, n).tolist(), planned=n, margin=0.05, design=WHOLE) for _ in range(replicates)
    ]
    return np.mean([getattr(one, verdict) <= 0.025 for one in found])


@pytest.mark.parametrize("n", [6, 8, 24, 128])
def test_detectable_mean_has_the_power(n):
    loss = detectable_loss(means(0.02, n), margin=0.05, alpha=0.025)
    assert share(n, loss, 0.02, "p_regression", 1000 if n == 128 else 3000) == pytest.approx(0.78, abs=0.04)


def test_detectable_mean_by_hand():
    """Many windows: margin + (1.96 + 0.84)·sd/√n."""
    found = detectable_loss(means(0.02, 5000), margin=0.05, alpha=0.025)
    assert found == pytest.approx(0.05 + 2.8016 * 0.02 / math.sqrt(5000), rel=2e-3)


def test_early_stopping_takes_its_share():
    comparison = compare_means([0.0, 0.01] * 500, planned=1000, margin=0.05, design=ErrorBudget(early_share=0.2))
    spread = comparison.spread / math.sqrt(1000)
    found = detectable_loss(comparison, margin=0.05, alpha=0.025)
    assert found == pytest.approx(0.05 + (2.0537 + 0.8416) * spread, rel=1e-3)


def regression_power(n, margin, loss, discordance, alpha):
    """Probability that the exact test calls a model of this loss a regression, over all tables."""
    p_lost, p_gained = (discordance + loss) / 2, (discordance - loss) / 2
    total = 0.0
    for s in range(n + 1):
        weight = stats.binom.pmf(s, n, discordance)
        if weight > 1e-7:
            most_gained = most_lost(s, n, -margin, alpha)
            total += weight * stats.binom.cdf(most_gained, s, p_gained / (p_gained + p_lost))
    return total


@pytest.mark.parametrize(
    "counts", [(0, 0, 250), (10, 12, 250), (30, 36, 250), (30, 40, 1000), (2, 1, 100), (0, 0, 50), (1, 2, 50)]
)
def test_detectable_scores_have_the_power(counts):
    gained, lost, n = counts
    comparison = compare_scores(gained, lost, n, planned=n, margin=0.05, design=WHOLE)
    loss = detectable_loss(comparison, margin=0.05, alpha=0.025)
    power = regression_power(n, 0.05, loss, max(loss, (gained + lost) / n), 0.025)
    assert 0.78 < power < 0.92


def test_no_discordance_seen_does_not_make_the_test_sharper_than_it_can_be():
    """With none, the loss itself is all the discordance, and the lost items are binomial."""
    comparison = compare_scores(0, 0, 100, planned=100, margin=0.05, design=WHOLE)
    loss = detectable_loss(comparison, margin=0.05, alpha=0.025)
    fewest = next(k for k in range(101) if p_value(k, 0, 100, -0.05) <= 0.025)
    assert stats.binom.sf(fewest - 1, 100, loss) == pytest.approx(0.8, abs=1e-9)
    assert loss > 0.13


def test_more_items_detect_less():
    found = [
        detectable_loss(
            compare_scores(k, k, 20 * k, planned=20 * k, margin=0.05, design=WHOLE), margin=0.05, alpha=0.025
        )
        for k in (1, 5, 25, 125)
    ]
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0.05


def test_too_few_items_detect_nothing():
    for comparison in (
        compare_scores(0, 0, 1, planned=1, margin=0.05, design=WHOLE),
        compare_share(0, 1, planned=1, margin=0.05, design=WHOLE),
        compare_scores(0, 0, 0, planned=0, margin=0.05, design=WHOLE),
        compare_means([0.1], planned=1, margin=0.05, design=WHOLE),
    ):
        assert detectable_loss(comparison, margin=0.05, alpha=0.025) == math.inf


def test_needed_items_have_the_power():
    """Loss 0.04 against a margin of 0.05, so the gap is 0.01, half a standard deviation."""
    n = n_to_decide(means(0.02, 8, 0.04), margin=0.05, alpha=0.025)
    assert share(n, 0.04, 0.02, "p_pass") == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("counts", [(10, 15, 250), (4, 4, 100), (0, 0, 40), (10, 40, 300)])
def test_needed_scores_have_the_power(counts):
    gained, lost, n = counts
    comparison = compare_scores(gained, lost, n, planned=n, margin=0.05, design=WHOLE)
    needed = n_to_decide(comparison, margin=0.05, alpha=0.025)
    q, loss = (gained + lost) / n, (lost - gained) / n
    if loss > 0.05:
        power = regression_power(needed, 0.05, loss, q, 0.025)
    else:
        power = sum(
            stats.binom.pmf(s, needed, q)
            * stats.binom.cdf(most_lost(s, needed, 0.05, 0.025), s, lost / (gained + lost))
            for s in range(needed + 1)
            if q and stats.binom.pmf(s, needed, q) > 1e-7
        )
        power = power if q else float(most_lost(0, needed, 0.05, 0.025) >= 0)
    assert power == pytest.approx(0.8, abs=0.1) or not q
    assert power > 0.7


def test_share_by_the_binomial():
    comparison = compare_share(6, 200, planned=200, margin=0.1, design=WHOLE)
    loss = detectable_loss(comparison, margin=0.1, alpha=0.025)
    critical = stats.binom.isf(0.025, 200, 0.1) + 1
    assert stats.binom.sf(critical - 1, 200, loss) == pytest.approx(0.8, abs=1e-9)
    needed = n_to_decide(comparison, margin=0.1, alpha=0.025)
    critical = stats.binom.ppf(0.025, needed, 0.1) - 1
    assert stats.binom.cdf(critical, needed, 0.03) == pytest.approx(0.8, abs=0.1)


def test_needed_is_nothing_if_it_would_take_for_ever():
    assert n_to_decide(means(1.0, 50, 0.0501), margin=0.05, alpha=0.025) is None
    assert n_to_decide(means(0.02, 8, 0.05), margin=0.05, alpha=0.025) is None
    broken = compare_means([math.inf, 0.0], planned=2, margin=0.05, design=WHOLE)
    assert n_to_decide(broken, margin=0.05, alpha=0.025) is None
    assert n_to_decide(means(0.0, 8), margin=0.05, alpha=0.025) == 2
