"""The summary table: one row per cell and gate, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from tabulate import tabulate

from superweight.report.format import SYMBOLS, count, difference, margin, number, verdict_label, verdict_text
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult
from superweight.verdict.result import QUALITY

COLUMNS = ("model", "recipe", "role", "bits", "gate", "baseline", "value", "difference", "margin", "n", "verdict")


def rows(document: RunDocument) -> pd.DataFrame:
    """One row per cell and gate, as text."""
    table = [_row(cell, gate) for cell in document.cells for gate in _gates(cell)]
    return pd.DataFrame(table, columns=list(COLUMNS))


def _gates(cell: CellDocument) -> Sequence[GateResult | None]:
    return cell.gates or [None]


def _row(cell: CellDocument, gate: GateResult | None) -> tuple[str, ...]:
    bits = "" if cell.size is None else f"{cell.size.compressed_bits_per_weight:.2f}"
    head = (cell.model, cell.recipe, cell.role, bits)
    if gate is None:
        return (*head, "(nothing measured)", "", "", "", "", "", f"{SYMBOLS[cell.verdict]} {cell.verdict}")
    shown = verdict_text(gate)
    return (
        *head,
        gate.gate,
        number(gate.baseline, gate.metric),
        "" if gate.kind == "sanity" else number(gate.value, gate.metric),
        str(difference(gate)),
        margin(gate),
        count(gate),
        shown if gate.decides else f"({shown})",
    )


def cell_rows(document: RunDocument) -> pd.DataFrame:
    """One row per cell: its role, its size, its figures against the baseline, and its verdict."""
    table = []
    for cell in document.cells:
        row = {
            "model": cell.model,
            "recipe": cell.recipe,
            "role": cell.role,
            "bits, compressed": "" if cell.size is None else f"{cell.size.compressed_bits_per_weight:.2f}",
            "super weights": _survival(cell),
        }
        for gate in cell.gates:
            if gate.kind in QUALITY:
                same = gate.kind == QUALITY[gate.kind].stage
                row[gate.of if same else f"{gate.kind} {gate.of}"] = _figure(gate)
            if "kl" in gate.details:
                row[f"KL {gate.of}"] = f"{gate.details['kl']:.2g}"
        row["verdict"] = f"{SYMBOLS[cell.verdict]} {verdict_label(cell)}"
        table.append(row)
    frame = pd.DataFrame(table).fillna("")
    return frame[[*[name for name in frame.columns if name != "verdict"], "verdict"]] if len(frame) else frame


def _survival(cell: CellDocument) -> str:
    if cell.role == "baseline" or not cell.super_weights:
        return ""
    kept = len(cell.super_weights) - len(cell.lost_super_weights)
    return f"{kept}/{len(cell.super_weights)} kept"


def _figure(gate: GateResult) -> str:
    if gate.verdict == "INFRA":
        return "not measured"
    if gate.baseline is None or gate.value is None:
        return number(gate.value, gate.metric)
    return f"{number(gate.baseline, gate.metric)} → {number(gate.value, gate.metric)} ({difference(gate).value})"


def terminal_table(document: RunDocument) -> str:
    """The long table for a terminal: a recipe's name is printed once."""
    return _tabulate(_without_repeats(rows(document), ("model", "recipe", "role", "bits")), "simple")


def markdown_table(frame: pd.DataFrame) -> str:
    """A table for Markdown, with pipes in cells escaped."""
    return _tabulate(frame.map(lambda text: str(text).replace("|", "\\|").replace("<", "&lt;")), "github")


def _tabulate(frame: pd.DataFrame, style: str) -> str:
    records: Sequence[Sequence[str]] = frame.to_numpy().tolist()
    return tabulate(records, headers=list(frame.columns), tablefmt=style, disable_numparse=True)


def _without_repeats(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    frame = frame.copy()
    same = (frame[list(columns)] == frame[list(columns)].shift()).all(axis=1)
    frame.loc[same, list(columns)] = ""
    same_model = ~same & (frame["model"] == frame["model"].where(frame["model"] != "").ffill().shift())
    frame.loc[same_model, "model"] = ""
    return frame
