"""Gates and decisions on evidence made by hand."""

import math

import pytest

from superweight.cards import GateCard
from superweight.evidence import CellEvidence, Failure, Perplexity, Sanity, Size, StoredWeight, ZeroShot
from superweight.verdict import combine, gates_of, judge_cell, judge_perplexity, judge_run, judge_zero_shot

WHY = "a reason long enough to be one"
CARDS = {
    kind: GateCard(id=kind, title=kind, kind=kind, margin=0.05, why=WHY, date="2026-01-31")
    for kind in ("perplexity", "zero-shot")
}


def perplexity(nll, tokens_sha256="t"):
    mean = math.fsum(nll) / len(nll)
    return Perplexity(
        value=math.exp(mean) if mean < 700 else math.inf,
        protocol="gptq",
        corpus="wiki",
        origin="here",
        window=512,
        windows=len(nll),
        tokens=511 * len(nll),
        nll=nll,
        tokens_sha256=tokens_sha256,
    )


def zero_shot(scores, metric="acc", **more):
    items = [{"doc_id": i, "doc_hash": f"h{i}", metric: score} for i, score in enumerate(scores)]
    value = math.fsum(scores) / len(scores)
    return ZeroShot(
        task="piqa", metric=metric, n=len(scores), data="made up", metrics={metric: value}, items=items, **more
    )


def weight(survived, **more):
    stored = {True: (1.0, "0x3f800000"), False: (0.0, "0x00000000")}[survived]
    return StoredWeight(
        layer=1, expert=None, row=2, column=3, status="causal", origin="card", dtype="float32",
        original=1.0, original_bits="0x3f800000", stored=stored[0], stored_bits=stored[1], survived=survived, **more,
    )  # fmt: skip


def cell(role="candidate", recipe="rtn", **more):
    more.setdefault("promises", role == "candidate")
    expects = more.pop("expects", "REGRESSION" if role == "control" else None)
    return CellEvidence(model="m", recipe=recipe, role=role, expects=expects, **more)


BASE = [3.0, 3.2, 2.9, 3.1, 3.05, 2.95, 3.15, 3.0]


def shifted(shift):
    """Every window moved by `shift` nats, give or take a little that sums to nothing."""
    wobble = [0.002, -0.002] * 4
    return [b + shift + w for b, w in zip(BASE, wobble, strict=True)]


@pytest.mark.parametrize(
    ("shift", "verdict"),
    [
        (0.0, "PASS"),
        (0.02, "PASS"),
        (math.log(1.05) + 0.01, "REGRESSION"),
        (math.log(1.05), "INCONCLUSIVE"),
        (1.0, "REGRESSION"),
    ],
)
def test_perplexity_is_judged_by_its_interval(shift, verdict):
    gate = judge_perplexity(CARDS["perplexity"], "wiki", perplexity(shifted(shift)), perplexity(BASE))
    assert gate.verdict == verdict
    assert gate.difference == pytest.approx(math.exp(shift) - 1, abs=1e-9)
    assert gate.interval[0] < gate.difference < gate.interval[1]
    assert gate.n == 8


def test_a_model_that_gives_no_number_has_regressed():
    gate = judge_perplexity(CARDS["perplexity"], "wiki", perplexity([*BASE[:7], math.inf]), perplexity(BASE))
    assert gate.verdict == "REGRESSION"


def test_different_tokens_are_never_compared():
    gate = judge_perplexity(CARDS["perplexity"], "wiki", perplexity(BASE, "a"), perplexity(BASE, "b"))
    assert gate.verdict == "INFRA"


def test_zero_shot_pairs_items_not_totals():
    """Two models with the same accuracy that answer differently are less certain than two that answer alike."""
    alike = judge_zero_shot(CARDS["zero-shot"], "piqa", zero_shot([1.0, 0.0] * 100), zero_shot([1.0, 0.0] * 100))
    swapped = judge_zero_shot(CARDS["zero-shot"], "piqa", zero_shot([1.0, 0.0] * 100), zero_shot([0.0, 1.0] * 100))
    assert alike.verdict == "PASS"
    assert alike.difference == swapped.difference == 0
    assert swapped.verdict == "INCONCLUSIVE"
    assert swapped.details["lost"] == swapped.details["gained"] == 100


