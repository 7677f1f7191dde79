"""The terminal while the gate runs: seen through a pseudo-terminal, and quiet everywhere else."""

import io
import os
import pty
import re
import select
import subprocess
import sys

import pytest
from rich.console import Console

from pytest_superweight.live import _step as drawn_step
from pytest_superweight.signals import PROGRESS_DIR_VARIABLE, progress_writer, read_progress
from pytest_superweight.tally import Tally
from superweight.progress import Step

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
IDS = [f"suites/t.py::test_a[m/{recipe}/wiki]" for recipe in ("baseline", "rtn", "clip")]
ROLES = {"m/baseline": "baseline", "m/rtn": "reference", "m/clip": "candidate", "m/prune": "control"}


def test_time_left_is_that_of_tests_of_the_same_kind():
    tally = Tally(ROLES)
    tally.expect([*IDS, "suites/t.py::test_b[m/rtn]", "tests/other.py::test_x[5]"])
    tally.expect(IDS)
    assert (tally.tests, tally.done, tally.seconds_left) == (4, 0, None)
    tally.spent(IDS[0], 1.0)
    tally.spent(IDS[0], 9.0)
    assert tally.end(IDS[0], {"perplexity:wiki": "PASS"}, failed=False).seconds == 10.0
    assert tally.seconds_left == 30.0
    assert tally.end(IDS[1], {}, failed=False) is None
    assert tally.end(IDS[1], {}, failed=False) is None  # told twice
    assert tally.cells["m/rtn"].left == 1
    tally.expect(IDS)  # as a worker says that takes the place of one that died
    assert (tally.tests, tally.done) == (4, 2)
    assert tally.done == 2


@pytest.mark.parametrize(
    ("role", "verdicts", "failed", "said"),
    [
        ("candidate", {"a": "PASS", "b": "REGRESSION", "c": "INFRA"}, True, "REGRESSION"),
        ("candidate", {"a": "PASS", "b": "INCONCLUSIVE"}, False, "INCONCLUSIVE"),
        ("candidate", {}, True, "INFRA"),
        ("candidate", {}, False, "PASS"),
        ("control", {"m/prune": "REGRESSION"}, False, "as expected"),
        ("control", {"m/prune": "PASS"}, True, "NOT AS EXPECTED"),
    ],
)
def test_what_a_cell_says(role, verdicts, failed, said):
    tally = Tally({"m/x": role})
    tally.expect(["t.py::test[m/x]"])
    assert tally.end("t.py::test[m/x]", verdicts, failed=failed).verdict == said


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (Step("m/rtn", "zero-shot:piqa", 50, 200), "▸ m/rtn zero-shot piqa ━+╺?━* 50 of 200 items 12 s"),
        (Step("m/rtn", "perplexity:wiki", 8, 8), "▸ m/rtn perplexity wiki ━+ 8 of 8 windows 12 s"),
        (Step("m/nf4", "quantise:torchao", 3, 30), "▸ m/nf4 compressing with torchao ━+.* 3 of 30 steps 12 s"),
        (Step("m/baseline", "noise:perplexity:wiki", 1, 8), "again, in another way: perplexity wiki .* 1 of 8 windows"),
        (Step("m/baseline", "detection"), "▸ m/baseline looking for super weights 12 s"),
        (Step("m/[red]x", "sanity"), r"▸ m/\[red\]x compressing, and comparing every parameter"),
    ],
)
def test_a_step_in_words(step, said):
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(drawn_step(step, 12.0))
    assert re.search(said, " ".join(console.export_text().split()))


def test_steps_are_told_from_process_to_process(tmp_path, monkeypatch):
    monkeypatch.delenv(PROGRESS_DIR_VARIABLE, raising=False)
    progress_writer("gw0")(Step("m/rtn", "sanity"))
    assert read_progress(tmp_path) == {}
    monkeypatch.setenv(PROGRESS_DIR_VARIABLE, str(tmp_path))
    tell = progress_writer("gw0")
    for done in (0, 50):  # the second comes too soon after the first to be worth a file
        tell(Step("m/rtn", "zero-shot:piqa", done, 200))
    progress_writer("gw1")(Step("m/clip", "sanity"))
    (tmp_path / "gw2.json").write_text("{")
    assert read_progress(tmp_path) == {"gw0": Step("m/rtn", "zero-shot:piqa", 0, 200), "gw1": Step("m/clip", "sanity")}


def on_terminal(root, *options, ci=""):
    """Everything that a gate writes to a terminal of 120 columns, escapes left out."""
    controller, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    environment |= {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40", **({"CI": ci} if ci else {})}
    command = [sys.executable, "-m", "pytest", "suites/", "-p", "no:cacheprovider", *options]
    with subprocess.Popen(command, cwd=root, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as run:
        os.close(terminal)
        written = b""
        while True:
            if not select.select([controller], [], [], 300)[0]:
                run.kill()
                break
            try:
                piece = os.read(controller, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            written += piece
    os.close(controller)
    return ESCAPES.sub("", written.decode(errors="replace")), run.returncode


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one process", "two workers"])
def test_a_terminal_shows_cell_stage_count_time_and_verdicts(project, workers):
    text, code = on_terminal(project.root, *workers)
    assert code == 0, text
    live, _, summary = text.partition("compression gates")
    for said in ("▸ tiny/", "of 6 cells", " left"):  # the last drawing has them, however fast the machine is
        assert said in live, said
    assert re.search(r"✓ PASS +tiny/clip-restore-int8-channel  candidate, \d+ s", live)
    assert re.search(r"✓ as expected +tiny/prune-super-weights", live)
    assert "test_4_perplexity.py" not in live
    assert "✓ PASS: may ship" in summary
    assert re.search(r"\d+ passed", summary)


def test_a_log_stays_as_pytest_writes_it(project):
    text, code = on_terminal(project.root, "-k", "detection", ci="true")
    assert code in (0, 1)
    assert "looking for super weights" not in text
    assert "test_1_detection.py ." in text


@pytest.mark.parametrize(
    "options", [("-p", "no:terminal"), ("-p", "no:debugging"), ("-p", "no:capture"), ("--superweight-progress=live",)]
)
def test_other_suites_run_whatever_the_terminal_lacks(pytester, options):
    pytester.makepyfile("def test_one(): pass")
    (pytester.path / "suites").mkdir()
    (pytester.path / "suites" / "test_own.py").write_text("def test_two(): pass")
    _, code = on_terminal(pytester.path, *options)
    assert code == 0
