"""Confidence sequences against independent formulas and against Ville's inequality by simulation."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from superweight.statistics.confidence_sequences import (
    BETS,
    EFFECTS,
    STAKES,
    betting_bound,
    betting_interval,
    log_capital,
    log_t_capital,
    t_half_width,
)


def test_capital_item_by_item():
    """Product over items of 1 + λ(m − d) with λ = c/(1 − m), mixed over the bets."""
    losses, margin = [0, 1, 0, 0, -1, 0, 1, 0], 0.05
    capital = sum(
        stake * np.prod([1 + bet / (1 - margin) * (margin - d) for d in losses])
        for bet, stake in zip(BETS, STAKES, strict=True)
    )
    assert log_capital(1, 2, 8, margin) == pytest.approx(math.log(capital), rel=1e-12)


@pytest.mark.parametrize("margin", [-0.3, -0.01, 0.0, 0.05, 0.4])
@pytest.mark.parametrize("discordance", [0.4, 0.7, 1.0])
def test_one_item_is_a_fair_bet_at_the_margin(margin, discordance):
    p_gained, p_lost = (discordance - margin) / 2, (discordance + margin) / 2
    after = np.exp(log_capital([1, 0, 0], [0, 1, 0], 1, margin))
    assert after @ [p_gained, p_lost, 1 - discordance] == pytest.approx(1, rel=1e-12)


def test_stakes_are_one_capital():
    assert STAKES.sum() == pytest.approx(1)
    assert log_capital(0, 0, 0, 0.05) == pytest.approx(0)
    assert 0 < BETS.min() <= BETS.max() == 1


@pytest.mark.parametrize(
    ("margin", "discordance"), [(0.05, 0.05), (0.05, 0.3), (0.02, 0.1), (-0.05, 0.1), (-0.02, 0.02)]
)
def test_ville_for_scores(margin, discordance):
    """Looking after every item of 1000 at a model exactly at the margin; the rate is for ever, so it is far from used."""
    rng = np.random.default_rng(20231002)
    replicates, n, alpha = 2000, 1000, 0.05
    p_gained = (discordance - margin) / 2
    uniform = rng.random((replicates, n), dtype=np.float32)
    gained = (uniform < p_gained).cumsum(axis=1)
    lost = ((uniform >= p_gained) & (uniform < discordance)).cumsum(axis=1)
    looks = np.arange(4, n, 5)
    highest = log_capital(gained[:, looks], lost[:, looks], looks + 1, margin).max(axis=1)
    assert np.mean(highest >= math.log(1 / alpha)) <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)


def test_betting_bound_solves_for_the_margin():
    for gained, lost, n in [(2, 5, 80), (0, 0, 300), (40, 10, 200)]:
        bound = betting_bound(gained, lost, n, 0.01)
        assert log_capital(gained, lost, n, bound) == pytest.approx(math.log(100), abs=1e-6)
        assert bound > (lost - gained) / n
    assert betting_bound(0, 0, 0, 0.01) == 1.0
    assert betting_bound(0, 60, 60, 0.01) == 1.0


def test_nothing_lost_decides_as_the_boldest_bet_says():
    """Its share of the capital alone grows by 1/(1 − m) an item."""
    n, margin = 200, 0.05
    alone = math.log(STAKES[-1]) - n * math.log(1 - margin)
    assert alone < log_capital(0, 0, n, margin) < alone + 1.0


def test_capital_is_vectorised():
    gained, lost = np.array([[0, 3], [5, 1]]), np.array([[4, 0], [2, 2]])
    found = log_capital(gained, lost, np.array([50, 60]), 0.05)
    assert found.shape == (2, 2)
    assert found[1, 0] == pytest.approx(float(log_capital(5, 2, 50, 0.05)))


counts = st.integers(1, 400).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda g: st.tuples(st.just(g), st.integers(0, n - g), st.just(n)))
)


@settings(max_examples=100, deadline=None)
@given(counts, st.floats(-0.9, 0.6), st.floats(0, 0.3))
def test_capital_grows_with_the_margin(table, margin, step):
    assert log_capital(*table, margin + step) >= log_capital(*table, margin) - 1e-9


@settings(max_examples=50, deadline=None)
@given(counts)
def test_betting_interval_holds_the_estimate_and_swaps(table):
    gained, lost, n = table
    low, high = betting_interval(gained, lost, n, 0.005)
    assert -1 <= low <= (lost - gained) / n <= high <= 1
    assert betting_interval(lost, gained, n, 0.005) == (-high, -low)


@pytest.mark.parametrize(("n", "t"), [(2, -3.0), (3, -40.0), (6, -2.3), (6, 1.7), (30, -2.6), (30, 0.4)])
def test_t_capital_is_the_mixture_of_noncentral_t(n, t):
    def ratio(effect, prior):
        return (
            2
            * stats.norm.pdf(effect, 0, prior)
            * stats.nct.pdf(t, n - 1, math.sqrt(n) * effect)
            / stats.t.pdf(t, n - 1)
        )

    mixed = [integrate.quad(ratio, -8 * c, 0, args=(c,), limit=400, points=[-8, -2])[0] for c in EFFECTS]
    assert math.exp(log_t_capital(t, n)) == pytest.approx(np.mean(mixed), rel=1e-4)


@pytest.mark.parametrize("mean", [0.0, 0.4])
def test_ville_for_means(mean):
    """At the margin, and with a loss beyond it, where the capital is to be smaller still."""
    rng = np.random.default_rng(19760301)
    replicates, most, alpha = 4000, 128, 0.05
    values = rng.normal(mean, 1, (replicates, most))
    n = np.arange(2, most + 1)
    means = (values.cumsum(axis=1)[:, 1:]) / n
    variances = ((values**2).cumsum(axis=1)[:, 1:] - n * means**2) / (n - 1)
    highest = log_t_capital(means / np.sqrt(variances / n), n).max(axis=1)
    rate = np.mean(highest >= math.log(1 / alpha))
    assert rate <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / replicates)
    assert mean == 0 or rate < 0.01


def test_a_destroyed_model_is_decided_at_three_or_four_windows():
    """Loss of 3 nats against a margin of 0.05, and how much windows differ."""
    for sd, at in ((0.05, 3), (0.3, 4)):
        t = (3 - 0.05) / (sd / np.sqrt([2, 3, 4]))
        decided = log_t_capital(-t, [2, 3, 4]) >= math.log(1 / 0.005)
        assert decided.tolist() == [n >= at for n in (2, 3, 4)]
    assert log_t_capital(-math.inf, 3) >= math.log(1 / 0.005)


def test_t_capital_is_bounded_and_falls():
    # As t → −∞ each component tends to 2·k^((n − 1)/2), times the side's probability F(−…) → F(n·c).
    n = 5
    limit = np.mean([2 * (1 + n * c * c) ** ((n - 1) / 2) * stats.t.cdf(n * c, n) for c in EFFECTS])
    assert log_t_capital(-math.inf, n) == pytest.approx(math.log(limit), rel=1e-9)
    ladder = log_t_capital(np.linspace(-50, 50, 400), 7)
    assert np.all(np.diff(ladder) < 0)
    assert log_t_capital(0.0, 7) < 0


def test_t_reach_solves_for_the_statistic():
    assert t_half_width(1, 0.005) == t_half_width(2, 0.005) == math.inf
    for n in (3, 8, 128, 5000):
        assert log_t_capital(-t_half_width(n, 0.005), n) == pytest.approx(math.log(200), abs=1e-8)
    # What it costs to look always.
    assert 1.3 < t_half_width(128, 0.025) / stats.t.ppf(0.975, 127) < 2
