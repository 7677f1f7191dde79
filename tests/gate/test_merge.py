"""What processes hand to each other, and how parts of a run become one."""

import json
import math

import pytest

from superweight.cards import load_library
from superweight.evidence import CellEvidence, Coverage, Failure, Perplexity, ZeroShot
from superweight.gate import GateRun, Plan, RequestedGate, Settings
from superweight.gate.merge import Inbox, Outbox, fail_unmeasured, merged

CELL = "smollm2-135m-instruct/clip-restore-int8-channel"


def perplexity(value):
    return Perplexity(
        value=value, protocol="p", corpus="c", origin="o", window=16, windows=2, tokens=30, nll=[1.0, math.inf],
        tokens_sha256="0",
    )  # fmt: skip


def evidence(**more):
    return CellEvidence(model="m", recipe="r", role="candidate", **more)


def test_evidence_comes_over_whole():
    items = [{"doc_id": 0, "doc_hash": "h", "acc": 1.0, "loglikelihoods": [-1.0, -math.inf]}]
    task = ZeroShot(task="t", metric="acc", n=1, data="d", metrics={"acc": math.nan}, items=items, alias="kept")
    sent = evidence(perplexity={"c": perplexity(math.inf)}, zero_shot={"t": task}, seconds={"sanity": 1.5})
    inbox = Inbox()
    text = Outbox().text([sent], [RequestedGate("m/r", "zero-shot:t"), RequestedGate("m/r")])
    assert inbox.take(text, "one") == {("m/r", ""), ("m/r", "zero-shot:t")}
    got = inbox.merged_with({})["m/r"]
    assert got.perplexity["c"] == sent.perplexity["c"]
    assert got.zero_shot["t"].items == items
    assert math.isnan(got.zero_shot["t"].value)
    assert got.zero_shot["t"].model_extra["alias"] == "kept"
    assert got.seconds == {"sanity": 1.5}


def test_what_was_handed_over_is_not_handed_over_again():
    outbox, cell, other = Outbox(), evidence(), CellEvidence(model="m", recipe="baseline", role="baseline")
    assert [one["recipe"] for one in json.loads(outbox.text([cell, other], []))["cells"]] == ["r", "baseline"]
    assert json.loads(outbox.text([cell, other], []))["cells"] == []
    cell.seconds["sanity"] = 1.0
    assert [one["recipe"] for one in json.loads(outbox.text([cell, other], []))["cells"]] == ["r"]


def test_a_cell_that_comes_again_takes_the_place_of_what_came_before():
    inbox, outbox, cell = Inbox(), Outbox(), evidence(failures=[Failure(stage="a", reason="crash", message="m")])
    inbox.take(outbox.text([cell], []), "one")
    cell.failures.append(Failure(stage="b", reason="crash", message="n"))
    inbox.take(outbox.text([cell], []), "one")
    assert [failure.stage for failure in inbox.merged_with({})["m/r"].failures] == ["a", "b"]


def test_a_cell_of_two_workers_keeps_the_figures_of_both():
    same, own = Failure(stage="a", reason="crash", message="m"), Failure(stage="b", reason="crash", message="n")
    one = evidence(perplexity={"c": perplexity(3.0)}, failures=[same], seconds={"a": 1.0}, reused={"a": "then"})
    other = evidence(
        perplexity={"c": perplexity(4.0), "d": perplexity(5.0)}, failures=[same, own], seconds={"a": 2.0, "b": 3.0},
        checkpoint={"origin": "hub"}, coverage=Coverage(share=1.0), stands_in="prune-super-weights",
        recipe_parameters={"kind": "roll-channels"}, key="k",
    )  # fmt: skip
    both = merged([{"m/r": one}, {"m/r": other}])["m/r"]
    assert {corpus: figure.value for corpus, figure in both.perplexity.items()} == {"c": 3.0, "d": 5.0}
    assert both.failures == [same, own]
    assert (both.seconds, both.reused) == ({"a": 1.0, "b": 3.0}, {"a": "then"})
    assert (both.checkpoint, both.key, both.coverage) == ({"origin": "hub"}, "k", Coverage(share=1.0))
    assert (both.stands_in, both.recipe_parameters) == ("prune-super-weights", {"kind": "roll-channels"})
    assert len(one.perplexity) == 1


