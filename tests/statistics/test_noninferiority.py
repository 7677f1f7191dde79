"""Comparisons against scipy's tests, by-hand figures, and the agreement of verdict and interval."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from superweight.statistics.confidence_sequences import log_capital, log_t_capital
from superweight.statistics.noninferiority import ErrorBudget, compare_means, compare_scores, compare_share
from superweight.statistics.proportions import p_value

DESIGN = ErrorBudget()
WHOLE = ErrorBudget(early_share=0)


def verdicts(comparison, alpha=DESIGN.alpha):
    return (comparison.p_pass <= alpha, comparison.p_regression <= alpha)


LOSSES = [0.03, -0.01, 0.025, 0.04, 0.005, 0.02]


def guarded_p(losses, margin, alternative):
    """Student's t with the guard against skewness, from scipy's statistics."""
    n, sign = len(losses), 1 if alternative == "less" else -1
    t = sign * stats.ttest_1samp(losses, margin).statistic
    error = math.sqrt(6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3)))
    harmful = max(sign * stats.skew(losses, bias=False) + 0.75 * error, 0)
    return stats.t.cdf(t / math.exp(harmful / math.sqrt(n)) if t < 0 else t, n - 1)


@pytest.mark.parametrize("margin", [0.05, 0.03, 0.0])
def test_means_are_compared_by_guarded_student_t(margin):
    found = compare_means(LOSSES, planned=6, margin=margin, design=WHOLE)
    assert found.p_pass == pytest.approx(guarded_p(LOSSES, margin, "less"), rel=1e-9)
    assert found.p_regression == pytest.approx(guarded_p(LOSSES, margin, "greater"), rel=1e-9)
    assert found.p_pass >= stats.ttest_1samp(LOSSES, margin, alternative="less").pvalue * (1 - 1e-9)
    assert (found.loss, found.spread) == pytest.approx((np.mean(LOSSES), np.std(LOSSES, ddof=1)))
    assert found.skewness == pytest.approx(stats.skew(LOSSES, bias=False))
    assert (found.n, found.kind, found.stopped_early, found.method) == (6, "means", False, "paired Student t")


def test_the_interval_of_means_is_where_the_p_values_are_alpha():
    low, high = compare_means(LOSSES, planned=6, margin=0.05, design=WHOLE).interval
    assert guarded_p(LOSSES, high, "less") == pytest.approx(0.025, rel=1e-6)
    assert guarded_p(LOSSES, low, "greater") == pytest.approx(0.025, rel=1e-6)
    plain = stats.ttest_1samp(LOSSES, 0).confidence_interval(0.95)
    assert low <= plain.low < plain.high <= high


def test_many_means_are_students_t():
    """The guard's allowance is of the order of one over n."""
    losses = stats.norm.ppf((np.arange(2000) + 0.5) / 2000) * 0.02 + 0.04
    found = compare_means(losses.tolist(), planned=2000, margin=0.0409, design=WHOLE)
    assert found.p_pass == pytest.approx(stats.ttest_1samp(losses, 0.0409, alternative="less").pvalue, rel=0.05)


def test_the_final_analysis_gets_what_stopping_early_leaves():
    whole = compare_means(LOSSES, planned=6, margin=0.05, design=ErrorBudget(alpha=0.02, early_share=0.0))
    found = compare_means(LOSSES, planned=6, margin=0.05, design=ErrorBudget(alpha=0.025, early_share=0.2))
    assert found.p_pass == pytest.approx(whole.p_pass / 0.8, rel=1e-9)
    assert found.interval == pytest.approx(whole.interval, rel=1e-9)
    assert found.early_share == 0.2


def test_stopping_early_spends_its_share():
    losses = [0.001, -0.002, 0.0015, 0.0, 0.0005, -0.001]
    found = compare_means(losses, planned=128, margin=0.05, design=DESIGN)
    # n = 6: a standard error of the skewness is √(6·6·5/(4·7·9)).
    harmful = stats.skew(losses, bias=False) + 0.75 * math.sqrt(180 / 252)
    t = stats.ttest_1samp(losses, 0.05).statistic / math.exp(harmful / math.sqrt(6))
    assert found.p_pass == pytest.approx(math.exp(-log_t_capital(t, 6)) / 0.2)
    assert found.p_regression == 1
    assert found.stopped_early
    assert verdicts(found) == (True, False)
    assert found.interval.low < np.mean(losses) < found.interval.high < 0.05
    scores = compare_scores(1, 30, 100, planned=1000, margin=0.05, design=DESIGN)
    assert scores.p_regression == pytest.approx(math.exp(-log_capital(30, 1, 100, -0.05)) / 0.2)
    assert verdicts(scores) == (False, True)
    assert 0.05 < scores.interval.low < 0.29


