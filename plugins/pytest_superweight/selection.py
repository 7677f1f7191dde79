"""What pytest's command line and markers select: words of -k, models in test ids, and the cells that a test is for."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from superweight.cards import Cell
from superweight.gate.plan import Plan


def words_of(expression: str) -> set[str]:
    """The words of a `-k` expression, in lower case, so that `-k mistral` selects Mistral in any tier."""
    return {word.lower() for word in re.findall(r"[\w.+\-/\[\]:]+", expression)} - {"and", "or", "not"}


def model_ids_in(arguments: Sequence[str]) -> set[str]:
    """The model ids in test ids on the command line, as in `suites/test_2_sanity.py::test_sanity[model/recipe]`."""
    return {model for argument in arguments for model in re.findall(r"\[([^\[/]+)/", argument)}


def parametrize(metafunc: pytest.Metafunc, plan: Plan) -> None:
    """Parametrise a test over the cells, and over the tier's corpora or tasks if it asks for one."""
    names = metafunc.fixturenames
    if "superweight_cell" not in names:
        return
    chosen = [cell for cell in plan.cells if _is_for(metafunc, cell)]
    if "superweight_corpus" in names:
        pairs = [(cell, entry) for cell in chosen for entry in plan.tier.perplexity]
        ids = [f"{cell.id}/{entry.corpus}" for cell, entry in pairs]
        metafunc.parametrize(("superweight_cell", "superweight_corpus"), pairs, ids=ids, indirect=True)
    elif "superweight_task" in names:
        asked = [(cell, entry) for cell in chosen for entry in plan.tier.tasks]
        ids = [f"{cell.id}/{entry.task}" for cell, entry in asked]
        metafunc.parametrize(("superweight_cell", "superweight_task"), asked, ids=ids, indirect=True)
    else:
        metafunc.parametrize("superweight_cell", chosen, ids=[cell.id for cell in chosen], indirect=True)


def _is_for(metafunc: pytest.Metafunc, cell: Cell) -> bool:
    marker = metafunc.definition.get_closest_marker("superweight_roles")
    return marker is None or cell.role in marker.args
