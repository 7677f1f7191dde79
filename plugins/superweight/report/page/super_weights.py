"""What the page says of a cell's super weights: a row for each point at which one was looked at."""

from __future__ import annotations

from typing import NamedTuple

from superweight.cards.promise import Promise
from superweight.evidence.measured import CellEvidence, StoredPoint, StoredWeight

_WHERE = {"memory": "in memory", "file": "in the file", "reload": "after reload"}
_OUTCOMES = {True: ("PASS", "✓ kept"), False: ("REGRESSION", "✗ lost"), None: ("INFRA", "? cannot tell")}


class PointView(NamedTuple):
    """One point."""

    where: str
    value: str
    dtype: str
    bits: str
    change: str
    held_by: str


class WeightView(NamedTuple):
    """One super weight."""

    weight: StoredWeight
    place: str
    points: list[PointView]
    verdict: str
    outcome: str
    disagreement: str


def weight_views(cell: CellEvidence) -> list[WeightView]:
    """Every super weight of a cell."""
    promise = Promise.of(cell.promise)
    return [_weight(weight, promise) for weight in cell.super_weights]


def promised(cell: CellEvidence) -> str:
    """What a cell promises of them, in words; empty where it keeps every bit, as most do."""
    if cell.promise == "exact" or cell.role == "baseline":
        return ""
    meant = {"within-step": "within one step of the format that holds it"}.get(cell.promise, f"within {cell.promise}")
    return f"{'Promised' if cell.promises else 'Not promised'}: {meant} of the original."


def _weight(weight: StoredWeight, promise: Promise) -> WeightView:
    verdict, outcome = ("PASS", "✓ survived") if weight.survived else _OUTCOMES[weight.kept(promise)]
    expert = "" if weight.expert is None else f", expert {weight.expert}"
    points = [_point(weight, point) for point in weight.points] or [_memory(weight)]
    place = f"layer {weight.layer}{expert} [{weight.row}, {weight.column}]"
    return WeightView(weight, place, points, verdict, outcome, weight.disagreement)


def _point(weight: StoredWeight, point: StoredPoint) -> PointView:
    if point.value is None:
        return PointView(_WHERE[point.point], "cannot tell", "", "", "", point.reason)
    held = ", ".join(part for part in (point.code, point.held_by) if part)
    change = weight.off(point.value, point.step)
    return PointView(_WHERE[point.point], str(point.value), point.dtype, point.bits, change, held)


def _memory(weight: StoredWeight) -> PointView:
    """Of evidence that was written before points were."""
    change = weight.off(weight.stored, None)
    return PointView(_WHERE["memory"], str(weight.stored), weight.dtype, weight.stored_bits, change, "")