def test_without_a_share_for_it_nothing_is_decided_early():
    for found in (
        compare_means([0.0] * 50, planned=51, margin=0.05, design=WHOLE),
        compare_scores(0, 50, 50, planned=51, margin=0.05, design=WHOLE),
        compare_share(0, 50, planned=51, margin=0.05, design=WHOLE),
    ):
        assert (found.p_pass, found.p_regression) == (1, 1)
        assert found.interval in ((-math.inf, math.inf), (-1, 1), (0, 1))


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("planned", [1, 8])
def test_one_window_says_nothing(n, planned):
    found = compare_means([0.3] * n, planned=planned, margin=0.05, design=DESIGN)
    assert (found.p_pass, found.p_regression) == (1, 1)
    assert found.interval == (-math.inf, math.inf)
    assert found.spread == math.inf


@pytest.mark.parametrize(("loss", "expected"), [(0.0, (True, False)), (0.2, (False, True)), (0.05, (False, False))])
def test_the_same_loss_everywhere_decides_by_its_sign(loss, expected):
    """A no-op loses exactly nothing on every window, and passes."""
    for n, planned in ((2, 2), (8, 8), (3, 8)):
        found = compare_means([loss] * n, planned=planned, margin=0.05, design=DESIGN)
        assert verdicts(found) == expected
        assert found.interval == pytest.approx((loss, loss), abs=1e-9)
    early = compare_means([loss] * 2, planned=8, margin=0.05, design=DESIGN)
    assert verdicts(early) == (False, False)
    assert early.interval == (-math.inf, math.inf)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("planned", [3, 9])
@pytest.mark.parametrize("design", [DESIGN, WHOLE])
def test_no_number_is_a_regression(bad, planned, design):
    found = compare_means([0.0, bad, 0.0], planned=planned, margin=0.05, design=design)
    assert (found.p_pass, found.p_regression, found.loss) == (1, 0, math.inf)
    assert found.interval == (math.inf, math.inf)


def test_a_broken_baseline_decides_nothing():
    found = compare_means([0.0, -math.inf, math.nan], planned=3, margin=0.05, design=DESIGN)
    assert (found.p_pass, found.p_regression) == (1, 1)
    assert found.interval == (-math.inf, math.inf)


def test_scores_by_hand():
    found = compare_scores(10, 15, 250, planned=250, margin=0.05, design=DESIGN)
    assert found.loss == pytest.approx(0.02)
    assert found.discordance == pytest.approx(0.1)
    losses = [1] * 15 + [-1] * 10 + [0] * 225
    assert found.spread == pytest.approx(np.std(losses, ddof=1))
    assert found.p_pass == pytest.approx(p_value(10, 15, 250, 0.05) / 0.8)
    assert found.p_regression == min(1, p_value(15, 10, 250, -0.05) / 0.8)
    assert (found.kind, found.stopped_early) == ("scores", False)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((0, 0, 250), (True, False)),
        ((0, 250, 250), (False, True)),
        ((250, 0, 250), (True, False)),
        ((100, 100, 200), (False, False)),
        ((0, 60, 200), (False, True)),
        ((0, 0, 0), (False, False)),
        ((0, 0, 1), (False, False)),
        ((0, 1, 1), (False, False)),
    ],
)
def test_verdicts_on_scores(counts, expected):
    gained, lost, n = counts
    assert verdicts(compare_scores(gained, lost, n, planned=n, margin=0.05, design=DESIGN)) == expected


@pytest.mark.parametrize(
    ("count", "n", "margin"), [(3, 60, 0.1), (0, 40, 0.1), (40, 40, 0.1), (9, 60, 0.05), (1, 9, 0)]
)
def test_share_is_the_binomial_test(count, n, margin):
    found = compare_share(count, n, planned=n, margin=margin, design=WHOLE)
    assert found.p_pass == pytest.approx(stats.binomtest(count, n, margin, alternative="less").pvalue, rel=1e-9)
    p_greater = stats.binomtest(count, n, margin, alternative="greater").pvalue
    assert found.p_regression == pytest.approx(p_greater, rel=1e-9)
    expected = stats.binomtest(count, n).proportion_ci(0.95, method="exact")
    assert found.interval == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert found.loss == count / n


