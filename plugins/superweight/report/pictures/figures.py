"""What pictures are drawn from: cells and gates as plain rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from superweight.report.format import SYMBOLS
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult


class Figure(NamedTuple):
    """A figure of one cell against the uncompressed model."""

    cell: CellDocument
    gate: GateResult
    of: str
    """Corpus or task."""

    @property
    def change(self) -> float:
        """Difference as it is judged: ratio − 1 of perplexity, else value − baseline."""
        return math.nan if self.gate.difference is None else self.gate.difference

    @property
    def ratio(self) -> float:
        """Of perplexity to the uncompressed model's on the same windows."""
        return 1 + self.change


def cells_of(document: RunDocument, model: str) -> list[CellDocument]:
    """Every cell of a model, in the run's order."""
    return [cell for cell in document.cells if cell.model == model]


def figures(cells: Sequence[CellDocument], kind: str) -> Iterator[Figure]:
    """Every measured figure of a kind, `perplexity` or `zero-shot`, of cells that have a baseline."""
    for cell in cells:
        for gate in cell.gates:
            if gate.kind == kind and gate.difference is not None and not math.isnan(gate.difference):
                yield Figure(cell, gate, gate.of)


def role_mark(cell: CellDocument) -> str:
    """The recipe's name with its role where that is not a candidate."""
    return cell.recipe if cell.role == "candidate" else f"{cell.recipe} ({cell.role})"


def link(cell: CellDocument) -> str:
    """Where the page tells of a cell."""
    return f"#{cell.id}"


def mark_text(figure: Figure, text: str) -> str:
    """What a mark says of itself."""
    return f"{role_mark(figure.cell)}: {text}: {SYMBOLS[figure.gate.verdict]} {figure.gate.verdict}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
