"""One decision a cell and one a run, on evidence made by hand."""

import pytest

from superweight.evidence import Failure, Sanity
from superweight.verdict import GateResult, combine, judge_cell, judge_run
from support.by_hand import BASE, baseline, cell, perplexity, weight
from support.judging import MARGIN, card, judged, lost_with, rules, shifted

GOOD = baseline()
DAMAGED = Sanity(declared=["a"], changed=["a", "b"], undeclared=["b"], unchanged=[])


def measured(shift, role="candidate", recipe="rtn", **more):
    return judged(cell(recipe, role, shifted(shift), **more), GOOD)


def lost(p, recipe="rtn", **more):
    return judged(cell(recipe, nll=lost_with(p), **more), GOOD)


def healthy(count):
    return [measured(0.0, recipe=f"healthy{number}") for number in range(count)]


def run(*cells, **more):
    return judge_run([judged(GOOD), *cells], **more)


def test_a_regression_outweighs_infra_outweighs_doubt():
    assert combine(["PASS", "INCONCLUSIVE", "INFRA", "REGRESSION"]) == "REGRESSION"
    assert combine(["PASS", "INCONCLUSIVE", "INFRA"]) == "INFRA"
    assert combine(["PASS", "INCONCLUSIVE"]) == "INCONCLUSIVE"
    assert combine(["PASS"]) == "PASS"
    assert combine([]) == "INFRA"


@pytest.mark.parametrize(
    ("others", "verdict"), [(0, "REGRESSION"), (1, "REGRESSION"), (2, "INCONCLUSIVE"), (9, "INCONCLUSIVE")]
)
def test_of_many_candidates_one_that_barely_fails_fails_alone(others, verdict):
    """p = 0.01: below 2.5 per cent for two candidates, not for three."""
    red = lost(0.01)
    found = run(*healthy(others), red)
    assert found.verdict == verdict
    assert (red.verdict, red.red) == ("REGRESSION", True)
    sentence = (
        f"of {others + 1} candidates one looks like this by chance too often (p = 0.01, {0.01 * (others + 1):.2g} after"
    )
    assert (sentence in found.reasons[0]) is (verdict == "INCONCLUSIVE")
    assert found.reasons[0].startswith("m/rtn: perplexity on wiki")


def test_candidates_are_corrected_by_holm():
    """Of ten, the clear one stands at ten times its p and leaves nine for the next: 0.002·9 = 0.018, 0.01·8 = 0.08."""
    found = run(*healthy(7), lost(1e-4, "a"), lost(0.002, "b"), lost(0.01, "c"))
    assert found.verdict == "REGRESSION"
    reasons = {reason.split(":")[0]: "by chance too often" in reason for reason in found.reasons}
    assert reasons == {"m/a": False, "m/b": False, "m/c": True}
    assert run(*healthy(9), lost(0.003)).verdict == "INCONCLUSIVE"


def test_many_that_barely_fail_are_more_than_chance_of_one_each():
    """Three of three at p = 0.008: the smallest stands at 0.024, and so the run is red."""
    assert run(*(lost(0.008, name) for name in "abc")).verdict == "REGRESSION"
    assert run(*(lost(0.009, name) for name in "abc")).verdict == "INCONCLUSIVE"


def test_only_candidates_are_corrected_for():
    """Controls and references are not tried for release, however many there are."""
    beside = [measured(0.0, "reference", f"reference{number}") for number in range(9)]
    beside += [measured(2.0, "control", f"control{number}") for number in range(9)]
    assert run(lost(0.01), *beside).verdict == "REGRESSION"


def test_a_correction_in_the_cell_and_one_in_the_run():
    """Two gates and five candidates: 0.002·2·5 = 0.02, and 0.003 is too much."""
    theirs = cell("baseline", "baseline", perplexity={name: perplexity(BASE) for name in ("x", "y")})
    for p, verdict in ((0.002, "REGRESSION"), (0.003, "INCONCLUSIVE")):
        two = {"x": perplexity(lost_with(p)), "y": perplexity(shifted(0.0))}
        assert run(*healthy(4), judged(cell(perplexity=two), theirs)).verdict == verdict


