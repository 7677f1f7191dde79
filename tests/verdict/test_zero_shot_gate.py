"""The zero-shot gate on items made by hand: pairs, metrics of either direction, scores of any kind."""

import math

import pytest

from superweight.evidence import CellEvidence
from superweight.statistics.noninferiority import ErrorBudget, compare_means
from superweight.statistics.power import detectable_loss
from superweight.verdict import gates_of, judge_zero_shot
from support import guarded_t
from support.by_hand import perplexity, zero_shot
from support.judging import WHOLE, answered, card, rules

CARD = card("zero-shot")
LOWER = {"higher_is_better": False}


def judge(ours, theirs, design=WHOLE, by=CARD, **more):
    return judge_zero_shot(by, "piqa", zero_shot(ours, **more), zero_shot(theirs, **more), design)


def test_zero_shot_pairs_items_not_totals():
    """Two models with the same accuracy that answer differently are less certain than two that answer alike."""
    alike = judge([1.0, 0.0] * 100, [1.0, 0.0] * 100)
    swapped = judge([1.0, 0.0] * 100, [0.0, 1.0] * 100)
    assert alike.verdict == "PASS"
    assert alike.difference == swapped.difference == 0
    assert swapped.verdict == "INCONCLUSIVE"
    assert (swapped.details["lost"], swapped.details["gained"]) == (100, 100)
    assert swapped.needed > 200


def test_no_item_lost_is_no_pass_before_there_are_enough():
    """A true loss of 5 points shows in none of n items with probability 0.95^n, and no valid test can do better."""
    gate = judge([1.0, 0.0] * 100, [1.0, 0.0] * 100)
    assert 0.95**200 <= gate.p_pass <= 0.025
    assert gate.interval == pytest.approx((-gate.interval[1], gate.interval[1]))
    assert 1 - 0.025 ** (1 / 200) <= gate.interval[1] < 0.05
    assert 0.95**71 > 0.025
    assert judge([1.0] * 71, [1.0] * 71).verdict == "INCONCLUSIVE"
    assert judge([1.0] * 100, [1.0] * 100).verdict == "PASS"


def test_scores_that_are_all_lost_by_hand():
    """With a true loss of 5 points an item is lost with probability (1 + 0.05)/2 at most."""
    gate = judge([0.0] * 8, [1.0] * 8)
    assert gate.p_regression == pytest.approx(0.525**8 + 1e-6, rel=1e-3)
    assert (gate.verdict, gate.difference, gate.p_pass) == ("REGRESSION", -1, 1)


def test_zero_shot_regression_and_its_figures():
    gate = judge([0.0] * 60 + [1.0] * 140, [1.0] * 200)
    assert (gate.verdict, gate.value, gate.baseline) == ("REGRESSION", 0.7, 1.0)
    assert gate.difference == pytest.approx(-0.3)
    assert gate.interval[0] < -0.3 < gate.interval[1] < -0.05
    assert gate.detectable < -0.05
    assert "60 lost, 0 gained" in gate.message
    assert "accepted down to -5 pt" in gate.message


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (60, 0), (16, 6), (0, 60)])
@pytest.mark.parametrize("planned", [200, 400])
def test_an_error_rate_is_an_accuracy_turned_round(lost, gained, planned):
    """Items wrong instead of items right: the verdict stays, and every figure changes its sign."""
    before = [1.0] * (200 - gained) + [0.0] * gained
    after = [0.0] * lost + [1.0] * (200 - lost)
    right = judge(after, before, ErrorBudget(), planned=planned)
    wrong = judge(
        [1 - score for score in after],
        [1 - score for score in before],
        ErrorBudget(),
        planned=planned,
        metric="wer",
        **LOWER,
    )
    assert (right.difference, wrong.difference) == pytest.approx(((gained - lost) / 200, (lost - gained) / 200))
    assert wrong.interval == pytest.approx((-right.interval[1], -right.interval[0]))
    assert wrong.interval[0] <= wrong.difference <= wrong.interval[1]
    assert wrong.detectable == pytest.approx(-right.detectable)
    assert wrong.detectable > 0.05
    assert (wrong.verdict, wrong.p_pass, wrong.p_regression) == (right.verdict, right.p_pass, right.p_regression)
    assert (wrong.flags, wrong.needed) == (right.flags, right.needed)
    assert (wrong.details["lost"], wrong.details["gained"]) == (lost, gained)
    assert (right.higher_is_better, wrong.higher_is_better) == (True, False)
    assert "accepted up to +5 pt" in wrong.message


def test_lower_is_better_metrics_are_turned_round():
    better = judge([0.1] * 50, [0.5] * 50, metric="brier", **LOWER)
    worse = judge([0.5] * 50, [0.1] * 50, metric="brier", **LOWER)
    assert (better.verdict, worse.verdict) == ("PASS", "REGRESSION")
    assert (better.difference, worse.difference) == pytest.approx((-0.4, 0.4))
    assert [flag.split(":")[0] for flag in better.flags] == ["too good to be true"]
    assert worse.flags == []


