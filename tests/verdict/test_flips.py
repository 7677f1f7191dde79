"""Which answers changed, told from log-likelihoods, on items made by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from superweight.evidence import Perplexity, ZeroShot
from superweight.verdict.answers import answer
from superweight.verdict.flips import (
    answers_text,
    compared,
    directions,
    flips,
    largest_shifts,
    windows_text,
    worst_windows,
)

CHOICES = [" red", " a dark blue", " green"]


def item(doc_id, values, *, target=0, score=None, metric="acc", choices=CHOICES, **more):
    """An item as lm-eval would score it by `acc`, unless a score is given."""
    best = max(range(len(values)), key=lambda k: values[k])
    found = {
        "doc_id": doc_id,
        "doc_hash": f"h{doc_id}",
        "target": target,
        "text": f"Question: number {doc_id}?\nAnswer:",
        "choices": list(choices),
        "loglikelihoods": list(values),
        "is_greedy": [False] * len(values),
        metric: float(best == target) if score is None else score,
    }
    return found | more


def figure(*items, metric="acc", **more):
    return ZeroShot(task="t", metric=metric, n=len(items), data="made up", metrics={metric: 0.0}, items=items, **more)


def told(changed, most=5):
    return answers_text(directions(changed), largest_shifts(changed, most))


def test_flips_with_their_direction_and_shift():
    """Gap of old over new: item 0 +1 → −2, shift 3; item 1 +0.5 → −0.25, shift 0.75; item 2 +2 → −3, shift 5."""
    before = figure(
        item(0, [-1, -2, -9]), item(1, [-5, -4.5, -9], target=0), item(2, [-9, -3, -1]), item(3, [-1, -2, -3])
    )
    after = figure(item(0, [-4, -2, -9]), item(1, [-5, -5.25, -9]), item(2, [-9, -2, -5]), item(3, [-2, -2.5, -3]))
    found = flips(before, after)
    assert [(flip.doc_id, flip.direction, flip.shift) for flip in found] == [
        (2, "wrong → wrong", 5.0),
        (0, "right → wrong", 3.0),
        (1, "wrong → right", 0.75),
    ]
    assert (found[1].before, found[1].after) == ("red", "a dark blue")
    assert found[0].text == "Question: number 2? Answer:"
    assert directions(found) == {"right → wrong": 1, "wrong → right": 1, "wrong → wrong": 1}
    assert compared(before, after) == 4


def test_a_description_has_counts_and_the_largest_flips():
    before = figure(item(0, [-1, -2, -9]), item(1, [-1, -2, -9]), item(2, [-9, -3, -1]))
    after = figure(item(0, [-4, -2, -9]), item(1, [-3, -2, -9]), item(2, [-9, -2, -5]))
    lines = told(flips(before, after), most=2).splitlines()
    assert lines == [
        "3 answers changed: 2 right → wrong, 1 wrong → wrong; the largest shifts:",
        "item 2 (wrong → wrong, +5.00 nats): Question: number 2? Answer: | green → a dark blue",
        "item 0 (right → wrong, +3.00 nats): Question: number 0? Answer: | red → a dark blue",
    ]
    assert told([]) == "no answer changed"
    assert told(flips(before, after), most=0) == "3 answers changed: 2 right → wrong, 1 wrong → wrong"


def test_only_items_that_both_models_have():
    """The candidate stopped early, in another order, and an item of its own has the same number and another hash."""
    before = figure(item(0, [-1, -2, -9]), item(1, [-1, -2, -9]), item(2, [-1, -2, -9]))
    after = figure(item(2, [-3, -2, -9]), item(0, [-1, -2, -9]), item(1, [-3, -2, -9], doc_hash="another"))
    assert [flip.doc_id for flip in flips(before, after)] == [2]
    assert compared(before, after) == 2


def test_length_normalised_accuracy_divides_by_characters_without_the_delimiter():
    """−6/len('red') = −2 loses to −11/len('a dark blue') = −1, though −6 > −11; the baseline's −2.4/3 = −0.8 wins."""
    before = item(0, [-2.4, -11, -50], metric="acc_norm", score=1.0)
    after = item(0, [-6, -11, -50], metric="acc_norm", score=0.0)
    found = flips(figure(before, metric="acc_norm"), figure(after, metric="acc_norm"))
    assert [(flip.before, flip.after) for flip in found] == [("red", "a dark blue")]
    assert found[0].shift == pytest.approx(3.6)  # nats, whatever the metric divides by
    assert flips(figure({**before, "acc": 1.0}), figure({**after, "acc": 1.0})) == []


