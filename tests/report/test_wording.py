"""Pages, Markdown and terminal rest on typed data: other words change no structure, and older evidence is shown as it is."""

import hashlib
import json

import pytest
from test_page import Page, run_of

from superweight.evidence import CellEvidence, Failure, LayerPeaks, Noise, Sanity
from superweight.evidence.seal import sealed
from superweight.report import LeftOut, read_document, render, terminal_table, to_json
from superweight.report.comparison_text import comparison_text, look_back_lines
from superweight.report.markdown import render_markdown
from superweight.report.overview import not_measured, reason_lines, reasons, suggestions
from superweight.report.page import render_html
from superweight.runs.compare import compare_runs
from superweight.runs.document import RunDocument
from superweight.runs.read import read_snapshots, snapshots_of
from superweight.verdict import Reason, gates_of, judge_cell
from support import by_hand
from support.by_hand import BASE
from support.judging import answered, card, rules, shifted, waiver

SENTENCES = ("message", "summary", "argument", "expired_waivers", "findings", "notes", "reasons", "flags", "left_out")
SANE = Sanity(declared=["a"], changed=["a"], undeclared=[], unchanged=[])
COARSE = {"kind": "rtn", "bits": 4, "granularity": "tensor"}
NEW = {
    "run": ("not_asked",),
    "gate": ("summary", "findings", "expired_waivers", "windows", "answers", "super_weights", "oddities", "notes",
             "advice", "decided_by"),
}  # fmt: skip


