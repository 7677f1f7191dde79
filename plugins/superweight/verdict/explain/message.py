"""The argument behind a verdict: what changed where, the state of the super weights, and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence

from superweight.cards.gate import CORPUS_KINDS, TASK_KINDS
from superweight.evidence.measured import CellEvidence
from superweight.verdict.amounts import as_percent
from superweight.verdict.explain.advice import advice, super_weight_state
from superweight.verdict.flips import describe_windows, directions, flips, flips_text, worst_windows
from superweight.verdict.result import QUALITY, GateResult
from superweight.verdict.rules import Rules

_WINDOWS, _ITEMS = 3, 5  # listed in a message


def with_argument(
    gate: GateResult,
    cell: CellEvidence,
    baseline: CellEvidence,
    gates: Sequence[GateResult],
    rules: Rules,
    run: Sequence[CellEvidence],
) -> GateResult:
    """A gate whose message carries the whole argument.

    A PASS says what it could have seen. Anything else says which windows or items moved most, what became of the super
    weights, and what to try.

    Args:
        gate: the gate.
        cell: its cell.
        baseline: the same model uncompressed.
        gates: all gates of the cell.
        rules: by what it was judged.
        run: all cells of the run.

    """
    gate = _with_flips(gate, cell, baseline)
    if gate.kind not in QUALITY:
        lines = [gate.message]
    elif gate.verdict == "PASS":
        lines = [gate.message + _detectable_clause(gate)]
    elif gate.verdict == "INFRA":
        return gate
    else:
        lines = [gate.message + _why_undecided(gate, gates), *_most_changed(gate, cell, baseline)]
        lines.append(f"super weights: {super_weight_state(cell)}")
    lines += [f"odd: {flag}" for flag in gate.flags]
    lines += [f"note: {note}" for note in gate.details.get("notes", [])]
    sizes = rules.sizes.get(gate.gate, {})
    lines += [f"try: {sentence}" for sentence in advice(cell, gate, gates=gates, run=run, sizes=sizes)]
    return gate.model_copy(update={"message": "\n".join(lines)})


def _with_flips(gate: GateResult, cell: CellEvidence, baseline: CellEvidence) -> GateResult:
    task = gate.gate.partition(":")[2]
    if gate.kind not in ("zero-shot", "flips") or task not in baseline.zero_shot or task not in cell.zero_shot:
        return gate
    changed = flips(baseline.zero_shot[task], cell.zero_shot[task])
    details = {"flips": len(changed), "flipped": directions(changed)}
    return gate.model_copy(update={"details": gate.details | details})


def _detectable_clause(gate: GateResult) -> str:
    if gate.detectable is None or not math.isfinite(gate.detectable):
        return ""
    return f"; would have seen a change of {amount(gate, gate.detectable)} four times in five"


def _why_undecided(gate: GateResult, gates: Sequence[GateResult]) -> str:
    """Why a gate was left undecided though items were left: the cell was decided already."""
    if gate.verdict != "INCONCLUSIVE" or gate.n is None or gate.planned is None or gate.n >= gate.planned:
        return ""
    by = [other.gate for other in gates if other.verdict == "REGRESSION" and other.kind in QUALITY and not other.waiver]
    return f"; not pursued, since {by[0]} decided the cell" if by else ""


def _most_changed(gate: GateResult, cell: CellEvidence, baseline: CellEvidence) -> list[str]:
    of = gate.gate.partition(":")[2]
    if gate.kind in CORPUS_KINDS and of in cell.perplexity and of in baseline.perplexity:
        windows = worst_windows(baseline.perplexity[of], cell.perplexity[of], _WINDOWS)
        return ["windows that lost most:", describe_windows(windows)] if windows else []
    if gate.kind in TASK_KINDS and of in cell.zero_shot and of in baseline.zero_shot:
        return [flips_text(flips(baseline.zero_shot[of], cell.zero_shot[of]), _ITEMS)]
    return []


def amount(gate: GateResult, difference: float) -> str:
    """A difference of the gate's figure, in the unit that it is judged in."""
    match gate.kind:
        case "zero-shot":
            return f"{difference:+.4f}"  # the metric's own unit, which is not always a share
        case "divergence":
            return f"{difference:+.3g} nats a token"
        case _:
            return as_percent(difference)
