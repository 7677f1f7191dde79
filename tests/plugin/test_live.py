"""The terminal while the gate runs: seen through a pseudo-terminal, and quiet everywhere else."""

import os
import pty
import re
import select
import subprocess
import sys

import pytest

from pytest_superweight.tally import Tally

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
    for said in ("tiny/clip-restore-int8-channel", "looking for super weights", "of 6 cells", " left"):
        assert said in live, said
    assert re.search(r"\d+ of \d+ (windows|items)", live)
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
