"""All gates of one cell, from its evidence and its baseline's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pkgutil import resolve_name
from typing import Any

from scipy import special

from superweight.cards.gate import GateCard
from superweight.cards.gate_kinds import GATE_KINDS, INTEGRITY_KINDS, GateKind, gate_kind, kinds_of
from superweight.errors import CardError
from superweight.evidence.measured import CellEvidence, Failure, Perplexity, ZeroShot
from superweight.ids import GateId
from superweight.statistics.multiplicity import holm
from superweight.statistics.noninferiority import ErrorBudget
from superweight.verdict import quality
from superweight.verdict.explain.message import with_argument, worded
from superweight.verdict.integrity import judge_detection, judge_sanity, judge_super_weights
from superweight.verdict.margins import below_noise_floor, expired, warnings, why_not_applicable
from superweight.verdict.result import GateResult, infra_gate
from superweight.verdict.rules import Rules

Judge = Callable[[GateCard, str, Any, Any, ErrorBudget], GateResult]
"""Judges one corpus or task by one card, from the candidate's and the baseline's figure: `Perplexity` or `ZeroShot`."""


def gates_of(
    cell: CellEvidence, baseline: CellEvidence | None, rules: Rules, run: Sequence[CellEvidence] = ()
) -> list[GateResult]:
    """Judge everything that was measured, or failed to be measured, on one cell.

    Args:
        cell: the cell.
        baseline: the same model uncompressed; the cell itself if it is the baseline.
        rules: by what it is judged.
        run: all cells of the run, for what another recipe did to the same model.

    """
    if cell.role == "baseline":
        gates = [_waived(_summed_up(gate), cell, rules) for gate in _baseline_gates(cell)]
    else:
        uncompressed = baseline or CellEvidence(model=cell.model, recipe="baseline", role="baseline")
        gates = [_summed_up(gate) for gate in (*_integrity_gates(cell), *quality_gates(cell, uncompressed, rules))]
        gates = _as_one_family(gates, rules.planned.get(cell.id, 0))
        gates = [_waived(gate, cell, rules) for gate in gates]
        gates = [with_argument(gate, cell, uncompressed, gates, rules, run) for gate in gates]
    return [worded(gate) for gate in gates] + [_failed(failure, cell) for failure in cell.failures]


def _summed_up(gate: GateResult) -> GateResult:
    """A gate as it was judged, whose message is one line; `worded` adds all else below it."""
    return gate if gate.summary else gate.model_copy(update={"summary": gate.message})


def quality_gates(cell: CellEvidence, baseline: CellEvidence, rules: Rules) -> Iterator[GateResult]:
    """The gates that compare figures with the uncompressed model's, each as if it were the only one."""
    for corpus in cell.perplexity:
        for kind in kinds_of("corpus"):
            yield from _judged(kind, corpus, cell, baseline, rules)
    for task in cell.zero_shot:
        for kind in kinds_of("task"):
            yield from _judged(kind, task, cell, baseline, rules)


