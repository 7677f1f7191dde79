"""Twins of benchmarks/quantisation.py and benchmarks/undo.py at small sizes: what they say and check, not how fast."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--rows", "24", "--columns", "256", "--repeats", "1", "--threads", "1"]


def run(tmp_path, script, *arguments):
    command = [sys.executable, BENCHMARKS / script, *SMALL, *arguments, "-o", tmp_path / "found.json"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    return found.stdout, json.loads((tmp_path / "found.json").read_text())


@pytest.mark.parametrize("arguments", [["--eager"], []])
def test_quantisation(tmp_path, arguments):
    text, document = run(tmp_path, "quantisation.py", *arguments)
    assert len(document["granularities"]) == 5
    for found in document["granularities"].values():
        assert found["rtn"]["bits as eager"] is found["clip"]["bits as eager"] is True
        assert found["rtn"]["of clone"] > 0
    assert len([line for line in text.splitlines() if line.startswith("| INT")]) == 15
    assert document["how"] in text
    assert " NO " not in text


def test_undo(tmp_path):
    text, document = run(tmp_path, "undo.py", "--layers", "1")
    assert all(found["changed"] and found["undone"] for found in document["weights"].values())
    assert len(text.splitlines()) == 7
