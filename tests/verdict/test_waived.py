"""Waived gates: the finding stays, the cell does not fail for it, and everybody can read who answers for it."""

import pytest

from superweight.evidence import DetectionEvidence, Failure, Sanity
from superweight.verdict import judge_run
from support.by_hand import BASE, baseline, cell, perplexity, weight
from support.judging import MARGIN, TODAY, card, gates, judged, lost_with, rules, shifted, waiver

WIKI, WEB = "perplexity:wiki", "perplexity:web"
THEIRS = cell("baseline", "baseline", perplexity={"wiki": perplexity(BASE), "web": perplexity(BASE)})
KEPT = Sanity(declared=["a"], changed=["a"], undeclared=[], unchanged=[])


def two(wiki, web=0.0, **more):
    return cell(perplexity={"wiki": perplexity(shifted(wiki)), "web": perplexity(shifted(web))}, **more)


def test_a_waived_gate_fails_and_its_cell_passes():
    found = judged(two(1.0), THEIRS, rules(waivers=[waiver(WIKI)]))
    gate = found.gates[0]
    assert (gate.gate, gate.verdict) == (WIKI, "REGRESSION")
    assert gate.waiver == {
        "id": "w",
        "ticket": "OPS-9",
        "expires": "2026-03-31",
        "why": "a reason long enough to be one",
    }
    assert gate.p_adjusted < 0.025
    assert (found.verdict, found.red) == ("PASS", False)
    assert found.argument == "1 of 2 gates cleared; perplexity:wiki REGRESSION is waived until 2026-03-31 (OPS-9)"
    run = judge_run([judged(THEIRS), found])
    assert (run.verdict, run.reasons) == ("PASS", [f"m/rtn: {found.argument}"])


def test_what_is_undecided_may_be_waived_too():
    found = judged(two(MARGIN), THEIRS, rules(waivers=[waiver(WIKI)]))
    assert (found.gates[0].verdict, found.verdict) == ("INCONCLUSIVE", "PASS")
    assert "perplexity:wiki INCONCLUSIVE is waived until" in found.argument


def test_what_passes_needs_no_waiver():
    found = judged(two(0.0), THEIRS, rules(waivers=[waiver("*")]))
    assert [gate.waiver for gate in found.gates] == [None, None]
    assert found.argument == "all 2 gates cleared"


@pytest.mark.parametrize(("web", "verdict"), [(1.0, "REGRESSION"), (MARGIN, "INCONCLUSIVE")])
def test_the_other_gates_decide(web, verdict):
    found = judged(two(1.0, web), THEIRS, rules(waivers=[waiver(WIKI)]))
    assert found.verdict == verdict
    assert found.argument.startswith("perplexity on web")
    assert "perplexity:wiki REGRESSION is waived" in found.argument


def test_a_cell_all_of_whose_gates_are_waived_passes():
    found = judged(two(1.0, 1.0), THEIRS, rules(waivers=[waiver("perplexity:*")]))
    assert [gate.verdict for gate in found.gates] == ["REGRESSION", "REGRESSION"]
    assert found.verdict == "PASS"
    assert found.argument.startswith("0 of 2 gates cleared; ")


def test_a_waived_gate_is_no_chance_finding_of_the_run():
    """p of the waived gate does not vouch for the other one, which of three candidates is left to chance."""
    ours = cell(perplexity={"wiki": perplexity(shifted(1.0)), "web": perplexity(lost_with(0.012))})
    others = [judged(two(0.0, recipe=name), THEIRS) for name in "ab"]
    by = rules(waivers=[waiver(WIKI)])
    found = judged(ours, THEIRS, by)
    assert found.verdict == "REGRESSION"  # 0.012 is the second of two p-values, so Holm leaves it as it is
    assert judge_run([judged(THEIRS), found, *others]).verdict == "INCONCLUSIVE"
    assert judge_run([judged(THEIRS), judged(ours, THEIRS), *others]).verdict == "REGRESSION"


