"""Whether a column of a matrix was multiplied as a whole, as quantisers that smooth do, who divide the layer before."""

from __future__ import annotations

from typing import Any

import numpy as np

from superweight.artefact.held import Reader
from superweight.artefact.reading import SafetensorsReader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_ROWS = 160  # of the column that are looked at
_LARGEST = 48  # of those, where rounding weighs least
_ALIKE = 0.9  # least correlation with the reference's
_APART = 0.03  # least distance of the factor from one
_SURE = 5.0  # standard errors


def smoothed(artefact: Reader, reference: Reader, where: Coordinate) -> str | None:
    """Why a moved super weight may do what it did; None if nothing speaks for that.

    The rest of its column is compared with the reference's. If the artefact's is the reference's times one factor, and
    the super weight is, too, as well as its format can hold it, then the layer before was likely divided by that.

    Args:
        artefact: the compressed model.
        reference: the uncompressed one.
        where: the super weight.
    """
    column = _column(artefact, reference, where)
    factor = None if column is None else _factor(*column)
    own, found = reference.scalar(where), artefact.scalar(where)
    if factor is None or isinstance(own, CannotTell) or isinstance(found, CannotTell):
        return None
    expected = factor * own.decoded.value
    if abs(found.decoded.value - expected) > found.decoded.step_towards(expected):
        return None
    return (
        f"column {where.column} is the reference's times {factor:.3f} as a whole, as quantisers that smooth (AWQ, "
        "SmoothQuant) leave it, who divide the layer before by that: what both do together shows only when it runs"
    )


def _factor(originals: np.ndarray[Any, Any], values: np.ndarray[Any, Any]) -> float | None:
    """What the originals were multiplied by, if that is surely another number than one, and positive."""
    if not (originals.std() and values.std()) or np.corrcoef(originals, values)[0, 1] < _ALIKE:
        return None
    power = float(originals @ originals)
    factor = float(originals @ values) / power
    error = float(np.sqrt(((values - factor * originals) ** 2).mean() / power))
    return factor if factor > 0 and abs(factor - 1) >= max(_APART, _SURE * error) else None


def _column(
    artefact: Reader, reference: Reader, where: Coordinate
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None:
    """The largest of some elements of the column, without the super weight: the reference's and the artefact's."""
    shape = reference.shape(where) if isinstance(reference, SafetensorsReader) else None
    pairs = [] if shape is None else _pairs(artefact, reference, where, shape[0])
    largest = np.array(sorted(pairs, key=lambda pair: -abs(pair[0]))[:_LARGEST], np.float64)
    if len(largest) < _LARGEST // 2 or not np.isfinite(largest).all() or not largest[:, 0].any():
        return None
    return largest[:, 0], largest[:, 1]


def _pairs(artefact: Reader, reference: Reader, where: Coordinate, rows: int) -> list[tuple[float, float]]:
    """Elements of other rows of the column; none if one of them cannot be told."""
    found = []
    for row in np.unique(np.linspace(0, rows - 1, min(rows, _ROWS)).astype(int)).tolist():
        beside = where.coordinate.model_copy(update={"row": row})
        try:
            one, other = reference.scalar(beside), artefact.scalar(beside)
        except InfraError:
            return []
        if isinstance(one, CannotTell) or isinstance(other, CannotTell):
            return []
        if row != where.row:
            found.append((one.decoded.value, other.decoded.value))
    return found
