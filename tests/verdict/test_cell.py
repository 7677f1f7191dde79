"""Which card judges a gate of a cell, and when none may: scope, expiry, n, machine, noise, a missing baseline."""

import math

import pytest

from superweight.evidence import Failure
from superweight.verdict import gates_of
from support.by_hand import BASE, baseline, cell, perplexity, zero_shot
from support.judging import MARGIN, card, gates, judged, noise, rules, shifted

MACHINE = {"device class": "cuda NVIDIA H100 80GB HBM3", "torch": "2.13.0"}
RIGHT = [1.0] * 200


def measured(nll=None, scores=None, **more):
    return cell(nll=nll or shifted(0.0), scores=scores, checkpoint={"environment": MACHINE}, **more)


def judge(*cards, nll=None, base=None, **more):
    return gates(measured(nll), base or baseline(), rules(*cards, card("zero-shot"), **more))["perplexity:wiki"]


STALE = [
    ({"expires": "2026-02-28"}, "gate-expired", ["expired on 2026-02-28", "today is 2026-03-01"]),
    ({"n": 24}, "gate-n", ["decided for 24 windows", "plans 8"]),
    ({"device_class": "cpu x86_64 AVX512"}, "gate-device", ["'cpu x86_64 AVX512'", "'cuda NVIDIA H100 80GB HBM3'"]),
]


@pytest.mark.parametrize(("given", "reason", "words"), STALE)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_card_that_may_not_be_used_judges_nothing_and_the_figures_stay(given, reason, words, shift):
    """Neither a PASS nor a REGRESSION; what was measured is in the message all the same."""
    gate = judge(card(ticket="OPS-7", **given), nll=shifted(shift))
    assert (gate.verdict, gate.reason) == ("INFRA", reason)
    assert gate.p_pass is gate.p_regression is gate.p_adjusted is gate.needed is None
    for word in [*words, "OPS-7", f"not judged ({reason})", f"{100 * math.expm1(shift):+.2f} %", "over 8 windows"]:
        assert word in gate.message
    assert gate.difference == pytest.approx(math.exp(shift) - 1)
    assert gate.message.startswith("not judged")


def test_a_stale_card_decides_the_cell():
    found = judged(measured(), baseline(), rules(card(expires="2026-02-28"), card("zero-shot")))
    assert found.verdict == "INFRA"
    assert "gate-expired" in found.argument


def test_a_card_holds_through_its_last_day_at_its_n_and_on_its_machine():
    gate = judge(card(expires="2026-03-01", n=8, device_class="cuda NVIDIA H100"))
    assert gate.verdict == "PASS"
    assert gate.details["notes"] == ["gate card 'perplexity' expires on 2026-03-01, in 0 days"]


def test_n_is_that_of_the_plan_and_not_of_where_it_stopped():
    """A measurement that stops early is the one that the card was decided for."""
    half = perplexity(shifted(0.0)[:5], index=range(5), planned=8)
    for n, verdict in ((8, "PASS"), (5, "INFRA")):
        by = rules(card(n=n), card("zero-shot"), sequential=True)
        assert gates(cell(perplexity={"wiki": half}), baseline(), by)["perplexity:wiki"].verdict == verdict


def test_figures_without_a_plan_count_what_there_is():
    figures = {"wiki": perplexity(shifted(0.0), planned=0)}
    by = rules(card(n=8), card("zero-shot"))
    assert gates(cell(perplexity=figures), baseline(), by)["perplexity:wiki"].verdict == "PASS"


def test_other_versions_are_told_and_judged_all_the_same():
    gate = judge(card(versions={"torch": "2.9", "transformers": "5"}))
    assert gate.verdict == "PASS"
    assert gate.details["notes"] == [
        "gate card 'perplexity' was decided with torch 2.9, this run has 2.13.0",
        "gate card 'perplexity' was decided with transformers 5, which this run does not record",
    ]
    assert judge(card(versions={"torch": "2.13"})).details["notes"] == []


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_margin_below_the_noise_judges_nothing(shift):
    """Floor 0.02 + 2·0.15/√100 = 0.05 nats, where 5 per cent are 0.0488."""
    noisy = baseline(noise={"perplexity:wiki": noise(mean=-0.02, sd=0.15, changed=97)})
    gate = judge(card(), nll=shifted(shift), base=noisy)
    assert (gate.verdict, gate.reason) == ("INFRA", "margin-below-noise")
    for word in ("0.049 nats", "0.05 nats", "97 of 100", f"{100 * math.expm1(shift):+.2f} %"):
        assert word in gate.message


def test_a_margin_above_the_noise_judges():
    """Floor 0.02 + 2·0.14/√100 = 0.048 nats; the noise of another gate is none of this one's."""
    quiet = baseline(noise={"perplexity:wiki": noise(mean=-0.02, sd=0.14), "zero-shot:piqa": noise(mean=1.0)})
    assert judge(card(), base=quiet).verdict == "PASS"