def test_lost_super_weights_may_be_waived():
    evidence = two(0.0, super_weights=[weight(survived=False)], sanity=KEPT)
    assert judged(evidence, THEIRS).verdict == "REGRESSION"
    found = judged(evidence, THEIRS, rules(waivers=[waiver("super-weights")]))
    assert (found.gates[1].verdict, found.verdict) == ("REGRESSION", "PASS")
    assert judge_run([judged(THEIRS), found]).verdict == "PASS"


def test_an_expired_waiver_waives_nothing_and_is_told():
    late = waiver(WIKI, expires="2026-02-28")
    found = judged(two(1.0), THEIRS, rules(waivers=[late]))
    gate = found.gates[0]
    assert (gate.verdict, gate.waiver, found.verdict) == ("REGRESSION", None, "REGRESSION")
    for word in ("waiver 'w' (OPS-9) of perplexity:wiki on m/rtn expired on 2026-02-28", "the failure counts again"):
        assert word in gate.message
    assert "waived" not in found.argument
    assert "expired" not in gates(two(0.0), THEIRS, rules(waivers=[late]))[WIKI].message


def test_a_waiver_holds_through_its_last_day_and_another_may_follow_it():
    late = waiver(WIKI, id="late", expires="2026-02-28")
    last = waiver(WIKI, id="last", expires=TODAY.isoformat())
    assert judged(two(1.0), THEIRS, rules(waivers=[late, last])).gates[0].waiver["id"] == "last"


def test_what_was_not_measured_cannot_be_waived():
    everything = rules(waivers=[waiver("*")])
    failure = Failure(stage=WIKI, reason="offline", message="no network")
    for evidence, theirs in (
        (cell(failures=[failure]), THEIRS),
        (two(0.0), None),
        (two(0.0), cell("baseline", "baseline", perplexity={"wiki": perplexity(BASE, tokens_sha256="other")})),
    ):
        found = judged(evidence, theirs, everything)
        assert found.verdict == "INFRA"
        assert all(gate.waiver is None for gate in found.gates)


def test_a_stale_card_cannot_be_waived():
    by = rules(card(expires="2026-02-28"), card("zero-shot"), waivers=[waiver("*")])
    found = judged(two(1.0), THEIRS, by)
    assert (found.verdict, found.gates[0].waiver) == ("INFRA", None)


@pytest.mark.parametrize("scope", [{"recipe": "other"}, {"model": "other"}, {"gate": "zero-shot:*"}])
def test_a_waiver_of_something_else_waives_nothing(scope):
    given = {"gate": WIKI} | scope
    assert judged(two(1.0), THEIRS, rules(waivers=[waiver(**given)])).verdict == "REGRESSION"


def test_a_control_cannot_be_excused():
    """A no-op that regresses shows that the gate is broken, whoever answers for it."""
    broken = cell("rtn", "control", expects="PASS", nll=shifted(1.0))
    found = judged(broken, baseline(), rules(waivers=[waiver(WIKI)]))
    assert (found.verdict, found.red) == ("REGRESSION", True)


def test_a_waived_gate_counts_in_the_family():
    """A waiver must not make the other gates easier or harder to fail."""
    ours = cell(perplexity={"wiki": perplexity(lost_with(0.001)), "web": perplexity(lost_with(0.02))})
    plain, excused = (gates(ours, THEIRS, rules(waivers=waivers)) for waivers in ([], [waiver(WEB)]))
    assert [gate.p_adjusted for gate in plain.values()] == pytest.approx([0.002, 0.02])
    assert [gate.p_adjusted for gate in excused.values()] == [gate.p_adjusted for gate in plain.values()]


def test_a_card_that_disagrees_with_detection_may_be_waived():
    found = baseline(nll=BASE)
    claim = {"layer": 1, "expert": None, "row": 2, "column": 3, "status": "causal"}
    found.detection = DetectionEvidence.model_validate({"card": [claim], "known": True})
    plain = judged(found, None, rules())
    assert (plain.gates[0].gate, plain.verdict) == ("detection", "REGRESSION")
    waived = judged(found, None, rules(waivers=[waiver("detection", recipe="baseline")]))
    assert (waived.gates[0].verdict, waived.verdict) == ("REGRESSION", "PASS")
    assert "OPS-9" in waived.argument
