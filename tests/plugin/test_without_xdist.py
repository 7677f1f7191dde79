"""The gate where pytest-xdist is switched off, is not installed, is not loaded, or is loaded by name."""

import pytest

NAMED = ("-p", "pytest_superweight.plugin")
WAYS = {
    "switched off": ("", ("-p", "no:xdist")),
    "not installed": ("1", ("-p", "not_installed", *NAMED)),
    "not loaded": ("1", NAMED),
    "loaded by name": ("1", (*NAMED, "-p", "xdist", "-n", "1")),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_gate_runs_with_and_without_xdist(project, monkeypatch, way):
    alone, options = WAYS[way]
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", alone)
    (project.root / "not_installed.py").write_text("import sys\nsys.modules['xdist'] = None\n")
    run = project.gate("-k", "sanity and clip and int8", *options)
    assert run.ret == 0, run.stdout.str() + run.stderr.str()
    assert run.parseoutcomes()["passed"] == 1
    (gate,) = [one for one in project.cell("clip-restore-int8-channel")["gates"] if one["gate"] == "sanity"]
    assert gate["verdict"] == "PASS"
