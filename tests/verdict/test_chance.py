"""Where the uncompressed model does no better than guessing, no loss can be seen, and so nothing passes."""

import math

import pytest
from scipy import stats

from superweight.verdict.chance import guessing, nothing_to_lose
from support.by_hand import BASE, cell, perplexity, zero_shot
from support.judging import answered, card, gates, judged, rules

PIQA = "zero-shot:piqa"


def chosen(right, wrong):
    return [0] * right + [1] * wrong


def pair(before, after, **more):
    theirs = cell("baseline", "baseline", zero_shot={"piqa": before})
    return cell(zero_shot={"piqa": after}, **more), theirs


@pytest.mark.parametrize("right", [0, 20, 33, 40, 41, 42, 60, 100])
def test_noise_of_guessing_is_the_binomial_tail(right):
    """Of 100 items of three choices; the tail is summed by hand."""
    tail = math.fsum(math.comb(100, k) * (1 / 3) ** k * (2 / 3) ** (100 - k) for k in range(right, 101))
    found = nothing_to_lose(answered(chosen(right, 100 - right)))
    assert bool(found) == (tail > 0.05)
    assert not found or ("scores nothing" in found) == (right == 0)
    assert stats.binom.sf(41, 100, 1 / 3) < 0.05 < stats.binom.sf(40, 100, 1 / 3)  # 42 right is enough, 41 is not


def test_chance_is_the_mean_over_items():
    figure = answered([0] * 10)
    for item in figure.items[:4]:
        item["loglikelihoods"] = [-1.0, -2.0]
    assert guessing(figure).chance == pytest.approx((4 / 2 + 6 / 3) / 10)


def test_the_same_answer_everywhere_is_a_guess_too():
    """Yes to every question: right in 62 of 100."""
    figure = answered([0] * 100)
    for place, item in enumerate(figure.items):
        item["choices"], item["loglikelihoods"], item["target"] = ["no", "yes"], [-1.0, -2.0], int(place < 62)
    assert guessing(figure) == (0.5, 0.62)


@pytest.mark.parametrize(("right", "after"), [(30, 30), (0, 0), (33, 40), (34, 34)])
def test_nothing_passes_on_a_baseline_at_chance(right, after):
    ours, theirs = pair(answered(chosen(right, 100 - right)), answered(chosen(after, 100 - after)))
    gate = gates(ours, theirs)[PIQA]
    assert (gate.verdict, gate.informs) == ("INCONCLUSIVE", False)
    assert "cannot show a loss: the uncompressed model" in gate.message
    own = gates(theirs)[PIQA]
    assert (own.verdict, own.informs) == ("INCONCLUSIVE", False)
    assert "cannot show a loss" in own.message


def test_a_margin_that_a_guesser_stays_within_shows_nothing():
    """0.45 of 1000 items is far from a third by chance, and a guesser would lose 0.117 of it."""
    ours, theirs = (answered(chosen(450, 550)) for _ in range(2))
    assert gates(*pair(theirs, ours), by=rules(card("perplexity"), card("zero-shot", 0.1)))[PIQA].verdict == "PASS"
    gate = gates(*pair(theirs, ours), by=rules(card("perplexity"), card("zero-shot", 0.12)))[PIQA]
    assert gate.verdict == "INCONCLUSIVE"
    assert "a model that only guesses scores 0.333, and would lose no more than the accepted 0.120" in gate.message


def test_a_loss_that_is_seen_all_the_same_is_one():
    ours, theirs = pair(answered(chosen(400, 600)), answered(chosen(100, 900)))
    assert gates(ours, theirs)[PIQA].verdict == "REGRESSION"


def test_metrics_that_are_no_choice_only_have_to_score_at_all():
    assert nothing_to_lose(zero_shot([0.0] * 50, metric="exact_match"))
    assert not nothing_to_lose(zero_shot([0.0] * 49 + [1.0], metric="exact_match"))
    assert not nothing_to_lose(zero_shot([0.0] * 50, metric="ppl", higher_is_better=False))


def test_a_control_is_vouched_for_by_the_gates_that_can_tell():
    """At chance on the task; perplexity sees the damage, or its absence."""

    def control(nll, expects):
        answers = {"piqa": answered(chosen(30, 70))}
        return cell("c", "control", perplexity={"wiki": perplexity(nll)}, zero_shot=answers, expects=expects)

    theirs = cell(
        "baseline", "baseline", perplexity={"wiki": perplexity(BASE)}, zero_shot={"piqa": answered(chosen(30, 70))}
    )
    unharmed, harmed = control(BASE, "PASS"), control([nll + 3 for nll in BASE], "REGRESSION")
    assert judged(unharmed, theirs).verdict == "PASS"
    assert judged(harmed, theirs).verdict == "REGRESSION"
    alone = cell("c", "control", expects="PASS", zero_shot={"piqa": answered(chosen(30, 70))})
    assert judged(alone, theirs).verdict == "INCONCLUSIVE"


def test_a_baseline_that_is_no_better_than_guessing_among_its_words_is_infra():
    """exp(mean nll) of the baseline is about 20; of a vocabulary of 15 that is worse than guessing."""
    broken, sound = (
        cell("baseline", "baseline", perplexity={"wiki": perplexity(BASE, vocabulary=n)}) for n in (15, 4000)
    )
    ours = cell(perplexity={"wiki": perplexity(BASE, kl=[0.01] * 8, agreement=[0.9] * 8)})
    by = rules(*(card(kind) for kind in ("perplexity", "divergence", "agreement")), card("zero-shot"))
    assert math.exp(math.fsum(BASE) / len(BASE)) > 15
    for gate in (gates(broken)["perplexity:wiki"], *gates(ours, broken, by).values()):
        assert (gate.verdict, gate.reason) == ("INFRA", "no-language-model")
        assert "no better than guessing among its 15 tokens" in gate.message
    assert gates(sound)["perplexity:wiki"].verdict == "PASS"
    assert gates(ours, sound, by)["perplexity:wiki"].verdict == "PASS"
