"""Comparing runs from what lies on disk, through the command and as text."""

import json
import math
import re

import pytest

from superweight.cli import main
from superweight.report import write_run
from superweight.report.comparison_text import comparison_markdown, comparison_text
from superweight.runs.compare import compare_runs
from superweight.runs.read import read_run, read_snapshots, snapshots_of
from support.by_hand import BASE, baseline, cell, document, gates, snapshot, weight

WORSE = [b + 1.0 + w for b, w in zip(BASE, [0.002, -0.002] * 4, strict=True)]
UNSURE = [b + math.log(1.05) + w for b, w in zip(BASE, [0.002, -0.002] * 4, strict=True)]


def written(directory, *cells, **more):
    one = document(*(cells or sound()), **more)
    write_run(directory, one, one.cells)
    return directory


def sound(nll=BASE, scores=(1.0,) * 400, **more):
    return baseline(scores=[1.0] * 400), cell("rtn", nll=nll, scores=list(scores), super_weights=[weight()], **more)


@pytest.fixture
def before(tmp_path):
    return written(tmp_path / "a")


def test_a_run_directory_reads_as_the_run_itself(before):
    (found,) = read_snapshots(before)
    (expected,) = snapshots_of(document(*sound()))
    assert found == expected
    assert read_snapshots(before / "evidence.json") == [found]
    assert len(found.scores("rtn", "piqa")) == 400


def test_tables_that_are_not_of_this_run_are_left_aside(before):
    table = before / "items" / "m" / "rtn" / "piqa.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert read_run(before).cells[1].zero_shot["piqa"].items == []
    table.write_text("doc_id,doc_hash\n1,2\n")
    assert read_run(before).cells[1].zero_shot["piqa"].items == []
    table.write_text("doc_id,doc_hash,acc\n" + "1,2,many\n" * 400)
    assert read_run(before).cells[1].zero_shot["piqa"].items == []
    assert len(read_run(before).cells[0].zero_shot["piqa"].items) == 400


def test_scores_read_back_to_the_last_digit(tmp_path):
    scores = [1 / 3, 0.1 + 0.2, math.nan, math.inf, 5e-324, 1.0]
    one = cell("baseline", "baseline", BASE, scores)
    (found,) = read_snapshots(written(tmp_path / "a", one))
    assert list(found.scores("baseline", "piqa").values()) == pytest.approx(scores, rel=0, abs=0, nan_ok=True)


