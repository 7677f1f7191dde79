"""The page: what it says, that nothing in it can act, and that it stands whatever the evidence lacks."""

import base64
import hashlib
import json
import math
import re
import time
from html.parser import HTMLParser

import pandas as pd
import pytest

from superweight.errors import InfraError
from superweight.evidence import Failure, write_items
from superweight.report import LeftOut, RunInfo, build_document, read_document, render, to_json
from superweight.report.badge import badge
from superweight.report.export import write_export
from superweight.report.format import difference as told_difference
from superweight.report.overview import reason_lines, suggestions
from superweight.report.page import render_html
from superweight.report.page.flips import flipped
from superweight.report.page.interval import interval_svg
from superweight.report.page.matrix import matrix
from superweight.report.shippable import candidate_rows
from superweight.runs.salvage import salvage
from superweight.verdict import GateResult, Reason, infra_gate, judge_cell
from superweight.verdict.result import Advice
from support import by_hand

HOSTILE = "</script><img src=x onerror=alert(1)>\"'`{{7*7}}${1}&amp;\x1b[31m-->"
BROKEN = f"{HOSTILE}\ud800"  # half a surrogate pair, as a data set may hold it
VOID = {"meta", "link", "input", "br", "img"}


class Page(HTMLParser):
    """Elements, attributes and text, and whether the elements nest."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.ids, self.text, self.open, self.scripts = [], [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append((tag, found))
        if "id" in found:
            self.ids.append(found["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self.open[-1:] in (["script"], ["style"]) else self.text).append(data)

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


def gate(gate="perplexity:wiki", verdict="PASS", **more):
    kind = gate.partition(":")[0]
    given = {
        "metric": "perplexity" if kind == "perplexity" else "acc",
        "value": 20.4 if kind == "perplexity" else 0.52,
        "baseline": 20.0 if kind == "perplexity" else 0.5,
        "difference": 0.02,
        "interval": (0.01, 0.03),
        "margin": 0.05,
        "n": 4,
        "planned": 16,
        "higher_is_better": kind != "perplexity",
        "detectable": 0.04,
        "message": "as measured",
    }
    return GateResult(gate=gate, kind=kind, verdict=verdict, **(given | more))


def advice(text, kind="finer-settings"):
    return Advice(kind=kind, text=text)


def run_of(*cells, **more):
    """A judged run; what it was not asked for is told in words and, as runs do, part by part."""
    more["left_out"] = more.get("left_out") or [str(part) for part in more.get("not_asked", ())]
    run = RunInfo(**({"started": by_hand.TAKEN, "tier": "smoke", "commit": "abc"} | more))
    return build_document(run, [judge_cell(cell, gates) for cell, gates in cells])


def small(verdict="PASS", **more):
    weights = [by_hand.weight(), by_hand.weight(row=4)]
    return run_of(
        (by_hand.baseline(), [gate(value=20.0, baseline=None, difference=None, interval=None, margin=None)]),
        (by_hand.cell("clip-restore", super_weights=weights), [gate(verdict=verdict, **more)]),
        (
            by_hand.cell("prune", role="control", expects="REGRESSION"),
            [gate(verdict="REGRESSION", difference=math.inf)],
        ),
        (by_hand.cell("rtn", role="reference"), [gate("zero-shot:piqa", "INCONCLUSIVE", difference=-0.01)]),
    )


def test_the_first_screen_answers_in_order():
    page = Page(render_html(small(verdict="REGRESSION", advice=[advice("smaller groups")]))).words
    order = ("✗ REGRESSION: must not ship", "1 candidate ✗ REGRESSION", "1 control ✓ as expected", "What may ship", "Why",
             "Since the last release", "What to try", "Smaller groups", "Not measured", "Models and recipes")  # fmt: skip
    assert [page.index(words) for words in order] == sorted(page.index(words) for words in order)
    assert "2026-01-31 01:00 UTC" in page
    assert "commit abc" in page.replace("commit  abc", "commit abc")


def test_every_cell_can_be_linked_to_and_every_link_leads_somewhere():
    page = Page(render_html(small()))
    assert {"m/baseline", "m/clip-restore", "m/prune", "m/rtn"} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    links = {attributes["href"] for tag, attributes in page.elements if tag == "a"}
    assert {link.removeprefix("#") for link in links} <= set(page.ids)


def test_a_cell_tells_gates_weights_and_bits():
    words = Page(render_html(small())).words
    for said in (
        "20 → 20.4",
        "+2.0 % [+1.0, +3.0]",
        "4 of 16",
        "(12 saved)",
        "+4.0 %",
        "0x3f800000",
        "✓ survived",
        "8.00 bits",
    ):
        assert said in words, said


def test_lost_weights_and_waivers_are_named():
    waiver = {"ticket": "QA-1", "expires": "2027-01-01", "why": "known", "card": "c"}
    cell = by_hand.cell("clip-restore", super_weights=[by_hand.weight(survived=False)])
    words = Page(render_html(run_of((cell, [gate(verdict="REGRESSION", waiver=waiver)])))).words
    assert "✗ lost" in words
    assert "Waived: perplexity:wiki until 2027-01-01 (QA-1): known" in words


def hostile():
    items = [{"doc_id": i, "doc_hash": HOSTILE, "acc": 0.0, "text": BROKEN, "target": 0, "choices": [BROKEN, "b"],
              "loglikelihoods": [-1.0, -2.0]} for i in range(2)]  # fmt: skip
    flipped = [item | {"loglikelihoods": [-2.0, -1.0], "acc": 0.0} for item in items]
    base, other = (
        by_hand.baseline(model=HOSTILE, scores=[1.0, 1.0]),
        by_hand.cell(HOSTILE, scores=[0.0, 0.0], model=HOSTILE),
    )
    base.zero_shot["piqa"].items, other.zero_shot["piqa"].items = items, flipped
    other.why = other.checkpoint["note"] = other.checkpoint["origin"] = HOSTILE
    other.recipe_parameters, other.recipe_figures = {HOSTILE: HOSTILE}, {HOSTILE: {HOSTILE: 1}}
    other.failures.append(Failure(stage=HOSTILE, reason=HOSTILE, message=BROKEN))
    other.super_weights = [by_hand.weight(dtype=HOSTILE, origin=HOSTILE, original_bits=HOSTILE)]
    gates = [
        gate(f"perplexity:{HOSTILE}", message=BROKEN, why=HOSTILE, method=HOSTILE, verdict="REGRESSION"),
        gate(
            "zero-shot:piqa",
            details={"flips": 2},
            metric="acc",
            message="x",
            advice=[advice(HOSTILE)],
            verdict="REGRESSION",
        ),
    ]
    document = run_of(
        (base, []), (other, gates), commit=HOSTILE, command=HOSTILE, left_out=[HOSTILE], environment={HOSTILE: HOSTILE}
    )
    document.reasons.append(HOSTILE)
    document.causes.append(Reason(text=HOSTILE, outside=True))
    document.look_back.notes.append(HOSTILE)
    return document


def test_hostile_strings_stay_text(tmp_path):
    html = render_html(hostile(), directory=tmp_path)
    page = Page(html)
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed")]
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "onerror=alert(1)" in page.words
    assert "49" not in re.findall(r"\{\{.*?\}\}|\b49\b", page.words)


def test_hostile_strings_reach_every_file_and_break_none(tmp_path):
    document = hostile()
    document.cells[1].recipe, document.cells[1].model = "x", document.cells[0].model  # a path cannot hold the name
    document.cells[0].model = document.cells[1].model = "m"
    document.cells[1].gates[0].gate = "perplexity:wiki"  # nor can a card
    write_items(tmp_path / "items", document.cells)
    render(tmp_path, document)
    assert "<img" not in (tmp_path / "summary.md").read_text().replace("&lt;img", "")
    assert json.loads((tmp_path / "badge.json").read_text())["schemaVersion"] == 1
    json.loads(to_json(document))


def test_only_the_pages_own_script_may_run_and_nothing_may_be_loaded():
    html = render_html(small())
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1]
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"(?:src|href)\s*=\s*[\"'](?!#|data:,)", html)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)


def test_flipped_items_are_shown_with_their_text_from_memory_and_from_disk(tmp_path):
    items = [
        {"doc_id": i, "doc_hash": f"h{i}", "acc": 1.0, "text": f"Question {i}?", "target": 0, "choices": [" yes", " no, 'inf'"],
         "loglikelihoods": [-1.0, -math.inf], "is_greedy": [True, False]}
        for i in range(3)
    ]  # fmt: skip
    after = [
        item | {"loglikelihoods": [-3.0, -2.0 if i else math.nan], "acc": float(i == 0)} for i, item in enumerate(items)
    ]
    base, other = by_hand.baseline(scores=[1.0] * 3), by_hand.cell("rtn", scores=[1.0, 0.0, 0.0])
    base.zero_shot["piqa"].items, other.zero_shot["piqa"].items = items, after
    document = run_of((base, []), (other, [gate("zero-shot:piqa", details={"flips": 2})]))
    live = render_html(document, directory=tmp_path)
    write_items(tmp_path / "items", document.cells)
    (tmp_path / "evidence.json").write_text(to_json(document))
    again = render_html(read_document(tmp_path), directory=tmp_path)
    for html in (live, again):
        words = Page(html).words
        assert "2 answers changed on piqa" in words
        assert "Question 1? yes no, 'inf'" in words
        assert "right → wrong" in words
    assert live == again
    (tmp_path / "items" / "m" / "rtn" / "piqa.csv").unlink()
    assert "ables of 1 figures are not beside" in Page(render_html(read_document(tmp_path), directory=tmp_path)).words


def answered(scores):
    """A run whose candidate answers as these scores say, 0 being another answer than the baseline's."""
    items = [
        {"doc_id": i, "doc_hash": f"h{i}", "acc": 1.0, "text": f"Question {i}?", "target": 0, "choices": ["yes", "no"],
         "loglikelihoods": [-1.0, -2.0]}
        for i in range(len(scores))
    ]  # fmt: skip
    after = [
        item | {"acc": score, "loglikelihoods": [-2.0 + score, -1.5]} for item, score in zip(items, scores, strict=True)
    ]
    base, other = by_hand.baseline(scores=[1.0] * len(scores)), by_hand.cell("rtn", scores=scores)
    base.zero_shot["piqa"].items, other.zero_shot["piqa"].items = items, after
    return run_of((base, []), (other, [gate("zero-shot:piqa", details={"flips": scores.count(0.0)})]))


