"""The exact paired test against enumeration of every table, and its properties."""

import functools
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from superweight.statistics.proportions import exact_interval, most_lost, p_value, score, score_bound, upper_bound


def tables(n):
    return [(g, lost) for g in range(n + 1) for lost in range(n + 1 - g)]


def brute_force_score(gained, lost, n, loss):
    """Tango's statistic with its nuisance parameter found by numerical maximum likelihood instead of a formula."""
    low, high = max(0.0, -loss), (1 - loss) / 2  # of P(gained)

    def minus_log_likelihood(p):
        cells = ((gained, p), (lost, p + loss), (n - gained - lost, 1 - 2 * p - loss))
        return -sum(k * math.log(max(c, 1e-300)) for k, c in cells if k)

    p = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (lost - gained - n * loss) / math.sqrt(n * (2 * p + loss - loss**2))


@pytest.mark.parametrize(("gained", "lost", "n"), [(1, 4, 100), (0, 7, 60), (12, 20, 250), (5, 5, 40), (0, 1, 100)])
@pytest.mark.parametrize("loss", [-0.1, 0.02, 0.2])
def test_score_is_tangos(gained, lost, n, loss):
    assert score(gained, lost, n, loss) == pytest.approx(brute_force_score(gained, lost, n, loss), abs=1e-3)


def test_score_at_no_loss_is_mcnemars():
    """With loss 0 the statistic is (b − c)/√(b + c)."""
    assert score(4, 13, 90, 0.0) == pytest.approx(9 / math.sqrt(17))
    assert score(0, 0, 90, 0.0) == 0


@pytest.mark.parametrize("n", [1, 2, 5, 13, 24])
def test_one_more_lost_is_worse_and_one_more_gained_is_better(n):
    """What makes the boundary of the hypothesis its worst case, for every table."""
    bound = {table: score_bound(*table, n) for table in tables(n)}
    for (g, lost), value in bound.items():
        if (g, lost + 1) in bound:
            assert bound[g, lost + 1] > value - 1e-12
        if (g + 1, lost) in bound:
            assert bound[g + 1, lost] < value + 1e-12


@functools.cache
def tango_limits(n):
    """Every table's upper 97.5 % limit, from the statistic alone."""
    grid = np.linspace(-1, 1, 40001)[1:-1]
    limits = {}
    for g, lost in tables(n):
        inside = [k for k in range(0, len(grid), 400) if score(g, lost, n, grid[k]) > -1.959963984540054]
        start = inside[-1] if inside else 0
        fine = [k for k in range(start, min(start + 401, len(grid))) if score(g, lost, n, grid[k]) > -1.959963984540054]
        limits[g, lost] = grid[fine[-1]] if fine else -1.0
    return limits


def brute_force_p(gained, lost, n, margin):
    """Maximum over a fine grid of the probability of all tables that are as favourable, multinomial by multinomial."""
    limits = tango_limits(n)
    favourable = np.array([t for t in tables(n) if limits[t] <= limits[gained, lost] + 1e-9])
    s = gained + lost
    low = stats.beta.ppf(0.5e-6, s, n - s + 1) if s else 0.0
    high = stats.beta.ppf(1 - 0.5e-6, s + 1, n - s) if s < n else 1.0
    best = 0.0
    for q in np.linspace(max(low, margin), high, 801) if max(low, margin) <= high else []:
        loss = max(margin, -q)
        p = [max((q - loss) / 2, 0), max((q + loss) / 2, 0)]
        counts = np.column_stack([favourable, n - favourable.sum(axis=1)])
        best = max(best, stats.multinomial.pmf(counts, n, [*p, max(1 - sum(p), 0)]).sum())
    return min(1.0, best + 1e-6)


@pytest.mark.parametrize("n", [1, 3, 11])
@pytest.mark.parametrize("margin", [-0.3, -0.05, 0.0, 0.05, 0.25])
def test_p_value_by_enumeration(n, margin):
    for gained, lost in tables(n)[:: 1 if n < 5 else 7]:
        assert p_value(gained, lost, n, margin) == pytest.approx(brute_force_p(gained, lost, n, margin), rel=2e-3)