def judge_of(kind: GateKind) -> Judge:
    """The function that judges a kind.

    Raises:
        CardError: there is none where the kind says.

    """
    try:
        judge: Judge = resolve_name(kind.judge)
    except (ImportError, AttributeError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
        raise CardError(f"gate kind '{kind.name}': judge: '{kind.judge}' cannot be imported ({found})") from error
    return judge


def _baseline_gates(cell: CellEvidence) -> Iterator[GateResult]:
    if cell.detection is not None:
        yield judge_detection(cell.detection)
    for corpus, figure in cell.perplexity.items():
        yield quality.baseline_perplexity(corpus, figure)
    for task, answers in cell.zero_shot.items():
        yield quality.baseline_zero_shot(task, answers)


def _integrity_gates(cell: CellEvidence) -> list[GateResult]:
    return [] if cell.sanity is None else [judge_sanity(cell), judge_super_weights(cell)]


def _judged(kind: GateKind, of: str, cell: CellEvidence, baseline: CellEvidence, rules: Rules) -> Iterator[GateResult]:
    card, gate = rules.book.gate(kind.name, cell.model, cell.recipe, of), f"{kind.name}:{of}"
    if card is None:
        return
    if of not in _figures(baseline, kind):
        yield _no_baseline(gate, kind.name)
        return
    budget = replace(rules.design(card.confidence), family=max(1, rules.planned.get(cell.id, 1)))
    try:
        judge = judge_of(kind)
    except CardError as error:
        yield infra_gate(gate, kind.name, Failure(stage=gate, reason="no-judge", message=str(error)))
        return
    judged = judge(card, of, _figures(cell, kind)[of], _figures(baseline, kind)[of], budget)
    yield _with_provenance(judged, card, cell, baseline, rules)


def _figures(cell: CellEvidence, kind: GateKind) -> Mapping[str, Perplexity | ZeroShot]:
    """What a kind judges, by corpus or task."""
    return cell.perplexity if kind.of == "corpus" else cell.zero_shot


def _with_provenance(
    gate: GateResult, card: GateCard, cell: CellEvidence, baseline: CellEvidence, rules: Rules
) -> GateResult:
    """A gate whose card may not be used here is INFRA, with its figures."""
    if gate.verdict == "INFRA":
        return gate
    machine = cell.checkpoint.get("environment", {})
    figure = _figures(cell, gate_kind(card.kind))[gate.of]
    planned = figure.planned or gate.planned or 0
    found = why_not_applicable(
        card, planned=planned, device_class=machine.get("device class", ""), today=rules.today
    ) or _below_noise(card, gate, baseline)
    if found is None:
        notes = warnings(card, versions=machine, today=rules.today)
        return gate.model_copy(update={"notes": notes, "details": gate.details | {"notes": notes}})
    reason, sentence = found
    unjudged = {"p_pass": None, "p_regression": None, "needed": None}
    argument = {"summary": f"not judged ({reason}): {sentence}", "findings": [gate.message]}
    return gate.model_copy(update=unjudged | argument | {"verdict": "INFRA", "reason": reason})


def _below_noise(card: GateCard, gate: GateResult, baseline: CellEvidence) -> tuple[str, str] | None:
    noise = baseline.noise.get(gate.gate)
    sentence = below_noise_floor(card, noise) if noise is not None else None
    return None if sentence is None else ("margin-below-noise", sentence)


def _as_one_family(gates: list[GateResult], planned: int) -> list[GateResult]:
    """Correct regressions for the number of gates that could each have been one by chance (Holm).

    To pass, a cell must pass every gate, which needs no correction (an intersection-union test); to fail, one is
    enough.
    """
    tested = [gate for gate in gates if gate.p_regression is not None]
    levels = [gate.alpha or 0.0 for gate in tested]
    shares = [min(levels) / level if level else 1.0 for level in levels]  # each p-value on the scale of the strictest
    scaled = [(gate.p_regression or 0.0) * share for gate, share in zip(tested, shares, strict=True)]
    adjusted = [min(1.0, p / share) for p, share in zip(holm(scaled, max(planned, len(tested))), shares, strict=True)]
    corrected = {gate.gate: p for gate, p in zip(tested, adjusted, strict=True)}
    return [_corrected(gate, corrected.get(gate.gate), max(planned, len(tested))) for gate in gates]


def _corrected(gate: GateResult, p: float | None, family: int) -> GateResult:
    alpha = gate.alpha
    if p is None or alpha is None:
        return gate
    gate = gate.model_copy(update={"p_adjusted": p})
    if gate.verdict != "REGRESSION" or p <= alpha:
        return gate
    summary = (
        f"{gate.summary}; by itself this would be a regression (p = {gate.p_regression:.2g}), but one of {family} "
        f"gates comes out like this by chance too often (p = {p:.2g} after correction)"
    )
    update = {"verdict": "INCONCLUSIVE", "summary": summary, "needed": _needed(gate, alpha / family)}
    return gate.model_copy(update=update)


def _needed(gate: GateResult, level: float, power: float = 0.8) -> int | None:
    """Items after which a regression would stand at this level, from how many standard errors its p-value amounts to.

    The normal approximation of `n_to_decide`, which cannot know of the correction.
    """
    if gate.n is None or gate.n != gate.planned or not gate.p_regression:
        return None
    seen, asked = -float(special.ndtri(gate.p_regression)), float(special.ndtri(power)) - float(special.ndtri(level))
    return math.ceil(gate.n * (asked / seen) ** 2)


def _waived(gate: GateResult, cell: CellEvidence, rules: Rules) -> GateResult:
    """What was measured and failed may be waived; what was not measured may not."""
    if gate.verdict not in ("REGRESSION", "INCONCLUSIVE"):
        return gate
    waiver = rules.book.waiver(cell.model, cell.recipe, gate.gate, rules.today)
    if waiver is not None:
        record = {"id": waiver.id, "ticket": waiver.ticket, "expires": waiver.expires, "why": waiver.why}
        return gate.model_copy(update={"waiver": record})
    late = [expired(card, rules.today) for card in rules.book.expired(cell.model, cell.recipe, gate.gate, rules.today)]
    return gate.model_copy(update={"expired_waivers": [sentence for sentence in late if sentence]})


def _no_baseline(gate: str, kind: str) -> GateResult:
    message = "the uncompressed model has no such figure in this run, so there is nothing to compare with"
    return infra_gate(gate, kind, Failure(stage=gate, reason="no-baseline", message=message))


def _failed(failure: Failure, cell: CellEvidence) -> GateResult:
    """What could not be measured is INFRA; a reference that changes super weights has nothing to show without any."""
    stage = GateId.parse(failure.stage).kind
    kind = stage if stage in GATE_KINDS or stage in INTEGRITY_KINDS else "measurement"
    gate = infra_gate(failure.stage, kind, failure)
    if failure.reason != "not-applicable" or not cell.not_applicable:
        return gate
    summary, *findings = f"not applicable: {failure.message}".split("\n")
    return worded(gate.model_copy(update={"verdict": "INCONCLUSIVE", "summary": summary, "findings": findings}))
