"""Reports from evidence made by hand: the document, its schema, Markdown, HTML, and hostile strings."""

import datetime
import json
import math
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from superweight.cards import load_library
from superweight.errors import InfraError
from superweight.evidence import (
    CellEvidence,
    Failure,
    Perplexity,
    Sanity,
    Size,
    StoredWeight,
    ZeroShot,
    write_items,
)
from superweight.report import (
    RunInfo,
    build_document,
    json_schema,
    read_document,
    render,
    strict_json,
    terminal_table,
    to_json,
    write_run,
)
from superweight.report.markdown import render_markdown
from superweight.verdict import GateResult, Rules, gates_of, judge_cell

HOSTILE = "<script>alert('x')</script>|`"


@pytest.fixture(scope="module")
def rules():
    return Rules(book=load_library().book, today=datetime.date(2026, 1, 31))


def perplexity(value, corpus="wiki"):
    nll = [math.log(value)] * 4 if math.isfinite(value) else [math.inf] * 4
    return Perplexity(
        value=value,
        protocol="gptq",
        corpus=corpus,
        origin="o",
        window=64,
        windows=4,
        tokens=252,
        nll=nll,
        tokens_sha256="t",
    )


def task(correct):
    items = [{"doc_id": i, "doc_hash": str(i), "acc": float(i < correct), "text": HOSTILE} for i in range(40)]
    return ZeroShot(
        task="piqa", metric="acc", n=40, data="embedded", metrics={"acc": correct / 40, "acc_norm": 0.5}, items=items
    )


def weight(survived):
    return StoredWeight(
        layer=1, row=2, column=3, status="causal", origin="card", dtype="float32", original=1.0,
        original_bits="0x3f800000", stored=1.0 if survived else math.nan, stored_bits="0x7fc00000", survived=survived,
    )  # fmt: skip


@pytest.fixture
def document(rules):
    sanity = Sanity(declared=["w"], changed=["w"], undeclared=[], unchanged=[])
    size = Size(compressed_bits_per_weight=4.5, model_bits_per_weight=9.0)
    base = CellEvidence(model="m", recipe="baseline", role="baseline", why=HOSTILE)
    base.perplexity["wiki"], base.zero_shot["piqa"] = perplexity(20.0), task(30)
    good = base.model_copy(
        update={"recipe": "clip-restore", "role": "candidate", "sanity": sanity, "size": size, "promises": True}
    )
    good.super_weights = [weight(True)]
    bad = good.model_copy(
        update={"recipe": "rtn", "role": "reference", "promises": False, "super_weights": [weight(False)]}
    )
    bad.perplexity = {"wiki": perplexity(math.inf)}
    lost = CellEvidence(model=HOSTILE, recipe="w8a8", role="reference")
    lost.failures.append(Failure(stage="checkpoint", reason="offline", message=f"no network {HOSTILE}"))
    cells = [judge_cell(cell, gates_of(cell, base, rules)) for cell in (base, good, bad, lost)]
    run = RunInfo(started="2026-01-31T00:00:00+00:00", tier="smoke", command=HOSTILE, environment={"device": "cpu"})
    return build_document(run, cells)


def test_evidence_has_the_shape_that_others_rely_on(document):
    raw = json.loads(to_json(document))
    assert {"schema_version", "run", "verdict", "cells"} <= raw.keys()
    assert raw["verdict"] == "INFRA"
    cell = raw["cells"][1]
    assert {"model", "recipe", "role", "verdict", "gates", "perplexity", "zero_shot", "super_weights"} <= cell.keys()
    assert {"gate", "verdict", "value", "baseline", "interval", "margin", "n"} <= cell["gates"][0].keys()
    assert {"value", "protocol", "windows"} <= cell["perplexity"]["wiki"].keys()
    assert (
        cell["zero_shot"]["piqa"]["acc"],
        cell["zero_shot"]["piqa"]["acc_norm"],
        cell["zero_shot"]["piqa"]["n"],
    ) == (0.75, 0.5, 40)
    assert {"layer", "expert", "row", "column", "original", "stored", "survived"} <= cell["super_weights"][0].keys()
    assert "items" not in cell["zero_shot"]["piqa"]


def test_evidence_is_strict_json_and_fits_its_schema(document):
    text = to_json(document)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(text), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": "1.0"}, schema)


