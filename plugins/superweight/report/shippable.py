"""What might ship, a row each: its size, what it costs at worst, and on how much that rests."""

from __future__ import annotations

from typing import NamedTuple

from superweight.report.format import SYMBOLS, count, difference, end_of_loss, margin, verdict_label
from superweight.report.overview import in_order, model_verdicts
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult
from superweight.verdict.result import QUALITY

_MEGABYTE = 8e6  # bits


class CandidateRow(NamedTuple):
    """One candidate."""

    cell: CellDocument
    verdict: str
    size: str
    perplexity: str
    score: str
    kept: str
    measured_on: str
    remark: str


def candidate_rows(document: RunDocument) -> list[CandidateRow]:
    """Every candidate, the gravest model and verdict first."""
    whole = {cell.model: cell for cell in document.cells if cell.role == "baseline"}
    ranks = [line.model for line in model_verdicts(document)]
    candidates = [cell for cell in in_order(document.cells) if cell.role == "candidate"]
    return [_row(cell, whole.get(cell.model)) for cell in sorted(candidates, key=lambda cell: ranks.index(cell.model))]


def _row(cell: CellDocument, whole: CellDocument | None) -> CandidateRow:
    perplexity, score = closest(cell, "perplexity"), closest(cell, "zero-shot")
    kept = len(cell.super_weights) - len(cell.lost_super_weights)
    simulated = cell.method is not None and cell.method.simulated
    return CandidateRow(
        cell=cell,
        verdict=f"{SYMBOLS[cell.verdict]} {verdict_label(cell)}",
        size=_size(cell, whole),
        perplexity=_at_worst(perplexity),
        score=_at_worst(score),
        kept=f"{kept} of {len(cell.super_weights)}" if cell.super_weights else "",
        measured_on=", ".join(f"{count(gate)} {QUALITY[gate.kind].items}" for gate in (perplexity, score) if gate),
        remark="simulated arithmetic, not an engine's" if simulated else "",
    )


def closest(cell: CellDocument, kind: str) -> GateResult | None:
    """The gate of a kind whose interval uses up most of its margin; one that failed before one that was not pursued."""
    gates = [gate for gate in cell.gates if gate.kind == kind and gate.difference is not None]
    for verdict in ("REGRESSION", "PASS"):
        decided = [gate for gate in gates if gate.verdict == verdict]
        if decided and (verdict == "REGRESSION" or cell.verdict == "REGRESSION" or len(decided) == len(gates)):
            return max(decided, key=used)
    return max(gates, key=used, default=None)


def used(gate: GateResult) -> float:
    """The share of its margin that a change may use up at most, by its interval."""
    low, high = gate.interval or (gate.difference or 0.0, gate.difference or 0.0)
    loss = -low if gate.higher_is_better else high
    return loss / gate.margin if gate.margin else loss


def _at_worst(gate: GateResult | None) -> str:
    if gate is None:
        return ""
    change = difference(gate).value
    worst = f", at worst {end_of_loss(gate)}" if gate.interval is not None else ""
    accepted = f"{worst} ({margin(gate)} accepted)" if gate.margin is not None else ""
    return f"{change} on {gate.of}{accepted}"


def _size(cell: CellDocument, whole: CellDocument | None) -> str:
    if cell.size is None:
        return ""
    bits = cell.size.model_bits_per_weight
    total = (whole.size.model_dump() if whole and whole.size else {}).get("parameters")
    megabytes = f"{bits * float(total) / _MEGABYTE:,.0f} MB" if total else ""
    ratio = whole.size.model_bits_per_weight / bits if whole and whole.size and bits else 0.0
    smaller = f"{ratio:.1f} times smaller" if ratio > 1 else ""
    return ", ".join(part for part in (megabytes, smaller, f"{bits:.2f} bits per weight") if part)