@pytest.mark.parametrize("damage", ["cut short", "of another run", "not a table", "a number that is none"])
def test_damaged_tables_cost_the_changed_answers_and_no_more(tmp_path, damage):
    document = answered([1.0, 0.0, 0.0, 1.0])
    write_items(tmp_path / "items", document.cells)
    (tmp_path / "evidence.json").write_text(to_json(document))
    table = tmp_path / "items" / "m" / "rtn" / "piqa.csv"
    if damage == "of another run":
        write_items(tmp_path / "other", answered([0.0, 0.0, 1.0, 0.0]).cells)
        table.write_text((tmp_path / "other" / "m" / "rtn" / "piqa.csv").read_text())
    else:
        text = table.read_text()
        table.write_text(
            {"cut short": text[:-40], "not a table": "\0\0", "a number that is none": text.replace("\n1,", "\nx,")}[
                damage
            ]
        )
    words = Page(render_html(read_document(tmp_path), directory=tmp_path)).words
    assert "Question" not in words
    assert "ables of 1 figures are not beside" in words


def test_changed_answers_of_candidates_come_before_those_of_others(tmp_path, monkeypatch):
    document = answered([0.0] * 6)
    reference = document.cells[1].model_copy(update={"recipe": "worse", "role": "reference", "verdict": "REGRESSION"})
    document.cells = [document.cells[0], reference, document.cells[1]]
    monkeypatch.setattr("superweight.report.page.flips.IN_ALL", 6)
    found = flipped(document, tmp_path)
    assert {cell: len(tasks[0].shown) for cell, tasks in found.cells.items()} == {"m/rtn": 6, "m/worse": 0}
    assert "those of 1 more figures" in found.notes[0]
    assert "6 answers changed on piqa" in Page(render_html(document, directory=tmp_path)).words