@pytest.mark.parametrize(("n", "margin"), [(7, 0.2), (30, 0.05), (30, -0.05), (60, 0.1)])
def test_error_rate_is_at_most_alpha_for_every_discordance(n, margin):
    """Exactly, by adding up the tables that are called decided; Tango's own test exceeds its rate here."""
    alpha = 0.025
    rule = [most_lost(s, n, margin, alpha) for s in range(n + 1)]
    decided = np.array([(g, lost, n - g - lost) for g, lost in tables(n) if lost <= rule[g + lost]])
    rates = []
    for q in np.linspace(abs(margin), 1, 60):
        p = [(q - margin) / 2, (q + margin) / 2]
        rates.append(stats.multinomial.pmf(decided, n, [*p, 1 - sum(p)]).sum() if len(decided) else 0.0)
    assert max(rates) <= alpha
    assert max(rates) > alpha / 3 or n < 10


def test_no_discordance_is_nearly_the_binomial():
    """If nothing can be gained the chance of no change is (1 − m)^n; other tables as favourable add a little to it."""
    assert p_value(0, 0, 70, 0.05) == pytest.approx(0.95**70, rel=0.02)
    assert p_value(0, 0, 70, 0.05) > 0.95**70
    assert upper_bound(0, 0, 70, 0.025) == pytest.approx(1 - 0.025 ** (1 / 70), rel=0.01)


def test_extremes():
    assert p_value(0, 40, 40, 0.05) == 1.0
    assert p_value(40, 0, 40, 0.05) == pytest.approx(1e-6)
    assert exact_interval(0, 40, 40, 0.025).high == 1.0
    assert exact_interval(40, 0, 40, 0.025).low == -1.0
    # All lost is as unfavourable as can be, with probability p^n: the bound is alpha^(1/n).
    assert exact_interval(0, 40, 40, 0.025).low == pytest.approx(2 * 0.025 ** (1 / 40) - 1, abs=2e-2)
    assert -1 <= exact_interval(0, 0, 1, 0.025).low < -0.9


@pytest.mark.parametrize("counts", [(300, 420, 20000), (9000, 9400, 20000), (0, 3, 20000)])
def test_many_items_are_close_to_the_asymptotic_test(counts):
    gained, lost, n = counts
    for margin in (0.001, 0.004, 0.01):
        z = float(score(gained, lost, n, margin))
        if abs(z) < 4:
            assert p_value(gained, lost, n, margin) == pytest.approx(stats.norm.cdf(z), rel=0.25, abs=2e-3)
    low, high = exact_interval(gained, lost, n, 0.025)
    assert high == pytest.approx(score_bound(gained, lost, n), abs=3e-5)
    assert low == pytest.approx(-score_bound(lost, gained, n), abs=3e-4)


@pytest.mark.parametrize(("n", "margin", "alpha"), [(40, 0.05, 0.025), (250, 0.02, 0.02), (250, -0.05, 0.02)])
def test_the_rule_is_the_p_value(n, margin, alpha):
    for s in (0, 1, 7, 30, 40):
        k = most_lost(s, n, margin, alpha)
        assert k == -1 or p_value(s - k, k, n, margin) <= alpha
        assert k == s or p_value(s - k - 1, k + 1, n, margin) > alpha


counts = st.integers(1, 80).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda g: st.tuples(st.just(g), st.integers(0, n - g), st.just(n)))
)


@settings(max_examples=60, deadline=None)
@given(counts, st.floats(-0.6, 0.6), st.floats(0, 0.3))
def test_p_value_falls_with_the_margin(table, margin, step):
    gained, lost, n = table
    assert p_value(gained, lost, n, margin + step) <= p_value(gained, lost, n, margin) * (1 + 1e-4)


@settings(max_examples=40, deadline=None)
@given(counts, st.sampled_from([0.005, 0.02, 0.1]))
def test_interval_is_the_inversion_of_the_tests(table, alpha):
    gained, lost, n = table
    low, high = exact_interval(gained, lost, n, alpha)
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    swapped = exact_interval(lost, gained, n, alpha)
    assert (-swapped.high, -swapped.low) == (low, high)
    for margin in (high - 1e-4, high + 1e-4):
        if -1 < margin < 1 and high < 1:
            assert (p_value(gained, lost, n, margin) <= alpha) == (margin > high)


@settings(max_examples=20, deadline=None)
@given(counts, st.integers(2, 5))
def test_more_of_the_same_items_narrow_the_interval(table, times):
    gained, lost, n = table
    once, more = (exact_interval(gained * k, lost * k, n * k, 0.025) for k in (1, times))
    assert more.high - more.low < once.high - once.low + 1e-9


def test_every_small_table_has_an_ordered_interval():
    for n, alpha in itertools.product((1, 2, 6), (0.1, 0.005)):
        for gained, lost in tables(n):
            low, high = exact_interval(gained, lost, n, alpha)
            assert -1 <= low <= (lost - gained) / n <= high <= 1