def test_a_process_that_measures_and_merges_keeps_what_it_measures_later():
    own, inbox = {"m/r": evidence(seconds={"a": 1.0})}, Inbox()
    assert inbox.merged_with(own) is own
    inbox.take(Outbox().text([evidence(seconds={"b": 2.0})], []), "one")
    own["m/r"].seconds["c"] = 3.0
    assert inbox.merged_with(own)["m/r"].seconds == {"a": 1.0, "b": 2.0, "c": 3.0}


def test_what_was_asked_for_and_has_no_figure_and_no_failure_is_failed():
    plan = Plan.of(load_library(), Settings(recipes=("no-op", "clip-restore-int8-channel")))
    asked = plan.asking(RequestedGate(CELL, gate) for gate in ("", "perplexity:wiki-embedded", "zero-shot:piqa"))
    started = CellEvidence.of(plan.cell_by_id[CELL])
    started.perplexity["wiki-embedded"] = perplexity(3.0)
    started.seconds["perplexity:wiki-embedded"] = 1.0
    found = {CELL: started}
    fail_unmeasured(found, asked)
    assert [(one.stage, one.reason) for one in found[CELL].failures] == [("zero-shot:piqa", "interrupted")]
    fail_unmeasured(found, asked)
    assert len(found[CELL].failures) == 1
    nothing = {}
    fail_unmeasured(nothing, asked)
    assert [one.stage for one in nothing[CELL].failures] == ["cell", "perplexity:wiki-embedded", "zero-shot:piqa"]


RECIPES = ["baseline", "no-op", "prune-super-weights", "clip-restore-int8-channel"]


@pytest.mark.usefixtures("unwritten")
def test_two_runs_that_measured_half_each_are_the_run_that_measured_all(tiny_checkpoint, tmp_path):
    """Each half measures its own baseline, as two processes do that share a model."""
    from support.tiny_cards import write_data_cards, write_model_cards

    write_data_cards(tmp_path / "cards")
    write_model_cards(tmp_path / "cards", ["tiny"], *tiny_checkpoint, recipes=RECIPES)
    settings = Settings(
        cards=(tmp_path / "cards",), device="cpu", out=tmp_path / "out", store=None, baselines=tmp_path / "baselines"
    )
    plan = Plan.of(load_library(settings.cards), settings)

    def measured(numbers):
        run = GateRun(plan, settings)
        for number in numbers:
            run.measure(plan.cells[number])
        return run

    whole, first, second = measured([0, 1, 2, 3]), measured([0, 1]), measured([2, 3])
    assert [cell.role for cell in plan.cells] == ["baseline", "control", "control", "candidate"]
    nobody = GateRun(plan.asking(()), settings)
    nobody.merge(second.hand_over(plan.cells[2]), "second")
    for name, run in (("first", first), ("second", second)):
        nobody.merge(run.hand_over(), name)
    first.merge(second.hand_over(), "second")  # nothing is new
    assert set(first.evidence) == {plan.cells[0].id, plan.cells[1].id}

    def figures(run):
        tables = {
            name: {task: one.items for task, one in cell.zero_shot.items()} for name, cell in run.evidence.items()
        }
        document = run.finish().model_dump(exclude={"run": {"started", "finished"}, "look_back": True, "digest": True})
        for cell in document["cells"]:
            cell["seconds"] = sorted(cell["seconds"])
        return document, tables

    together, tables = figures(nobody)
    alone, others = figures(whole)
    assert alone["verdict"] == "PASS", alone["reasons"]
    assert tables == others
    assert len(tables["tiny/clip-restore-int8-channel"]["successor"]) >= 50
    assert together == alone
