"""What a run asks, and what of its tier it leaves out."""

import pytest

from superweight.cards import Cell, load_library
from superweight.errors import CardError
from superweight.evidence import CellEvidence, DetectionEvidence, Failure, Sanity
from superweight.gate import Plan, RequestedGate, Settings
from superweight.gate.completeness import left_out, missing_required
from superweight.gate.plan import gate_name, tier_sizes

MODEL = "smollm2-135m-instruct"
CANDIDATE = f"{MODEL}/clip-restore-int8-channel"


@pytest.fixture(scope="module")
def library():
    return load_library()


@pytest.fixture(scope="module")
def plan(library):
    return Plan.of(library, Settings())


def models(plan):
    return {cell.model.id for cell in plan.cells}


def test_a_plan_asks_every_cell_everything(plan):
    assert models(plan) == {MODEL}
    assert next(iter(plan.cells)).role == "baseline"
    gates = {gate for cell, gate in plan.requested_gates if cell == CANDIDATE}
    assert gates == {"", "perplexity:wiki-embedded", "zero-shot:arc_easy", "zero-shot:piqa"}
    assert len(plan.requested_gates) == 4 * len(plan.cells)


@pytest.mark.parametrize(
    ("words", "model_ids", "others"),
    [
        (["mistral"], [], {"mistral-7b-v0.1"}),
        (["smollm2"], [], set()),  # already names one of the tier
        (["smollm2-1.7b/rtn"], [], {"smollm2-1.7b"}),
        (["[mistral-7b-v0.1/rtn-int8-channel]"], [], {"mistral-7b-v0.1"}),
        (["rtn"], [], set()),
        ([], ["llama-7b"], {"llama-7b"}),
    ],
)
def test_models_outside_the_tier_join_when_they_are_named(library, words, model_ids, others):
    assert models(Plan.of(library, Settings(), words=words, model_ids=model_ids)) == {MODEL, *others}


def test_models_and_recipes_replace_those_of_the_tier(library):
    settings = Settings(models=("llama-7b",), recipes=("no-op", "no-op"))
    plan = Plan.of(library, settings, words=["mistral"])
    assert [cell.id for cell in plan.cells] == ["llama-7b/baseline", "llama-7b/no-op"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (Settings(tier="weekly"), "no tier 'weekly': expected one of nightly, quantisers, release, smoke"),
        (Settings(models=("nowhere",)), "model 'nowhere' is neither"),
        (Settings(recipes=("nothing",)), "recipe 'nothing' is neither"),
    ],
)
def test_what_there_is_no_card_for_is_told(library, settings, told):
    with pytest.raises(CardError, match=told):
        Plan.of(library, settings)


def test_a_baseline_is_measured_ahead_on_what_some_cell_is_asked(plan):
    asked = plan.asking([RequestedGate(CANDIDATE, "zero-shot:piqa"), RequestedGate(f"{MODEL}/no-op")])
    assert [gate_name(entry) for entry in asked.planned_entries(MODEL)] == ["zero-shot:piqa"]
    assert asked.planned_entries("llama-7b") == []
    assert asked.requested_models == {MODEL}


def test_gates_that_can_be_wrong_by_chance_are_counted(plan):
    """By hand: the built-in cards gate perplexity and zero-shot alone; a control is asked all three in one test."""
    asked = plan.asking(
        [
            RequestedGate(CANDIDATE),
            RequestedGate(CANDIDATE, "zero-shot:piqa"),
            RequestedGate(CANDIDATE, "perplexity:wiki-embedded"),
            RequestedGate(f"{MODEL}/no-op"),
            RequestedGate(f"{MODEL}/baseline", "zero-shot:piqa"),
        ]
    )
    assert asked.quality_gates == {CANDIDATE: 2, f"{MODEL}/no-op": 3}
    assert asked.requested_candidates == {CANDIDATE}


def evidence_of(plan, *, but=()):
    """Evidence of every cell, detection and integrity measured."""
    found = {cell.id: CellEvidence.of(cell) for cell in plan.cells if cell.id not in but}
    for cell in found.values():
        cell.detection = DetectionEvidence() if cell.role == "baseline" else None
        cell.sanity = Sanity(declared=[], changed=[], undeclared=[], unchanged=[])
    return found


def test_nothing_is_left_out_of_a_whole_tier(plan):
    assert left_out(plan, evidence_of(plan)) == []
    assert missing_required(plan, evidence_of(plan)) == []


def test_what_is_left_out_is_named(plan):
    baseline, other = f"{MODEL}/baseline", f"{MODEL}/no-op"
    asked = plan.asking(plan.requested_gates - {(CANDIDATE, "zero-shot:piqa")})
    found = evidence_of(plan, but=[other])
    found[baseline].detection = None
    found[CANDIDATE].sanity = None
    found[CANDIDATE].failures.append(Failure(stage="sanity", reason="crash", message="tried"))
    assert [str(one) for one in left_out(asked, found)] == [
        f"{CANDIDATE} zero-shot:piqa",
        f"{baseline} detection",
        f"{other} sanity and super weights",
    ]


def test_recipes_and_roles_that_are_left_out_are_named(library):
    plan = Plan.of(library, Settings(recipes=("no-op",)))
    parts = [str(part) for part in left_out(plan, evidence_of(plan))]
    assert "*/prune-super-weights" in parts
    assert parts[-1] == "no candidate in this run"
    assert not any("baseline" in one or "no-op" in one for one in parts)


def test_what_the_tier_requires_must_be_measured_and_whole(plan):
    tier = plan.tier.model_copy(update={"required": (CANDIDATE, "no-op")})
    asked = Plan(plan.library, tier, plan.cells, plan.requested_gates - {(CANDIDATE, "perplexity:wiki-embedded")})
    first, second = missing_required(asked, evidence_of(plan, but=[f"{MODEL}/no-op"]))[:2]
    assert first.startswith(f"{MODEL}/no-op: the smoke tier requires this cell, and it was not measured")
    assert second.startswith(f"{CANDIDATE} perplexity:wiki-embedded: the smoke tier requires this cell whole")


def test_sizes_by_tier_are_those_of_the_cards(library):
    """As fixtures/tiers write them."""
    sizes = tier_sizes(library.tiers)
    assert sizes["perplexity:wiki-embedded"]["smoke"] == 16
    assert sizes["zero-shot:piqa"]["smoke"] == 200
    assert list(sizes["zero-shot:piqa"]) == ["smoke", "nightly", "release"]


def test_a_cell_is_found_by_its_id(plan):
    assert isinstance(plan.cell_by_id[CANDIDATE], Cell)
    assert (plan.role(CANDIDATE), plan.role("nobody/knows")) == ("candidate", "")
