"""Order: all tests of one cell in a row, so that a recipe is applied once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from superweight.cards import Cell


def cell_of(item: pytest.Item) -> Cell | None:
    """The cell that a test is about, if it is one of ours."""
    callspec = getattr(item, "callspec", None)
    cell = callspec.params.get("superweight_cell") if callspec is not None else None
    return cell if hasattr(cell, "recipe") else None


def is_empty(item: pytest.Item) -> bool:
    """Whether pytest made this test of an empty set of cells, to be skipped: it asks nothing, so it is left out."""
    callspec = getattr(item, "callspec", None)
    return callspec is not None and "superweight_cell" in callspec.params and cell_of(item) is None


def sort_by_cell(items: list[pytest.Item], matrix: Sequence[Cell]) -> None:
    """Bring each cell's tests together, cells in matrix order; foreign tests keep their place at the front."""
    position = {cell.id: index for index, cell in enumerate(matrix)}

    def place(item: pytest.Item) -> int:
        cell = cell_of(item)
        return -1 if cell is None else position.get(cell.id, len(position))

    items.sort(key=place)  # stable: within a cell, the suites' own order
