"""The shape of the project: its top level, which way imports go, and what is never imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "lm_eval", "datasets")


def test_top_level():
    names = {path.name for path in ROOT.iterdir()}
    assert {
        "conftest.py",
        "suites",
        "fixtures",
        "plugins",
        "reports",
        "tox.ini",
        "pyproject.toml",
        "README.md",
    } <= names
    assert {"tests", "docs", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", ".ci"} <= names


def test_imports_go_one_way():
    """The contracts are in pyproject.toml, under tool.importlinter."""
    linter = Path(sys.executable).parent / "lint-imports"
    found = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    assert "0 broken" in found.stdout


def imported_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    return set(next(line for line in found.stdout.splitlines() if line.startswith("HEAVY")).split()[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import pytest_superweight",
        "import pytest_superweight.plugin, pytest_superweight.session, pytest_superweight.selection",
        "import superweight.cards, superweight.evidence, superweight.verdict, superweight.report, superweight.cli",
        "import pytest; assert pytest.main(['suites/', '--collect-only', '-q']) == 0",
        "import pytest; assert pytest.main(['suites/', '--collect-only', '-q', '-k', 'mistral']) == 0",
    ],
)
def test_collecting_judging_and_reporting_stay_light(code):
    assert imported_by(code) == set()


def test_the_plugin_costs_other_suites_next_to_nothing():
    """Loading it must not load cards, statistics or tables."""
    script = (
        "import sys, pytest_superweight.plugin\n"
        "print([n for n in ('pydantic', 'pandas', 'scipy', 'jinja2', 'xdist') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