def compare(capsys, *arguments):
    code = main(["compare", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_same_run_is_not_worse(before, tmp_path, capsys):
    code, out, _ = compare(capsys, before, written(tmp_path / "b"))
    assert code == 0
    assert out.startswith("✓ PASS: nothing got worse by more than is accepted")
    assert "5 figures are the same to the last digit." in out
    assert {"compare.md", "compare.json"} <= {path.name for path in (tmp_path / "b").iterdir()}


def test_a_worse_run_is_exit_one_with_the_figures(before, tmp_path, capsys):
    scores = [0.0] * 60 + [1.0] * 340
    after = written(tmp_path / "b", *sound(WORSE, scores))
    code, out, _ = compare(capsys, before, after)
    assert code == 1
    row = next(line for line in out.splitlines() if line.startswith("rtn") and "perplexity:wiki" in line)
    assert re.split(r"\s{2,}", row) == [
        "rtn",
        "perplexity:wiki",
        "20.98",
        "57.04",
        "+171.8 % [+171.2, +172.4]",
        "+5 %",
        "8",
        "✗ REGRESSION",
    ]
    assert "60 lost, 0 gained" in out
    raw = json.loads((after / "compare.json").read_text())
    assert (raw["verdict"], raw["schema_version"], raw["before"]) == ("REGRESSION", "1.0", str(before))
    change = next(c for c in raw["models"][0]["changes"] if c["gate"] == "perplexity:wiki" and c["recipe"] == "rtn")
    assert change["difference"] == pytest.approx(math.e - 1)
    assert "| rtn" in (after / "compare.md").read_text()
    assert compare(capsys, after, before)[0] == 0


def test_the_headline_says_when_the_later_run_is_infra_or_measured_less():
    theirs = list(snapshots_of(document(*sound())))
    red = [one.model_copy(update={"verdict": "INFRA"}) for one in theirs]
    fine, infra = (comparison_text(compare_runs(theirs, ours, gates)) for ours in (theirs, red))
    assert fine.startswith("✓ PASS: nothing got worse by more than is accepted\n")
    assert infra.startswith("✓ PASS: nothing got worse by more than is accepted; but the later run is INFRA, and rel")
    less = [one.model_copy(update={"whole": False, "cells": {"baseline": one.cells["baseline"]}}) for one in theirs]
    partly = comparison_text(compare_runs(theirs, less, gates))
    assert partly.startswith("✓ PASS: of what both runs measured, nothing got worse")


def test_controls_alone_do_not_make_a_comparison():
    """What decides was not measured, and that a control is as it was says nothing of it."""
    theirs = list(snapshots_of(document(*sound(), cell("no-op", "control", expects="PASS"))))
    only = {"no-op": theirs[0].cells["no-op"]}
    less = [one.model_copy(update={"whole": False, "cells": only}) for one in theirs]
    assert compare_runs(theirs, less, gates).verdict == "CANNOT COMPARE"


def test_undecided_is_exit_zero_with_a_note(before, tmp_path, capsys):
    code, out, _ = compare(capsys, before, written(tmp_path / "b", *sound(UNSURE)))
    assert code == 0
    assert "? INCONCLUSIVE" in out


def test_without_items_it_says_so_and_is_exit_two(before, tmp_path, capsys):
    lonely = tmp_path / "elsewhere.json"
    lonely.write_text((before / "evidence.json").read_text())
    code, out, _ = compare(capsys, before, lonely)
    assert code == 2
    assert "the later run came without its items/, and totals are not compared" in out
    assert not list(tmp_path.glob("compare.*"))  # B is a file, and nobody said where to


def test_the_output_directory_is_a_choice(before, tmp_path, capsys):
    code, out, _ = compare(capsys, before, before / "evidence.json", "-o", tmp_path / "new" / "place")
    assert code == 0
    assert str(tmp_path / "new" / "place" / "compare.md") in out
    assert (tmp_path / "new" / "place" / "compare.json").exists()


def test_other_models_cannot_be_compared(before, tmp_path, capsys):
    other = written(tmp_path / "b", cell("baseline", "baseline", BASE, model="n"), cell("rtn", nll=BASE, model="n"))
    code, out, _ = compare(capsys, before, other)
    assert code == 2
    assert "was not asked for in the later run" in out
    assert "is new: a candidate" in out


@pytest.mark.parametrize(
    ("text", "words"), [(None, "cannot be read"), ("{", "Invalid JSON"), ("[]", "expected a snapshot")]
)
def test_what_is_no_run_is_exit_two_with_a_reason(before, tmp_path, capsys, text, words):
    path = tmp_path / "what.json"
    if text is not None:
        path.write_text(text)
    code, _, err = compare(capsys, before, path)
    assert code == 2
    assert "what.json" in err
    assert words in err


def test_margins_come_from_the_users_cards(before, tmp_path, capsys):
    cards = tmp_path / "cards" / "gates"
    cards.mkdir(parents=True)
    card = 'id = "perplexity"\ntitle = "t"\nkind = "perplexity"\nmargin = 5.0\ndate = "2026-01-31"\n'
    (cards / "mine.toml").write_text(card + 'why = "wide enough for whatever this test does"\n')
    after = written(tmp_path / "b", *sound(WORSE))
    assert compare(capsys, before, after)[0] == 1
    assert main(["--cards", str(cards.parent), "compare", str(before), str(after)]) == 0


def promote(directory, baselines, *more):
    return main(["baseline", str(directory), "--baselines", str(baselines), *more])


def test_promoting_and_comparing_with_the_baseline(before, tmp_path, capsys):
    baselines = tmp_path / "baselines"
    assert promote(before, baselines) == 0
    path = baselines / "smoke" / "m.json"
    assert str(path) in capsys.readouterr().out
    worse = written(tmp_path / "b", *sound(WORSE))
    assert compare(capsys, path, worse)[0] == 1
    assert promote(worse, baselines) == 0  # a person's word moves it, and hears what that means
    out = capsys.readouterr().out
    assert "✗ REGRESSION" in out
    assert "the baseline until now" in out
    assert compare(capsys, path, worse)[0] == 0


@pytest.mark.parametrize(
    ("more", "words"), [({"failed": ["rtn"]}, "the run is REGRESSION"), ({"left_out": ["x"]}, "a part of its tier")]
)
def test_a_red_or_partial_run_is_promoted_by_force_only(tmp_path, capsys, more, words):
    directory, baselines = written(tmp_path / "a", **more), tmp_path / "baselines"
    assert promote(directory, baselines) == 1
    assert words in capsys.readouterr().out
    assert not baselines.exists()
    assert promote(directory, baselines, "--force") == 0
    assert words in capsys.readouterr().out
    assert (baselines / "smoke" / "m.json").exists()


def test_a_broken_baseline_is_replaced_by_force_only(before, tmp_path, capsys):
    baselines = tmp_path / "baselines"
    path = baselines / "smoke" / "m.json"
    path.parent.mkdir(parents=True)
    path.write_text("<<<<<<< HEAD")
    assert promote(before, baselines) == 2
    assert path.read_text() == "<<<<<<< HEAD"
    assert "m.json" in capsys.readouterr().err
    assert promote(before, baselines, "--force") == 0
    assert read_snapshots(path)[0].model == "m"


def test_what_is_no_run_is_not_promoted(tmp_path, capsys):
    assert promote(tmp_path / "nothing", tmp_path / "baselines") == 2
    assert "cannot be read" in capsys.readouterr().err


def test_what_is_true_of_many_recipes_is_said_once():
    recipes = [f"r{i}" for i in range(9)]
    one = snapshot(baseline(), *(cell(recipe, nll=BASE) for recipe in recipes))
    other = snapshot(baseline(), *(cell(recipe) for recipe in recipes))
    lines = comparison_text(compare_runs([one], [other], gates)).splitlines()
    said = [line for line in lines if "was not measured" in line]
    assert len(said) == 1
    assert said[0].startswith("! r0, r1, r2, r3, r4, r5 and 3 more: CANNOT COMPARE, perplexity:wiki: was not measured")


def test_alarms_surroundings_and_the_checkpoint_are_told():
    one = snapshot(baseline(), environment={"torch": "2"})
    same = snapshot(baseline([b + 0.1 for b in BASE]), environment={"torch": "3"})
    text = comparison_text(compare_runs([one], [same], gates))
    assert "differs: torch 2 → 3" in text
    assert (
        "! the uncompressed model, the same checkpoint, gives another figure: perplexity on wiki 20.98 → 23.19" in text
    )
    other = snapshot(baseline([b + 0.1 for b in BASE], content_hash="d" * 64))
    text = comparison_text(compare_runs([one], [other], gates))
    assert "the checkpoint is another one" in text
    assert "gives another figure" not in text


def test_references_are_in_parentheses():
    one, other = (snapshot(baseline(), cell("ref", "reference", nll)) for nll in (BASE, WORSE))
    comparison = compare_runs([one], [other], gates)
    assert comparison.verdict == "PASS"
    assert "(✗ REGRESSION)" in comparison_text(comparison)


def test_markdown_escapes_what_others_wrote():
    hostile = "<script>|`"
    one, other = (
        snapshot(baseline(), cell("r", nll=nll), environment={"torch": hostile * n})
        for n, nll in ((1, BASE), (2, WORSE))
    )
    text = comparison_markdown(compare_runs([one], [other], gates, names=(hostile, "b\n# c")))
    assert "<script" not in text
    assert "\n# c" not in text


def test_infinities_are_strict_json(tmp_path, capsys):
    broken = [*BASE[:7], math.inf]
    a = written(tmp_path / "a", *sound(BASE))
    b = written(tmp_path / "b", *sound(broken))
    assert compare(capsys, a, b)[0] == 1
    json.loads((b / "compare.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert "no finite figure" in (b / "compare.json").read_text()
