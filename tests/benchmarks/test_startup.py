"""The benchmark of starting up runs end to end, small, and says what it should; how long anything took is not asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "startup.py"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    output = tmp_path_factory.mktemp("startup") / "found.json"
    process = subprocess.run(
        [sys.executable, SCRIPT, "--quick", "-o", output], capture_output=True, text=True, timeout=300, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout, json.loads(output.read_text())


def test_everything_is_measured_beside_the_least_it_could_cost(ran):
    _, found = ran
    rows = {row["what"]: row for row in found["rows"]}
    assert list(rows) == [
        "collect suites/, smoke tier",
        "collect suites/, release tier",
        "collect a foreign suite, plugin loaded",
        "import torch",
        "import transformers",
        "import the rest",
        "load",
        "fingerprints of all parameters",
        "search for NaN and infinity",
    ]
    assert rows["load"]["beside"] == "read twice"
    assert rows["collect a foreign suite, plugin loaded"]["beside"] == "without the plugin"
    for row in rows.values():
        assert row["seconds"] > 0
        if "beside" in row:
            assert row["ratio"] == pytest.approx(row["seconds"] / row["its seconds"])  # of one turn
            assert row["difference"] == pytest.approx(row["seconds"] - row["its seconds"])


def test_as_many_trivial_tests_as_there_are_of_ours(ran):
    rows = ran[1]["rows"]
    for tier, row in zip(("smoke", "release"), rows[:2], strict=True):
        command = [sys.executable, "-m", "pytest", "suites/", "--collect-only", "-q", "--superweight-tier", tier]
        listed = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True, check=True).stdout
        assert row["beside"] == f"collect {sum('::' in line for line in listed.splitlines())} trivial tests"


def test_one_table_and_the_machine(ran):
    printed, found = ran
    lines = printed.splitlines()
    assert lines[0].startswith("| what")
    assert sum(line.startswith("| ") for line in lines) == 1 + len(found["rows"])
    assert len({len(line) for line in lines if line.startswith("|")}) == 1
    assert found["machine"]["versions"]["torch"] in lines[-1]
