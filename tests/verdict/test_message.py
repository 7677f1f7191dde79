"""What a gate's message says: what a PASS could have seen, and where, why and what next of everything else."""

import math

import pytest

from superweight.evidence import Sanity
from superweight.statistics.noninferiority import compare_means
from superweight.statistics.power import detectable_loss
from support.by_hand import BASE, baseline, cell, perplexity, weight, zero_shot
from support.judging import (
    MARGIN,
    WHOLE,
    answered,
    card,
    gates,
    judged,
    losses,
    lost_with,
    part,
    rules,
    shifted,
    standard_error,
)

WIKI, PIQA = "perplexity:wiki", "zero-shot:piqa"
COARSE = {"kind": "rtn", "bits": 4, "granularity": "tensor"}
SMOOTH = {"kind": "smoothquant", "alpha": 0.85, "weights": "channel", "activations": "token"}
KEPT = Sanity(declared=["a"], changed=["a"], undeclared=[], unchanged=[])


def message(name, ours, theirs=None, by=None, **more):
    return gates(ours, theirs or baseline(), by, **more)[name].message


def test_a_pass_says_the_smallest_change_it_would_have_seen():
    """Of perplexity, as a ratio."""
    gate = gates(cell(nll=shifted(0.01)), baseline())[WIKI]
    comparison = compare_means(losses(shifted(0.01)), planned=8, margin=MARGIN, design=WHOLE)
    seen = math.expm1(detectable_loss(comparison, margin=MARGIN, alpha=0.025))
    assert gate.detectable == pytest.approx(seen)
    assert gate.message.endswith(f"; would have seen a change of {100 * seen:+.2f} % four times in five")


def test_a_pass_says_so_in_the_unit_of_the_metric():
    cards = [
        card("perplexity"),
        card("zero-shot", 1.5, id="words", of=("words",)),
        card("zero-shot"),
        card("divergence"),
        card("agreement"),
    ]
    by = rules(*cards, card("flips", 0.1, of=("piqa",)))
    words = zero_shot([20.0 + place % 2 for place in range(24)], metric="ppl", higher_is_better=False)
    text = perplexity(BASE, kl=[0.01, 0.02] * 4, agreement=[0.97, 0.98] * 4)
    ours, theirs = (
        cell(role=role, perplexity={"wiki": text}, zero_shot={"words": words, "piqa": answered([0] * 200)})
        for role in ("candidate", "baseline")
    )
    found = gates(ours, theirs, by)
    assert {name: gate.verdict for name, gate in found.items()} == dict.fromkeys(found, "PASS")
    for name, shown in (
        ("zero-shot:words", f"{found['zero-shot:words'].detectable:+.4f}"),
        ("divergence:wiki", f"{found['divergence:wiki'].detectable:+.4g} nats a token"),
        ("agreement:wiki", f"{100 * found['agreement:wiki'].detectable:+.2f} pt"),
        ("flips:piqa", f"{100 * found['flips:piqa'].detectable:+.2f} pt"),
    ):
        assert f"would have seen a change of {shown} four times in five" in found[name].message
    assert found["zero-shot:words"].detectable == pytest.approx(1.5)
    assert "a change of +1.5000 " in found["zero-shot:words"].message


def test_of_an_accuracy_it_is_a_drop():
    gate = gates(cell(scores=[1.0] * 200), baseline(scores=[1.0] * 200))[PIQA]
    assert gate.verdict == "PASS"
    assert gate.detectable < -0.05
    assert f"would have seen a change of {100 * gate.detectable:+.2f} pt four" in gate.message


def test_a_pass_says_no_more():
    text = message(WIKI, cell(nll=shifted(0.0), super_weights=[weight()], recipe_parameters=COARSE))
    assert len(text.splitlines()) == 1


def test_a_regression_says_where_what_became_of_the_super_weights_and_what_to_do():
    nll = [3.1, 3.3, 4.9, 3.2, 4.05, 3.05, 3.45, 3.1]  # losses of 0.1, but 2.0, 1.0 and 0.3 in windows 2, 4 and 6
    ours = cell(
        nll=[a + 0.5 for a in nll], super_weights=[weight(), weight(7, survived=False)], recipe_parameters=COARSE
    )
    lines = message(WIKI, ours).splitlines()
    assert lines[0].startswith("perplexity on wiki 20.98 → ")
    assert lines[1:5] == [
        "windows that lost most:",
        "window 2: 2.900 → 5.400 nats a token (+2.500)",
        "window 4: 3.050 → 4.550 nats a token (+1.500)",
        "window 6: 3.150 → 3.950 nats a token (+0.800)",
    ]
    assert lines[5] == "super weights: 1 of 2 super weights lost: layer 1 [7, 3] 1 → 0"
    assert any(line.startswith("try: ") and "granularity = 'group'" in line for line in lines[6:])
    assert all(line.startswith("try: ") for line in lines[6:])


def test_windows_are_named_by_their_place_in_the_text():
    """In whatever order they were visited."""
    worse = [nll + 1.0 + (2.0 if place == 5 else 0.1 * (place % 2)) for place, nll in enumerate(BASE)]
    ours = cell(perplexity={"wiki": part(worse, [7, 5, 2, 0, 1, 3, 6, 4])})
    assert "windows that lost most:\nwindow 5: 2.950 → 5.950 nats" in message(WIKI, ours)