@given(st.lists(st.tuples(st.floats(-500, 0), st.text("aé€ ", min_size=1, max_size=9)), min_size=2, max_size=5))
def test_the_chosen_answer_is_lm_evals(drawn):
    """Against the arithmetic of lm-eval's `ConfigurableTask.process_results`, in numpy."""
    values, texts = np.array([value for value, _ in drawn]), [text for _, text in drawn]
    one = item(0, values.tolist(), target=None, choices=[f" {text}" for text in texts])
    for metric, lengths in (
        ("acc", np.ones(len(texts))),
        ("acc_norm", np.array([float(len(text)) for text in texts])),
        ("acc_bytes", np.array([float(len(text.encode())) for text in texts])),
    ):
        assert answer(one, metric).chosen == int(np.argmax(values / lengths))


def test_mutual_information_subtracts_the_unconditional_answer():
    """lm-eval appends each choice without the question: −5 − (−9) = 4 beats −4 − (−4.5) = 0.5."""
    one = item(0, [-5, -4, -9, -4.5], choices=[" red", " blue"] * 2, acc_mutual_info=1.0)
    assert answer(one, "acc_mutual_info").words == "red"
    assert answer(one, "acc").words == "blue"


def test_one_continuation_is_answered_if_greedy_decoding_gives_it():
    def lambada(doc_id, value, greedy):
        return item(doc_id, [value], choices=[" sofa"], target=" sofa", score=float(greedy), is_greedy=[greedy])

    before = figure(lambada(0, -0.5, True), lambada(1, -3.0, False), lambada(2, -1.0, True))
    after = figure(lambada(0, -2.0, False), lambada(1, -0.25, True), lambada(2, -2.0, True))
    assert [(f.doc_id, f.before, f.after, f.direction, f.shift) for f in flips(before, after)] == [
        (1, "not 'sofa'", "sofa", "wrong → right", 2.75),
        (0, "sofa", "not 'sofa'", "right → wrong", 1.5),
    ]


def test_impossible_answers():
    """−inf under one model is an infinite shift; under all choices it is no answer, and never a right one."""
    before = figure(
        item(0, [-1, -2, -9]), item(1, [-1, -2, -9]), item(2, [-1, -math.inf, -9]), item(3, [-math.inf] * 3)
    )
    nan = item(1, [-1, -2, -9], score=1.0) | {"loglikelihoods": [math.nan] * 3}
    after = figure(item(0, [-math.inf, -2, -9]), nan, item(2, [-2, -1, -9]), item(3, [-math.inf] * 3))
    found = flips(before, after)
    assert [(f.doc_id, f.after, f.direction, f.shift) for f in found] == [
        (0, "a dark blue", "right → wrong", math.inf),
        (1, "no answer", "right → wrong", math.inf),
        (2, "a dark blue", "right → wrong", math.inf),
    ]
    assert "impossible under one model" in told(found)


def test_the_score_has_the_last_word_on_choices_that_are_stored_cut_short():
    """240 characters are kept of a choice, so a normalised score may name another one than the lengths at hand."""
    long = " " + "x" * 239
    two = item(0, [-300, -250], metric="acc_norm", score=1.0, choices=[long, " short"], target=0)
    assert answer(two, "acc_norm").chosen == 0
    assert answer(two | {"acc_norm": 0.0, "target": 0}, "acc_norm").chosen == 1
    three = item(0, [-1, -300, -300], metric="acc_norm", score=0.0, choices=[long, " b", " c"], target=0)
    assert answer(three, "acc_norm") is None
    whole = item(0, [-1, -300, -300], metric="exact_match", score=0.0, target=0)
    assert answer(whole, "exact_match").chosen == 0  # not a score of the choice, and no reason to doubt it


def test_questions_that_differ_where_choices_do_not():
    """WinoGrande asks the likelihood of one sentence's end after two beginnings, and its target is that end."""
    same = [" was too small."] * 2
    before = item(7, [-1, -2], choices=same, target="was too small.", score=1.0)
    after = item(7, [-3, -2], choices=same, target="was too small.", score=0.0)
    (flip,) = flips(figure(before), figure(after))
    assert (flip.before, flip.after, flip.direction) == ("choice 1", "choice 2", "right → wrong")


