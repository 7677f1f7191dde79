"""Models × recipes at a glance."""

from __future__ import annotations

from typing import NamedTuple

from superweight.report.format import SYMBOLS
from superweight.report.overview import rank
from superweight.runs.document import CellDocument, RunDocument

_WORDS = {"PASS": "pass", "REGRESSION": "regression", "INCONCLUSIVE": "undecided", "INFRA": "not measured"}

_INFORMS = {"PASS": "within margin", "REGRESSION": "beyond margin"}


class Square(NamedTuple):
    """One cell of the matrix."""

    cell: CellDocument
    symbol: str
    word: str
    kind: str
    """How it is coloured: a verdict, `met` of a control, or `aside` of a reference."""
    label: str
    """All of it in words."""


class Matrix(NamedTuple):
    """Rows and columns; the longer list goes down."""

    corner: str
    columns: list[str]
    rows: list[tuple[str, list[Square | None]]]
    models_down: bool
    aside: int
    """How many rows at the end are of references."""


def matrix(document: RunDocument) -> Matrix:
    """Every cell where its model and its recipe meet; None where the run has no such cell."""
    by_place = {(cell.model, cell.recipe): cell for cell in document.cells}
    models = list(dict.fromkeys(cell.model for cell in document.cells))
    recipes = list(dict.fromkeys(cell.recipe for cell in sorted(document.cells, key=lambda cell: rank(cell.role))))
    informing = {cell.recipe for cell in document.cells} - {c.recipe for c in document.cells if c.role != "reference"}
    down = len(models) >= len(recipes)
    rows, columns = (models, recipes) if down else (recipes, models)

    def square(row: str, column: str) -> Square | None:
        cell = by_place.get((row, column) if down else (column, row))
        return None if cell is None else _square(cell)

    return Matrix(
        corner="model" if down else "recipe",
        columns=columns,
        rows=[(row, [square(row, column) for column in columns]) for row in rows],
        models_down=down,
        aside=0 if down else sum(recipe in informing for recipe in recipes),
    )


def _square(cell: CellDocument) -> Square:
    about = f"{cell.model} under {cell.recipe}, {cell.role}"
    if cell.role == "control":
        met = cell.verdict == cell.expects
        word = "as expected" if met else f"{_WORDS[cell.verdict]}, expected {_WORDS[cell.expects or 'PASS']}"
        kind = "met" if met else "INFRA"
        return Square(cell, "✓" if met else "✗", word, kind, f"{about}: {cell.verdict}, expected {cell.expects}")
    word = _WORDS[cell.verdict]
    if cell.role == "reference" and cell.verdict in _INFORMS:
        word = _INFORMS[cell.verdict]
    if any(gate.waiver for gate in cell.gates):
        word += " (waived)"
    kind = "aside" if cell.role == "reference" and cell.verdict != "INFRA" else cell.verdict
    return Square(cell, SYMBOLS[cell.verdict], word, kind, f"{about}: {cell.verdict}")