def test_a_lost_super_weight_is_never_a_matter_of_chance():
    """Neither is a recipe that changes what it does not say."""
    kept = Sanity(declared=["a"], changed=["a"], undeclared=[], unchanged=[])
    for evidence in (
        {"super_weights": [weight(survived=False)], "sanity": kept},
        {"super_weights": [weight()], "sanity": DAMAGED},
    ):
        red = measured(0.0, **evidence)
        assert red.verdict == "REGRESSION"
        found = run(*healthy(50), red)
        assert found.verdict == "REGRESSION"
        assert "by chance" not in found.reasons[0]


def test_a_figure_past_its_bound_is_never_a_matter_of_chance():
    bound = card(value=20.0, n=8, device_class="cpu", models=("m",), of=("wiki",))
    evidence = cell(nll=shifted(0.0), checkpoint={"environment": {"device class": "cpu x86_64 AVX512"}})
    red = judged(evidence, GOOD, rules(bound, card("zero-shot")))
    assert run(*healthy(50), red).verdict == "REGRESSION"


def gate(name, verdict, p, alpha):
    return GateResult(
        gate=name, kind="perplexity", verdict=verdict, message=name, p_regression=p, p_adjusted=p, alpha=alpha
    )


def test_each_gate_is_compared_with_its_own_level():
    """At 90 per cent confidence p = 0.004 is a regression many times over; at 99.9 the smaller one is undecided."""
    red = judge_cell(cell(), [gate("strict", "INCONCLUSIVE", 0.002, 0.0005), gate("usual", "REGRESSION", 0.004, 0.05)])
    assert red.verdict == "REGRESSION"
    assert run(*healthy(9), red).verdict == "REGRESSION"


def test_a_run_is_as_good_as_its_worst_candidate():
    assert run(*healthy(3)).verdict == "PASS"
    assert run(*healthy(3)).reasons == []
    undecided = measured(MARGIN)
    assert (undecided.verdict, undecided.red) == ("INCONCLUSIVE", False)
    found = run(*healthy(3), undecided)
    assert found.verdict == "INCONCLUSIVE"
    assert [reason.split(":")[0] for reason in found.reasons] == ["m/rtn"]


def test_chance_hides_nothing_else():
    """What cannot be measured outweighs what may be chance, and what is proven outweighs both."""
    failed = judged(cell("broken", failures=[Failure(stage="perplexity:wiki", reason="offline", message="no network")]))
    assert run(*healthy(9), lost(0.01), failed).verdict == "INFRA"
    assert run(*healthy(9), lost(0.01), failed, measured(2.0, recipe="ruined")).verdict == "REGRESSION"


def test_a_control_that_is_not_seen_makes_the_run_infra():
    blind = measured(0.0, "control", "prune-super-weights")
    seen = measured(2.0, "control", "prune-super-weights")
    assert run(*healthy(1), seen).verdict == "PASS"
    found = run(*healthy(1), blind)
    assert found.verdict == "INFRA"
    assert "expected REGRESSION, got PASS" in found.reasons[0]


def test_a_control_that_was_not_measured_is_not_accused():
    """What went wrong comes first; the control, of which nothing is known, last."""
    gone = judged(
        cell(
            "no-op",
            "control",
            expects="PASS",
            failures=[Failure(stage="perplexity:wiki", reason="crash", message="died")],
        )
    )
    assert (gone.verdict, gone.red) == ("INFRA", True)
    assert "so nothing vouches for this gate" in gone.argument
    found = run(gone, measured(2.0), outside=["worker gw0 was killed by SIGKILL (9)"])
    assert found.verdict == "INFRA"
    assert [reason.partition(" ")[0] for reason in found.reasons] == ["worker", "m/rtn:", "m/no-op:"]
    contrary = run(measured(0.0, "control", "prune-super-weights"), measured(2.0), gone)
    assert [reason.partition(" ")[0] for reason in contrary.reasons] == ["m/prune-super-weights:", "m/rtn:", "m/no-op:"]
    damaged = measured(0.0, "control", "no-op", expects="PASS", sanity=DAMAGED)
    assert "so this gate cannot be trusted" in damaged.argument, "that was measured"