@pytest.mark.parametrize(
    ("change", "verdict", "flagged"),
    [(-3.0, "PASS", True), (0.0, "PASS", False), (1.5, "INCONCLUSIVE", False), (3.0, "REGRESSION", False)],
)
def test_a_perplexity_like_metric_in_its_own_unit(change, verdict, flagged):
    """Values of tens, where less is better: a t test of the paired differences, margin 1.5."""
    before = [20.0 + place % 5 for place in range(24)]
    after = [value + change + (0.5 if place % 2 else -0.5) for place, value in enumerate(before)]
    gate = judge(after, before, by=card("zero-shot", margin=1.5), metric="ppl", **LOWER)
    lost = [one - other for one, other in zip(after, before, strict=True)]
    assert (gate.verdict, bool(gate.flags), gate.method) == (verdict, flagged, "paired Student t")
    assert gate.difference == pytest.approx(change, abs=1e-12)
    assert gate.interval == pytest.approx(guarded_t.interval(lost))
    assert gate.p_regression == pytest.approx(guarded_t.p_regression(lost, 1.5))
    comparison = compare_means(lost, planned=24, margin=1.5, design=WHOLE)
    assert gate.detectable == pytest.approx(detectable_loss(comparison, margin=1.5, alpha=0.025))
    assert 1.5 < gate.detectable < 2.0


def test_scores_between_0_and_1_are_compared_by_their_mean():
    before = [0.8, 0.6, 0.75, 0.9, 0.4, 0.55, 0.7, 0.65]
    after = [0.75, 0.62, 0.7, 0.85, 0.4, 0.5, 0.72, 0.6]
    gate = judge(after, before, metric="f1")
    lost = [one - other for one, other in zip(before, after, strict=True)]
    low, high = guarded_t.interval(lost)
    assert gate.interval == pytest.approx((-high, -low))
    assert gate.difference == pytest.approx(sum(after) / 8 - sum(before) / 8)
    assert gate.p_pass == pytest.approx(guarded_t.p_pass(lost, 0.05))


@pytest.mark.parametrize("beside", [-1e-9, 0.0, 1e-9])
@pytest.mark.parametrize("higher", [True, False])
def test_nothing_is_rounded_before_it_is_compared(beside, higher):
    """Every item loses the margin, 1/16, give or take a billionth."""
    loss = 0.0625 + beside
    ours = [0.0 - loss if higher else loss] * 8
    gate = judge(ours, [0.0] * 8, by=card("zero-shot", margin=0.0625), metric="score", higher_is_better=higher)
    assert gate.verdict == {-1e-9: "PASS", 0.0: "INCONCLUSIVE", 1e-9: "REGRESSION"}[beside]


def test_the_kind_of_test_does_not_depend_on_how_many_items_are_in():
    """The first items happen to be all right or all wrong; the baseline's others tell that scores lie between."""
    gate = judge([1.0, 0.0] * 20, [1.0, 0.0] * 20 + [0.5] * 20, ErrorBudget(), planned=60, metric="f1")
    assert gate.method == "anytime-valid paired t"
    assert judge([1.0, 0.0] * 20, [1.0, 0.0] * 30, ErrorBudget(), planned=60).method == "confidence sequence by betting"


def test_a_margin_wider_than_scores_accepts_everything():
    """A card that is meant for a metric of another scale."""
    assert judge([0.0] * 8, [1.0] * 8, by=card("zero-shot", margin=1.5)).verdict == "PASS"


def test_part_of_the_items_is_compared_with_the_same_items_of_the_baseline():
    """The baseline's accuracy over all 300 items is 2/3; over those that the candidate was asked, it is 1."""
    whole = [1.0] * 200 + [0.0] * 100
    gate = judge([0.0] * 100, whole, ErrorBudget(), planned=300)
    assert (gate.baseline, gate.value, gate.difference) == (1.0, 0.0, -1.0)
    assert (gate.n, gate.planned, gate.verdict) == (100, 300, "REGRESSION")
    assert "over 100 of 300 items (100 lost, 0 gained)" in gate.message
    healthy = judge([1.0] * 200, whole, ErrorBudget(), planned=300)
    assert (healthy.baseline, healthy.difference, healthy.verdict) == (1.0, 0.0, "PASS")
    assert judge([1.0] * 200, whole, WHOLE, planned=300).verdict == "INCONCLUSIVE"