def test_zero_shot_regression_and_its_figures():
    gate = judge_zero_shot(CARDS["zero-shot"], "piqa", zero_shot([0.0] * 60 + [1.0] * 140), zero_shot([1.0] * 200))
    assert (gate.verdict, gate.value, gate.baseline) == ("REGRESSION", 0.7, 1.0)
    assert "60 lost, 0 gained" in gate.message


def test_lower_is_better_metrics_are_turned_round():
    better = judge_zero_shot(
        CARDS["zero-shot"], "t", zero_shot([0.1] * 50, "brier", higher_is_better=False), zero_shot([0.5] * 50, "brier")
    )
    worse = judge_zero_shot(
        CARDS["zero-shot"], "t", zero_shot([0.5] * 50, "brier", higher_is_better=False), zero_shot([0.1] * 50, "brier")
    )
    assert (better.verdict, worse.verdict) == ("PASS", "REGRESSION")
    assert worse.difference == pytest.approx(-0.4)


def test_a_broken_promise_names_coordinates_values_and_bits():
    evidence = cell(
        super_weights=[weight(False)], sanity=Sanity(declared=["w"], changed=["w"], undeclared=[], unchanged=[])
    )
    evidence.size = Size(compressed_bits_per_weight=4.5, model_bits_per_weight=8)
    gates = {gate.gate: gate for gate in gates_of(evidence, None, CARDS)}
    assert gates["super-weights"].verdict == "REGRESSION"
    for part in ("layer 1 [2, 3]", "expected 1.0 (0x3f800000)", "found 0.0 (0x00000000)", "float32"):
        assert part in gates["super-weights"].message
    assert gates["sanity"].verdict == "PASS"


def test_without_a_promise_the_loss_is_listed_and_passes():
    evidence = cell(
        "reference", super_weights=[weight(False)], sanity=Sanity(declared=[], changed=[], undeclared=[], unchanged=[])
    )
    gate = next(gate for gate in gates_of(evidence, None, CARDS) if gate.gate == "super-weights")
    assert gate.verdict == "PASS"
    assert "LOST" in gate.message


@pytest.mark.parametrize(
    ("sanity", "words"),
    [
        (
            Sanity(declared=["a"], changed=["a", "b"], undeclared=["b"], unchanged=[]),
            "b changed, but the recipe does not say so",
        ),
        (Sanity(declared=["a"], changed=[], undeclared=[], unchanged=["a"]), "nothing was compressed"),
        (Sanity(declared=["a", "b"], changed=["a"], undeclared=[], unchanged=["b"]), "b is the same to the bit"),
        (Sanity(declared=["a"], changed=["a"], undeclared=[], unchanged=[], non_finite=["a"]), "a holds NaN"),
    ],
)
def test_sanity_problems_are_regressions(sanity, words):
    evidence = cell(sanity=sanity, size=Size(compressed_bits_per_weight=4.5, model_bits_per_weight=8))
    gate = next(gate for gate in gates_of(evidence, None, CARDS) if gate.gate == "sanity")
    assert gate.verdict == "REGRESSION"
    assert words in gate.message


def detection(found, card, known=True):
    return cell("baseline", "baseline", detection={"super_weights": found, "card": card, "known": known})


def named(row, status="causal", **more):
    return {"layer": 1, "expert": None, "row": row, "column": 3, "status": status, **more}


@pytest.mark.parametrize(
    ("found", "card", "known", "verdict", "words"),
    [
        ([named(2)], [named(2)], True, "PASS", "1 super weights confirmed"),
        ([], [named(2)], True, "REGRESSION", "on the card, but not confirmed by ablation: layer 1 [2, 3]"),
        ([named(2), named(5)], [named(2)], True, "REGRESSION", "not on the card: layer 1 [5, 3]"),
        ([named(2), named(5, "inert")], [named(2)], True, "PASS", ""),
        ([], [named(2, "listed")], True, "PASS", ""),
        ([named(5)], [], False, "PASS", "makes no claim"),
        ([named(2, value_differs=True)], [named(2)], True, "REGRESSION", "is this the right checkpoint"),
    ],
)
def test_detection_against_the_card(found, card, known, verdict, words):
    gate = gates_of(detection(found, card, known), None, CARDS)[0]
    assert (gate.gate, gate.verdict) == ("detection", verdict)
    assert words in gate.message
    assert "card: " in gate.message
    assert "detection: " in gate.message


