"""The benchmarks of evaluation run end to end, on a few items, and say what they should."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script, *arguments, out):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments, "-o", str(out)],
        check=True, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return done.stdout, json.loads(out.read_text())


@pytest.mark.real
def test_zero_shot_beside_hflm(embedded, tmp_path):
    table, found = run("zero_shot.py", "--limit", "4", "--tasks", "arc_easy", "piqa", out=tmp_path / "out.json")
    assert [row["task"] for row in found["tasks"]] == ["arc_easy", "piqa"]
    for row in found["tasks"]:
        assert row["accuracy"]["ours"] == row["accuracy"]["hflm"]
        assert row["largest_difference"] < 1e-4
        assert row["other_greedy"] == 0
    assert "| arc_easy" in table
    assert found["machine"]["versions"]["torch"] in table


@pytest.mark.real
@pytest.mark.parametrize("dtypes", [["float32"], pytest.param(["float32", "bfloat16"], marks=pytest.mark.slow)])
def test_perplexity_beside_a_plain_loop(dtypes, embedded, tmp_path):
    options = ("--window", "512", "--windows", "2", "--repeats", "1")  # enough tokens for rounding to average out
    table, found = run("perplexity.py", *options, "--dtypes", *dtypes, out=tmp_path / "out.json")
    assert [(row["dtype"], row["window"]) for row in found["figures"]] == [(dtype, 512) for dtype in dtypes]
    assert found["figures"][0]["relative_difference"] < 1e-6
    assert "times faster" in table
