"""`superweight init`: what a project needs beside the package to gate its models."""

from __future__ import annotations

import configparser
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from superweight.errors import InfraError
from superweight.evidence.write import write_text

_CONFIGURATION = """[pytest]
testpaths = suites
superweight_cards = cards
"""
_MODEL = """# A model of your own: take the # away, say where its checkpoint is, and `pytest -k my-model` gates it.
#
# id = "my-model"
# title = "My model"
#
# [source]
# kind = "directory"          # directory, hub, gguf or wheel
# path = "../../checkpoint"   # relative to this file
"""
_RECIPE = """id = "my-int4-g32"
title = "INT4, groups of 32, clip and restore"
source = "an example; `pytest --superweight-recipe my-int4-g32` gates with it"
role = "candidate"
note = "Change what is below, or copy this file, for what you want to ship."

[method]
kind = "clip-restore"
bits = 4
granularity = "group"
group_size = 32
z = "search"
"""
_SECTIONS = {"pytest.ini": "pytest", ".pytest.ini": "pytest", "tox.ini": "pytest", "setup.cfg": "tool:pytest"}


class Written(NamedTuple):
    """What became of one file."""

    path: Path
    new: bool
    """False if there was a file of that name, which is as it was."""


def init(directory: Path) -> tuple[list[Written], str]:
    """Write suites, their wiring, example cards and a pytest configuration; a file that is there is left alone.

    Args:
        directory: of the project; created if it is not there.

    Returns:
        every file, and what is left to do by hand: empty, or settings for a configuration of pytest that is there.

    Raises:
        InfraError: the directory cannot be written, or a configuration in it cannot be read.

    """
    configured = _configuration(directory)
    written = [_write(directory / name, text) for name, text in _files()]
    if configured is not None:
        settings = 'superweight_cards = cards (in TOML: superweight_cards = ["cards"])'
        return written, f"{configured} configures pytest already: add {settings} there, and suites to its testpaths"
    return [*written, _write(directory / "pytest.ini", _CONFIGURATION)], ""


def _files() -> Iterator[tuple[str, str]]:
    """Name and text of every file but the configuration."""
    home = _home()
    yield "conftest.py", (home / "conftest.py").read_text(encoding="utf-8")
    for path in sorted((home / "suites").glob("test_*.py")):
        yield f"suites/{path.name}", path.read_text(encoding="utf-8")
    yield "cards/models/my-model.toml.example", _MODEL
    yield "cards/recipes/my-int4-g32.toml", _RECIPE


def _home() -> Path:
    """Where suites and wiring are: the top of a checkout, package data in a wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parents[1]
    return checkout if (checkout / "suites").is_dir() else package / "starter_files"


def _write(path: Path, text: str) -> Written:
    if path.exists() or path.is_symlink():
        return Written(path, new=False)
    write_text(path, text)
    return Written(path, new=True)


def _configuration(directory: Path) -> Path | None:
    """The file of a directory in which pytest is configured, as pytest looks for it."""
    path = directory / "pyproject.toml"
    try:
        for name, section in _SECTIONS.items():
            if (directory / name).is_file() and (name.endswith("pytest.ini") or _has(directory / name, section)):
                return directory / name
        if path.is_file() and "pytest" in tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}):
            return path
    except (OSError, ValueError, configparser.Error) as error:
        raise InfraError(
            f"{directory}: a configuration cannot be read ({' '.join(str(error).split())}). Correct it first.",
            reason="corrupt",
        ) from error
    return None


def _has(path: Path, section: str) -> bool:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(path, encoding="utf-8")
    return parser.has_section(section)