def test_what_could_not_be_judged_is_not_called_measured():
    stale = gate(verdict="INFRA", reason="stale-card", message="the card is past its date")
    words = Page(render_html(run_of((by_hand.cell("clip"), [stale])))).words
    assert "m/clip perplexity:wiki: stale-card: the card is past its date" in words
    assert "everything that this run was asked for was measured" not in words


def test_a_part_of_a_tier_is_not_green():
    document = run_of(
        (by_hand.cell("clip"), [gate()]),
        not_asked=[
            LeftOut(cell="m/clip", gate="zero-shot:piqa"),
            LeftOut(cell="m/clip", gate="sanity"),
            LeftOut(recipe="rtn"),
            LeftOut(role="control"),
        ],
    )
    assert document.run.left_out == [
        "m/clip zero-shot:piqa", "m/clip sanity and super weights", "*/rtn", "no control in this run"
    ]  # fmt: skip
    html = render_html(document)
    assert '<header class="top INCONCLUSIVE">' in html
    words = Page(html).words
    assert "✓ PASS in part: not the whole tier, so no release decision" in words
    for said in ("Not asked for: m/clip zero-shot:piqa", "Not asked for: rtn", "No control was run"):
        assert said in words


def test_each_model_has_its_line():
    bad = gate(verdict="REGRESSION", difference=0.08, interval=(0.07, 0.09))
    document = run_of((by_hand.cell("clip", model="good"), [gate()]), (by_hand.cell("clip", model="bad"), [bad]))
    words = Page(render_html(document)).words
    assert "✗ REGRESSION: 1 of 2 models must not ship" in words
    assert "✗ bad : must not ship: clip: perplexity on wiki +8.0 % [+7.0, +9.0], +5 % is accepted" in words
    assert "✓ good : may ship" in words


