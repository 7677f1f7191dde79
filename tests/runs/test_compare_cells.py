"""What changed between two runs, on evidence made by hand."""

import math

import numpy as np
import pytest

from superweight.evidence import Failure, Noise, Size
from superweight.runs.change import overall
from superweight.runs.compare_cells import compare_cells
from superweight.runs.environment_diff import baseline_moved, environment_diff
from support import guarded_t
from support.by_hand import BASE, CARDS, baseline, cell, gates, perplexity, snapshot, weight, zero_shot

MARGIN = math.log(1.05)


def shifted(shift):
    """Every window moved by `shift` nats, give or take a little that sums to nothing."""
    wobble = [0.002, -0.002] * 4
    return [b + shift + w for b, w in zip(BASE, wobble, strict=True)]


def answers(lost, gained=0, n=400):
    """Scores before and after: so many items lost and gained, the rest right in both."""
    before = [1.0] * lost + [0.0] * gained + [1.0] * (n - lost - gained)
    after = [0.0] * lost + [1.0] * gained + [1.0] * (n - lost - gained)
    return before, after


def compared(before, after, *, recipe="rtn", more=None, **settings):
    """The changes of one candidate, by gate."""
    one, other = snapshot(baseline(), before), snapshot(baseline(), after, **settings)
    found = compare_cells(one, other, gates)
    return {change.gate: change for change in found if change.recipe == recipe}


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (-1.0, "PASS"),
        (0.0, "PASS"),
        (0.02, "PASS"),
        (MARGIN, "INCONCLUSIVE"),
        (MARGIN + 0.01, "REGRESSION"),
        (1.0, "REGRESSION"),
    ],
)
def test_perplexity_is_compared_window_by_window(shift, verdict):
    found = compared(cell(nll=BASE), cell(nll=shifted(shift)))["perplexity:wiki"]
    assert found.verdict == verdict
    assert found.difference == pytest.approx(math.exp(shift) - 1, abs=1e-9)
    losses = np.array(shifted(shift)) - np.array(BASE)
    low, high = guarded_t.interval(losses)
    assert found.interval == pytest.approx((math.expm1(low), math.expm1(high)), rel=1e-6)
    assert found.p_regression == pytest.approx(guarded_t.p_regression(losses, MARGIN), rel=1e-6)
    assert (found.n, found.margin, found.card) == (8, 0.05, "perplexity")
    assert (found.before, found.after) == pytest.approx((math.exp(np.mean(BASE)), math.exp(np.mean(BASE) + shift)))


@pytest.mark.parametrize(
    ("lost", "gained", "verdict"), [(0, 0, "PASS"), (4, 4, "PASS"), (20, 0, "INCONCLUSIVE"), (60, 0, "REGRESSION")]
)
def test_scores_are_compared_item_by_item(lost, gained, verdict):
    before, after = answers(lost, gained)
    found = compared(cell(scores=before), cell(scores=after))["zero-shot:piqa"]
    assert found.verdict == verdict
    assert found.difference == pytest.approx((gained - lost) / 400)
    assert found.interval[0] < found.difference < found.interval[1]
    assert f"({lost} lost, {gained} gained)" in found.message


def test_the_same_total_with_other_answers_is_no_proof():
    before, after = answers(150, 150)
    assert compared(cell(scores=before), cell(scores=before))["zero-shot:piqa"].verdict == "PASS"
    found = compared(cell(scores=before), cell(scores=after))["zero-shot:piqa"]
    assert (found.verdict, found.difference) == ("INCONCLUSIVE", 0.0)