def test_infinite_perplexity_survives_the_round_trip(document, tmp_path):
    (tmp_path / "evidence.json").write_text(to_json(document))
    again = read_document(tmp_path)
    assert again.cells[2].perplexity["wiki"].value == math.inf
    assert to_json(again) == to_json(document)


def test_a_run_directory_is_whole_and_can_be_rendered_again(document, tmp_path):
    write_run(tmp_path, document, document.cells)
    assert {path.name for path in tmp_path.iterdir()} == {
        "evidence.json", "evidence.schema.json", "summary.md", "report.html", "badge.json", "figures.csv", "items"
    }  # fmt: skip
    assert (tmp_path / "items" / "m" / "clip-restore" / "piqa.csv").is_file()
    before = (tmp_path / "report.html").read_text()
    (tmp_path / "report.html").unlink()
    render(tmp_path, read_document(tmp_path))
    assert (tmp_path / "report.html").read_text() == before


def test_markdown_tells_verdict_reasons_and_cells(document):
    text = render_markdown(document)
    assert text.startswith("# ! INFRA")
    assert "no network" in text
    assert "| m" in text
    assert "<script>" not in text.split("## Cells")[1]
    assert "20 → 20 (+0.0 %)" in text


def test_terminal_table_has_baseline_value_difference_verdict(document):
    table = terminal_table(document)
    header, _, *lines = table.splitlines()
    assert header.split() == [
        "model",
        "recipe",
        "role",
        "bits",
        "gate",
        "baseline",
        "value",
        "difference",
        "margin",
        "n",
        "verdict",
    ]
    assert any("perplexity:wiki" in line and "inf" in line and "(✗ REGRESSION)" in line for line in lines)
    assert sum("clip-restore" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("text", "words"), [("{", "Invalid JSON"), ("[]", "should be an object"), ('{"run": {}}', "run.started")]
)
def test_what_is_not_evidence_is_refused_by_name(tmp_path, text, words):
    path = tmp_path / "evidence.json"
    path.write_text(text)
    with pytest.raises(InfraError, match=r"evidence\.json: not evidence") as caught:
        read_document(tmp_path)
    assert words in str(caught.value)


def test_a_full_disk_leaves_the_old_report(document, tmp_path, monkeypatch):
    write_run(tmp_path, document, document.cells)
    before = (tmp_path / "evidence.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InfraError, match="free some space") as caught:
        write_run(tmp_path, document, document.cells)
    assert caught.value.reason == "disk-full"
    assert (tmp_path / "evidence.json").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_published_schema_is_the_one_in_force():
    """To renew it: superweight schema > docs/evidence.schema.json."""
    published = Path(__file__).parents[2] / "docs" / "evidence.schema.json"
    assert json.loads(published.read_text()) == json_schema()


def test_tables_of_an_earlier_run_do_not_linger(document, tmp_path):
    stale = tmp_path / "items" / "m" / "gone" / "old.csv"
    stale.parent.mkdir(parents=True)
    stale.write_text("x")
    write_run(tmp_path, document, document.cells)
    assert not stale.exists()
    assert (tmp_path / "items" / "m" / "baseline" / "perplexity-wiki.csv").read_text().startswith("window,nll\n0,")


def test_infinities_in_details_are_numbers_again():
    gate = GateResult(
        gate="perplexity:wiki", kind="perplexity", verdict="REGRESSION", message="m", details={"kl": math.inf, "a": "b"}
    )
    raw = json.loads(strict_json(gate.model_dump(mode="python")))
    assert raw["details"]["kl"] == "inf"
    assert GateResult.model_validate(raw).details == {"kl": math.inf, "a": "b"}


def test_tables_of_windows_name_the_windows_of_the_text(tmp_path):
    figure = perplexity(20.0).model_copy(update={"index": [3, 7, 8, 40], "kl": [0.1, 0.2, 0.3, 0.4]})
    cell = CellEvidence(model="m", recipe="rtn", role="candidate", perplexity={"wiki": figure})
    write_items(tmp_path / "items", [cell])
    table = pd.read_csv(tmp_path / "items" / "m" / "rtn" / "perplexity-wiki.csv")
    assert list(table.columns) == ["window", "nll", "kl"]
    assert list(table["window"]) == [3, 7, 8, 40]
