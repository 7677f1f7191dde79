"""What the page says of one cell."""

from __future__ import annotations

from typing import Any, NamedTuple

from superweight.report.format import (
    SYMBOLS,
    count,
    detectable,
    difference,
    margin,
    number,
    verdict_label,
    verdict_text,
)
from superweight.report.page.flips import TaskFlips
from superweight.report.page.interval import interval_svg
from superweight.report.page.super_weights import WeightView, promised, weight_views
from superweight.runs.document import CellDocument
from superweight.verdict import GateResult
from superweight.verdict.integrity import describe_coverage

_LISTED = 12  # values of a recipe's figures


class GateView(NamedTuple):
    """A row of the table of gates."""

    gate: GateResult
    figures: str
    change: str
    drawn: str
    margin: str
    n: str
    saved: str
    detectable: str
    verdict: str


class CellView(NamedTuple):
    """One cell."""

    cell: CellDocument
    symbol: str
    label: str
    gates: list[GateView]
    flips: list[TaskFlips]
    bits: str
    coverage: str
    kept: str
    weights: list[WeightView]
    promised: str
    seconds: float
    figures: dict[str, str]
    search: str
    by_gate: str


def cell_view(cell: CellDocument, flips: list[TaskFlips]) -> CellView:
    """Everything that the page shows of a cell."""
    kept = len(cell.super_weights) - len(cell.lost_super_weights)
    return CellView(
        cell=cell,
        symbol=SYMBOLS[cell.verdict],
        label=verdict_label(cell),
        gates=[_gate(gate, cell) for gate in cell.gates],
        flips=flips,
        bits="" if cell.size is None else f"{cell.size.model_bits_per_weight:.2f}",
        coverage="" if cell.coverage is None else describe_coverage(cell.coverage),
        kept=f"{kept} of {len(cell.super_weights)}" if cell.super_weights and cell.role != "baseline" else "",
        weights=weight_views(cell),
        promised=promised(cell),
        seconds=sum(cell.seconds.values()),
        figures={name: _short(value) for name, value in cell.recipe_figures.items()},
        search=" ".join([cell.model, cell.recipe, cell.role, cell.verdict, cell.why]).lower(),
        by_gate=" ".join(f"{gate.gate}={gate.verdict}" for gate in cell.gates),
    )


def column(cell: CellDocument, gate: str) -> tuple[str, float | None, str]:
    """A figure for the table of cells: its text, by what it is sorted, and its verdict."""
    result = next((each for each in cell.gates if each.gate == gate), None)
    if result is None:
        return "", None, ""
    if result.difference is None:
        text = "not measured" if result.verdict == "INFRA" else number(result.value, result.metric)
        return text, None, result.verdict  # no change, so it has no place among changes
    return difference(result).value, result.difference, result.verdict


def _gate(gate: GateResult, cell: CellDocument) -> GateView:
    value = number(gate.value, gate.metric)
    figures = f"{number(gate.baseline, gate.metric)} → {value}" if gate.baseline is not None else value
    left = (gate.planned or 0) - (gate.n or 0)
    return GateView(
        gate=gate,
        figures=_rewritten(gate, cell) if gate.kind == "sanity" else figures,
        change=str(difference(gate)),
        drawn=interval_svg(gate),
        margin=margin(gate),
        n=count(gate),
        saved="" if gate.n is None or left <= 0 else _saved(gate, cell, left),
        detectable=detectable(gate),
        verdict=_verdict(gate, cell),
    )


def _verdict(gate: GateResult, cell: CellDocument) -> str:
    """In the words that fit: nothing was at stake where there is nothing to compare, or nothing was promised."""
    if gate.verdict == "PASS" and cell.role == "baseline":
        return "measured"
    if gate.kind == "super-weights" and gate.verdict == "PASS" and gate.difference:
        return "not promised"
    return verdict_text(gate)


def _saved(gate: GateResult, cell: CellDocument, left: int) -> str:
    pursued = gate.verdict != "INCONCLUSIVE" or cell.verdict == "INCONCLUSIVE"
    return f"{left} saved" if pursued else f"{left} saved: another gate had decided"


def _rewritten(gate: GateResult, cell: CellDocument) -> str:
    """What a recipe changed, or what it should not have done."""
    if problems := gate.details.get("problems"):
        return str(problems[0])
    return "" if cell.sanity is None else f"{len(cell.sanity.changed)} parameters changed"


def _short(value: Any) -> str:
    """A recipe's figure in a line: of a long table, the first few entries and how many there are."""
    if isinstance(value, dict) and len(value) > _LISTED:
        first = ", ".join(f"{name}: {one}" for name, one in list(value.items())[:_LISTED])
        return f"{first}, … ({len(value)} in all)"
    return str(value)
