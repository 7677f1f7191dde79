"""Hugging Face model cards of cells: the hub's own reader understands them, and evidence stays text."""

import datetime
import math
import tarfile
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from superweight.cards import load_library
from superweight.errors import InfraError
from superweight.evidence import CellEvidence, Failure, Perplexity, Size, StoredWeight, ZeroShot
from superweight.report import RunInfo, build_document, read_document, to_json
from superweight.report.model_card import model_card, write_model_card
from superweight.verdict import Rules, gates_of, judge_cell

HOSTILE = "x | [a](https://evil.example/x) <script>alert(1)</script> `b` **c** ~~d~~ $e$ @f\n---\n# g\u202e"


def perplexity(value):
    nll = [math.log(value)] * 24 if math.isfinite(value) else [math.inf] * 24
    return Perplexity(
        value=value, protocol="gptq", corpus="wiki", origin="o", window=64, windows=24, tokens=1512, nll=nll,
        tokens_sha256="t",
    )  # fmt: skip


def task(correct):
    items = [{"doc_id": i, "doc_hash": str(i), "acc": float(i < correct), "text": ""} for i in range(400)]
    return ZeroShot(task="piqa", metric="acc", n=400, data="embedded", metrics={"acc": correct / 400}, items=items)


def weight(survived, bits="0x3f800000"):
    return StoredWeight(
        layer=1, row=2, column=3, status="causal", origin="card", dtype="float32", original=1.0, original_bits=bits,
        stored=1.0 if survived else math.nan, stored_bits=bits, survived=survived,
    )  # fmt: skip


def document(*, name="w8", value=20.1, origin="hub org/model@abc", parameters=None, **more):
    rules = Rules(book=load_library().book, today=datetime.date(2026, 1, 31))
    checkpoint = {"origin": origin, "content_hash": "0" * 64, "dtype": "bfloat16"}
    base = CellEvidence(model="m", recipe="baseline", role="baseline", checkpoint=checkpoint)
    base.perplexity["wiki"], base.zero_shot["piqa"] = perplexity(20.0), task(300)
    size = Size(compressed_bits_per_weight=8.25, model_bits_per_weight=9.5)
    cell = base.model_copy(
        update={
            "recipe": name,
            "role": "candidate",
            "size": size,
            "recipe_parameters": parameters or {"kind": "integer"},
        }
    )
    cell.perplexity, cell.zero_shot = {"wiki": perplexity(value)}, {"piqa": task(299)}
    cell.super_weights = [weight(True)]
    cell = cell.model_copy(update=more)
    run = RunInfo(started="2026-01-31T00:00:00+00:00", tier="smoke", environment={"device": "cpu"})
    return build_document(run, [judge_cell(one, gates_of(one, base, rules)) for one in (base, cell)])


def test_the_hubs_reader_understands_it():
    read = ModelCard(model_card(document(), "m/w8"))
    assert read.data.base_model == "org/model"
    assert read.data.to_dict()["base_model_relation"] == "quantized"
    results = {result.dataset_name: result for result in read.data.eval_results}
    assert results["wiki"].metric_type == "perplexity"
    assert results["wiki"].metric_value == pytest.approx(20.1)
    arguments = results["piqa"].metric_args
    assert arguments["uncompressed"] == 0.75
    assert arguments["difference"] == pytest.approx(-1 / 400)
    low, high = arguments["difference_interval"]
    assert low < -1 / 400 < high
    assert arguments["n"] == 400


def test_what_a_reader_is_told():
    text = model_card(document(), "m/w8")
    assert "Verdict of the gate: " in text
    assert "[org/model](https://huggingface.co/org/model)" in text
    assert "8.25 bits a compressed weight" in text
    assert "| layer 1 [2, 3] | causal | 1 `0x3f800000` | 1 `0x3f800000` |  | kept |" in text
    assert "| perplexity:wiki |" in text


def test_a_failed_cell_says_so():
    text = model_card(document(value=30.0, super_weights=[weight(False)]), "m/w8")
    assert "Verdict of the gate: REGRESSION" in text
    assert "superweight-regression" in text
    assert "**changed**" in text


def test_what_is_not_finite_is_no_metadata():
    read = ModelCard(model_card(document(value=math.inf), "m/w8"))
    assert [result.dataset_name for result in read.data.eval_results] == ["piqa"]


def test_evidence_stays_text():
    hostile = document(
        name=HOSTILE, origin=HOSTILE, parameters={"kind": HOSTILE, HOSTILE: HOSTILE},
        failures=[Failure(stage=HOSTILE, reason="crash", message=HOSTILE)], super_weights=[weight(True, "0x`x`")],
        stands_in=HOSTILE, zero_shot={},
    )  # fmt: skip
    text = model_card(hostile, f"m/{HOSTILE}")
    head, body = text.split("---\n", 2)[1:]
    metadata = yaml.safe_load(head)
    assert set(metadata) == {"pipeline_tag", "tags", "model-index"}
    assert len(metadata["model-index"]) == 1
    for forbidden in ("<script", "](https://evil", "https://evil", " **c**", "\u202e", "\n---\n", "\n# g", "`b`", "@f"):
        assert forbidden not in body
    for table in (part for part in body.split("\n\n") if part.startswith("|")):
        assert len({_pipes(line) for line in table.splitlines()}) == 1


def _pipes(line):
    return line.replace("\\|", "").count("|")


def test_an_origin_on_this_machine_is_a_name():
    text = model_card(document(origin="directory /home/somebody/models/my-7b"), "m/w8")
    assert "/home" not in text
    assert "my-7b" in text
    assert ModelCard(text).data.base_model is None
    assert ModelCard(model_card(document(origin="x"), "m/w8", base_model="org/other")).data.base_model == "org/other"


@pytest.mark.parametrize(
    ("cell", "more", "told"),
    [
        ("m/nothing", {}, "no cell 'm/nothing'. It has m/w8"),
        ("m/baseline", {}, "is a baseline: a model card is of something that could ship"),
        ("m/w8", {"base_model": "not an id"}, "expected organisation/name"),
    ],
)
def test_what_has_no_card(cell, more, told):
    with pytest.raises(InfraError, match=told.replace(".", "[.]")):
        model_card(document(), cell, **more)


def test_a_run_in_part_is_no_release_decision():
    part = document()
    part.run.left_out = ["m/w8 perplexity:c4", HOSTILE]
    text = model_card(part, "m/w8")
    assert "so this is no release decision.** Not asked for: m/w8 perplexity:c4, x \\|" in text
    assert "superweight-pass" in model_card(document(), "m/w8")
    assert "superweight-pass" not in text


def test_evidence_in_doubt_says_so(tmp_path):
    text = to_json(document()).replace('"value": 20.1', '"value": 20.0')
    (tmp_path / "evidence.json").write_text(text)
    read = read_document(tmp_path)
    assert read.doubts
    assert "This evidence is in doubt" in model_card(read, "m/w8")


def test_files_and_directories(tmp_path):
    assert write_model_card(tmp_path, "a") == tmp_path / "README.md"
    assert write_model_card(tmp_path / "card.md", "b").read_text() == "b"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "card.md"]


def test_a_card_of_a_run_that_was_measured(tmp_path):
    with tarfile.open(Path(__file__).parent / "data" / "embedded.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    found = next(tmp_path.rglob("evidence.json"))
    text = model_card(read_document(found), "smollm2-135m-instruct/clip-restore-int8-channel")
    read = ModelCard(text)
    assert len(read.data.eval_results) == 6
    assert text.count("| kept |") == 4
