"""What is not imported: collection stays light, the first cell pays for measuring, other suites for next to nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEASURING = ("torch", "transformers", "safetensors", "tokenizers", "lm_eval", "datasets", "superweight.evaluate.tasks")
JUDGING = ("scipy", "pandas", "numpy", "jinja2", "jsonschema", "rich", "superweight.verdict", "superweight.report")
CARDS = ("pydantic", "tomllib", "superweight.cards")

AFTER = """
import json, sys, pytest
status = pytest.main(sys.argv[1:])
print(json.dumps({"status": int(status), "modules": sorted(sys.modules)}))
"""
BEFORE_THE_FIRST_CELL = """
import json, sys, pytest

class Stop:
    modules = []

    def pytest_runtest_protocol(self, item):
        self.modules.extend(sorted(sys.modules))
        pytest.exit("the first cell would run now")

stop = Stop()
status = pytest.main(sys.argv[1:], plugins=[stop])
print(json.dumps({"status": int(status), "modules": stop.modules}))
"""


def imported(script, *arguments, where=ROOT):
    """Modules in a process that ran pytest with these arguments and no plugins but ours and xdist."""
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-c", script, "-p", "superweight", "-p", "xdist", "-p", "no:cacheprovider", *arguments]
    found = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "options", [(), ("-k", "mistral"), ("--superweight-tier", "nightly"), ("--superweight-tier", "release")]
)
def test_collecting_needs_cards_alone(options):
    found = imported(AFTER, "suites/", "--collect-only", "-q", *options)
    assert found["status"] == 0
    assert not {*MEASURING, *JUDGING} & set(found["modules"])
    assert {*CARDS} <= set(found["modules"])


def test_measuring_is_imported_by_the_first_cell_and_not_before(tmp_path):
    found = imported(
        BEFORE_THE_FIRST_CELL, "suites/", "-q", "--superweight-out", tmp_path, "--superweight-store", "none"
    )
    assert found["status"] == pytest.ExitCode.INTERRUPTED
    assert {*CARDS} <= set(found["modules"])
    assert not {*MEASURING, *JUDGING} & set(found["modules"])


def test_other_suites_need_none_of_it(tmp_path):
    (tmp_path / "test_other.py").write_text("def test_one():\n    pass\n")
    found = imported(AFTER, "-q", where=tmp_path)
    assert found["status"] == 0
    assert "pytest_superweight.plugin" in found["modules"]
    assert not {*MEASURING, *JUDGING, *CARDS} & set(found["modules"])


@pytest.mark.parametrize(("arguments", "light"), [(["--help"], CARDS), (["--version"], CARDS), (["cards"], ())])
def test_the_command_line_imports_what_it_is_asked_for(arguments, light):
    script = (
        "import sys\nfrom superweight.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "except SystemExit:\n    pass\nprint(*sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)
    modules = set(found.stdout.splitlines()[-1].split())
    assert not {*MEASURING, *JUDGING, *light} & modules


def test_the_collector_is_left_as_it_was_found():
    import gc

    from superweight.gc_pause import gc_paused

    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), gc_paused():
        raise KeyError
    assert gc.isenabled()