def test_items_are_named_by_their_id_with_question_and_answers():
    ours, theirs = answered([1] * 30 + [0] * 70, first=400), answered([0] * 100, first=400)
    for item in ours.items[3:5]:  # two that moved more than the others, whose shift is 2 nats
        item["loglikelihoods"] = [-6.0 + 0.5 * (item["doc_id"] == 403), -1.0, -6.0]
    given = {"super_weights": [weight()], "recipe_parameters": COARSE}
    base = baseline(zero_shot={"piqa": theirs})
    lines = message(PIQA, cell(zero_shot={"piqa": ours}, **given), base).splitlines()
    assert "(30 lost, 0 gained)" in lines[0]
    assert lines[1] == "30 answers changed: 30 right → wrong; the largest shifts:"
    # old answer −1 → −6 or −5.5, new answer −2 → −1: the new one gained 6 or 5.5 nats on it
    assert lines[2:4] == [
        "item 404 (right → wrong, +6.00 nats): Question: number 404? | choice a of 404 → choice b",
        "item 403 (right → wrong, +5.50 nats): Question: number 403? | choice a of 403 → choice b",
    ]
    assert [line.partition(" (")[0] for line in lines[4:7]] == ["item 400", "item 401", "item 402"]
    assert lines[7] == "super weights: the one super weight kept"
    assert lines[8].startswith("try: ")


def test_flips_name_items_too():
    base = baseline(zero_shot={"piqa": answered([0] * 100)})
    by = rules(card("flips"), card(), card("zero-shot", 0.9))
    text = message("flips:piqa", cell(zero_shot={"piqa": answered([1] * 30 + [0] * 70)}), base, by)
    assert "\n30 answers changed: 30 right → wrong" in text
    assert "\nitem 0 (right → wrong, +2.00 nats)" in text


def test_how_flips_went_is_in_the_details_whatever_the_verdict():
    base = baseline(zero_shot={"piqa": answered([0] * 199 + [1])})
    gate = gates(cell(zero_shot={"piqa": answered([1] + [0] * 199)}), base)[PIQA]
    assert gate.verdict == "PASS"
    assert gate.details["flips"] == 2
    assert gate.details["flipped"] == {"right → wrong": 1, "wrong → right": 1, "wrong → wrong": 0}


def test_what_is_undecided_says_how_much_more_would_decide():
    """Half a standard deviation beyond the margin: some 36 windows, more than any tier but the largest has."""
    ours = cell(nll=shifted(MARGIN + standard_error() * math.sqrt(8) / 2), super_weights=[weight()])
    sizes = {WIKI: {"smoke": 8, "nightly": 24, "release": None}}
    gate = gates(ours, baseline(), rules(sizes=sizes))[WIKI]
    assert gate.verdict == "INCONCLUSIVE"
    assert 32 <= gate.needed < 40
    assert f"try: about {gate.needed} windows would decide" in gate.message
    assert "and 8 were measured: --superweight-tier release measures all there are" in gate.message
    assert "windows that lost most:" in gate.message
    assert "super weights: the one super weight kept" in gate.message


def test_what_no_number_decides_says_so():
    text = message(WIKI, cell(nll=shifted(MARGIN)))
    assert "no number of windows within reach would decide" in text


def test_what_only_the_other_gates_made_undecided_is_not_said_to_be_beyond_reach():
    text = message(WIKI, cell(nll=lost_with(0.02)), by=rules(planned={"m/rtn": 10}))
    assert "one of 10 gates" in text
    assert "no number" not in text
    assert "windows would decide" in text


def test_what_was_not_pursued_says_why():
    """Naming what decided the cell: neither a gate that is no figure, nor one that came after."""
    ours = cell(
        nll=shifted(1.0), zero_shot={"piqa": zero_shot([1.0] * 5, planned=200)},
        super_weights=[weight(survived=False)], sanity=KEPT,
    )  # fmt: skip
    by = rules(sequential=True, planned={"m/rtn": 2})
    text = message(PIQA, ours, baseline(scores=[1.0] * 200), by)
    assert "over 5 of 200 items" in text
    assert "not pursued, since perplexity:wiki decided the cell" in text
    assert "would decide" not in text


def test_too_good_is_said_with_what_to_look_at():
    ours = cell(nll=shifted(-0.1), sanity=KEPT)
    gate = gates(ours, baseline())[WIKI]
    assert gate.verdict == "PASS"
    assert "\nodd: too good to be true: better than the uncompressed model by more than the margin" in gate.message
    assert "\ntry: rounding seldom helps by more than chance" in gate.message
    calibrated = ours.model_copy(update={"recipe_parameters": {**SMOOTH, "calibration_corpus": "wiki"}})
    assert "the recipe is calibrated on 'wiki'" in message(WIKI, calibrated)


def test_other_recipes_of_the_run_are_compared_with():
    ours, other = cell(nll=shifted(1.0)), cell("rtn-g64", nll=shifted(0.01))
    text = message(WIKI, ours, run=[baseline(recipe_parameters={"kind": "baseline"}), ours, other])
    assert "in this run rtn-g64 has perplexity 21.19 at 4.50 bits a weight" in text


def test_the_argument_of_a_cell_is_the_first_line_of_what_failed():
    found = judged(cell(nll=shifted(1.0), scores=[1.0] * 200), baseline(scores=[1.0] * 200))
    assert found.argument == found.gates[0].message.splitlines()[0]
    assert "windows that lost most" not in found.argument


def test_a_failed_measurement_gets_no_advice():
    by = rules(card(expires="2026-02-28"), card("zero-shot"))
    text = message(WIKI, cell(nll=shifted(1.0), recipe_parameters=COARSE), by=by)
    assert "try:" not in text
