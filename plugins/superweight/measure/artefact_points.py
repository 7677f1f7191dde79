"""A super weight in an artefact: in the file, read without running it, and after reload; and whether the two agree."""

from __future__ import annotations

import math

from superweight.artefact.check import outcome
from superweight.artefact.numbers import hexadecimal, rounded, spacing
from superweight.artefact.reading import Held, Reader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.evidence.measured import StoredPoint
from superweight.forward.runner import CannotTell, Points, Scalar
from superweight.measure.effective_weight import Effective

_BROKEN = ("corrupt", "missing-tensor", "non-finite")
"""Reasons of errors that say the file contradicts itself."""


def file_point(reader: Reader | CannotTell, where: Coordinate, original: Scalar) -> StoredPoint:
    """What the file holds, by the format's own decoding of the few bytes that it takes."""
    if isinstance(reader, CannotTell):
        return _unknown("file", reader.reason)
    try:
        held = reader.scalar(where)
    except InfraError as error:
        return _unknown("file", str(error), corrupt=error.reason in _BROKEN)
    if isinstance(held, CannotTell):
        return _unknown("file", held.reason)
    return _of_file(held, original)


def reload_point(found: Effective | CannotTell, file: StoredPoint, original: Scalar) -> StoredPoint:
    """What the loaded model multiplies with.

    Args:
        found: that.
        file: the same scalar in the file, whose format says how far its steps are apart.
        original: the uncompressed model's.
    """
    if isinstance(found, CannotTell):
        return _unknown("reload", found.reason)
    value, bits, dtype = found.scalar
    step = None if file.step is None else max(file.step, found.rounding)
    return StoredPoint(
        point="reload",
        value=value,
        bits=bits,
        dtype=dtype,
        step=step,
        held_by=found.how,
        outcome=outcome(original.value, value, step or 0.0),
    )


def both_points(file: StoredPoint, reload: StoredPoint, rounding: float) -> Points:
    """The two points, and how they contradict each other.

    They agree if they differ by no more than rounding, to the coarser of their dtypes.

    Args:
        file: in the file.
        reload: after reload.
        rounding: how much of what was seen after reload may be rounding, absolute.
    """
    points = [file, reload]
    if file.value is None or reload.value is None:
        return Points(points)
    tolerance = max(rounding, _ulp(max(abs(file.value), abs(reload.value)), file.dtype))
    if abs(file.value - reload.value) <= tolerance:
        return Points(points)
    off = reload.value - file.value
    steps = f", {abs(off) / file.step:.2f} steps" if file.step else ""
    return Points(
        points,
        f"the file holds {file.value!r} and what is loaded from it is {reload.value!r}{steps}: the file is not read as "
        "it is meant to be, or was not written so",
    )


def _of_file(held: Held, original: Scalar) -> StoredPoint:
    yields = held.decoded
    value, dtype = rounded(yields.value, yields.dtype), yields.dtype
    step = yields.step_towards(original.value)
    return StoredPoint(
        point="file",
        value=value,
        bits=hexadecimal(value, dtype),
        dtype=dtype,
        step=step,
        code=yields.code,
        held_by=f"{held.tensor}, {held.stored_as}",
        outcome=outcome(original.value, value, step),
    )


def _unknown(point: str, reason: str, *, corrupt: bool = False) -> StoredPoint:
    return StoredPoint(point=point, outcome="cannot-tell", reason=reason, corrupt=corrupt)  # type: ignore[arg-type]


def _ulp(value: float, dtype: str) -> float:
    return spacing(value, dtype) if math.isfinite(value) else 0.0
