"""The gates of a cell as one family: a regression is corrected for all of them, a pass needs all of them."""

import math

import pytest
from scipy import stats

from support import guarded_t
from support.by_hand import BASE, baseline, cell, perplexity, zero_shot
from support.judging import MARGIN, answered, card, gates, judged, lost_with, rules, shifted, standard_error

CELL = "m/rtn"


def texts(*p_values, **more):
    """A cell with as many corpora, whose perplexities have these p-values against a loss of the margin or less."""
    names = [f"text{number}" for number in range(len(p_values))]
    ours = cell(perplexity={name: perplexity(lost_with(p)) for name, p in zip(names, p_values, strict=True)}, **more)
    return ours, cell("baseline", "baseline", perplexity={name: perplexity(BASE) for name in names})


def test_p_values_are_adjusted_by_holm():
    """Of four gates, the fourth not measured yet: 0.001·4; 0.02·3; 0.1·2; in the order of the gates."""
    found = gates(*texts(0.1, 0.001, 0.02), rules(planned={CELL: 4}))
    assert [gate.p_regression for gate in found.values()] == pytest.approx([0.1, 0.001, 0.02])
    assert [gate.p_adjusted for gate in found.values()] == pytest.approx([0.2, 0.004, 0.06])
    assert [gate.verdict for gate in found.values()] == ["INCONCLUSIVE", "REGRESSION", "INCONCLUSIVE"]


def test_adjusted_p_values_keep_their_order_and_stay_below_one():
    found = gates(*texts(0.012, 0.011, 0.6), rules(planned={CELL: 3}))
    assert [gate.p_adjusted for gate in found.values()] == pytest.approx([0.033, 0.033, 0.6])
    assert gates(*texts(0.9), rules(planned={CELL: 3}))["perplexity:text0"].p_adjusted == 1


def test_one_of_many_gates_barely_regressed_is_not_decided():
    """p = 0.02 is a regression of the only gate, and one of eight looks like that by chance too often."""
    alone = gates(*texts(0.02))["perplexity:text0"]
    assert (alone.verdict, alone.p_adjusted) == ("REGRESSION", pytest.approx(0.02))
    found = judged(*texts(0.02, *[0.999999] * 7))
    gate = found.gates[0]
    assert (found.verdict, gate.verdict, gate.p_adjusted) == ("INCONCLUSIVE", "INCONCLUSIVE", pytest.approx(0.16))
    sentence = (
        "by itself this would be a regression (p = 0.02), but one of 8 gates comes out like this by chance too often "
        "(p = 0.16 after correction)"
    )
    assert sentence in gate.message
    assert sentence in found.argument
    assert all(gate.verdict == "PASS" for gate in found.gates[1:])


def test_gates_that_are_planned_and_not_measured_yet_count():
    verdicts = [gates(*texts(0.01), rules(planned={CELL: n}))["perplexity:text0"].verdict for n in (0, 1, 2, 3)]
    assert verdicts == ["REGRESSION", "REGRESSION", "REGRESSION", "INCONCLUSIVE"]
    elsewhere = rules(planned={"m/other": 50})
    assert gates(*texts(0.01), elsewhere)["perplexity:text0"].verdict == "REGRESSION"


def test_how_many_windows_would_stand_the_correction():
    """What was seen amounts to z(0.02) standard errors, and z(0.025/4) + z(0.8) are asked for."""
    gate = gates(*texts(0.02), rules(planned={CELL: 4}))["perplexity:text0"]
    asked = stats.norm.isf(0.025 / 4) + stats.norm.ppf(0.8)
    assert gate.needed == math.ceil(8 * (asked / stats.norm.isf(0.02)) ** 2)
    assert f"about {gate.needed} windows would decide" in gate.message


def test_a_clear_regression_stands_among_many():
    found = judged(*texts(1e-5, *[0.5] * 20))
    assert found.verdict == "REGRESSION"
    assert found.gates[0].p_adjusted == pytest.approx(21e-5)


