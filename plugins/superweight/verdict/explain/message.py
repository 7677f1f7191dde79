"""The argument behind a verdict: what changed where, the state of the super weights, and what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from superweight.evidence.measured import CellEvidence
from superweight.verdict.explain.advice import advice, super_weight_state
from superweight.verdict.flips import (
    answers_text,
    directions,
    flips,
    largest_shifts,
    windows_text,
    worst_windows,
)
from superweight.verdict.kinds import IN_MESSAGES, change_text, scale_of_gate
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
    """A gate with its whole argument.

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
    if gate.verdict == "INFRA":
        return gate
    argument: dict[str, Any] = {}
    if gate.kind in QUALITY and gate.verdict == "PASS":
        argument = {"summary": gate.summary + _detectable_clause(gate)}
    elif gate.kind in QUALITY:
        argument = {**_why_undecided(gate, gates), **_most_changed(gate, cell, baseline)}
        argument["super_weights"] = super_weight_state(cell)
    sizes = rules.sizes.get(gate.gate, {})
    argument["advice"] = advice(cell, gate, gates=gates, run=run, sizes=sizes)
    return gate.model_copy(update=argument)


def worded(gate: GateResult) -> GateResult:
    """A gate whose message says in text what its fields hold."""
    return gate.model_copy(update={"message": "\n".join(_lines(gate))})


def _lines(gate: GateResult) -> list[str]:
    lines = [gate.summary, *gate.findings, *gate.expired_waivers]
    if gate.verdict == "INFRA":
        return lines
    if gate.windows:
        lines += ["windows that lost most:", windows_text(gate.windows)]
    if _of_a_task(gate) and gate.verdict != "PASS" and "flipped" in gate.details:
        lines.append(answers_text(gate.details["flipped"], gate.answers))
    lines += [f"super weights: {gate.super_weights}"] if gate.super_weights else []
    lines += [f"odd: {oddity.text}" for oddity in gate.oddities]
    lines += [f"note: {note}" for note in gate.notes]
    return lines + [f"try: {each.text}" for each in gate.advice]


def _of_a_task(gate: GateResult) -> bool:
    return gate.kind in QUALITY and QUALITY[gate.kind].of == "task"


def _with_flips(gate: GateResult, cell: CellEvidence, baseline: CellEvidence) -> GateResult:
    if not _of_a_task(gate) or gate.of not in baseline.zero_shot or gate.of not in cell.zero_shot:
        return gate
    changed = flips(baseline.zero_shot[gate.of], cell.zero_shot[gate.of])
    details = {"flips": len(changed), "flipped": directions(changed)}
    return gate.model_copy(update={"details": gate.details | details})


def _detectable_clause(gate: GateResult) -> str:
    if gate.detectable is None or not math.isfinite(gate.detectable):
        return ""
    seen = change_text(scale_of_gate(gate), gate.detectable, IN_MESSAGES)
    return f"; would have seen a change of {seen} four times in five"


def _why_undecided(gate: GateResult, gates: Sequence[GateResult]) -> dict[str, str]:
    """Why a gate was left undecided though items were left: the cell was decided already."""
    if gate.verdict != "INCONCLUSIVE" or gate.n is None or gate.planned is None or gate.n >= gate.planned:
        return {}
    for other in gates:
        if other.verdict == "REGRESSION" and other.kind in QUALITY and not other.waiver:
            summary = f"{gate.summary}; not pursued, since {other.gate} decided the cell"
            return {"summary": summary, "decided_by": other.gate}
    return {}


def _most_changed(gate: GateResult, cell: CellEvidence, baseline: CellEvidence) -> dict[str, Any]:
    of, measured_on = gate.of, QUALITY[gate.kind].of
    if measured_on == "corpus" and of in cell.perplexity and of in baseline.perplexity:
        return {"windows": worst_windows(baseline.perplexity[of], cell.perplexity[of], _WINDOWS)}
    if measured_on == "task" and of in cell.zero_shot and of in baseline.zero_shot:
        return {"answers": largest_shifts(flips(baseline.zero_shot[of], cell.zero_shot[of]), _ITEMS)}
    return {}