@pytest.mark.parametrize("first", [1, 100])
def test_items_that_the_baseline_lacks_are_never_compared(first):
    gate = judge_zero_shot(CARD, "piqa", zero_shot([1.0] * 100, first=first), zero_shot([1.0] * 100), WHOLE)
    assert (gate.verdict, gate.reason) == ("INFRA", "unpaired")
    assert "not asked the same items (100 and 100)" in gate.message


def test_the_same_number_with_another_question_is_another_item():
    ours = zero_shot([1.0] * 100)
    ours.items[7] = ours.items[7] | {"doc_hash": "another"}
    assert judge_zero_shot(CARD, "piqa", ours, zero_shot([1.0] * 100), WHOLE).reason == "unpaired"


def answers(values):
    figure = answered([0] * 100)
    for item in figure.items:
        item["loglikelihoods"] = [values] * 3
    return figure


def test_a_model_that_answers_nothing_has_regressed():
    sound, dead = answers(-3.0), answers(-math.inf)
    assert judge_zero_shot(CARD, "piqa", sound, sound, WHOLE).verdict == "PASS"
    gate = judge_zero_shot(CARD, "piqa", dead, sound, WHOLE)
    assert (gate.verdict, gate.p_regression, gate.needed) == ("REGRESSION", 0, None)
    assert "100 items got no finite log-likelihood" in gate.message


def test_a_baseline_that_answers_nothing_is_held_against_nobody():
    sound, dead = answers(-3.0), answers(-math.inf)
    for candidate in (sound, dead):
        gate = judge_zero_shot(CARD, "piqa", candidate, dead, WHOLE)
        assert (gate.verdict, gate.reason) == ("INFRA", "non-finite")
    nowhere = zero_shot([0.5, math.nan], metric="f1")
    assert judge_zero_shot(CARD, "piqa", zero_shot([0.5, 0.5], metric="f1"), nowhere, WHOLE).reason == "non-finite"


@pytest.mark.parametrize("figure", [answers(-math.inf), zero_shot([0.5, math.nan], metric="f1")])
def test_the_baseline_says_so_itself(figure):
    broken = CellEvidence(model="m", recipe="baseline", role="baseline", zero_shot={"piqa": figure})
    gate = gates_of(broken, None, rules())[0]
    assert (gate.verdict, gate.reason) == ("INFRA", "non-finite")


def test_the_baseline_has_nothing_to_be_compared_with():
    figures = {"perplexity": {"wiki": perplexity([3.0] * 4)}, "zero_shot": {"piqa": zero_shot([1.0, 0.0], **LOWER)}}
    text, task = gates_of(CellEvidence(model="m", recipe="baseline", role="baseline", **figures), None, rules())
    assert (text.verdict, text.value, text.n, text.planned) == ("PASS", pytest.approx(math.exp(3)), 4, 4)
    assert (task.verdict, task.value, task.n, task.higher_is_better) == ("PASS", 0.5, 2, False)
    assert text.p_pass is text.baseline is task.interval is None


def test_a_metric_that_is_not_the_mean_of_its_items_is_not_compared_by_item():
    """lm-eval's `perplexity` has log-likelihoods as items: where they fall it rises, and where less is better it would
    look better."""
    ours, theirs = (
        zero_shot([value] * 50, metric="perplexity", metrics={"perplexity": math.exp(-value)}, **LOWER)
        for value in (-4.0, -3.0)
    )
    gate = judge_zero_shot(card("zero-shot", margin=1.5), "lambada", ours, theirs, WHOLE)
    assert (gate.verdict, gate.reason) == ("INFRA", "unsupported")
    assert "perplexity is not the mean of its items' values" in gate.message


BOUND = {"n": 100, "device_class": "cpu", "models": ("m",), "of": ("piqa",)}


@pytest.mark.parametrize(("higher", "side"), [(True, "below"), (False, "above")])
def test_a_bound_on_the_figure_itself(higher, side):
    """At least the bound where more is better, at most where less is; 80 of 100 items are 1."""
    scores, step = [1.0] * 80 + [0.0] * 20, (1 if higher else -1) * 1e-9
    within, past = (
        judge(scores, scores, by=card("zero-shot", value=value, **BOUND), higher_is_better=higher)
        for value in (0.8, 0.8 + step)
    )
    assert within.verdict == "PASS"
    assert (past.verdict, past.p_pass, past.p_regression, past.needed) == ("REGRESSION", 1, 0, None)
    assert f"the figure itself is {side} its bound of 0.8" in past.message


def test_a_bound_is_for_all_items_and_waits_for_them():
    part = judge([1.0] * 300, [1.0] * 400, ErrorBudget(), by=card("zero-shot", value=0.9, **BOUND), planned=400)
    assert (part.verdict, part.p_pass, part.needed) == ("INCONCLUSIVE", 1, 400)
    assert judge([1.0] * 300, [1.0] * 400, ErrorBudget(), planned=400).verdict == "PASS"
