"""A kind of recipe from a package outside this project gates a model like a built-in one."""

import os

import pytest

KINDS = '''
"""Kinds of recipes that narrow weights."""

from typing import Literal

from superweight.cards.methods import Method


class Narrow(Method):
    """Weights in a narrower float."""

    kind: Literal["narrow"]
    implementation = "narrowing.recipes:NarrowRecipe"
    compresses = True
    changes_nothing = False
    of_super_weights = False
    calibration = property(lambda self: None)
    scale_spans_row = property(lambda self: False)
    simulated = property(lambda self: False)

    dtype: Literal["bfloat16", "float16"]
    keep_super_weights: bool = False

    def next_settings(self) -> list[str]:
        return ["try dtype = 'float16'"]

    def settings_that_keep_super_weights(self) -> list[str]:
        return ["set keep_super_weights = true, as package narrowing advises"]
'''
RECIPES = '''
"""The recipe of kind `narrow`."""

import torch

from superweight.compress import Matrix, Recipe
from superweight.compress.size import side_table_bits


class NarrowRecipe(Recipe):
    def compress(self, matrix: Matrix) -> dict[str, int]:
        values = matrix.values
        kept = matrix.super_weights if self.method.keep_super_weights else ()
        before = [values[one.row, one.column].clone() for one in kept]
        matrix.write(values, values.to(getattr(torch, self.method.dtype)).float())
        for one, value in zip(kept, before, strict=True):
            values[one.row, one.column] = value
        return {"codes": 16 * values.numel(), "super_weights": side_table_bits(len(kept), width=matrix.width)}
'''
CARD = """
id = "{id}"
title = "bfloat16 weights"
role = "{role}"
[method]
kind = "narrow"
dtype = "bfloat16"
keep_super_weights = {keep}
"""


@pytest.fixture
def narrowing(project, tmp_path_factory, monkeypatch):
    """The project, two recipes of the foreign kind in its tier, and the package that has it on the path."""
    root = tmp_path_factory.mktemp("site")
    (root / "narrowing").mkdir()
    for name, text in (("__init__", ""), ("kinds", KINDS), ("recipes", RECIPES)):
        (root / "narrowing" / f"{name}.py").write_text(text)
    (project.root / "cards" / "recipes").mkdir()
    for name, role, keep in (("narrow", "candidate", "true"), ("narrow-all", "candidate", "false")):
        path = project.root / "cards" / "recipes" / f"{name}.toml"
        path.write_text(CARD.format(id=name, role=role, keep=keep))
    tier = project.root / "cards" / "tiers" / "smoke.toml"
    head, _, rest = tier.read_text().partition('"rtn-int4-g64"')
    tier.write_text(f'{head}"narrow", "narrow-all"]{rest.partition("]")[2]}')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]))
    return project, root


def installed(root):
    """Give the package the entry point that an installer would write."""
    about = root / "narrowing-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: narrowing\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[superweight.kinds]\nnarrow = narrowing.kinds\n")


def test_a_kind_of_an_installed_package_gates_a_model(narrowing):
    project, root = narrowing
    installed(root)
    run = project.gate()
    assert run.ret == 1, run.stdout.str()
    kept, lost = project.cell("narrow"), project.cell("narrow-all")
    assert (kept["verdict"], lost["verdict"]) == ("PASS", "REGRESSION")
    assert kept["recipe_parameters"] == {"kind": "narrow", "dtype": "bfloat16", "keep_super_weights": True}
    assert (kept["super_weights"][0]["survived"], lost["super_weights"][0]["survived"]) == (True, False)
    assert 16 < kept["size"]["compressed_bits_per_weight"] < 16.01
    assert lost["size"]["compressed_bits_per_weight"] == 16
    assert len(kept["sanity"]["changed"]) == 6 * 7
    assert not kept["sanity"]["undeclared"]
    message = next(gate["message"] for gate in lost["gates"] if gate["gate"] == "super-weights")
    assert "as package narrowing advises" in message
    assert "in this run narrow kept them all" in message

    (root / "narrowing" / "recipes.py").write_text(RECIPES.replace("16 *", "15 *"))
    project.gate("-k", "sanity and narrow and not narrow-all")
    assert 15 < project.cell("narrow")["size"]["compressed_bits_per_weight"] < 15.01  # nothing of other code is served


def test_a_kind_that_a_conftest_imports_is_known(narrowing):
    project, _ = narrowing
    refused = project.gate("--collect-only", "-q")
    assert refused.ret != 0
    refused.stderr.fnmatch_lines(["*narrow*.toml: not a valid RecipeCard*"])
    conftest = project.root / "conftest.py"
    conftest.write_text(conftest.read_text() + "\nimport narrowing.kinds  # noqa: E402, F401\n")
    found = project.gate("--collect-only", "-q")
    assert found.ret == 0, found.stdout.str()
    assert "tiny/narrow" in found.stdout.str()