@pytest.mark.parametrize("why", ["a worker died", "in part"])
def test_nothing_may_ship_under_a_run_that_releases_nothing(why):
    bad = gate(verdict="REGRESSION", difference=0.08, interval=(0.07, 0.09))
    cells = [(by_hand.cell("clip", model="good"), [gate()]), (by_hand.cell("clip", model="other"), [gate()])]
    if why == "in part":
        document = run_of(*cells, (by_hand.cell("rtn", model="good"), [bad]), left_out=["*/awq"])
    else:
        document = run_of(*cells)
        document.verdict, document.reasons, document.causes = "INFRA", [why], [Reason(text=why, outside=True)]
    words = Page(render_html(document)).words
    assert "other : passed, but this run releases nothing" in words
    for said in ("may ship", "What may ship", "ship clip"):
        assert said not in words.replace("must not ship", "")


def test_what_has_nothing_to_show_is_told_in_a_line():
    cell = by_hand.cell("scale", role="reference", size=None)
    for stage in ("sanity", "perplexity:wiki"):
        cell.failures.append(Failure(stage=stage, reason="not-applicable", message="no super weight: do this and that"))
    words = Page(render_html(run_of((by_hand.cell("clip"), [gate()]), (cell, [])))).words
    assert words.count("m/scale: not applicable, as no super weight is known in this model") == 1


def test_what_passes_is_what_to_ship_instead():
    tried = [advice("smaller groups"), advice("in this run rtn has perplexity 9", "beside")]
    bad = gate(verdict="REGRESSION", advice=tried)
    document = run_of(
        (by_hand.cell("a"), [bad]), (by_hand.cell("b"), [gate()]), (by_hand.cell("c", size=None), [gate()])
    )
    assert [fix.sentence for fix in suggestions(document)] == [
        "Ship b (8.00 bits per weight) instead: it passes in this run",
        "Smaller groups",
    ]


def test_the_nearest_to_its_margin_is_by_its_interval():
    near = gate("zero-shot:near", difference=-0.016, interval=(-0.048, 0.013))
    far = gate("zero-shot:far", difference=-0.016, interval=(-0.042, 0.001))
    (row,) = candidate_rows(run_of((by_hand.cell("clip"), [far, near])))
    assert row.score == "-1.6 pt on near, at worst -4.8 pt (-5 pt accepted)"
    assert row.size == "8.00 bits per weight"


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (0.02, "+2.0 % [+1.0, +3.0]"),
        (math.nan, "not a number"),
        (math.inf, "×∞ [+1.0, +3.0]"),
        (8e4, "×80,000 [+1.0, +3.0]"),
    ],
)
def test_changes_are_told_in_per_cent_and_beyond_tenfold_as_multiples(difference, said):
    assert str(told_difference(gate(difference=difference))) == said