def test_a_regression_outweighs_infra_outweighs_doubt():
    assert combine(["PASS", "INCONCLUSIVE", "INFRA", "REGRESSION"]) == "REGRESSION"
    assert combine(["PASS", "INCONCLUSIVE", "INFRA"]) == "INFRA"
    assert combine(["PASS", "INCONCLUSIVE"]) == "INCONCLUSIVE"
    assert combine(["PASS"]) == "PASS"
    assert combine([]) == "INFRA"


def judged(evidence, baseline=None):
    return judge_cell(evidence, gates_of(evidence, baseline, CARDS))


GOOD = cell("baseline", "baseline", perplexity={"wiki": perplexity(BASE)})


def measured(shift, role="candidate", recipe="rtn", **more):
    return judged(cell(role, recipe, perplexity={"wiki": perplexity(shifted(shift))}, **more), GOOD)


def test_a_control_that_is_not_seen_makes_the_run_infra():
    healthy = measured(0.0)
    blind = measured(0.0, "control", "prune-super-weights")
    seen = measured(2.0, "control", "prune-super-weights")
    assert judge_run([judged(GOOD), healthy, seen]).verdict == "PASS"
    run = judge_run([judged(GOOD), healthy, blind])
    assert run.verdict == "INFRA"
    assert "expected REGRESSION, got PASS" in run.reasons[0]


def test_a_no_op_that_regresses_makes_the_run_infra_even_beside_a_regression():
    broken = measured(2.0, "control", "no-op", expects="PASS")
    assert judge_run([judged(GOOD), measured(2.0), broken]).verdict == "INFRA"


def test_a_no_op_that_changes_a_weight_is_caught():
    sanity = Sanity(declared=["a"], changed=["a"], undeclared=[], unchanged=[])
    evidence = cell("control", "no-op", expects="PASS", sanity=sanity, recipe_parameters={"kind": "no-op"})
    evidence.size = Size(compressed_bits_per_weight=32, model_bits_per_weight=32)
    gate = next(gate for gate in gates_of(evidence, None, CARDS) if gate.gate == "sanity")
    assert gate.verdict == "REGRESSION"


def test_a_control_is_seen_by_quality_alone():
    """Failing for another reason is no proof that perplexity can see damage."""
    damaged = Sanity(declared=["a"], changed=["a", "b"], undeclared=["b"], unchanged=[])
    blind = measured(0.0, "control", "prune-super-weights", sanity=damaged)
    lucky = measured(2.0, "control", "prune-super-weights", sanity=damaged)
    assert (blind.verdict, lucky.verdict) == ("INFRA", "INFRA")
    unasked = judged(cell("control", "prune-super-weights", sanity=None))
    assert (unasked.verdict, unasked.red) == ("INCONCLUSIVE", False)


def test_a_model_that_answers_nothing_has_regressed():
    def answers(value):
        figure = zero_shot([1.0] * 100)
        for item in figure.items:
            item["loglikelihoods"] = [value, value]
        return figure

    sound, dead = answers(-3.0), answers(-math.inf)
    assert judge_zero_shot(CARDS["zero-shot"], "piqa", sound, sound).verdict == "PASS"
    gate = judge_zero_shot(CARDS["zero-shot"], "piqa", dead, sound)
    assert gate.verdict == "REGRESSION"
    assert "100 items got no finite log-likelihood" in gate.message
    broken = cell("baseline", "baseline", zero_shot={"piqa": dead})
    assert gates_of(broken, None, CARDS)[0].verdict == "INFRA"


def test_a_reference_never_decides():
    assert judge_run([judged(GOOD), measured(0.0), measured(3.0, "reference", "rtn-int4")]).verdict == "PASS"


def test_what_could_not_be_measured_is_red_in_every_role():
    failure = Failure(stage="perplexity:wiki", reason="offline", message="no network")
    for role in ("candidate", "reference", "control", "baseline"):
        assert judge_run([judged(cell(role, failures=[failure]))]).verdict == "INFRA"


def test_trouble_outside_the_cells_is_infra():
    assert judge_run([judged(GOOD), measured(0.0)], outside=["worker gw1 died"]).verdict == "INFRA"
    assert judge_run([]).verdict == "INFRA"


def test_a_candidate_without_its_baseline_is_infra():
    lonely = judged(cell(perplexity={"wiki": perplexity(BASE)}))
    assert lonely.verdict == "INFRA"
    assert "nothing to compare with" in lonely.gates[0].message
