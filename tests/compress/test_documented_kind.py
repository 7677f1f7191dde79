"""The kind of recipe that docs/cards.md adds, as it is printed there."""

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from superweight.cards.methods import KINDS
from superweight.compress import apply, foreign_source

DOCS = (Path(__file__).parents[2] / "docs" / "cards.md").read_text(encoding="utf-8")


@pytest.fixture
def narrowing(tmp_path, monkeypatch):
    """The package of the documentation, imported."""
    files = dict(re.findall(r"```python\n# (narrowing/\w+\.py).*?\n(.*?)```", DOCS, re.S))
    assert set(files) == {"narrowing/kinds.py", "narrowing/recipes.py"}
    (tmp_path / "narrowing").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    before, modules = dict(KINDS), set(sys.modules)
    importlib.import_module("narrowing.kinds")
    yield tmp_path / "narrowing"
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    KINDS.clear()
    KINDS.update(before)


def test_it_is_applied_and_undone(narrowing, tiny, context, recipe, digest):
    loaded = tiny("gpt2")
    before = digest(loaded.model)
    weights = [weight.parameter for weight in loaded.architecture.linear_weights]
    narrow = [weight.bfloat16().float() for weight in weights]
    with apply(recipe(kind="narrow", dtype="bfloat16"), context(loaded)) as applied:
        assert all(torch.equal(one, other) for one, other in zip(weights, narrow, strict=True))
        assert applied.size.compressed_bits_per_weight == 16
        assert len(applied.changed) == len(weights)
    assert digest(loaded.model) == before


def test_figures_are_keyed_by_the_source_of_its_package(narrowing, recipe):
    from superweight.compress.recipe import _source_digest

    method = recipe(kind="narrow", dtype="float16").method
    source = foreign_source(method)
    assert len(source) == 64
    (narrowing / "helpers.py").write_text("")
    assert foreign_source(method) == source  # of the process, which has imported what it has imported
    _source_digest.cache_clear()
    assert foreign_source(method) != source
    _source_digest.cache_clear()
