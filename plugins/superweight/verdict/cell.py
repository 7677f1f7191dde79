"""All gates of one cell, from its evidence and its baseline's."""

from __future__ import annotations

from collections.abc import Mapping

from superweight.cards.gate import GateCard
from superweight.evidence.measured import CellEvidence, Failure
from superweight.verdict.integrity import judge_detection, judge_sanity, judge_super_weights
from superweight.verdict.quality import baseline_perplexity, baseline_zero_shot, judge_perplexity, judge_zero_shot
from superweight.verdict.result import GateResult, Kind, infra_gate

_KINDS: tuple[Kind, ...] = ("detection", "sanity", "super-weights", "perplexity", "zero-shot")


def gates_of(cell: CellEvidence, baseline: CellEvidence | None, cards: Mapping[str, GateCard]) -> list[GateResult]:
    """Judge everything that was measured, or failed to be measured, on one cell.

    Args:
        cell: the cell.
        baseline: the same model uncompressed; the cell itself if it is the baseline.
        cards: gate cards by kind, `perplexity` and `zero-shot`.

    """
    if cell.role == "baseline":
        gates = _baseline_gates(cell)
    else:
        gates = _compression_gates(
            cell, baseline or CellEvidence(model=cell.model, recipe="baseline", role="baseline"), cards
        )
    return gates + [_failed(failure) for failure in cell.failures]


def _baseline_gates(cell: CellEvidence) -> list[GateResult]:
    found = cell.detection
    gates = [] if found is None else [judge_detection(cell, found.get("card", []), known=found.get("known", False))]
    gates += [baseline_perplexity(corpus, figure) for corpus, figure in cell.perplexity.items()]
    gates += [baseline_zero_shot(task, figure) for task, figure in cell.zero_shot.items()]
    return gates


def _compression_gates(cell: CellEvidence, baseline: CellEvidence, cards: Mapping[str, GateCard]) -> list[GateResult]:
    gates = []
    if cell.sanity is not None:
        gates.append(judge_sanity(cell))
        gates.append(judge_super_weights(cell))
    for corpus, perplexity in cell.perplexity.items():
        reference = baseline.perplexity.get(corpus)
        if reference is None:
            gates.append(_no_baseline(f"perplexity:{corpus}", "perplexity"))
        else:
            gates.append(judge_perplexity(cards["perplexity"], corpus, perplexity, reference))
    for task, figure in cell.zero_shot.items():
        theirs = baseline.zero_shot.get(task)
        if theirs is None:
            gates.append(_no_baseline(f"zero-shot:{task}", "zero-shot"))
        else:
            gates.append(judge_zero_shot(cards["zero-shot"], task, figure, theirs))
    return gates


def _no_baseline(gate: str, kind: Kind) -> GateResult:
    message = "the uncompressed model has no such figure in this run, so there is nothing to compare with"
    return infra_gate(gate, kind, Failure(stage=gate, reason="no-baseline", message=message))


def _failed(failure: Failure) -> GateResult:
    kind: Kind = next((kind for kind in _KINDS if failure.stage.split(":")[0] == kind), "measurement")
    return infra_gate(failure.stage, kind, failure)
