import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.py"

BARE = """
import runpy, sys
from importlib.machinery import PathFinder

absent = {"pydantic", "lm_eval", "datasets", "pandas", "scipy", "pyarrow", "tabulate", "jinja2", "rich", "gguf"}
find = PathFinder.find_spec
PathFinder.find_spec = staticmethod(lambda name, *rest: None if name.split(".")[0] in absent else find(name, *rest))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
"""Runs a script as if most of what is installed were not."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The script's process and JSON, run with torch and transformers alone, small and on the CPU."""
    output = tmp_path_factory.mktemp("gpu") / "found.json"
    command = [sys.executable, "-c", BARE, SCRIPT, "--device", "cpu", "--small", "-o", output]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return process, json.loads(output.read_text()) if output.exists() else {}


def test_every_section_runs_and_every_check_holds(ran):
    process, found = ran
    assert process.returncode == 0, process.stdout + process.stderr
    assert list(found["sections"]) == ["checks", "w8a8", "quantisation", "evaluation", "model"]
    for name, section in found["sections"].items():
        assert section["ok"] is True, name
        assert section["error"] is None, name
        assert all(section["checks"].values()), name
    assert "FAILED" not in process.stdout


def test_says_what_the_machine_can_do(ran):
    _, found = ran
    assert set(found["ceilings"]) == {"copy", "bf16", "int8"}
    assert all(ceiling > 0 for ceiling in found["ceilings"].values())
    assert found["machine"]["versions"]["torch"]


def test_w8a8_is_float64s_but_for_rounding(ran):
    layers = ran[1]["sections"]["w8a8"]["figures"]["layers"]
    assert {(one["in"], one["out"], one["tokens"]) for one in layers} == {
        (192, 512, 33), (192, 512, 128), (100, 301, 33), (100, 301, 128),
    }  # fmt: skip
    for one in layers:
        assert 0 < one["error"] < 1e-6
        assert one["error in bounds"] <= 1
        assert one["quantisation"] < 0.02  # two massive entries and a super weight would be far more
        assert set(one["times bf16"]) == {"W8A8", "eager", "quantise", "multiply"}
        assert all(math.isfinite(value) for value in one["seconds"].values())


def test_scoring_agrees(ran):
    figures = ran[1]["sections"]["evaluation"]["figures"]
    assert set(figures) == {"zero-shot", "few-shot", "perplexity"}
    for one in figures.values():
        assert one["largest difference, nats"] <= 1e-4
        assert one["times faster"] > 0


def test_a_section_that_raises_does_not_stop_the_others(tmp_path):
    output = tmp_path / "found.json"
    command = [sys.executable, SCRIPT, "--device", "cpu", "--only", "model", "evaluation", "-o", output]
    process = subprocess.run([*command, "--model", tmp_path], capture_output=True, text=True, timeout=600, check=False)
    sections = json.loads(output.read_text())["sections"]
    assert process.returncode == 1
    assert "Traceback" in sections["model"]["error"]
    assert "FAILED: model" in process.stdout
    assert sections["evaluation"]["ok"]
