"""Evidence that was altered, or that contradicts itself, is no PASS, whoever reads it."""

import json
import math

import pandas as pd
import pytest

from superweight.cli import main
from superweight.errors import InfraError
from superweight.evidence.seal import sealed
from superweight.report import RunInfo, read_document, write_run
from superweight.report.export import export_table, write_export
from superweight.report.format import displayable
from superweight.runs.compare import compare_runs
from superweight.runs.read import read_run, read_snapshots, snapshots_of
from superweight.runs.release_baselines import promote, read_release_baseline
from superweight.runs.salvage import salvage
from support.by_hand import BASE, baseline, cell, document, weight

PERPLEXITY = math.exp(math.fsum(BASE) / len(BASE))
SCORES = [1.0] * 60


def cells():
    return [baseline(scores=SCORES), cell("rtn", nll=BASE, scores=SCORES, super_weights=[weight()])]


@pytest.fixture
def run(tmp_path):
    figures = dict.fromkeys(("baseline", "rtn"), (PERPLEXITY, PERPLEXITY))
    write_run(tmp_path / "run", document(*cells(), figures=figures), cells())
    return tmp_path / "run"


def altered(run, change, *, seal=True):
    path = run / "evidence.json"
    raw = json.loads(path.read_text())
    change(raw)
    if not seal:
        del raw["digest"]  # as earlier versions wrote it
        raw["schema_version"] = "1.1"
    path.write_text(json.dumps(raw))


def test_evidence_as_it_was_written_is_relied_on_however_it_is_laid_out(run):
    assert read_document(run).doubts == []
    altered(run, lambda raw: None)
    assert (read_document(run).verdict, read_document(run).doubts) == ("PASS", [])
    altered(run, lambda raw: None, seal=False)
    assert (read_document(run).verdict, read_document(run).doubts) == ("PASS", [])


@pytest.mark.parametrize("version", ["1.2", "2.0", "", None, 1.1])
def test_evidence_of_a_version_that_has_a_digest_and_lost_it_is_altered(run, version):
    """Also with a cell dropped beside it, of which nothing else would tell."""

    def change(raw):
        del raw["digest"], raw["cells"][1]
        raw["schema_version"] = version

    altered(run, change)
    if isinstance(version, str):
        assert read_document(run).verdict == "INFRA"
        assert "since its digest does not fit" in read_document(run).doubts[0]
    else:
        with pytest.raises(InfraError, match="schema_version"):
            read_document(run)


def drop_a_cell(raw):
    del raw["cells"][1]


def other_window(raw):
    raw["cells"][1]["perplexity"]["wiki"]["nll"][3] += 1.0


def pass_for_a_regression(raw):
    raw["cells"][1]["gates"][0]["verdict"] = "REGRESSION"


@pytest.mark.parametrize("change", [drop_a_cell, other_window, pass_for_a_regression])
def test_altered_evidence_is_infra_at_its_head(run, change, capsys):
    altered(run, change)
    assert main(["report", str(run), "--store", str(run / "none")]) == 0
    said = "evidence.json is not as the run wrote it"
    assert capsys.readouterr().err.startswith(f"superweight: {run}: {said}")
    assert f"<h1>! INFRA: {said}" in (run / "report.html").read_text()
    assert (run / "summary.md").read_text().startswith(f"# ! INFRA: {said}")
    assert json.loads((run / "badge.json").read_text())["message"] == "evidence damaged"
    assert "PASS" not in {line.split(",")[3] for line in (run / "figures.csv").read_text().splitlines()}
    assert main(["baseline", str(run), "--baselines", str(run / "baselines")]) == 1
    assert said in capsys.readouterr().out


def worse_cell(raw):
    raw["cells"][1]["verdict"] = "REGRESSION"


def no_gates(raw):
    raw["cells"][1]["gates"] = []


def no_number(raw):
    raw["cells"][1]["gates"][0]["value"] = "nan"


def undecided(raw):
    raw["cells"][1]["gates"][0] |= {"p_pass": 0.2, "alpha": 0.025}


def lost_weight(raw):
    raw["cells"][1]["gates"][0] |= {"gate": "super-weights", "kind": "super-weights"}
    raw["cells"][1]["super_weights"][0]["survived"] = False


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (worse_cell, "the run is PASS, and its cells make it REGRESSION"),
        (no_gates, "m/rtn is PASS, and its gates make it INFRA"),
        (pass_for_a_regression, "m/rtn is PASS, and its gates make it REGRESSION"),
        (no_number, "m/rtn perplexity:wiki is PASS, and a figure of it is no number"),
        (undecided, "a loss beyond the margin is not excluded (p = 0.2)"),
        (lost_weight, "a super weight that is promised is lost"),
        (other_window, "m/rtn perplexity:wiki is 20.9"),
    ],
)
def test_evidence_without_a_digest_is_held_against_itself(run, change, words):
    altered(run, change, seal=False)
    found = read_document(run)
    assert found.verdict == "INFRA"
    assert words in " ".join(found.doubts)
    assert found.reasons[: len(found.doubts)] == found.doubts


def test_a_regression_stays_one(run):
    altered(run, lambda raw: raw.update(verdict="REGRESSION"))
    assert read_document(run).verdict == "REGRESSION"


def test_what_cannot_be_read_of_evidence_without_a_digest_may_have_decided(run):
    def change(raw):
        raw["cells"].append({"model": "m"})

    altered(run, change, seal=False)
    found, lost = salvage(run)
    assert len(lost) == 1
    assert (found.verdict, found.doubts) == ("INFRA", ["what could not be read may have decided"])


