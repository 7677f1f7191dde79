"""A super weight in an artefact: in the file, read without running it, and after reload; and whether the two agree."""

from __future__ import annotations

import math

from superweight.artefact.check import compared, outcome
from superweight.artefact.formats import Decoded
from superweight.artefact.names import alike
from superweight.artefact.numbers import spacing
from superweight.artefact.reading import Held, Reader
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.errors import InfraError
from superweight.evidence.measured import StoredPoint
from superweight.forward.runner import CannotTell, Points, Scalar
from superweight.measure.effective_weight import Effective

_BROKEN = ("corrupt", "missing-tensor", "non-finite")
"""Reasons of errors that say the file contradicts itself."""


def file_point(reader: Reader | CannotTell, where: Coordinate, original: Scalar, module: str) -> StoredPoint:
    """What the file holds, by the format's own decoding of the few bytes that it takes.

    Args:
        reader: of the file.
        where: the scalar.
        original: what the uncompressed model holds there.
        module: that has it in the uncompressed model.
    """
    if isinstance(reader, CannotTell):
        return _unknown("file", reader.reason)
    try:
        held = reader.scalar(where)
    except InfraError as error:
        return _unknown("file", str(error), corrupt=error.reason in _BROKEN)
    if isinstance(held, Held) and not alike(module, held.tensor):
        return _unknown("file", f"the reference has it in {module}, and the file has {held.tensor} there")
    found = compared(where, "", as_held(original), held, Promise("within-step"))
    return StoredPoint(
        point="file",
        value=found.value,
        bits=found.bits,
        dtype=found.dtype,
        step=found.step,
        code=found.code,
        held_by=", ".join(part for part in (found.tensor, found.stored_as) if part),
        outcome=found.outcome,
        reason=found.reason,
    )


def as_held(original: Scalar) -> Held:
    """What the uncompressed model holds, as a reader of files would show it."""
    value, _, dtype = original
    return Held("", "", Decoded(value, dtype, spacing(value, dtype)))


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

    They agree if they differ by no more than rounding: see `_tolerance`.

    Args:
        file: in the file.
        reload: after reload.
        rounding: how much of what was seen after reload may be rounding, absolute.
    """
    points = [file, reload]
    if file.value is None or reload.value is None:
        return Points(points)
    if abs(file.value - reload.value) <= _tolerance(file, max(abs(file.value), abs(reload.value)), rounding):
        return Points(points)
    off = reload.value - file.value
    steps = f", {abs(off) / file.step:.2f} steps" if file.step else ""
    return Points(
        points,
        f"the file holds {file.value!r} and what is loaded from it is {reload.value!r}{steps}: the file is not read as "
        "it is meant to be, or was not written so",
    )


def _tolerance(file: StoredPoint, magnitude: float, rounding: float) -> float:
    """How far file and reload may be apart and still be the same code, absolute.

    One rounding to the coarser of their dtypes, and one to bfloat16, in which some kernels multiply whatever dtype they
    answer in; but where steps are known, never so much that a neighbouring code would be taken for the same one, and a
    quarter of a step in any case.
    """
    once, inside = max(rounding, _ulp(magnitude, file.dtype)), _ulp(magnitude, "bfloat16")
    if file.step is None:
        return max(2 * once, inside)
    return max(once, file.step / 4, min(inside, file.step / 2))


def _unknown(point: str, reason: str, *, corrupt: bool = False) -> StoredPoint:
    return StoredPoint(point=point, outcome="cannot-tell", reason=reason, corrupt=corrupt)  # type: ignore[arg-type]


def _ulp(value: float, dtype: str) -> float:
    return spacing(value, dtype) if math.isfinite(value) else 0.0