def test_a_control_that_is_not_decided_is_not_seen():
    doubtful = measured(MARGIN, "control", "prune-super-weights")
    assert (doubtful.verdict, doubtful.red) == ("INCONCLUSIVE", True)
    assert run(*healthy(1), doubtful).verdict == "INFRA"


def test_a_control_that_is_not_seen_outweighs_a_proven_regression():
    """A gate that cannot see damage proves nothing."""
    assert run(measured(2.0), measured(0.0, "control", "prune-super-weights")).verdict == "INFRA"


def test_a_no_op_that_regresses_makes_the_run_infra_even_beside_a_regression():
    broken = measured(2.0, "control", "no-op", expects="PASS")
    assert run(measured(2.0), broken).verdict == "INFRA"


def test_a_control_is_seen_by_quality_alone():
    """Failing for another reason is no proof that perplexity can see damage."""
    blind = measured(0.0, "control", "prune-super-weights", sanity=DAMAGED)
    lucky = measured(2.0, "control", "prune-super-weights", sanity=DAMAGED)
    assert (blind.verdict, lucky.verdict) == ("INFRA", "INFRA")
    for control in (blind, lucky):
        assert "b changed, but the recipe does not say so" in control.argument
        assert "cleared" not in control.argument
    unasked = judged(cell("prune-super-weights", "control", sanity=None))
    assert (unasked.verdict, unasked.red) == ("INCONCLUSIVE", False)


def test_one_cause_of_several_failures_is_said_once():
    same = [Failure(stage=stage, reason="corrupt", message="cut short") for stage in ("detection", "perplexity:wiki")]
    gone = judged(cell("baseline", "baseline", failures=same))
    assert gone.argument == "not measured (corrupt): cut short"


def test_controls_say_that_they_are_as_they_must_be():
    assert "expected REGRESSION, got REGRESSION, as it must be. perplexity on" in measured(2.0, "control").argument
    fine = measured(0.0, "control", "no-op", expects="PASS")
    assert fine.argument == "control expected PASS, got PASS, as it must be. all 1 gates cleared"


def test_a_reference_never_decides():
    reference = measured(3.0, "reference", "rtn-int4")
    assert run(*healthy(1), reference).verdict == "PASS"
    assert (reference.verdict, reference.red) == ("REGRESSION", False)
    assert [gate.decides for gate in reference.gates] == [False]
    assert [gate.decides for gate in measured(3.0).gates] == [True]


def test_what_could_not_be_measured_is_red_in_every_role():
    failure = Failure(stage="perplexity:wiki", reason="offline", message="no network")
    for role in ("candidate", "reference", "control", "baseline"):
        broken = judged(cell(role=role, failures=[failure]))
        assert broken.red
        assert judge_run([broken]).verdict == "INFRA"


def test_trouble_outside_the_cells_is_infra():
    found = run(*healthy(1), outside=["worker gw1 died"])
    assert (found.verdict, found.reasons) == ("INFRA", ["worker gw1 died"])
    assert run(measured(2.0), outside=["worker gw1 died"]).verdict == "REGRESSION"
    assert judge_run([]).verdict == "INFRA"


def test_a_cell_of_which_nothing_was_measured_does_not_pass():
    silent = judged(cell())
    assert (silent.verdict, silent.argument) == ("INFRA", "nothing was measured")


def test_odd_figures_are_in_the_argument_of_a_cell_that_passes():
    odd = measured(-1.0)
    assert odd.verdict == "PASS"
    assert "perplexity:wiki: too good to be true" in odd.argument
