"""Whether a run's evidence may be relied on: as the run wrote it, or at least without contradicting itself."""

from __future__ import annotations

import math
from collections.abc import Iterator

from superweight.evidence.measured import CellEvidence
from superweight.evidence.recomputed import perplexity_fits
from superweight.evidence.seal import seal_of
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict import GateResult, JudgedCell, judge_cell, judge_run, severity

ALTERED = "is not as the run wrote it, since its digest does not fit; no PASS in it counts"

_SEALED_SINCE = "1.2"  # of the evidence's schema


def doubts_of(document: RunDocument, text: str, *, lost_cells: bool = False) -> list[str]:
    """Why nothing that a document says may count as a PASS; empty if it may.

    One with a digest is as the run wrote it or it is not. One without, of an earlier version, is held against itself:
    verdicts that its gates do not support, figures that are not those of their windows, parts that cannot be read.

    Args:
        document: as it was read.
        text: what it was read from.
        lost_cells: whether a cell, or something in one, could not be read.

    """
    match seal_of(text, since=_SEALED_SINCE):
        case "intact":
            return []
        case "broken":
            return [f"evidence.json {ALTERED}"]
    unread = ["what could not be read may have decided"] if lost_cells else []
    return unread + [f"evidence.json contradicts itself: {sentence}" for sentence in _contradictions(document)]


def _contradictions(document: RunDocument) -> Iterator[str]:
    """What is said to be better than what it rests on."""
    judged = [judge_cell(cell, cell.gates) for cell in document.cells]
    for cell, again in zip(document.cells, judged, strict=True):
        if _is_greener(cell, again):
            yield f"{cell.id} is {cell.verdict}, and its gates make it {again.verdict}"
        for gate in cell.gates:
            if gate.verdict == "PASS" and (why := _unsupported(cell, gate)):
                yield f"{cell.id} {gate.gate} is PASS, and {why}"
        for corpus, figure in cell.perplexity.items():
            if not perplexity_fits(figure.value, figure.nll):
                yield f"{cell.id} perplexity:{corpus} is {figure.value:g}, which is not that of its windows"
    recorded = [
        JudgedCell(evidence=cell, gates=cell.gates, verdict=cell.verdict, argument=cell.argument)
        for cell in document.cells
    ]
    run = judge_run(recorded).verdict
    if severity(document.verdict) > severity(run):
        yield f"the run is {document.verdict}, and its cells make it {run}"


def _is_greener(cell: CellDocument, again: JudgedCell) -> bool:
    """Whether a cell is said to be better than its gates make it: of a control, as expected where it is not."""
    if cell.role == "control":
        return cell.verdict == cell.expects != again.verdict
    return severity(cell.verdict) > severity(again.verdict)


def _unsupported(cell: CellEvidence, gate: GateResult) -> str:
    """What speaks against a gate's PASS; empty if nothing does."""
    figures = [one for one in (gate.value, gate.baseline, gate.difference) if one is not None]
    if not all(map(math.isfinite, figures)):
        return "a figure of it is no number"
    if gate.p_pass is not None and gate.alpha is not None and not gate.p_pass <= gate.alpha:
        return f"a loss beyond the margin is not excluded (p = {gate.p_pass:.2g})"
    if gate.kind == "super-weights" and cell.promises and cell.lost_super_weights:
        return "a super weight that is promised is lost"
    return ""
