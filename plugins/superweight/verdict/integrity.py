"""Integrity gates: super weights keep their bits, recipes do what they say, detection agrees with the card."""

from __future__ import annotations

from collections.abc import Sequence

from superweight.cards.promise import Promise
from superweight.evidence.measured import (
    CellEvidence,
    ClaimedWeight,
    Coverage,
    DetectionEvidence,
    ExaminedWeight,
    Verdict,
)
from superweight.verdict.result import GateResult

_NONE = "no super weight found: zeroing no single candidate of any down projection makes the model clearly worse"


_KEPT = {
    "exact": "survive bit for bit",
    "within-step": "are kept within one step of the format that holds them",
    "percent": "are kept within {0}",
}


def judge_super_weights(cell: CellEvidence) -> GateResult:
    """Whether every super weight of the card and of detection is what was promised, those only listed included.

    It is looked at at every point that the runner shows. A recipe that makes no promise gets its losses listed and
    passes, unless a file and what was loaded from it contradict each other.
    """
    promise = Promise.of(cell.promise)
    lost = cell.lost_super_weights
    lines = [weight.describe(promise) for weight in cell.super_weights]
    kept = len(cell.super_weights) - len(lost)
    head = f"{kept} of {len(cell.super_weights)} super weights {_KEPT[promise.kind].format(promise)}"
    if not cell.super_weights:
        head = "no super weight is known in this model, so none can be lost"
    elif not cell.promises:
        head += " (not promised by this recipe)"
    contradicting = [weight for weight in cell.super_weights if weight.contradicted]
    if contradicting:
        head += f"; the file contradicts itself, or what is loaded from it, at {len(contradicting)}"
    unknown = [weight for weight in lost if weight.kept(promise) is None]
    if unknown and cell.promises:
        head += f"; of {len(unknown)} that cannot be told, since the steps of the format are not known"
    return GateResult(
        gate="super-weights",
        kind="super-weights",
        verdict=_verdict(cell, lost=len(lost) > len(unknown), unknown=bool(unknown), contradicted=bool(contradicting)),
        message="\n".join([head, *lines]),
        summary=head,
        findings=lines,
        metric="survived",
        value=float(kept),
        baseline=float(len(cell.super_weights)),
        difference=float(-len(lost)),
        n=len(cell.super_weights),
    )


def _verdict(cell: CellEvidence, *, lost: bool, unknown: bool, contradicted: bool) -> Verdict:
    if contradicted or (lost and cell.promises):
        return "REGRESSION"
    return "INFRA" if unknown and cell.promises else "PASS"


def judge_sanity(cell: CellEvidence) -> GateResult:
    """Finite weights; the recipe changed what it says and nothing else; the size is accounted for."""
    problems = []
    sanity = cell.sanity
    if sanity is None:
        problems.append("the recipe was not applied")
    else:
        problems += [f"{name} holds NaN or infinity after compression" for name in sanity.non_finite]
        unsaid = "changed, but the recipe does not say so"
        if cell.method is not None and not cell.method.implementation:
            unsaid = "is stored as plain numbers, which are not the uncompressed model's"
        problems += [f"{name} {unsaid}" for name in sanity.undeclared]
        if cell.method is not None and cell.method.changes_nothing:
            problems += [f"{name} changed under a recipe that changes nothing" for name in sanity.changed]
        else:
            problems += [
                f"{name} is the same to the bit, though the recipe says it changes it" for name in sanity.unchanged
            ]
            if not sanity.changed and not sanity.hooks:
                problems.append("nothing was compressed: no weight and no activation differs")
    problems += [f"{one.rule}: {one.where}: {one.found}" for one in cell.format_findings if one.severity == "error"]
    if cell.size is None:
        problems.append("the recipe gives no size")
    elif not 0 < cell.size.compressed_bits_per_weight <= 64:
        problems.append(f"{cell.size.compressed_bits_per_weight} bits per weight is not a size")
    counts = ""
    if sanity is not None and cell.size is not None:
        counts = (
            f"{len(sanity.changed)} parameters changed, {len(sanity.hooks)} modules' activations; "
            f"{cell.size.compressed_bits_per_weight:.3f} bits per compressed weight, "
            f"{cell.size.model_bits_per_weight:.3f} over the whole model"
        ) + (f"; {describe_coverage(cell.coverage)}" if cell.coverage else "")
    unread = [f"{rule} could not be applied: {why}" for rule, why in cell.format_unchecked.items()]
    warned = [f"{one.rule}: {one.where}: {one.found}" for one in cell.format_findings if one.severity != "error"]
    summary, *findings = [*problems, *unread] or [counts]
    findings += warned
    return GateResult(
        gate="sanity",
        kind="sanity",
        verdict="REGRESSION" if problems else "INFRA" if unread else "PASS",
        message="\n".join([summary, *findings]),
        summary=summary,
        findings=findings,
        metric="bits per weight",
        value=cell.size.compressed_bits_per_weight if cell.size else None,
        details={"problems": problems},
    )


def describe_coverage(coverage: Coverage) -> str:
    """The share of the decoder layers that recipes see, by kind, and what they leave alone."""
    parts = {name: f"{name} {share:.1%}" for name, share in coverage.by_kind.items()}
    seen = ", ".join(parts[name] for name in ("attention", "mlp", "expert", "other") if name in parts)
    left = ", ".join(
        parts[name].replace("vector", "vectors").replace("router", "routers").replace("left alone", "others")
        for name in ("router", "vector", "left alone")
        if name in parts
    )
    unknown = f"; {parts['unknown']}, not understood" if "unknown" in parts else ""
    return (
        f"recipes see {coverage.share:.1%} of the decoder layers' parameters ({seen})"
        + (f"; {left} left alone" if left else "")
        + unknown
    )


def judge_detection(detection: DetectionEvidence) -> GateResult:
    """Whether detection and the model card name the same super weights."""
    found, claimed = detection.confirmed, detection.card
    measured = {weight.key for weight in found}
    allowed = {weight.key for weight in claimed if weight.status != "inert"}
    required = [weight for weight in claimed if weight.status in ("causal", "spoke", "corrected")]
    missing = [weight for weight in required if weight.key not in measured]
    extra = [weight for weight in found if weight.key not in allowed] if detection.known else []
    wrong = [weight for weight in found if weight.value_differs]
    problems = [f"on the card, but not confirmed by ablation: {_list(missing)}"] if missing else []
    problems += [f"confirmed by ablation, but not on the card: {_list(extra)}"] if extra else []
    problems += (
        [f"the value at {_list(wrong)} is not the one the card gives: is this the right checkpoint?"] if wrong else []
    )
    agreed = f"{len(found)} super weights confirmed by ablation" if found else _NONE
    agreed += "" if detection.known else "; the card makes no claim"
    summary, *more = problems or [agreed]
    findings = [*more, f"card:      {_list(claimed)}", f"detection: {_list(found)}"]
    return GateResult(
        gate="detection",
        kind="detection",
        verdict="REGRESSION" if problems else "PASS",
        message="\n".join([summary, *findings]),
        summary=summary,
        findings=findings,
        metric="super weights",
        value=float(len(found)),
    )


def _list(weights: Sequence[ExaminedWeight | ClaimedWeight]) -> str:
    return ", ".join(f"{weight} ({weight.status}{_effect(weight)})" for weight in weights) or "none"


def _effect(weight: ExaminedWeight | ClaimedWeight) -> str:
    if not isinstance(weight, ExaminedWeight) or weight.effect is None:
        return ""
    return f", ×{weight.effect:.3g} when zeroed"
