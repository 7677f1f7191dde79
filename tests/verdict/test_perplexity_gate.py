"""The perplexity gate on windows made by hand, against Student's t from scipy."""

import math

import pytest
from scipy import stats

from superweight.statistics.noninferiority import ErrorBudget, compare_means
from superweight.statistics.power import detectable_loss, n_to_decide
from superweight.verdict import judge_perplexity
from support import guarded_t
from support.by_hand import BASE, perplexity
from support.judging import MARGIN, WHOLE, card, losses, part, shifted, standard_error

CARD = card("perplexity")
LONG = [3.0 + 0.01 * (place % 7) for place in range(40)]


def judge(nll, base=BASE, design=WHOLE, by=CARD):
    return judge_perplexity(by, "wiki", perplexity(nll), perplexity(base), design)


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (-0.01, "PASS"),
        (0.0, "PASS"),
        (0.02, "PASS"),
        (MARGIN - 0.01, "PASS"),
        (MARGIN, "INCONCLUSIVE"),
        (MARGIN + 0.01, "REGRESSION"),
        (1.0, "REGRESSION"),
    ],
)
@pytest.mark.parametrize("design", [WHOLE, ErrorBudget()])
def test_perplexity_is_judged_by_its_interval(shift, verdict, design):
    gate = judge(shifted(shift), design=design)
    assert gate.verdict == verdict
    assert gate.difference == pytest.approx(math.exp(shift) - 1, abs=1e-9)
    assert gate.interval[0] < gate.difference < gate.interval[1]
    assert (gate.n, gate.planned, gate.kind, gate.card) == (8, 8, "perplexity", "perplexity")
    assert (gate.gate, gate.metric, gate.higher_is_better) == ("perplexity:wiki", "perplexity", False)


def test_the_figures_are_those_of_the_log_ratio():
    gate, lost = judge(shifted(0.04)), losses(shifted(0.04))
    low, high = guarded_t.interval(lost)
    plain = stats.ttest_1samp(lost, 0).confidence_interval(0.95)
    assert gate.interval == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-9)
    assert low <= plain.low < plain.high <= high
    assert gate.p_pass == pytest.approx(guarded_t.p_pass(lost, MARGIN), rel=1e-6)
    assert gate.p_regression == pytest.approx(guarded_t.p_regression(lost, MARGIN), rel=1e-6)
    assert gate.value == pytest.approx(math.exp(math.fsum(shifted(0.04)) / 8))
    assert gate.baseline == pytest.approx(math.exp(math.fsum(BASE) / 8))
    assert (gate.confidence, gate.alpha, gate.margin) == (pytest.approx(0.95), 0.025, 0.05)


def test_stopping_early_takes_a_fifth_of_the_error_rate_from_the_last_analysis():
    plain, shared = judge(shifted(0.04)), judge(shifted(0.04), design=ErrorBudget(early_share=0.2))
    assert shared.p_pass == pytest.approx(plain.p_pass / 0.8, rel=1e-9)
    low, high = guarded_t.interval(losses(shifted(0.04)), 0.02)
    assert shared.interval == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-9)


def test_the_smallest_change_it_would_have_seen():
    """As a ratio; beyond the margin by more than the quantiles of 97.5 and of 80 per cent, in standard errors."""
    gate = judge(shifted(0.0))
    comparison = compare_means(losses(shifted(0.0)), planned=8, margin=MARGIN, design=WHOLE)
    assert gate.detectable == pytest.approx(math.expm1(detectable_loss(comparison, margin=MARGIN, alpha=0.025)))
    plain = (stats.t.isf(0.025, 7) + stats.t.ppf(0.8, 7)) * standard_error()
    assert MARGIN + plain < math.log1p(gate.detectable) < MARGIN + 1.5 * plain
    assert gate.needed is None


def test_windows_that_would_decide():
    """Half a standard deviation beyond the margin: (1.96 + 0.84)²·4 = 31.4, and some for an unknown spread."""
    nll = shifted(MARGIN + standard_error() * math.sqrt(8) / 2)
    gate, comparison = judge(nll), compare_means(losses(nll), planned=8, margin=MARGIN, design=WHOLE)
    assert gate.verdict == "INCONCLUSIVE"
    assert gate.needed == n_to_decide(comparison, margin=MARGIN, alpha=0.025)
    assert 32 <= gate.needed < 40
    assert judge(shifted(MARGIN)).needed is None  # at the margin itself, nothing would


@pytest.mark.parametrize("beside", [-1e-9, 1e-9])
def test_nothing_is_rounded_before_it_is_compared(beside):
    """The same loss in every window, a billionth of a nat to either side of the margin."""
    gate = judge([MARGIN + beside] * 8, [0.0] * 8)
    assert gate.verdict == ("PASS" if beside < 0 else "REGRESSION")
    assert judge([math.log1p(0.05)] * 8, [0.0] * 8).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("bad", [math.inf, math.nan])
