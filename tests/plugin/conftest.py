"""A project that gates a tiny model with planted super weights: the repository's own suites, small cards."""

import json
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(pytester, tiny_checkpoint, monkeypatch):
    """Suites, conftest and cards in a directory of their own; `project.gate(*options)` runs them in a subprocess."""
    from support.tiny_cards import write_data_cards

    root = pytester.path
    shutil.copytree(ROOT / "suites", root / "suites", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "conftest.py", root / "conftest.py")
    pytester.makepyprojecttoml('[tool.pytest.ini_options]\nsuperweight_cards = ["cards"]\n')
    write_data_cards(root / "cards")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(root / "datasets"))
    made = Project(pytester, tiny_checkpoint)
    made.models("tiny")
    return made


class Project:
    def __init__(self, pytester, tiny_checkpoint):
        self.pytester, self.root = pytester, pytester.path
        self.weights, self.value = tiny_checkpoint

    def models(self, *names, path=None, value=None, **tier):
        """Write a model card of each name, all of the same weights unless `path` says otherwise, and their tier."""
        from support.tiny_cards import write_model_cards

        value = self.value if value is None else value
        write_model_cards(self.root / "cards", names, path or self.weights, value, **tier)

    def gate(self, *options):
        return self.pytester.runpytest_subprocess("suites/", "-p", "no:cacheprovider", *options, timeout=300)

    @property
    def evidence(self):
        return json.loads((self.root / "reports" / "latest" / "evidence.json").read_text())

    def cell(self, recipe, model="tiny"):
        return next(c for c in self.evidence["cells"] if (c["model"], c["recipe"]) == (model, recipe))
