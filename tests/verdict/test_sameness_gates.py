"""Gates on whether the candidate is still the same model: divergence, agreement, flips; none without a card."""

import math

import pytest
from scipy import stats

from support import guarded_t
from support.by_hand import BASE, cell, perplexity
from support.judging import answered, card, gates, rules

KL = [0.010, 0.014, 0.009, 0.012, 0.011, 0.013, 0.010, 0.012]
AGREEMENT = [0.97, 0.96, 0.98, 0.95, 0.97, 0.96, 0.97, 0.98]
USUAL = (card("perplexity"), card("zero-shot"))


def text(**more):
    return {"wiki": perplexity(BASE, **more)}


def judged(extra, ours, theirs=None, **more):
    """All gates of a candidate with the same perplexity as its baseline, by the usual cards and one more."""
    base = cell("baseline", "baseline", perplexity=text(), zero_shot={} if theirs is None else {"piqa": theirs})
    zero_shot = {"piqa": ours} if theirs is not None else {}
    perplexities = ours if theirs is None else text()
    return gates(cell(perplexity=perplexities, zero_shot=zero_shot), base, rules(*USUAL, *extra, **more))


def test_without_a_card_there_is_no_gate():
    found = judged([], text(kl=KL, agreement=AGREEMENT))
    assert list(found) == ["perplexity:wiki"]
    assert found["perplexity:wiki"].details["kl"] == pytest.approx(0.011375)
    assert found["perplexity:wiki"].details["agreement"] == pytest.approx(0.9675)
    assert list(judged([], answered([0] * 100), answered([0] * 100))) == ["perplexity:wiki", "zero-shot:piqa"]


def test_what_nobody_asks_for_need_not_be_measured():
    assert judged([], text())["perplexity:wiki"].verdict == "PASS"


@pytest.mark.parametrize("kind", ["divergence", "agreement"])
def test_what_a_card_asks_for_and_is_not_there_is_infra(kind):
    """A recipe that changes the head leaves nothing to read both models with."""
    found = judged([card(kind)], text())
    assert found["perplexity:wiki"].verdict == "PASS"
    assert (found[f"{kind}:wiki"].verdict, found[f"{kind}:wiki"].reason) == ("INFRA", "unpaired")
    assert "changes the head" in found[f"{kind}:wiki"].message


@pytest.mark.parametrize(("margin", "verdict"), [(0.02, "PASS"), (0.0114, "INCONCLUSIVE"), (0.005, "REGRESSION")])
def test_divergence_is_the_mean_of_the_windows(margin, verdict):
    gate = judged([card("divergence", margin)], text(kl=KL))["divergence:wiki"]
    assert (gate.verdict, gate.kind, gate.metric, gate.higher_is_better) == (verdict, "divergence", "kl", False)
    assert (gate.value, gate.baseline, gate.difference) == (pytest.approx(0.011375), 0, pytest.approx(0.011375))
    assert gate.interval == pytest.approx(guarded_t.interval(KL))
    assert gate.p_pass == pytest.approx(guarded_t.p_pass(KL, margin))
    assert margin < gate.detectable < margin + 0.003  # 4 standard errors
    assert "0.01137 nats a token" in gate.message


def test_a_divergence_that_is_no_number_is_a_regression():
    """A token that the candidate holds impossible."""
    gate = judged([card("divergence")], text(kl=[*KL[:7], math.inf]))["divergence:wiki"]
    assert (gate.verdict, gate.p_regression) == ("REGRESSION", 0)


@pytest.mark.parametrize(("margin", "verdict"), [(0.05, "PASS"), (0.033, "INCONCLUSIVE"), (0.01, "REGRESSION")])
def test_agreement_is_judged_by_the_tokens_that_differ(margin, verdict):
    gate = judged([card("agreement", margin)], text(agreement=AGREEMENT))["agreement:wiki"]
    apart = [1 - share for share in AGREEMENT]
    assert (gate.verdict, gate.value) == (verdict, pytest.approx(0.0325))
    assert gate.interval == pytest.approx(guarded_t.interval(apart))
    assert gate.p_regression == pytest.approx(guarded_t.p_regression(apart, margin))


