"""`superweight init`: what a new project begins with, and what it leaves alone."""

import subprocess
import sys
from pathlib import Path

import pytest

from superweight.cli import main
from superweight.errors import InfraError
from superweight.starter import init

ROOT = Path(__file__).parents[1]


def contents(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_new_project_has_the_suites_their_wiring_and_examples(tmp_path, capsys):
    assert main(["init", str(tmp_path / "new")]) == 0
    found = contents(tmp_path / "new")
    for path in [*(ROOT / "suites").glob("test_*.py"), ROOT / "conftest.py"]:
        assert found[str(path.relative_to(ROOT))] == path.read_bytes()
    assert {"pytest.ini", "cards/recipes/my-int4-g32.toml", "cards/models/my-model.toml.example"} <= set(found)
    assert capsys.readouterr().out.count("wrote") == len(found)


def test_pytest_there_gates_the_embedded_model(tmp_path):
    init(tmp_path)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--superweight-recipe", "my-int4-g32"]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert "suites/test_4_perplexity.py::test_perplexity[smollm2-135m-instruct/my-int4-g32/" in listed.stdout


def test_what_is_there_is_left_alone(tmp_path, capsys):
    init(tmp_path)
    (tmp_path / "conftest.py").write_text("mine = 1\n")
    (tmp_path / "suites" / "test_4_perplexity.py").unlink()
    (tmp_path / "suites" / "test_4_perplexity.py").symlink_to("nowhere")
    before = contents(tmp_path)
    assert main(["init", str(tmp_path)]) == 0
    assert contents(tmp_path) == before
    assert "kept" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "text", "configured"),
    [
        ("pyproject.toml", "[tool.pytest.ini_options]\n", True),
        ("pyproject.toml", "[project]\nname = 'x'\n", False),
        ("setup.cfg", "[tool:pytest]\n", True),
        ("tox.ini", "[tox]\n", False),
        ("tox.ini", "[pytest]\n", True),
        ("pytest.ini", "", True),
    ],
)
def test_a_configuration_of_pytest_is_not_put_out_of_force(tmp_path, name, text, configured):
    """A pytest.ini goes before all others, so none is written beside one."""
    (tmp_path / name).write_text(text)
    _, left = init(tmp_path)
    assert (tmp_path / name).read_text() == text
    assert (name == "pytest.ini" or not (tmp_path / "pytest.ini").exists()) is configured
    assert ("superweight_cards = cards" in left) is configured


def test_what_cannot_be_read_or_written_is_told(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[")
    with pytest.raises(InfraError, match="a configuration cannot be read"):
        init(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]
    (tmp_path / "file").write_text("")
    with pytest.raises(InfraError, match="could not be written"):
        init(tmp_path / "file" / "project")