def test_to_pass_a_cell_passes_every_gate_without_correction():
    """Each of twenty p-values against a loss of the margin is 2 per cent, which is enough of each."""
    shift = MARGIN - guarded_t.reach(8, 0.02) * standard_error()
    names = [f"text{number}" for number in range(20)]
    theirs = cell("baseline", "baseline", perplexity={name: perplexity(BASE) for name in names})
    ours = {name: perplexity(shifted(shift)) for name in names}
    found = judged(cell(perplexity=ours), theirs)
    assert found.verdict == "PASS"
    assert [gate.p_pass for gate in found.gates] == pytest.approx([0.02] * 20)
    undecided = judged(cell(perplexity=ours | {"text7": perplexity(shifted(MARGIN))}), theirs)
    assert (undecided.verdict, undecided.gates[7].verdict) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert all(gate.verdict == "PASS" for gate in undecided.gates if gate.gate != "perplexity:text7")


def test_every_kind_is_of_the_family_and_what_is_not_judged_is_not():
    """Five kinds, one of them without figures: p-values of four, corrected for the five that were planned."""
    cards = [card(kind) for kind in ("perplexity", "divergence", "agreement", "zero-shot", "flips")]
    theirs = baseline(scores=None, zero_shot={"piqa": answered([0] * 100)})
    ours = cell(
        perplexity={"wiki": perplexity(lost_with(0.004), kl=[0.01] * 8)}, zero_shot={"piqa": answered([0] * 100)}
    )
    found = gates(ours, theirs, rules(*cards, planned={CELL: 5}))
    assert found["agreement:wiki"].verdict == "INFRA"
    assert found["agreement:wiki"].p_adjusted is None
    assert found["perplexity:wiki"].p_adjusted == pytest.approx(0.02)
    assert all(found[name].verdict == "PASS" for name in ("divergence:wiki", "zero-shot:piqa", "flips:piqa"))
    assert found["perplexity:wiki"].verdict == "REGRESSION"


def test_integrity_is_not_of_the_family():
    """What is no matter of chance costs the others nothing."""
    ours, theirs = texts(0.02)
    found = gates(ours.model_copy(update={"sanity": None}), theirs)
    assert found["perplexity:text0"].p_adjusted == pytest.approx(0.02)


def test_a_confidence_of_its_own_is_compared_with_its_own_level():
    """Holm takes p-values as shares of their levels, 2.5 and 0.5 per cent: the smallest first, against a half of it."""
    by = rules(card(), card(id="strict", confidence=0.99, of=("text1",)), card("zero-shot"))
    for p_values, verdicts in (
        ((0.004, 0.004), ["REGRESSION", "REGRESSION"]),  # shares 0.16 ≤ 1/2, then 0.8 ≤ 1
        ((0.004, 0.006), ["REGRESSION", "INCONCLUSIVE"]),  # 0.16 ≤ 1/2, then 1.2 > 1
        ((0.015, 0.004), ["INCONCLUSIVE", "INCONCLUSIVE"]),  # 0.6 > 1/2, and there it ends
    ):
        found = gates(*texts(*p_values), by)
        assert [gate.verdict for gate in found.values()] == verdicts


def test_zero_shot_and_perplexity_are_one_family():
    """Eighteen of 200 items lost and none gained: below 2.5 per cent alone, and not ten times over."""
    scores = [0.0] * 18 + [1.0] * 182
    ours = cell(nll=lost_with(0.5), zero_shot={"piqa": zero_shot(scores)})
    found = gates(ours, baseline(scores=[1.0] * 200), rules(planned={CELL: 10}))
    gate = found["zero-shot:piqa"]
    assert gate.p_regression < 0.025 < gate.p_adjusted == pytest.approx(10 * gate.p_regression)
    assert gate.verdict == "INCONCLUSIVE"
