"""Integrity gates on evidence made by hand: bits of super weights, what a recipe changed, detection and card."""

import pytest

from superweight.evidence import CellEvidence, Coverage, Sanity
from support.by_hand import cell, weight
from support.judging import gates


def sanity(declared=("w",), changed=("w",), undeclared=(), unchanged=(), **more):
    return Sanity(
        declared=list(declared), changed=list(changed), undeclared=list(undeclared), unchanged=list(unchanged), **more
    )


def test_a_broken_promise_names_coordinates_values_and_bits():
    found = gates(cell(super_weights=[weight(survived=False)], sanity=sanity()))
    assert found["super-weights"].verdict == "REGRESSION"
    for part in ("layer 1 [2, 3]", "expected 1.0 (0x3f800000)", "found 0.0 (0x00000000)", "float32"):
        assert part in found["super-weights"].message
    assert found["sanity"].verdict == "PASS"


def test_without_a_promise_the_loss_is_listed_and_passes():
    gate = gates(cell(role="reference", super_weights=[weight(survived=False)], sanity=sanity()))["super-weights"]
    assert gate.verdict == "PASS"
    assert "LOST" in gate.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            sanity(declared=["a"], changed=["a", "b"], undeclared=["b"]),
            "b changed, but the recipe does not say so",
        ),
        (sanity(declared=["a"], changed=[], unchanged=["a"]), "nothing was compressed"),
        (sanity(declared=["a", "b"], changed=["a"], unchanged=["b"]), "b is the same to the bit"),
        (sanity(declared=["a"], changed=["a"], non_finite=["a"]), "a holds NaN"),
    ],
)
def test_sanity_problems_are_regressions(given, words):
    gate = gates(cell(sanity=given))["sanity"]
    assert gate.verdict == "REGRESSION"
    assert words in gate.message


def test_the_share_that_a_recipe_sees_is_said():
    shares = {"attention": 0.1, "expert": 0.873, "router": 0.012, "vector": 0.005, "left alone": 0.01}
    given = cell(sanity=sanity(), coverage=Coverage(share=0.973, by_kind=shares))
    message = gates(given)["sanity"].message
    assert "recipes see 97.3% of the decoder layers' parameters (attention 10.0%, expert 87.3%)" in message
    assert "routers 1.2%, vectors 0.5%, others 1.0% left alone" in message
    before = given.model_dump(mode="json")
    del before["coverage"]  # as documents were written that knew nothing of it
    assert CellEvidence.model_validate(before).coverage is None


@pytest.mark.parametrize("role", ["candidate", "control"])
def test_a_no_op_that_changes_a_weight_is_caught(role):
    evidence = cell("no-op", role, expects="PASS", sanity=sanity(), recipe_parameters={"kind": "no-op"})
    assert gates(evidence)["sanity"].verdict == "REGRESSION"


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
    gate = gates(detection(found, card, known))["detection"]
    assert gate.verdict == verdict
    assert words in gate.message
    assert "card: " in gate.message
    assert "detection: " in gate.message


def test_what_is_no_matter_of_chance_has_no_p_value():
    found = gates(cell(super_weights=[weight(survived=False)], sanity=sanity()))
    assert all(gate.p_regression is gate.p_adjusted is gate.alpha is None for gate in found.values())