def test_bytes_that_are_no_text_are_no_evidence(tmp_path):
    (tmp_path / "evidence.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InfraError, match="not UTF-8"):
        read_document(tmp_path)


@pytest.mark.parametrize(
    ("given", "message", "colour"),
    [
        ({}, "may ship", "brightgreen"),
        ({"left_out": ["*/rtn"]}, "passed in part", "yellow"),
    ],
)
def test_the_badge_says_what_the_headline_says(given, message, colour):
    found = json.loads(badge(run_of((by_hand.cell("clip"), [gate()]), **given)))
    assert (found["message"], found["color"]) == (message, colour)
    broken = run_of((by_hand.cell("prune", role="control", expects="REGRESSION"), [gate()]))
    assert json.loads(badge(broken))["message"] == "gate failed its check"


def test_export_has_a_row_a_gate_and_reads_back_the_same(tmp_path):
    document = small()
    for name in ("figures.csv", "figures.parquet"):
        write_export(tmp_path / name, [document, document])
    csv, parquet = pd.read_csv(tmp_path / "figures.csv"), pd.read_parquet(tmp_path / "figures.parquet")
    assert len(csv) == len(parquet) == 2 * sum(len(cell.gates) for cell in document.cells)
    row = csv[csv["recipe"] == "clip-restore"].iloc[0]
    assert (row["value"], row["low"], row["high"], row["n"], row["super_weights_kept"]) == (20.4, 0.01, 0.03, 4, 2)
    with pytest.raises(InfraError, match=r"ends in \.csv or \.parquet"):
        write_export(tmp_path / "figures.xlsx", [document])


@pytest.mark.parametrize(
    ("given", "drawn", "not_drawn"),
    [
        ({}, ["circle", 'class="reach"', 'class="lost"'], ["arrow"]),
        ({"difference": 2.0, "interval": (1.0, math.inf)}, ["arrow"], ["circle"]),
        ({"difference": math.inf, "interval": None}, ["arrow"], ["circle"]),
        ({"difference": -1.0, "interval": (-math.inf, 0.0)}, ["arrow"], ["circle"]),
        ({"margin": 0.0}, ["svg"], []),
        ({"margin": None}, [], ["svg"]),
        ({"difference": None}, [], ["svg"]),
        ({"difference": math.nan}, [], ["svg"]),
    ],
)
def test_intervals_are_drawn_against_the_margin(given, drawn, not_drawn):
    svg = interval_svg(gate(**given))
    assert all(words in svg for words in drawn)
    assert not any(words in svg for words in not_drawn)
    assert "nan" not in svg
    assert "inf" not in svg.replace("INFRA", "")


def test_the_losing_side_is_where_the_score_gets_worse():
    def shaded(svg):
        return tuple(
            float(value) for value in re.search(r'class="lost" x="([\d.]+)" y="1" width="([\d.]+)"', svg).groups()
        )

    left, width = shaded(interval_svg(gate()))
    assert left > 60
    assert left + width == pytest.approx(163)
    assert shaded(interval_svg(gate("zero-shot:piqa")))[0] == pytest.approx(5)


def test_the_longer_list_goes_down_and_holes_stay_empty():
    cells = [(by_hand.cell(f"r{i}", model=f"m{j}"), [gate()]) for i in range(3) for j in range(2) if i or j]
    found = matrix(run_of(*cells))
    assert not found.models_down
    assert (len(found.rows), found.columns) == (3, ["m1", "m0"])
    assert sum(square is None for _, squares in found.rows for square in squares) == 1


def test_a_control_that_is_not_as_expected_stands_out():
    document = run_of((by_hand.cell("prune", role="control", expects="REGRESSION"), [gate()]))
    ((_, (square,)),) = matrix(document).rows
    assert (square.symbol, square.kind) == ("✗", "INFRA")
    words = Page(render_html(document)).words
    assert "1 of 1 control ✗ not as expected" in words
    assert "INFRA: the gate failed its own check, so no verdict counts" in words


def test_what_several_cells_have_in_common_is_said_once():
    document = run_of((by_hand.cell("a"), [gate()]), (by_hand.cell("b"), [gate()]))
    document.causes = [
        Reason(text="a worker died: why", outside=True),
        *(Reason(cell=f"m/{cell}", text=text) for cell, text in (("a", "no\nfile"), ("b", "no\nfile"), ("b", "other"))),
    ]
    assert reason_lines(document) == ["a worker died: why", "m/a and 1 more: no file", "m/b: other"]


def test_a_control_that_was_not_measured_is_not_accused():
    gone = infra_gate("perplexity:wiki", "perplexity", Failure(stage="perplexity:wiki", reason="crash", message="died"))
    document = run_of((by_hand.cell("prune", role="control", expects="REGRESSION"), [gone]))
    words = Page(render_html(document)).words
    assert "1 of 1 control ! not measured" in words
    assert "own check" not in words


def test_a_run_of_nothing_and_a_cell_of_nothing():
    assert "no cell was measured" in Page(render_html(run_of())).words
    lost = by_hand.cell("rtn", size=None)
    lost.failures.append(Failure(stage="checkpoint", reason="offline", message="no network"))
    words = Page(render_html(run_of((lost, [])))).words
    assert "m/rtn checkpoint: offline: no network" in words
    assert "Nothing was measured." in words


def older(document, change):
    raw = json.loads(to_json(document))
    change(raw)
    return json.dumps(raw)


def test_older_evidence_says_what_it_lacks(tmp_path):
    def change(raw):
        raw["schema_version"] = "1.0"
        del raw["look_back"]
        for cell in raw["cells"]:
            del cell["peaks"], cell["reused"]

    (tmp_path / "evidence.json").write_text(older(small(), change))
    document, lost = salvage(tmp_path)
    assert lost == []
    assert "This evidence is of schema 1.0" in Page(render_html(document)).words


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    def change(raw):
        raw["cells"][1]["gates"][0]["verdict"] = "SPLENDID"
        raw["cells"][2]["perplexity"] = {"wiki": {"value": 1.0}}
        del raw["cells"][3]["model"]
        raw["look_back"]["alarms"] = 3

    (tmp_path / "evidence.json").write_text(older(small(), change))
    document, lost = salvage(tmp_path)
    assert [cell.recipe for cell in document.cells] == ["baseline", "clip-restore", "prune"]
    assert document.cells[1].gates == []
    assert document.cells[2].perplexity == {}
    words = Page(render_html(document, lost=lost)).words
    for part in ("cells.1.gates.0.verdict", "cells.2.perplexity.wiki", "cells.3", "look_back.alarms"):
        assert f"{part} could not be read" in words


@pytest.mark.parametrize("text", ["{", "[]", '{"run": {}}', '{"run": {"started": "x"}, "verdict": "PASS"}', "null"])
def test_what_is_no_evidence_at_all_is_refused(tmp_path, text):
    (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(Exception, match=r"evidence\.json: not evidence"):
        salvage(tmp_path)


def big(models=40, recipes=20):
    roles = ["candidate"] * 6 + ["reference"] * (recipes - 8) + ["control"]
    cells = []
    for i in range(models):
        model = f"model-{i:02d}-instruct"
        base = [gate(name, value=20.0, baseline=None, difference=None, interval=None, margin=None) for name in GATES]
        cells.append((by_hand.baseline(model=model), base))
        for j, role in enumerate(roles):
            drop = 0.01 * (i * j % 7)
            verdict = "REGRESSION" if drop > 0.05 else "PASS"
            gates = [gate(name, verdict, difference=drop, interval=(drop - 0.01, drop + 0.01)) for name in GATES]
            one = by_hand.cell(f"recipe-{j:02d}", role, model=model, super_weights=[by_hand.weight()], expects=None)
            cells.append((one, gates))
    return run_of(*cells)


GATES = (
    "sanity",
    "super-weights",
    "perplexity:wiki",
    "perplexity:web",
    "zero-shot:arc",
    "zero-shot:piqa",
    "zero-shot:sciq",
)


def test_forty_models_by_twenty_recipes_are_a_few_megabytes():
    document = big()
    started = time.perf_counter()
    html = render_html(document)
    print(f"{len(html) / 2**20:.1f} MiB in {time.perf_counter() - started:.1f} s")
    assert len(document.cells) == 40 * 20
    assert len(html) < 6 * 2**20
    assert "Pictures of 6 of 40 models" in Page(html).words