def test_what_another_version_wrote_and_sealed_keeps_its_verdict(run):
    path = run / "evidence.json"
    raw = json.loads(path.read_text())
    raw["cells"][1]["gates"].append({"gate": "taste", "kind": "taste", "verdict": "SWEET", "message": "sweet"})
    path.write_text(json.dumps(sealed(raw)))
    found, lost = salvage(run)
    assert [one.split()[0] for one in lost] == ["cells.1.gates.1.verdict", "cells.1.gates.1"]
    assert (found.verdict, found.doubts) == ("PASS", [])


@pytest.mark.parametrize("side", [0, 1])
def test_nothing_is_no_worse_than_altered_evidence(run, tmp_path, side, capsys):
    other = tmp_path / "other"
    write_run(other, document(*cells()), cells())
    altered(run, lambda raw: raw["cells"][1].update(argument="trust me"))
    code = main(["compare", *(map(str, (other, run) if side else (run, other)))])
    out = capsys.readouterr().out
    assert code == 2
    assert out.startswith("! CANNOT COMPARE")
    assert "not relied on: evidence.json is not as the run wrote it" in out


def test_tables_are_those_that_the_run_wrote_or_none(run):
    table = run / "items" / "m" / "rtn" / "piqa.csv"
    lines = table.read_text().splitlines(keepends=True)
    assert len(read_run(run).cells[1].zero_shot["piqa"].items) == 60
    table.write_text("".join([lines[0], lines[2], lines[1], *lines[3:]]))  # the same mean
    assert read_run(run).cells[1].zero_shot["piqa"].items == []
    altered(run, lambda raw: raw.update(tables={}), seal=False)
    assert len(read_run(run).cells[1].zero_shot["piqa"].items) == 60  # of an earlier version: as far as can be told
    table.write_text("".join(lines).replace("1.0", "0.0", 1))
    assert read_run(run).cells[1].zero_shot["piqa"].items == []
    table.write_text("".join([lines[0], lines[1], lines[1], *lines[3:]]))
    assert read_run(run).cells[1].zero_shot["piqa"].items == []


@pytest.mark.parametrize("seal", [True, False])
def test_an_altered_baseline_is_told_and_nothing_is_no_worse_than_it(run, tmp_path, seal):
    (after,) = read_snapshots(run)
    path = promote(tmp_path / "baselines", after)
    assert read_release_baseline(tmp_path / "baselines", "smoke", "m").doubts == []
    raw = json.loads(path.read_text())
    raw["cells"]["rtn"]["perplexity"]["wiki"]["nll"][0] += 1.0
    raw["cells"]["rtn"]["zero_shot"]["piqa"]["value"] = 0.5
    if not seal:
        del raw["digest"]
        raw["schema_version"] = "1.0"
    path.write_text(json.dumps(raw))
    before = read_release_baseline(tmp_path / "baselines", "smoke", "m")
    assert len(before.doubts) == (1 if seal else 2)
    assert all(doubt.startswith(str(path)) for doubt in before.doubts)
    found = compare_runs([before], [after], lambda *_: None)
    assert found.verdict == "CANNOT COMPARE"
    assert f"not relied on: {before.doubts[0]}" in found.models[0].alarms


def test_a_link_to_nowhere_is_no_missing_baseline(tmp_path):
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "m.json").symlink_to("nowhere")
    with pytest.raises(InfraError, match=r"m\.json: cannot be read"):
        read_release_baseline(tmp_path, "smoke", "m")
    assert snapshots_of(document(*cells()))[0].doubts == []


@pytest.mark.parametrize("started", ["", "yesterday", "0001-01-01T00:00:00+23:59"])
def test_a_run_without_a_time_is_no_evidence(run, started, capsys):
    with pytest.raises(ValueError, match="isoformat"):
        RunInfo(started=started, tier="smoke")
    altered(run, lambda raw: raw["run"].update(started=started))
    assert main(["report", str(run)]) == 2
    assert "evidence.json: not evidence of a run: run.started" in capsys.readouterr().err


def test_pages_hold_nothing_that_no_page_may_hold_or_that_turns_it():
    assert displayable("a\tb\nc é名💥 \u200f") == "a\tb\nc é名💥 \u200f"
    assert displayable("\0\x1b\x85\u202e\u2066\ufeff\ufffe\ud800") == "\ufffd" * 8


@pytest.mark.parametrize("n", [2**63, -(2**63), 2**70])
def test_a_number_that_is_no_count_is_missing_from_a_table(run, tmp_path, n):
    figures = dict.fromkeys(("baseline", "rtn"), (PERPLEXITY, PERPLEXITY))
    one = document(*cells(), figures=figures)
    one.cells[1].gates[0].n = n
    table = export_table([one])
    assert table["n"].tolist() == [8, pd.NA]
    write_export(tmp_path / "x.csv", [one])
    assert pd.read_csv(tmp_path / "x.csv")["planned"].tolist() == [8, 8]


def test_a_page_is_made_of_whatever_a_document_allows(run):
    def change(raw):
        raw["cells"][0]["checkpoint"] = {"note": ["odd"], "loading": 3, "slow": {"x": 1}}
        raw["cells"][0]["zero_shot"]["piqa"]["left_out"] = [{}]
        raw["cells"][1]["gates"][0]["waiver"] = {}

    altered(run, change)
    assert main(["report", str(run), "--store", str(run / "none")]) == 0
    assert "content <code>unknown</code>" in (run / "report.html").read_text()
