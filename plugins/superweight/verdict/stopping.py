"""When a measurement may stop: as soon as its verdict is valid, or the cell has been decided by another."""

from __future__ import annotations

from superweight.cards.gate_kinds import kinds_from
from superweight.evidence.measured import CellEvidence
from superweight.ids import GateId
from superweight.verdict.cell import quality_gates
from superweight.verdict.result import GateResult
from superweight.verdict.rules import Rules


def may_stop(cell: CellEvidence, gate: str, baseline: CellEvidence, rules: Rules) -> bool:
    """Whether more windows or items of one figure would change no verdict.

    A PASS is in when the error rate kept for stopping early buys it. A REGRESSION must be one for the whole run: it is
    corrected for the gates of the cell and for the cells of the run, so that what is given as the reason to stop also
    stands when the run is judged. One that is waived decides its own figure and not the cell.

    Args:
        cell: evidence in which that figure is unfinished and all others are whole.
        gate: `perplexity:wiki`, `zero-shot:piqa`: which figure.
        baseline: the uncompressed model's evidence.
        rules: by what it is judged.

    """
    if not rules.sequential:
        return False
    measured = GateId.parse(gate)
    served = {str(GateId(kind.name, measured.of)) for kind in kinds_from(measured.kind)}
    gates = list(quality_gates(cell, baseline, rules))
    family = max(rules.planned.get(cell.id, 0), len(gates)) * max(len(rules.planned), 1)
    regressed = [each for each in gates if _is_regression(each, family)]
    if any(rules.book.waiver(cell.model, cell.recipe, each.gate, rules.today) is None for each in regressed):
        return True
    awaited = [each for each in gates if each.gate in served]
    return bool(awaited) and all(each.verdict == "PASS" or each in regressed for each in awaited)


def _is_regression(gate: GateResult, family: int) -> bool:
    if gate.p_regression is None or gate.alpha is None:
        return False
    return gate.p_regression * family <= gate.alpha
