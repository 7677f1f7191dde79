"""What makes a verdict one to bet a release on: required cells, waivers, baselines, JUnit, a shared store."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

WAIVER = """
id = "known"
model = "tiny"
recipe = "rtn-int4-g64"
gate = "super-weights"
ticket = "QA-17"
why = "The kernel that needs them intact does not ship yet."
date = "2026-01-31"
expires = "{expires}"
"""
BREAKS = """
id = "rtn-int4-g64"
title = "Promises too much"
role = "candidate"
[method]
kind = "scale-super-weights"
factor = 1.0000001
"""


def tier(project, **changes):
    path = project.root / "cards" / "tiers" / "smoke.toml"
    head = "".join(f"{name} = {value}\n" for name, value in changes.items())
    path.write_text(head + path.read_text())


def command(project, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "superweight.cli", "--cards", str(project.root / "cards"), *arguments],
        cwd=project.root,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_required_cell_that_is_missing_or_not_whole_makes_the_run_red(project):
    tier(project, required='["baseline", "clip-restore-int8-channel", "no-op"]')
    run = project.gate("-k", "detection or (int8 and not zero_shot)")
    assert run.ret == 1
    evidence = project.evidence
    assert evidence["verdict"] == "INFRA"
    reasons = "\n".join(evidence["reasons"])
    assert "tiny/no-op: the smoke tier requires this cell, and it was not measured" in reasons
    assert "tiny/clip-restore-int8-channel zero-shot:successor: the smoke tier requires this cell whole" in reasons
    assert "rtn-int4-g64" not in reasons


def test_a_skipped_cell_is_not_a_green_one(project):
    tier(project, required='["baseline", "no-op"]')
    (project.root / "conftest.py").write_text(
        (project.root / "conftest.py").read_text()
        + "\n\ndef pytest_collection_modifyitems(items):\n"
        + "    for item in items:\n"
        + "        if 'no-op' in item.nodeid:\n"
        + "            item.add_marker(pytest.mark.skip)\n"
    )
    run = project.gate("-k", "baseline or no-op")
    assert run.ret == 1
    assert project.evidence["verdict"] == "INFRA"


@pytest.mark.parametrize(("expires", "ret", "verdict"), [("2126-01-31", 0, "PASS"), ("2026-02-01", 1, "REGRESSION")])
def test_a_waiver_holds_until_it_expires_and_always_shows(project, expires, ret, verdict):
    for folder, text in (("recipes", BREAKS), ("waivers", WAIVER.format(expires=expires))):
        (project.root / "cards" / folder).mkdir()
        (project.root / "cards" / folder / "card.toml").write_text(text)
    run = project.gate("-k", "super_weights and rtn", "--superweight-recipe", "rtn-int4-g64")
    assert run.ret == ret, run.stdout.str()
    cell = project.cell("rtn-int4-g64")
    (gate,) = [gate for gate in cell["gates"] if gate["gate"] == "super-weights"]
    assert (cell["verdict"], gate["verdict"]) == (verdict, "REGRESSION")
    assert "QA-17" in (cell["argument"] if ret == 0 else gate["message"])
    run.stdout.fnmatch_lines(["*QA-17*"])
    assert "QA-17" in (project.root / "reports" / "latest" / "report.html").read_text()


@pytest.mark.parametrize("workers", [(), ("-n", "2")])
def test_junit_carries_the_figures_of_the_suite_and_keeps_to_xunit2(project, workers):
    run = project.gate("-k", "(no-op or baseline) and perplexity", "--junitxml=junit.xml", *workers)
    assert run.ret == 0, run.stdout.str()
    suite = ElementTree.parse(project.root / "junit.xml").getroot().find("testsuite")
    found = {one.get("name"): one.get("value") for one in suite.find("properties")}
    gate = project.cell("no-op")["gates"][-1]
    shown = found["superweight.tiny/no-op.perplexity:chain"]
    assert found["superweight.verdict"] == "PASS"
    assert shown.startswith("PASS ")
    assert f"value={gate['value']!r}" in shown
    assert "n=8" in shown
    assert all(case.find("properties") is None for case in suite.iter("testcase"))


def test_the_first_run_is_kept_as_the_baseline_and_the_next_is_held_against_it(project):
    run = project.gate()
    assert run.ret == 0, run.stdout.str()
    baseline = project.root / "reports" / "baselines" / "smoke" / "tiny.json"
    run.stdout.fnmatch_lines([f"*{baseline.relative_to(project.root)}*"])
    first = baseline.read_text()
    (project.root / "reports" / "latest").rename(project.root / "reports" / "first")

    run = project.gate()
    assert run.ret == 0
    run.stdout.fnmatch_lines(["*against the release baseline: ✓ PASS*", "*against the last run: ✓ PASS*"])
    assert baseline.read_text() == first
    assert project.cell("clip-restore-int8-channel")["reused"].keys() == {
        "sanity", "perplexity:chain", "zero-shot:successor",
    }  # fmt: skip

    same = command(project, "compare", "reports/first", "reports/latest")
    assert same.returncode == 0, same.stdout + same.stderr
    assert (project.root / "reports" / "latest" / "compare.json").exists()

    worse = project.root / "cards" / "recipes"
    worse.mkdir()
    (worse / "worse.toml").write_text(
        'id = "clip-restore-int8-channel"\ntitle = "Worse"\nrole = "candidate"\npromises_super_weights = false\n'
        '[method]\nkind = "prune-super-weights"\n'
    )
    run = project.gate()
    assert run.ret == 1
    text = run.stdout.str()
    assert "against the release baseline: ✗ REGRESSION" in text
    (failed,) = [line for line in text.splitlines() if line.startswith("FAILED") and "perplexity" in line]
    assert "clip-restore-int8-channel" in failed
    for told in ("windows that lost most", "super weights: 1 of 1", "perplexity on chain"):
        assert told in text
    assert command(project, "compare", "reports/first", "reports/latest").returncode == 1
    refused = command(project, "baseline", "reports/latest")
    assert refused.returncode == 1
    assert "REGRESSION" in refused.stdout + refused.stderr
    assert baseline.read_text() == first
    assert command(project, "baseline", "reports/first").returncode == 0


def test_stopping_early_can_be_turned_off(project):
    assert project.gate("-k", "prune or baseline", "--superweight-stopping", "off").ret == 0
    gates = {gate["gate"]: gate for gate in project.cell("prune-super-weights")["gates"]}
    assert gates["zero-shot:successor"]["n"] == gates["zero-shot:successor"]["planned"] == 60
    assert project.gate("-k", "prune or baseline").ret == 0
    gates = {gate["gate"]: gate for gate in project.cell("prune-super-weights")["gates"]}
    assert (gates["zero-shot:successor"]["n"], gates["zero-shot:successor"]["planned"]) == (50, 60)


def test_two_runs_may_share_a_store(project):
    line = [sys.executable, "-m", "pytest", "suites/", "-p", "no:cacheprovider", "-k", "int8", "--superweight-out"]
    both = [subprocess.Popen([*line, name], cwd=project.root, stdout=subprocess.DEVNULL) for name in ("one", "two")]
    assert [gate.wait(timeout=200) for gate in both] == [0, 0]
    same = command(project, "compare", "one", "two")
    assert same.returncode == 0, same.stdout


def test_a_store_that_cannot_be_used_is_infra(project):
    (project.root / "reports").mkdir()
    (project.root / "reports" / "store").write_text("a file where a directory belongs")
    run = project.gate("-k", "detection")
    assert run.ret == 1
    assert project.evidence["verdict"] == "INFRA"
    run.stdout.fnmatch_lines(["*reports/store*"])


def test_a_run_with_other_recipes_is_not_the_whole_tier_and_no_baseline(project):
    run = project.gate("--superweight-recipe", "no-op", "--superweight-recipe", "clip-restore-int8-channel")
    assert run.ret == 0, run.stdout.str()
    assert "*/prune-super-weights" in project.evidence["run"]["left_out"]
    run.stdout.fnmatch_lines(["*PASS in part: not the whole tier*", "*no release baseline*"])
    assert not (project.root / "reports" / "baselines").exists()