def cells():
    """A run in which nearly everything happens: see the names."""
    weights = [by_hand.weight(survived=False), by_hand.weight(row=4)]
    base = by_hand.baseline(zero_shot={"piqa": answered([0] * 40)}, super_weights=[by_hand.weight()])
    base.noise["perplexity:wiki"] = Noise(variation="eager", n=8, value=1.0, reference=1.0, mean=0.0, sd=0.0, changed=0)
    given = {"sanity": SANE, "recipe_parameters": COARSE}
    same = {"zero_shot": {"piqa": answered([0] * 40)}}
    failed = by_hand.cell("not-measured", **given)
    failed.failures.append(Failure(stage="perplexity:wiki", reason="crash", message="of this\nand that"))
    return [
        base,
        by_hand.cell("passes", nll=shifted(0.0), **same, **given),
        by_hand.cell("worse", nll=shifted(0.4), zero_shot={"piqa": answered([1] * 20 + [0] * 20)}, super_weights=weights, **given),
        by_hand.cell("as-bad", nll=shifted(0.4), zero_shot={"piqa": answered([1] * 20 + [0] * 20)}, super_weights=weights, **given),
        by_hand.cell("too-good", nll=shifted(-0.4), **same, **given),
        by_hand.cell("undecided", nll=shifted(0.048), **same, **given),
        by_hand.cell("stopped", nll=shifted(0.4), zero_shot={"piqa": answered([0] * 10, planned=40)}, **given),
        by_hand.cell("waived", nll=shifted(0.4), **same, **given),
        by_hand.cell("stale", nll=shifted(0.0), **same, **given),
        failed,
        by_hand.cell("prune", "control", nll=shifted(2.0), **same, **given),
        by_hand.cell("no-op", "control", expects="PASS", nll=shifted(2.0), **same, sanity=SANE),
        by_hand.cell("looks-on", "reference", nll=shifted(0.4), **same, **given),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def document():
    by = rules(
        card("perplexity", versions={"torch": "1.0"}),
        card("zero-shot"),
        card("perplexity", id="old", recipes=("stale",), expires="2026-02-01"),
        waivers=[waiver(recipe="waived"), waiver(recipe="worse", id="late", expires="2026-02-02")],
    )
    found = cells()
    parts = [LeftOut(cell="m/passes", gate="sanity"), LeftOut(recipe="awq"), LeftOut(role="control")]
    made = run_of(*((cell, gates_of(cell, found[0], by, found)) for cell in found), not_asked=parts)
    made.look_back.notes.append("no room")
    made.reasons.insert(0, "a worker died")
    made.causes.insert(0, Reason(text="a worker died", outside=True))
    return made


def gibberish(text):
    """Other words for the same: as many lines, no word of the old, the same for the same."""
    return "\n".join(f"Qx{hashlib.sha256(line.encode()).hexdigest()[:12]}" for line in text.split("\n"))


def reworded(document):
    """The document with every sentence in it replaced."""

    def of(node, key=""):
        if isinstance(node, dict):
            return {name: of(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [gibberish(item) if isinstance(item, str) and key in SENTENCES else of(item, key) for item in node]
        return (
            gibberish(node) if isinstance(node, str) and node and key in (*SENTENCES, "text", "super_weights") else node
        )

    raw = document.model_dump(mode="python", exclude={"doubts"})
    for cell in raw["cells"]:
        cell["gates"] = of(cell["gates"])
        cell["argument"] = gibberish(cell["argument"])
        for failure in cell["failures"]:
            failure["message"] = gibberish(failure["message"])
    for key in ("causes", "reasons", "look_back", "run"):
        raw[key] = of(raw[key], key)
    return RunDocument.model_validate(raw)


def shape(html):
    """Elements and their attributes, without text."""
    return [(tag, sorted(given.items())) for tag, given in Page(html).elements]


def test_the_run_has_something_of_everything(document):
    """Or the next test would show nothing."""
    gates = [gate for cell in document.cells for gate in cell.gates]
    for field in NEW["gate"]:
        assert any(getattr(gate, field) for gate in gates), field
    kinds = {each.kind for gate in gates for each in gate.advice}
    assert {"restore", "finer-settings", "beside", "check-inputs"} <= kinds
    assert {cell.verdict for cell in document.cells} == {"PASS", "REGRESSION", "INFRA", "INCONCLUSIVE"}
    assert any(gate.waiver for gate in gates)


def test_other_words_change_nothing_but_the_words(document):
    other = reworded(document)
    assert {gate.message for cell in other.cells for gate in cell.gates}.isdisjoint(
        {gate.message for cell in document.cells for gate in cell.gates}
    )
    assert shape(render_html(other)) == shape(render_html(document))
    assert terminal_table(other) == terminal_table(document)
    assert [line[:2] for line in render_markdown(other).splitlines()] == [
        line[:2] for line in render_markdown(document).splitlines()
    ]
    for tell in (not_measured, reason_lines):
        assert len(tell(other)) == len(tell(document)) > 0
    assert [(each.cell and each.cell.id, len(each.said)) for each in reasons(other)] == [
        (each.cell and each.cell.id, len(each.said)) for each in reasons(document)
    ]
    assert [each.cells for each in suggestions(other)] == [each.cells for each in suggestions(document)]
    assert len(look_back_lines(other.look_back)) == len(look_back_lines(document.look_back))


def test_what_another_recipe_reached_is_no_suggestion(document):
    said = " ".join(fix.sentence for fix in suggestions(document)).lower()
    assert "in this run passes has" not in said
    assert "try granularity = 'group'" in said
    assert [str(cell) for fix in suggestions(document) if "granularity" in fix.sentence for cell in fix.cells][:2] == [
        "m/worse",
        "m/as-bad",
    ]


def as_version_1_2(document):
    """The evidence as the version before wrote it, sealed."""
    raw = json.loads(to_json(document))
    raw["schema_version"] = "1.2"
    del raw["causes"], raw["run"]["not_asked"]
    for cell in raw["cells"]:
        for gate in cell["gates"]:
            for field in NEW["gate"]:
                del gate[field]
    return json.dumps(sealed(raw))


def test_evidence_of_the_version_before_is_read_shown_and_compared(document, tmp_path):
    (tmp_path / "evidence.json").write_text(as_version_1_2(document))
    old = read_document(tmp_path)
    assert old.doubts == []
    assert (old.verdict, old.reasons, old.run.left_out) == (document.verdict, document.reasons, document.run.left_out)
    render(tmp_path, old)
    page = Page((tmp_path / "report.html").read_text()).words
    for text in (*old.reasons, *old.run.left_out):
        assert " ".join(text.split()) in page
    for cell in old.cells:
        for gate in cell.gates:
            assert " ".join(gate.message.split()) in page
    lines = [" ".join(reason.splitlines()) for reason in old.reasons]
    assert reason_lines(old) == list(dict.fromkeys(lines))
    assert terminal_table(old) == terminal_table(document)
    now = compare_runs(snapshots_of(document), snapshots_of(document), by_hand.gates)
    then = compare_runs(read_snapshots(tmp_path), snapshots_of(document), by_hand.gates)
    same = [(change.gate, change.verdict) for change in now.models[0].changes if change.kind == "perplexity"]
    assert [(change.gate, change.verdict) for change in then.models[0].changes if change.kind == "perplexity"] == same


def test_a_change_says_its_gate_once_whatever_its_words():
    """Of figures the sentence names the corpus itself; what was not measured is told with the gate before it."""
    before = by_hand.snapshot(by_hand.baseline(), by_hand.cell("a", nll=BASE), by_hand.cell("b", nll=BASE))
    after = by_hand.snapshot(by_hand.baseline(), by_hand.cell("a", nll=shifted(0.4)), by_hand.cell("b"))
    comparison = compare_runs([before], [after], by_hand.gates)
    for change in comparison.models[0].changes:
        change.message = f"about this: {change.verdict}"
    text = comparison_text(comparison)
    assert "a: REGRESSION, about this" in text
    assert "b: CANNOT COMPARE, perplexity:wiki: about this" in text


def test_detection_is_stored_as_it_was_measured():
    peak = {"value": 1.0, "channel": 2, "token": 3, "bos": True}
    raw = {
        "super_weights": [
            {"layer": 1, "expert": None, "row": 2, "column": 3, "value": 1.5, "bits": "0x3fc0", "dtype": "bfloat16",
             "status": "causal", "effect": 3.0, "interval": [2.0, 4.0], "group": None, "group_effect": None,
             "null_effect": None, "activation": 0, "contribution": 0.9, "input_value": 7.0, "suppression": 0.8,
             "origin": "detection", "value_differs": False},
        ],
        "super_activations": [
            {"layer": 1, "module": "m", "token": 0, "token_id": 1, "token_text": "The", "bos": True, "channel": 2,
             "value": 100.0, "first_layer": 1, "last_layer": 3, "peak": 120.0, "peak_layer": 2},
        ],
        "groups": [{"kind": "row", "members": [{"layer": 1, "expert": None, "row": 2, "column": 3}], "effect": 3.0,
                    "without_causal": None, "null_effect": None}],
        "peaks": [{"layer": 0, "down_input": peak, "down_output": peak, "residual": peak, "residual_median": 0.1}],
        "perplexity": 12.0, "tokens": 300, "prompt": "The ferry", "rounds": 2, "settings": {"floor": 1.05},
        "card": [{"layer": 1, "expert": None, "row": 2, "column": 3, "value": 1.5, "status": "causal", "source": "paper"}],
        "known": True,
        "of a later version": {"kept": True},
    }  # fmt: skip
    cell = CellEvidence(model="m", recipe="baseline", role="baseline", detection=raw)
    assert json.loads(json.dumps(cell.model_dump(mode="python")["detection"])) == raw
    without = raw["super_weights"][0]
    del without["value_differs"]  # where the card gives no value
    cell = CellEvidence(model="m", recipe="baseline", role="baseline", detection=raw)
    assert json.loads(json.dumps(cell.model_dump(mode="python")["detection"])) == raw
    assert cell.detection.super_weights[0].key == cell.detection.card[0].key == (1, -1, 2, 3)
    assert isinstance(cell.detection.peaks[0], LayerPeaks)
    assert judge_cell(cell, gates_of(cell, None, rules())).gates[0].verdict == "PASS"