def test_only_what_both_runs_have_is_compared():
    """One run stopped after items 0 to 99, the other asked 50 to 149 of a longer plan: 50 items are in both."""
    one = cell(zero_shot={"piqa": zero_shot([1.0] * 100, planned=150)})
    other = cell(zero_shot={"piqa": zero_shot([1.0] * 20 + [0.0] * 80, first=50, planned=150)})
    found = compared(one, other)["zero-shot:piqa"]
    assert (found.n, found.before, found.after) == (50, 1.0, 0.4)
    assert "over 50 of 150 items" in found.message
    one = cell(perplexity={"wiki": perplexity([3.0, 3.1, 3.2], index=[5, 1, 3], planned=8)})
    other = cell(perplexity={"wiki": perplexity([3.3, 3.4, 9.0], index=[3, 5, 0], planned=8)})
    found = compared(one, other)["perplexity:wiki"]
    assert found.n == 2
    assert (found.before, found.after) == pytest.approx((math.exp(3.1), math.exp(3.35)))


def test_lower_is_better_metrics_are_turned_round():
    def brier(value):
        one = zero_shot([value, value + 0.01] * 30, metric="brier", higher_is_better=False)
        return cell(zero_shot={"piqa": one})

    better, worse = compared(brier(0.5), brier(0.1)), compared(brier(0.1), brier(0.5))
    assert (better["zero-shot:piqa"].verdict, worse["zero-shot:piqa"].verdict) == ("PASS", "REGRESSION")
    assert worse["zero-shot:piqa"].difference == pytest.approx(0.4)


def test_regression_is_corrected_for_the_figures_of_the_cell():
    """Alone the loss is proven at 2.5 %; among ten figures of the cell, by Holm, ten times the p-value is not."""
    wobble = [0.02, -0.02] * 4
    after = [b + MARGIN + 0.025 + w for b, w in zip(BASE, wobble, strict=True)]
    p = guarded_t.p_regression(np.array(after) - np.array(BASE), MARGIN)
    assert 0.0025 < p < 0.025
    corpora = [f"c{i}" for i in range(10)]
    alone = compared(cell(perplexity={"c0": perplexity(BASE)}), cell(perplexity={"c0": perplexity(after)}))
    assert alone["perplexity:c0"].verdict == "REGRESSION"
    before = cell(perplexity={c: perplexity(BASE) for c in corpora})
    among = compared(before, cell(perplexity={c: perplexity(after if c == "c0" else BASE) for c in corpora}))
    assert among["perplexity:c0"].verdict == "INCONCLUSIVE"
    assert among["perplexity:c0"].p_adjusted == pytest.approx(10 * p)
    unmeasured = compared(before, cell(perplexity={"c0": perplexity(after)}))
    assert unmeasured["perplexity:c0"].p_adjusted == pytest.approx(10 * p)


def test_figures_are_not_rounded_before_they_are_compared():
    """A loss of a hundred-thousandth of a nat more than the margin, the same on every window, is more."""
    for excess, verdict in ((1e-5, "REGRESSION"), (-1e-5, "PASS")):
        after = [b + MARGIN + excess + w for b, w in zip(BASE, [1e-7, -1e-7] * 4, strict=True)]
        assert compared(cell(nll=BASE), cell(nll=after))["perplexity:wiki"].verdict == verdict


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [(BASE, [*BASE[:7], math.inf], "REGRESSION"), ([*BASE[:7], math.inf], BASE, "PASS"),
     ([*BASE[:7], math.inf], [*BASE[:7], math.inf], "INCONCLUSIVE")],
)  # fmt: skip
def test_a_model_that_gives_no_number_is_worse_than_one_that_does(before, after, verdict):
    assert compared(cell(nll=before), cell(nll=after))["perplexity:wiki"].verdict == verdict


def test_the_same_key_and_the_same_answers_are_no_change_however_few():
    few = cell(scores=[1.0] * 4, key="k")
    assert compared(few, few)["zero-shot:piqa"].verdict == "PASS"
    assert compared(few, few.model_copy(update={"key": "l"}))["zero-shot:piqa"].verdict == "INCONCLUSIVE"


def other_tokens():
    return {"wiki": perplexity(BASE, tokens_sha256="u" * 64)}