def test_share_early():
    few = compare_share(0, 400, planned=5000, margin=0.05, design=DESIGN)
    many = compare_share(60, 400, planned=5000, margin=0.05, design=DESIGN)
    assert (verdicts(few), verdicts(many)) == ((True, False), (False, True))
    assert few.interval.low == 0
    assert few.interval.high < 0.05 < many.interval.low < 0.15 < many.interval.high
    assert verdicts(compare_share(1, 5, planned=9, margin=0, design=DESIGN)) == (False, True)


@pytest.mark.parametrize("margin", [0.05, 0.2])
def test_ville_for_shares(margin):
    rng = np.random.default_rng(1939)
    count = (rng.random((2000, 600)) < margin).cumsum(axis=1)[:, 4::5]
    n = np.arange(5, 601, 5)
    for capital in (log_capital(0, count, n, margin), log_capital(0, n - count, n, 1 - margin)):
        assert np.mean(capital.max(axis=1) >= math.log(20)) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 2000)


counts = st.integers(1, 120).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda g: st.tuples(st.just(g), st.integers(0, n - g), st.just(n)))
)
designs = st.builds(
    ErrorBudget, alpha=st.sampled_from([0.005, 0.025, 0.1]), early_share=st.sampled_from([0.0, 0.2, 0.5])
)


def agrees(found, margin, alpha):
    """PASS where the interval lies below the margin, REGRESSION where it lies above, never both."""
    passed, failed = verdicts(found, alpha)
    assert not (passed and failed)
    for bound, verdict, sign in ((found.interval.high, passed, 1), (found.interval.low, failed, -1)):
        if abs(bound - margin) > 1e-6:
            assert verdict == (sign * (margin - bound) > 0)
    low, high = found.interval
    assert low <= found.loss <= high


@settings(max_examples=80, deadline=None)
@given(counts, st.integers(0, 1), st.floats(0, 0.4), designs)
def test_verdict_and_interval_agree_on_scores(table, more, margin, design):
    gained, lost, n = table
    agrees(compare_scores(gained, lost, n, planned=n + more, margin=margin, design=design), margin, design.alpha)


@settings(max_examples=80, deadline=None)
@given(counts, st.integers(0, 1), st.floats(0.001, 0.4), designs)
def test_verdict_and_interval_agree_on_shares(table, more, margin, design):
    _, count, n = table
    agrees(compare_share(count, n, planned=n + more, margin=margin, design=design), margin, design.alpha)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=2, max_size=12), st.integers(0, 1), st.floats(0, 0.5), designs)
def test_verdict_and_interval_agree_on_means(losses, more, margin, design):
    found = compare_means(losses, planned=len(losses) + more, margin=margin, design=design)
    if found.spread == 0 or found.spread > 1e-6:
        agrees(found, margin, design.alpha)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=3, max_size=12), st.floats(0, 0.5), st.floats(0, 0.5), st.booleans())
def test_a_wider_margin_passes_more_and_fails_less(losses, margin, step, more):
    narrow, wide = (
        compare_means(losses, planned=len(losses) + more, margin=m, design=DESIGN) for m in (margin, margin + step)
    )
    assert wide.p_pass <= narrow.p_pass * (1 + 1e-6)
    assert wide.p_regression >= narrow.p_regression * (1 - 1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-2, 2), min_size=3, max_size=12), st.booleans())
def test_swapping_the_models_mirrors_the_interval(losses, more):
    one, other = (
        compare_means(values, planned=len(losses) + more, margin=0, design=DESIGN)
        for values in (losses, [-loss for loss in losses])
    )
    assert (one.p_pass, one.p_regression) == pytest.approx((other.p_regression, other.p_pass))
    assert one.interval == pytest.approx((-other.interval.high, -other.interval.low))


@pytest.mark.parametrize(
    "call",
    [
        lambda: compare_scores(3, 4, 6, planned=6, margin=0.05, design=DESIGN),
        lambda: compare_scores(-1, 4, 6, planned=6, margin=0.05, design=DESIGN),
        lambda: compare_scores(1, 4, 6, planned=5, margin=0.05, design=DESIGN),
        lambda: compare_scores(1, 4, 6, planned=6, margin=1.0, design=DESIGN),
        lambda: compare_share(4, 3, planned=6, margin=0.05, design=DESIGN),
        lambda: compare_share(1, 3, planned=6, margin=-0.05, design=DESIGN),
        lambda: compare_means([0.0] * 3, planned=2, margin=0.05, design=DESIGN),
        lambda: ErrorBudget(alpha=0.5),
        lambda: ErrorBudget(early_share=1.0),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError):
        call()