def test_long_questions_and_answers_are_cut_where_it_matters():
    """The end of a question, and answers from where they part."""
    start = "Provide the guinea pig with a cage full of bedding made of"
    choices = [f" {start} ripped paper strips", f" {start} ripped jeans material"]
    text = "context " * 40 + "What now?\nAnswer:"
    before, after = item(0, [-1, -2], choices=choices, text=text), item(0, [-3, -2], choices=choices, text=text)
    (flip,) = flips(figure(before), figure(after))
    assert (flip.before, flip.after) == ("…paper strips", "…jeans material")
    assert len(flip.text) == 80
    assert flip.text.startswith("…")
    assert flip.text.endswith("What now? Answer:")


def test_items_that_say_nothing_are_left_out():
    bare = {"doc_id": 0, "doc_hash": "h0", "acc": 1.0}
    odd = {"doc_id": 1, "doc_hash": "h1", "choices": [" a", " b"], "loglikelihoods": [-1.0], "acc": 1.0}
    nameless = {"choices": [" a", " b"], "loglikelihoods": [-1.0, -2.0], "acc": 1.0}
    broken = figure(bare, odd, nameless, item(2, [-1, -2, -3]))
    assert flips(broken, broken) == []
    assert compared(broken, broken) == 1
    without_text = item(3, [-1, -2, -3])
    del without_text["text"]
    (flip,) = flips(figure(without_text), figure(item(3, [-3, -2, -4])))
    assert flip.text == ""


def test_scores_that_are_not_right_or_wrong():
    """A Brier score says nothing of right and wrong; the target does, where it is an index."""
    before = item(0, [-1, -2, -3], metric="brier", score=0.3, target=0)
    after = item(0, [-2, -1, -3], metric="brier", score=0.6, target=0)
    (flip,) = flips(figure(before, metric="brier"), figure(after, metric="brier"))
    assert flip.direction == "right → wrong"
    unknown = {"target": "red"}
    (flip,) = flips(figure(before | unknown, metric="brier"), figure(after | unknown, metric="brier"))
    assert flip.direction == "? → ?"
    assert directions([flip])["? → ?"] == 1


def test_generated_text_flips_when_its_score_does():
    def generated(doc_id, words, score):
        return {"doc_id": doc_id, "doc_hash": "h", "text": "2+2?", "responses": [words], "acc": score}

    before = figure(generated(0, "four", 1.0), generated(1, "5", 0.0), generated(2, "4", 1.0))
    after = figure(generated(0, "five", 0.0), generated(1, "6", 0.0), generated(2, "it is 4", 1.0))
    (flip,) = flips(before, after)
    assert (flip.doc_id, flip.before, flip.after, flip.shift) == (0, "four", "five", None)
    assert told([flip]).splitlines()[1] == "item 0 (right → wrong): 2+2? | four → five"


def text(nll, index=()):
    return Perplexity(
        value=1.0, protocol="p", corpus="c", origin="o", window=8, windows=len(nll), tokens=7, nll=nll, index=list(index),
        tokens_sha256="t",
    )  # fmt: skip


def test_the_windows_that_lost_most():
    """Paired by place in the text, not by the order of visiting; window 1 was not measured under the candidate."""
    before = text([3.0, 2.0, 1.0, 2.5], [4, 1, 0, 2])
    after = text([1.25, 3.1, 2.0], [0, 4, 2])
    found = worst_windows(before, after, most=2)
    assert [(one.window, one.before, one.after, one.loss) for one in found] == [
        (0, 1.0, 1.25, 0.25),
        (4, 3.0, 3.1, pytest.approx(0.1)),
    ]
    assert windows_text(found).splitlines()[0] == "window 0: 1.000 → 1.250 nats a token (+0.250)"
    assert len(worst_windows(before, after, most=9)) == 3


def test_windows_without_a_likelihood():
    found = worst_windows(text([1.0, math.inf, 2.0]), text([math.inf, math.inf, 2.5]))
    assert [(one.window, one.loss) for one in found] == [(0, math.inf), (2, 0.5)]
    assert "inf" in windows_text(found)
