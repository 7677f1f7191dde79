"""A run of the gate on figures that are made up, by whatever schedules its cells."""

import json
import subprocess
import sys

import pytest

from superweight.gate import GateRun, Plan, Provenance, Settings
from superweight.gate.plan import gate_name
from superweight.gate.provenance import commit_of

MODEL = "smollm2-135m-instruct"
BASELINE, CONTROL, CANDIDATE = (f"{MODEL}/{recipe}" for recipe in ("baseline", "no-op", "clip-restore-int8-channel"))
ENTRIES = ["perplexity:wiki-embedded", "zero-shot:arc_easy", "zero-shot:piqa"]


def measured(run):
    for cell in run.plan.cells:
        run.measure(cell)
    return run


def test_every_cell_is_measured_judged_and_written(make_run, settings):
    steps = []
    run = measured(make_run(watch=steps.append))
    assert [(step.cell, step.stage) for step in steps] == [
        *((BASELINE, stage) for stage in ("detection", *ENTRIES)),
        *((CONTROL, stage) for stage in ("sanity", *ENTRIES)),
        *((CANDIDATE, stage) for stage in ("sanity", *ENTRIES)),
    ]
    assert [gate_name(entry) for entry in run.measurer.planned[MODEL]] == ENTRIES
    document = run.finish()
    assert (document.verdict, run.is_red) == ("PASS", False), document.reasons
    assert {cell.id: cell.verdict for cell in document.cells} == dict.fromkeys([BASELINE, CONTROL, CANDIDATE], "PASS")
    written = json.loads((settings.out / "evidence.json").read_text())
    assert written["verdict"] == "PASS"
    assert "*/prune-super-weights" in written["run"]["left_out"]
    assert (settings.out / "report.html").is_file()
    assert run.document is document


@pytest.mark.usefixtures("unwritten")
def test_what_cannot_be_measured_is_written_down_and_the_rest_is_measured(make_run):
    run = make_run(broken=[(CANDIDATE, "perplexity:wiki-embedded")])
    judged = [run.measure(cell) for cell in run.plan.cells][-1]
    assert judged.verdict == "INFRA"
    assert set(judged.evidence.zero_shot) == {"arc_easy", "piqa"}
    document = run.finish()
    assert (document.verdict, run.is_red) == ("INFRA", True)
    assert [failure.reason for failure in document.cells[-1].failures] == ["too-short"]


@pytest.mark.usefixtures("unwritten")
def test_what_is_asked_for_and_not_measured_is_infra(make_run):
    run = make_run()
    for cell in run.plan.cells[:-1]:
        run.measure(cell)
    document = run.finish()
    assert document.verdict == "INFRA"
    assert {failure.stage for failure in document.cells[-1].failures} == {"cell", *ENTRIES}
    assert {failure.reason for failure in document.cells[-1].failures} == {"interrupted"}


@pytest.mark.usefixtures("unwritten")
def test_an_error_of_the_run_and_a_failure_of_a_cell_are_infra(make_run):
    run = measured(make_run())
    run.run_errors.append("a process died")
    run.record_failure(run.plan.cells[-1], "test_own", "test-failed", "by itself")
    document = run.finish()
    assert document.verdict == "INFRA"
    assert document.reasons[0] == "a process died"
    assert document.cells[-1].verdict == "INFRA"


@pytest.mark.usefixtures("unwritten")
def test_a_run_that_measured_nothing_is_infra(make_run):
    run = make_run()
    assert run.is_red
    assert run.finish().verdict == "INFRA"
    assert "measurer" not in vars(run)


def test_an_earlier_result_goes_before_the_first_cell(make_run, settings):
    settings.out.mkdir(parents=True)
    for name in ("evidence.json", "report.html", "mine.txt"):
        (settings.out / name).write_text("old")
    run = make_run()
    run.measure(run.plan.cells[0])
    assert [path.name for path in settings.out.iterdir()] == ["mine.txt"]


def test_a_report_that_cannot_be_written_is_a_note_once_the_evidence_is_there(make_run, settings):
    run = measured(make_run())
    (settings.out / "report.html").mkdir(parents=True)
    assert run.finish().verdict == "PASS"
    assert (settings.out / "evidence.json").is_file()
    (note,) = run.notes
    assert note.startswith("not everything was written: ")


@pytest.mark.usefixtures("unwritten")
def test_a_cell_that_cannot_be_judged_is_infra(make_run, monkeypatch):
    run = measured(make_run())

    def judge(cell, *_):
        if cell.id == CANDIDATE:
            raise ZeroDivisionError("half")
        return []

    monkeypatch.setattr("superweight.gate.run.gates_of", judge)
    document = run.finish()
    assert document.verdict == "INFRA"
    assert "ZeroDivisionError: half" in document.cells[-1].argument


@pytest.mark.usefixtures("unwritten")
def test_whether_undecided_is_red_is_the_tiers_to_say(library, settings):
    plan = Plan.of(library, settings)
    strict = Plan(library, plan.tier.model_copy(update={"inconclusive_is_red": True}), plan.cells)
    for asked, red in ((plan, False), (strict, True)):
        run = GateRun(asked, settings)
        run.document = run.finish().model_copy(update={"verdict": "INCONCLUSIVE"})
        assert run.is_red == red


@pytest.mark.usefixtures("unwritten")
def test_where_a_run_was_made_stands_in_its_evidence(make_run):
    made = Provenance(
        started="2026-01-31T10:00:00+00:00", command="nightly", commit="abc", environment={"scheduler": "7"}
    )
    run = measured(make_run(provenance=made))
    found = run.finish().run
    assert (found.started, found.command, found.commit, found.tier) == (made.started, "nightly", "abc", "smoke")
    assert found.environment["scheduler"] == "7"
    assert found.environment["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found.finished > found.started


def test_a_commit_is_gits_or_the_ci_systems(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("CI_COMMIT_SHA", raising=False)
    monkeypatch.setenv("GITHUB_SHA", "0123")
    assert commit_of(tmp_path) == "0123"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    whole = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert whole.startswith(commit_of(tmp_path))
    assert len(commit_of(tmp_path)) == 12


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import superweight.gate", ("pydantic", "superweight.cards")),
        ("from superweight.gate import Provenance, Settings", ("pydantic", "superweight.cards")),
        ("from superweight.gate import Plan", ("scipy", "pandas", "superweight.evidence", "superweight.report")),
        ("from superweight.gate import GateRun", ("torch", "transformers", "superweight.measure")),
    ],
)
def test_a_name_costs_what_it_needs(code, absent):
    script = f"{code}\nimport sys\nprint([name for name in {(*absent, 'pytest', 'torch')!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_there_is_no_other_name():
    import superweight.gate

    with pytest.raises(AttributeError, match="no attribute 'Gate'"):
        superweight.gate.Gate  # noqa: B018
    assert superweight.gate.Settings is Settings