@pytest.mark.parametrize(("margin", "verdict"), [(0.15, "PASS"), (0.08, "INCONCLUSIVE"), (0.02, "REGRESSION")])
def test_flips_are_a_share_of_the_answers(margin, verdict):
    """Twelve of 200 answers are others, half of them right before: the exact binomial test."""
    before = [0] * 100 + [1] * 100
    after = [1] * 6 + [0] * 94 + [2] * 6 + [1] * 94
    gate = judged([card("flips", margin)], answered(after), answered(before))["flips:piqa"]
    found = stats.binomtest(12, 200)
    low, high = found.proportion_ci(0.95, method="exact")
    assert (gate.verdict, gate.n, gate.value, gate.baseline) == (verdict, 200, 0.06, 0)
    assert gate.interval == pytest.approx((low, high))
    assert gate.p_pass == pytest.approx(stats.binomtest(12, 200, margin, alternative="less").pvalue)
    assert gate.p_regression == pytest.approx(stats.binomtest(12, 200, margin, alternative="greater").pvalue)
    assert gate.details["flips"] == 12
    assert gate.details["flipped"] == {"right → wrong": 6, "wrong → right": 0, "wrong → wrong": 6}
    assert "12 answers on piqa changed: +6.00 pt" in gate.message
    critical = stats.binom.isf(0.025, 200, margin) + 1
    assert stats.binom.sf(critical - 1, 200, gate.detectable) == pytest.approx(0.8)


def test_flips_are_seen_where_accuracy_sees_nothing():
    """Every wrong answer is another wrong one: as good a model, and not the same."""
    before, after = [0] * 150 + [1] * 50, [0] * 150 + [2] * 50
    found = judged([card("flips", 0.1)], answered(after), answered(before))
    assert found["zero-shot:piqa"].verdict == "PASS"
    assert found["zero-shot:piqa"].details["flips"] == 50
    assert found["flips:piqa"].verdict == "REGRESSION"
    assert "as good a model and not the same one" in found["flips:piqa"].message


def without_answers(figure, places):
    for place in places:
        for name in ("choices", "loglikelihoods", "is_greedy"):
            del figure.items[place][name]
    return figure


def test_items_that_do_not_tell_their_answer_are_left_out_and_not_waited_for():
    """All 200 were asked, and 150 tell: that is the whole of it, by a card that is for 200."""
    ours, theirs = (without_answers(answered([0] * 200), range(50)) for _ in range(2))
    gate = judged([card("flips", n=200)], ours, theirs)["flips:piqa"]
    assert (gate.verdict, gate.n, gate.planned, gate.method) == ("PASS", 150, 150, "exact binomial test")
    assert gate.p_pass == pytest.approx(0.95**150)


def test_items_to_come_are_waited_for():
    ours, theirs = without_answers(answered([0] * 100, planned=200), range(50)), answered([0] * 200)
    gate = judged([card("flips", n=200)], ours, theirs, sequential=True)["flips:piqa"]
    assert (gate.n, gate.planned, gate.method) == (50, 150, "confidence sequence by betting")
    assert "over 50 of 150 items" in gate.message


@pytest.mark.parametrize(
    ("ours", "words"),
    [(answered([0] * 100, first=1), "not asked the same items"), (without_answers(answered([0] * 100), range(100)), "no item has an answer under both")],
)  # fmt: skip
def test_flips_of_nothing_are_infra(ours, words):
    gate = judged([card("flips")], ours, answered([0] * 100))["flips:piqa"]
    assert (gate.verdict, gate.reason) == ("INFRA", "unpaired")
    assert words in gate.message


@pytest.mark.parametrize("kind", ["perplexity", "divergence", "agreement"])
def test_being_better_is_no_oddity_of_being_the_same(kind):
    found = judged([card("divergence"), card("agreement")], text(kl=[0.0] * 8, agreement=[1.0] * 8))
    assert (found[f"{kind}:wiki"].verdict, found[f"{kind}:wiki"].flags) == ("PASS", [])
