"""Measure integrity: which super weights the model has, what a recipe did to them, and what else it changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from superweight.artefact.check import outcome
from superweight.cards import Cell, Coordinate, KnownSuperWeight
from superweight.checkpoint.loading import LoadedModel
from superweight.errors import InfraError
from superweight.evaluate import PROTOCOL
from superweight.evidence import CellEvidence, Coverage, LayerPeaks, Sanity, Size, StoredWeight, content_key
from superweight.evidence.artefact import Finding
from superweight.evidence.measured import ClaimedWeight, ExaminedWeight, StoredPoint
from superweight.forward.runner import CannotTell, Runner, Scalar, ShowsPoints
from superweight.measure.batches import measure_once
from superweight.measure.reference import ProtectedWeight, Reference

_VALUE_TOLERANCE = 0.02  # published values are printed to two or three digits, some from another dtype


def detect_into(reference: Reference, runner: Runner, cell: Cell, evidence: CellEvidence) -> None:
    """Detection, and the card's claim beside it; on the baseline.

    Raises:
        InfraError: detection fails.
    """
    describe_into(reference, runner, cell, evidence)
    card, found = reference.card, reference.detection
    claims = {weight.key: weight for weight in card.super_weights}
    weights = [_beside_claim(weight, claims.get(weight.key)) for weight in found.super_weights]
    claimed = [ClaimedWeight.model_validate(weight.model_dump()) for weight in card.super_weights]
    evidence.detection = found.model_copy(update={"super_weights": weights, "card": claimed, "known": card.known})
    evidence.peaks = found.peaks
    evidence.super_weights = [
        _compared(where, weight, weight.original) for where, weight in reference.protected.items()
    ]
    if reference.detected_before:
        evidence.reused["detection"] = reference.detected_before
    evidence.size = _uncompressed(reference.loaded)
    evidence.coverage = _coverage(reference)
    set_cell_key(evidence, runner)


def inspect_into(reference: Reference, runner: Runner, cell: Cell, evidence: CellEvidence) -> None:
    """What the recipe changed, what it did to the super weights, and what it costs in bits.

    Raises:
        InfraError: the runner cannot apply the recipe, or cannot tell what became of the weights (`cannot-tell`).
    """
    describe_into(reference, runner, cell, evidence)
    parts = {"measured": "sanity and peaks", **runner.identity}
    found, measured = measure_once(reference.store, parts, lambda: _inspected(reference, runner))
    evidence.sanity = Sanity.model_validate(found["sanity"])
    evidence.peaks = [LayerPeaks.model_validate(peaks) for peaks in found["peaks"]]
    evidence.recipe_figures = found["recipe_figures"]
    evidence.size = Size.model_validate(found["size"])
    evidence.super_weights = [StoredWeight.model_validate(weight) for weight in found["super_weights"]]
    evidence.format_findings = [Finding.model_validate(finding) for finding in found["findings"]]
    evidence.format_unchecked = found["unchecked"]
    evidence.coverage = _coverage(reference)
    set_cell_key(evidence, runner)
    if measured.since:
        evidence.reused["sanity"] = measured.since


def describe_into(reference: Reference, runner: Runner, cell: Cell, evidence: CellEvidence) -> None:
    """Say of a cell what was measured on what."""
    if evidence.checkpoint:
        return
    if cell.recipe.stand_in is not None:
        method = reference.recipe(cell).method.model_dump(mode="json")
        evidence.stands_in = evidence.recipe_parameters["kind"] if method != evidence.recipe_parameters else ""
        evidence.recipe_parameters = method
    cannot = dict(runner.cannot)
    evidence.checkpoint = {**runner.about, **({"cannot": cannot} if cannot else {})}


def set_cell_key(evidence: CellEvidence, runner: Runner) -> None:
    """Give a cell its key: what runs it, the protocol, and the key of each of its figures."""
    figures = {name: figure.key for name, figure in evidence.perplexity.items()}
    figures |= {name: figure.key for name, figure in evidence.zero_shot.items()}
    evidence.key = content_key(**runner.identity, protocol=PROTOCOL, figures=figures)


def _inspected(reference: Reference, runner: Runner) -> dict[str, Any]:
    found = runner.inspect()
    for what in (found.sanity, found.size):
        if isinstance(what, CannotTell):
            raise InfraError(f"what became of the weights cannot be told: {what.reason}", reason="cannot-tell")
    assert isinstance(found.sanity, Sanity)
    assert isinstance(found.size, Size)
    weights = [_looked_at(runner, where, weight) for where, weight in reference.protected.items()]
    return {
        "sanity": found.sanity.model_dump(),
        "recipe_figures": _named_by_strings(found.figures),
        "size": found.size.model_dump(),
        "super_weights": [weight.model_dump() for weight in weights],
        "peaks": [peaks.model_dump() for peaks in found.peaks],
        "findings": [finding.model_dump() for finding in found.findings],
        "unchecked": dict(found.unchecked),
    }


def _looked_at(runner: Runner, where: Coordinate, weight: ProtectedWeight) -> StoredWeight:
    """A super weight wherever the runner can look at it."""
    found = _compared(where, weight, runner.stored(where))
    if not isinstance(runner, ShowsPoints):
        return found
    points, disagreement = runner.points(where, weight.original)
    told = [point for point in points if point.value is not None]
    reload = next((point for point in told if point.point == "reload"), None)
    named: dict[str, Any] = {"points": list(points), "disagreement": disagreement}
    if reload is not None:
        named |= {"reloaded": reload.value, "reloaded_bits": reload.bits}
    return found.model_copy(update={**named, "survived": all(point.outcome == "exact" for point in told)})


def _compared(where: Coordinate, weight: ProtectedWeight, stored: Scalar | CannotTell) -> StoredWeight:
    """A super weight before and after, as bits.

    Raises:
        InfraError: nobody can tell what the artefact holds (`cannot-tell`).
    """
    if isinstance(stored, CannotTell):
        raise InfraError(f"whether {where} survives cannot be told: {stored.reason}", reason="cannot-tell")
    original = weight.original
    survived = (original.dtype, original.bits) == (stored.dtype, stored.bits)
    return StoredWeight(
        **where.model_dump(),
        status=weight.status,
        origin=weight.origin,
        dtype=stored.dtype,
        original=original.value,
        original_bits=original.bits,
        stored=stored.value,
        stored_bits=stored.bits,
        survived=survived,
        points=[
            StoredPoint(
                point="memory",
                value=stored.value,
                bits=stored.bits,
                dtype=stored.dtype,
                outcome="exact" if survived else outcome(original.value, stored.value, 0.0),
            )
        ],
    )


def _beside_claim(weight: ExaminedWeight, claim: KnownSuperWeight | None) -> ExaminedWeight:
    """A weight that was examined, with whether its value is the one that the card gives."""
    if claim is None or claim.value is None or weight.value is None:
        return weight
    off = abs(weight.value - claim.value)
    return weight.model_copy(update={"value_differs": off > _VALUE_TOLERANCE * abs(claim.value)})


def _uncompressed(loaded: LoadedModel) -> Size:
    width = float(8 * loaded.dtype.itemsize)
    total = sum(parameter.numel() for parameter in loaded.model.parameters())
    figures = {"compressed_bits_per_weight": width, "model_bits_per_weight": width, "parameters": total}
    return Size.model_validate(figures)


def _coverage(reference: Reference) -> Coverage:
    return Coverage.model_validate(reference.loaded.architecture.coverage.as_dict())


def _named_by_strings(figures: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): _named_by_strings(value) if isinstance(value, Mapping) else value for name, value in figures.items()
    }
