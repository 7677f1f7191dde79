"""Figures as one long table, for whatever reads CSV or Parquet: a row for each gate of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from superweight.errors import InfraError
from superweight.evidence.write import write_bytes
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult

_OF_GATE = (
    "gate", "kind", "metric", "value", "baseline", "difference", "margin", "confidence", "n", "planned", "detectable",
    "p_pass", "p_regression", "p_adjusted", "alpha", "method", "card", "decides",
)  # fmt: skip
_MOST = 2**53  # what a float counts to without a gap
_WHOLE = ("n", "planned", "super_weights", "super_weights_kept")


def export_table(documents: Iterable[RunDocument]) -> pd.DataFrame:
    """A row for each gate of each cell of each run; a cell without gates has one row without figures.

    Returns:
        columns of the run (`started`, `tier`, `commit`, `run_verdict`), of the cell (`model`, `recipe`, `role`,
        `cell_verdict`, bits per weight, super weights), and of the gate (`verdict`, `low` and `high` of the interval,
        `waived` by which ticket, and the fields of evidence.json by their names). What is not known is missing.

    """
    rows = [row for document in documents for cell in document.cells for row in _rows(document, cell)]
    frame = pd.DataFrame(rows)
    for name in _WHOLE:
        if name in frame:
            frame[name] = pd.array([_count(value) for value in frame[name]], dtype="Int64")
    return frame


def _count(value: Any) -> int | None:
    """What is not known, or too much for a count, is missing."""
    return int(value) if value is not None and -_MOST <= value <= _MOST else None


def write_export(path: Path, documents: Iterable[RunDocument]) -> None:
    """Write `export_table` as CSV or Parquet, by the ending of the name; the file is whole or as it was.

    Raises:
        InfraError: another ending, no Parquet writer, or it cannot be written.

    """
    table = export_table(documents)
    if path.suffix == ".csv":
        write_bytes(path, table.to_csv(index=False).encode())
    elif path.suffix == ".parquet":
        write_bytes(path, _parquet(table))
    else:
        raise InfraError(f"{path}: expected a name that ends in .csv or .parquet.", reason="unsupported")


def _parquet(table: pd.DataFrame) -> bytes:
    try:
        return table.to_parquet(index=False)
    except ImportError as error:
        raise InfraError(
            "Parquet needs pyarrow, which is not installed: pip install pyarrow, or write a .csv.", reason="unsupported"
        ) from error


def _rows(document: RunDocument, cell: CellDocument) -> Iterator[dict[str, Any]]:
    head = {
        "started": document.run.started,
        "tier": document.run.tier,
        "commit": document.run.commit,
        "run_verdict": document.verdict,
        "model": cell.model,
        "recipe": cell.recipe,
        "role": cell.role,
        "cell_verdict": cell.verdict,
        "content_hash": cell.checkpoint.get("content_hash", ""),
        "compressed_bits_per_weight": cell.size.compressed_bits_per_weight if cell.size else None,
        "model_bits_per_weight": cell.size.model_bits_per_weight if cell.size else None,
        "super_weights": len(cell.super_weights),
        "super_weights_kept": len(cell.super_weights) - len(cell.lost_super_weights),
        "seconds": sum(cell.seconds.values()),
    }
    gates: list[GateResult | None] = [*cell.gates]
    for gate in gates or [None]:
        yield head if gate is None else head | _figures(gate)


def _figures(gate: GateResult) -> dict[str, Any]:
    low, high = gate.interval or (None, None)
    waived = (gate.waiver or {}).get("ticket", "")
    named = {name: getattr(gate, name) for name in _OF_GATE}
    return named | {"low": low, "high": high, "verdict": gate.verdict, "waived": waived}