@pytest.mark.parametrize(
    ("before", "after", "gate", "reason", "words"),
    [
        (cell(nll=BASE), cell(perplexity=other_tokens()), "perplexity:wiki", "other-tokens", "other tokens"),
        (cell(nll=BASE), cell(perplexity={"wiki": perplexity(BASE, window=1024)}), "perplexity:wiki", "other-tokens", "1024"),
        (cell(nll=BASE), cell(perplexity={"wiki": perplexity(BASE, protocol="p")}), "perplexity:wiki", "protocol-changed", "'p'"),
        (cell(perplexity={"wiki": perplexity([3.0], index=[0])}), cell(perplexity={"wiki": perplexity([3.0], index=[1])}),
         "perplexity:wiki", "nothing-in-common", "no window in common"),
        (cell(scores=[1.0]), cell(zero_shot={"piqa": zero_shot([1.0], metric="acc_norm")}), "zero-shot:piqa", "metric-changed", "acc_norm"),
        (cell(scores=[1.0]), cell(zero_shot={"piqa": zero_shot([1.0], first=7)}), "zero-shot:piqa", "nothing-in-common", "no item in common"),
        (cell(scores=[1.0]), cell(zero_shot={"piqa": zero_shot([1.0], items=[])}), "zero-shot:piqa", "items-missing", "later run"),
        (cell(nll=BASE), cell(), "perplexity:wiki", "not-measured", "does not say why"),
        (cell(nll=BASE), cell(failures=[Failure(stage="perplexity:wiki", reason="offline", message="")]),
         "perplexity:wiki", "not-measured", "offline"),
        (cell(super_weights=[weight()]), cell(failures=[Failure(stage="sanity", reason="crash", message="")]),
         "super-weights", "not-measured", "crash"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_says_why_and_is_not_green(before, after, gate, reason, words):
    found = compared(before, after)[gate]
    assert (found.verdict, found.reason) == ("CANNOT COMPARE", reason)
    assert words in found.message
    assert found.blocks
    one, other = (snapshot(baseline(), side) for side in (before, after))
    assert overall(compare_cells(one, other, gates)) == "CANNOT COMPARE"


def test_an_edited_item_is_another_item():
    one, other = zero_shot([1.0] * 3), zero_shot([1.0] * 3)
    other.items[1]["doc_hash"] = "f" * 64
    assert compared(cell(zero_shot={"piqa": one}), cell(zero_shot={"piqa": other}))["zero-shot:piqa"].n == 2


def test_a_kind_without_a_card_is_not_judged():
    found = compare_cells(snapshot(baseline()), snapshot(baseline()), lambda *_: None)
    assert [(change.verdict, change.reason) for change in found] == [("CANNOT COMPARE", "no-card")]


def test_margins_are_those_of_the_model_the_recipe_and_the_text():
    asked = []

    def wide(kind, model, recipe, of):
        asked.append((kind, model, recipe, of))
        return CARDS[kind].model_copy(update={"margin": 0.5, "id": "wide"})

    one, other = snapshot(cell(nll=BASE, scores=[1.0])), snapshot(cell(nll=shifted(0.2), scores=[1.0]))
    found = {change.gate: change for change in compare_cells(one, other, wide)}
    assert found["perplexity:wiki"].verdict == "PASS"
    assert (found["perplexity:wiki"].margin, found["perplexity:wiki"].card) == (0.5, "wide")
    assert asked == [("perplexity", "m", "rtn", "wiki"), ("zero-shot", "m", "rtn", "piqa")]


def test_super_weights_newly_lost_and_newly_kept():
    kept, lost = weight(2), weight(2, survived=False)
    assert compared(cell(super_weights=[kept]), cell(super_weights=[kept]))["super-weights"].verdict == "PASS"
    found = compared(cell(super_weights=[kept, weight(5)]), cell(super_weights=[lost, weight(5)]))["super-weights"]
    assert (found.verdict, found.before, found.after, found.difference) == ("REGRESSION", 2, 1, -1)
    assert "newly lost: layer 1 [2, 3] expected 0x3f800000, found 0x00000000 (before: 0x3f800000)" in found.message
    found = compared(cell(super_weights=[lost]), cell(super_weights=[kept]))["super-weights"]
    assert found.verdict == "PASS"
    assert "newly kept: layer 1 [2, 3]" in found.message
    assert compared(cell(super_weights=[lost]), cell(super_weights=[lost]))["super-weights"].verdict == "PASS"


def test_a_loss_that_nobody_promised_against_is_told_and_decides_nothing():
    before, after = (cell("rtn", "reference", super_weights=[weight(survived=s)]) for s in (True, False))
    found = compared(before, after)["super-weights"]
    assert (found.verdict, found.decides) == ("NOTE", False)


def test_taking_back_the_promise_does_not_hide_the_loss():
    before = cell(super_weights=[weight()], nll=BASE)
    after = cell("rtn", "reference", super_weights=[weight(survived=False)], nll=shifted(1.0))
    found = compared(before, after)
    assert found["super-weights"].verdict == "REGRESSION"
    assert found["perplexity:wiki"].decides
    assert found["role"].message == "was a candidate, is a reference"
    assert found["promise"].message == "no longer promises its super weights"


def test_super_weights_that_come_and_go_are_named():
    changed = weight(7, original_bits="0x40000000", stored_bits="0x40000000")
    found = compared(cell(super_weights=[weight(2), weight(7)]), cell(super_weights=[weight(5), changed]))[
        "super-weights"
    ]
    assert "no longer among the super weights: layer 1 [2, 3]" in found.message
    assert "new among the super weights: layer 1 [5, 3]" in found.message
    assert "the checkpoint itself holds other bits: layer 1 [7, 3] 0x3f800000 → 0x40000000" in found.message


def test_size_and_divergence_are_shown():
    before = cell(perplexity={"wiki": perplexity(BASE, kl=[0.1] * 8)})
    after = cell(
        perplexity={"wiki": perplexity(BASE, kl=[0.3] * 8)},
        size=Size(compressed_bits_per_weight=4.25, model_bits_per_weight=8.0),
    )
    found = compared(before, after)
    assert (found["size"].verdict, found["size"].before, found["size"].after) == ("NOTE", 4.5, 4.25)
    assert found["divergence:wiki"].difference == pytest.approx(0.2)


def test_a_candidate_that_is_gone_is_a_regression():
    one = snapshot(baseline(), cell("a", nll=BASE), cell("b", "reference", nll=BASE))
    other = snapshot(baseline(), cell("c", nll=BASE))
    found = {change.recipe: change for change in compare_cells(one, other, gates) if change.gate == "cell"}
    assert [(found[r].verdict, found[r].decides) for r in "abc"] == [
        ("REGRESSION", True),
        ("CANNOT COMPARE", False),
        ("NOTE", True),
    ]
    assert overall(compare_cells(one, other, gates)) == "REGRESSION"


@pytest.mark.parametrize("other", [{"whole": False}, {"tier": "nightly"}])
def test_what_a_run_was_not_asked_for_is_not_held_against_it(other):
    one = snapshot(baseline(), cell("a", nll=BASE), cell("b", nll=BASE, scores=[1.0] * 200))
    two = snapshot(baseline(), cell("b", nll=BASE), **other)
    found = compare_cells(one, two, gates)
    assert {(c.recipe, c.gate) for c in found if c.reason == "not-asked"} == {("a", "cell"), ("b", "zero-shot:piqa")}
    assert overall(found) == "PASS"


def test_references_and_controls_never_decide():
    one = snapshot(baseline(), cell("a", "reference", BASE), cell("b", "control", BASE))
    other = snapshot(baseline(), cell("a", "reference", shifted(1)), cell("b", "control", shifted(1)))
    found = compare_cells(one, other, gates)
    assert sum(change.verdict == "REGRESSION" for change in found) == 2
    assert overall(found) == "PASS"


def test_undecided_is_not_worse_and_nothing_is_not_green():
    one, other = (snapshot(baseline(), cell(nll=nll)) for nll in (BASE, shifted(MARGIN)))
    assert overall(compare_cells(one, other, gates)) == "INCONCLUSIVE"
    assert overall([]) == "CANNOT COMPARE"
    assert overall(compare_cells(snapshot(), snapshot(baseline()), gates)) == "CANNOT COMPARE"


def test_a_worse_uncompressed_model_is_a_regression_too():
    found = compare_cells(snapshot(baseline()), snapshot(baseline(shifted(1.0), content_hash="d" * 64)), gates)
    assert overall(found) == "REGRESSION"


def test_surroundings_that_differ_are_listed():
    one = snapshot(baseline(), environment={"torch": "2.9", "device": "cpu"})
    other = snapshot(
        baseline(content_hash="d" * 64), tier="nightly", environment={"torch": "2.10", "device": "cpu", "cuda": "13"}
    )
    found = {each.name: (each.before, each.after) for each in environment_diff(one, other)}
    assert found == {
        "tier": ("smoke", "nightly"),
        "checkpoint content_hash": ("c" * 64, "d" * 64),
        "torch": ("2.9", "2.10"),
        "cuda": ("", "13"),
    }
    assert environment_diff(one, one) == []


def noise(mean, sd, n=8):
    return {"perplexity:wiki": Noise(variation="kernel", n=n, value=20.0, reference=20.0, mean=mean, sd=sd, changed=n)}


@pytest.mark.parametrize(
    ("shift", "offset", "sd", "alarm"),
    [
        (0.010, 0.0, 0.002, True),  # 3 · 0.002 · sqrt(1/8 + 1/8) = 0.003
        (0.0029, 0.0, 0.002, False),
        (0.0031, 0.0, 0.002, True),
        (0.0049, 0.002, 0.002, False),  # and the offset of 0.002
        (-0.010, 0.0, 0.002, True),  # better is as odd as worse
        (1e-9, 0.0, 0.0, True),  # the repeat was the same to the bit
        (0.0, 0.0, 0.0, False),
    ],
)
def test_the_same_checkpoint_must_give_the_same_figure_within_its_noise(shift, offset, sd, alarm):
    after = snapshot(baseline([b + shift for b in BASE], noise=noise(offset, sd)), environment={"torch": "3"})
    found = baseline_moved(snapshot(baseline(), environment={"torch": "2"}), after)
    assert bool(found) == alarm
    if alarm:
        assert "torch 2 → 3" in found[0]
        assert "kernel" in found[0]


def test_without_a_repeat_the_scatter_of_the_differences_is_the_noise():
    wobble = [0.01, -0.01] * 4  # standard error 0.01 · sqrt(8/7) / sqrt(8) = 0.00378, times three: 0.0113
    for shift, alarm in ((0.011, False), (0.012, True)):
        after = snapshot(baseline([b + shift + w for b, w in zip(BASE, wobble, strict=True)]))
        assert bool(baseline_moved(snapshot(baseline()), after)) == alarm


def test_another_checkpoint_may_give_another_figure():
    other = snapshot(baseline(shifted(1.0), content_hash="d" * 64))
    assert baseline_moved(snapshot(baseline()), other) == []
    assert baseline_moved(snapshot(baseline(content_hash="")), snapshot(baseline(shifted(1.0), content_hash=""))) == []


def test_answers_of_the_uncompressed_model_raise_the_alarm_too():
    before, after = answers(60)
    found = baseline_moved(snapshot(baseline(None, before)), snapshot(baseline(None, after)))
    assert len(found) == 1
    assert "acc on piqa 1.0000 → 0.8500" in found[0]
