"""Workers that are killed, whenever and however many: the run ends by itself and red, and what was measured is kept."""

import re

import pytest

FATAL = """
import os, signal, pytest
from pathlib import Path

@pytest.mark.superweight_roles("reference")
def test_fatal(cell):
    with open(Path(__file__).parents[1] / "kills", "a") as told:
        told.write(cell.cell.model.id + " ")
    os.kill(os.getpid(), signal.SIGKILL)
"""
DURING_COLLECTION = """
import os, signal
from pathlib import Path

if os.environ.get("PYTEST_XDIST_WORKER"):
    with open(Path(__file__).parents[1] / "kills", "a") as told:
        told.write("collecting ")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def deadly(project):
    """`deadly(*options)`: two models, of each of which one test kills its worker; stdout and who was killed."""
    project.models("tiny", "twin")
    tier = project.root / "cards" / "tiers" / "smoke.toml"
    tier.write_text(tier.read_text().replace(', "clip-restore-int4-g64"', ""))

    def run(*options, source=FATAL):
        (project.root / "suites" / "test_7_fatal.py").write_text(source)
        found = project.gate("-n", "2", "--superweight-store", "none", *options)
        kills = project.root / "kills"
        assert found.ret == 1, found.stdout.str()
        assert "INTERNALERROR" not in found.stdout.str()
        return found.stdout.str(), sorted(kills.read_text().split()) if kills.exists() else []

    return run


def test_workers_are_killed_and_the_rest_is_measured_and_told(deadly, project):
    text, killed = deadly("--superweight-store", "kept")
    assert killed == ["tiny", "twin"]
    for model in killed:
        assert re.search(
            rf"worker gw\d was killed by SIGKILL \(9\) while it ran \S+test_fatal\[{model}/rtn-int4-g64\]", text
        )
        verdicts = {cell["recipe"]: cell["verdict"] for cell in project.evidence["cells"] if cell["model"] == model}
        assert verdicts == {
            "baseline": "PASS",
            "no-op": "PASS",
            "prune-super-weights": "REGRESSION",
            "rtn-int4-g64": "INFRA",
            "clip-restore-int8-channel": "PASS",
        }
        assert project.cell("rtn-int4-g64", model)["perplexity"]["chain"]["windows"] == 8
        key = project.cell("rtn-int4-g64", model)["perplexity"]["chain"]["key"]
        journal = project.root / "kept" / "journal" / key[:2] / f"{key}.jsonl"
        assert journal.read_text().count("\n") > 1, "what the dead worker measured is written down"
        failures = project.cell("rtn-int4-g64", model)["failures"]
        assert [(one["stage"], one["reason"]) for one in failures] == [("test_fatal", "crash")]
    assert project.evidence["verdict"] == "INFRA"
    assert "GiB when last seen" in text
    assert "compression gates" in text
    assert "own check" not in text
    assert (project.root / "reports" / "latest" / "report.html").exists()


def test_without_a_worker_left_the_table_says_what_was_not_started(deadly, project):
    text, killed = deadly(
        "--max-worker-restart", "0", source=FATAL.replace("SIGKILL", "SIGABRT").replace("reference", "baseline")
    )
    assert 1 <= len(killed) <= 2
    assert len(set(killed)) == len(killed)
    assert "was killed by SIGABRT (6)" in text
    assert "not started, since no worker was left to run them" in text
    assert project.evidence["verdict"] == "INFRA"
    assert "compression gates" in text
    assert "own check" not in text
    left = [
        cell for cell in project.evidence["cells"] if any(one["reason"] == "interrupted" for one in cell["failures"])
    ]
    assert left
    assert {cell["verdict"] for cell in left} == {"INFRA"}


def test_workers_that_die_while_they_collect_end_the_run(deadly):
    text, killed = deadly("--max-worker-restart", "1", source=DURING_COLLECTION)
    assert 2 <= len(killed) <= 4
    assert "was killed by SIGKILL (9)" in text
    assert "INFRA" in text