def test_noise_of_a_task_in_its_own_unit():
    """Two of 100 answers that change one way are 2 points of bias, and a margin of 1 point is about them."""
    noisy = baseline(scores=RIGHT, noise={"zero-shot:piqa": noise(mean=-0.02, sd=0.0, changed=2)})
    found = {
        margin: gates(measured(scores=RIGHT), noisy, rules(card(), card("zero-shot", margin)))["zero-shot:piqa"]
        for margin in (0.01, 0.05)
    }
    assert (found[0.01].verdict, found[0.01].reason) == ("INFRA", "margin-below-noise")
    assert found[0.05].verdict == "PASS"


def test_a_card_for_one_place_wins_there_and_nowhere_else():
    """A loss of 10 per cent: too much by the usual card, within the one for this model, this text or this recipe."""
    ten, wider = shifted(math.log(1.10)), {"id": "wide", "margin": 0.2}
    for scope, other in (("models", "other"), ("of", "web"), ("recipes", "int8-*")):
        name = {"models": "m", "of": "wiki", "recipes": "rt*"}[scope]
        assert judge(card(), card(**wider, **{scope: (other,)}), nll=ten).verdict == "REGRESSION"
        gate = judge(card(), card(**wider, **{scope: (name,)}), nll=ten)
        assert (gate.verdict, gate.margin, gate.card) == ("PASS", 0.2, "wide")


def test_the_narrower_of_two_cards_wins():
    broad = card(id="broad", margin=0.2, models=("m",))
    narrow = card(id="narrow", margin=0.08, models=("m",), of=("wiki",))
    gate = judge(card(), broad, narrow, nll=shifted(math.log(1.10)))
    assert (gate.verdict, gate.card) == ("REGRESSION", "narrow")


def test_a_card_for_one_task_leaves_the_others_alone():
    """Ten of 200 items lost on both, 5 points: lambada's card accepts 15."""
    ten = zero_shot([0.0] * 10 + [1.0] * 190)
    theirs = baseline(nll=None, zero_shot={"piqa": zero_shot(RIGHT), "lambada": zero_shot(RIGHT)})
    by = rules(card(), card("zero-shot"), card("zero-shot", 0.15, id="lambada", of=("lambada",)))
    found = gates(cell(zero_shot={"piqa": ten, "lambada": ten}), theirs, by)
    assert (found["zero-shot:piqa"].verdict, found["zero-shot:lambada"].verdict) == ("INCONCLUSIVE", "PASS")
    assert (found["zero-shot:piqa"].margin, found["zero-shot:lambada"].margin) == (0.05, 0.15)


def test_confidence_is_the_cards():
    """99 per cent: half a per cent of error on either side, and an interval wider than at 95."""
    usual, strict = judge(card()), judge(card(confidence=0.99))
    assert strict.alpha == pytest.approx(0.005)
    assert strict.interval[0] < usual.interval[0] < usual.interval[1] < strict.interval[1]


def test_where_a_bound_on_the_figure_holds():
    bound = {"value": 15.0, "n": 8, "device_class": "cuda", "models": ("m",), "of": ("wiki",), "id": "bound"}
    assert judge(card(), card(**bound)).verdict == "REGRESSION"
    assert judge(card(), card(**bound | {"n": 9})).reason == "gate-n"
    assert judge(card(), card(**bound | {"models": ("other",)})).verdict == "PASS"


def test_a_candidate_without_its_baseline_is_infra():
    for lonely in (judged(measured()), judged(measured(), cell("baseline", "baseline"))):
        assert lonely.verdict == "INFRA"
        assert lonely.gates[0].reason == "no-baseline"
        assert "nothing to compare with" in lonely.gates[0].message


@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        ("perplexity:wiki", "perplexity"),
        ("zero-shot:piqa", "zero-shot"),
        ("super-weights", "super-weights"),
        ("noise:perplexity:wiki", "measurement"),
        ("checkpoint", "measurement"),
    ],
)
def test_a_failure_is_a_gate_that_was_not_measured(stage, kind):
    failure = Failure(stage=stage, reason="offline", message="no network")
    found = gates_of(cell(failures=[failure]), baseline(), rules())
    assert [(gate.gate, gate.kind, gate.verdict, gate.reason) for gate in found] == [(stage, kind, "INFRA", "offline")]
    assert "no network" in found[0].message


def test_a_text_and_a_task_of_the_same_name_are_two_gates():
    theirs = cell("baseline", "baseline", perplexity={"x": perplexity(BASE)}, zero_shot={"x": zero_shot(RIGHT)})
    ours = cell(perplexity={"x": perplexity(shifted(MARGIN))}, zero_shot={"x": zero_shot([0.0] * 100 + [1.0] * 100)})
    found = gates(ours, theirs)
    assert (found["perplexity:x"].verdict, found["zero-shot:x"].verdict) == ("INCONCLUSIVE", "REGRESSION")
    assert "windows that lost most" in found["perplexity:x"].message
    assert "windows" not in found["zero-shot:x"].message