@pytest.mark.parametrize("visited", [8, 5])
def test_a_model_that_gives_no_number_has_regressed(bad, visited):
    gate = judge_perplexity(
        CARD, "wiki", part([bad, *BASE[1:]], range(visited)), part(BASE, range(8)), ErrorBudget(early_share=0.2)
    )
    assert (gate.verdict, gate.p_regression, gate.needed) == ("REGRESSION", 0, None)


@pytest.mark.parametrize("ours", [3.0, math.inf])
def test_nothing_is_held_against_a_broken_baseline(ours):
    """Not even a window that neither model can read."""
    gate = judge([*BASE[:7], ours], [*BASE[:7], math.inf])
    assert (gate.verdict, gate.reason) == ("INFRA", "non-finite")
    assert "nothing can be compared with it" in gate.message


@pytest.mark.parametrize("other", [{"tokens_sha256": "other"}, {"window": 256}, {"index": [0, 1, 2, 3, 4, 5, 6, 9]}])
def test_different_tokens_are_never_compared(other):
    gate = judge_perplexity(CARD, "wiki", perplexity(BASE, **other), perplexity(BASE), WHOLE)
    assert (gate.verdict, gate.reason, gate.p_regression) == ("INFRA", "unpaired", None)


def test_part_of_the_windows_is_compared_with_the_same_windows_of_the_baseline():
    """Whatever the order: the baseline's own figure, over all 40 windows, is another."""
    visited = [31, 4, 17, 0, 22, 9]
    worse = [nll + 1.0 + 0.01 * (place % 3) for place, nll in enumerate(LONG)]
    gate = judge_perplexity(
        CARD, "wiki", part(worse, visited), part(LONG, reversed(range(40))), ErrorBudget(early_share=0.2)
    )
    before = math.exp(sum(LONG[window] for window in visited) / 6)
    lost = [worse[window] - LONG[window] for window in visited]
    assert gate.baseline == pytest.approx(before)
    assert gate.baseline != pytest.approx(math.exp(sum(LONG) / 40), rel=1e-3)
    assert gate.difference == pytest.approx(math.exp(sum(lost) / 6) - 1)
    assert (gate.n, gate.planned, gate.verdict) == (6, 40, "REGRESSION")
    assert gate.p_regression == pytest.approx(guarded_t.early_p_regression(lost, MARGIN))
    assert "6 of 40 windows" in gate.message


def test_without_a_share_for_it_part_of_the_windows_decides_nothing():
    worse = [nll + 1.0 for nll in LONG]
    gate = judge_perplexity(CARD, "wiki", part(worse, range(39)), part(LONG, range(40)), WHOLE)
    assert (gate.verdict, gate.p_pass, gate.p_regression) == ("INCONCLUSIVE", 1, 1)


def test_better_by_more_than_the_margin_is_odd():
    """1/1.05 is the margin the other way round: a loss of −ln 1.05."""
    assert judge(shifted(-MARGIN - 0.01)).flags == [
        "too good to be true: better than the uncompressed model by more than the margin"
    ]
    assert judge(shifted(-MARGIN)).flags == []
    assert judge(shifted(MARGIN + 0.01)).flags == []
    assert judge(shifted(-MARGIN - 0.01)).verdict == "PASS"


BOUND = {"n": 8, "device_class": "cpu", "models": ("m",), "of": ("wiki",)}


def test_a_bound_on_the_perplexity_itself():
    """Perplexity is at most the bound, whatever the margin says."""
    value = judge(shifted(0.0)).value
    within, past = (judge(shifted(0.0), by=card(value=value + step, **BOUND)) for step in (0.0, -1e-9))
    assert within.verdict == "PASS"
    assert (past.verdict, past.p_pass, past.p_regression) == ("REGRESSION", 1, 0)
    assert "the figure itself is above its bound of" in past.message


@pytest.mark.parametrize("bound", [1.0, 1000.0])
def test_a_bound_is_for_all_windows_and_waits_for_them(bound):
    """Part of them is not held against it, and does not pass without it; a regression needs no bound."""
    by = card(value=bound, **BOUND | {"n": 40})
    assert judge_perplexity(CARD, "wiki", part(LONG, range(20)), part(LONG, range(40)), ErrorBudget()).verdict == "PASS"
    gate = judge_perplexity(by, "wiki", part(LONG, range(20)), part(LONG, range(40)), ErrorBudget())
    assert (gate.verdict, gate.p_pass, gate.needed) == ("INCONCLUSIVE", 1, 40)
    assert f"the bound of {bound:g} on the figure itself is for all 40" in gate.message
    worse = part([nll + 1 for nll in LONG], range(20))
    assert judge_perplexity(by, "wiki", worse, part(LONG, range(40)), ErrorBudget()).verdict == "REGRESSION"
