"""Super weights that were pulled in to the largest value that their group, row or tensor can hold."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from superweight.artefact.formats import Decoded
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.reading import Held
from superweight.errors import InfraError
from superweight.evidence.artefact import CheckedWeight

_ADVICE = "Leave this module unquantised, restore the weight with an adapter, or clip by a quantile that spares it."


def _clipped(subject: Subject) -> Iterator[Fault]:
    for weight in subject.super_weights:
        if weight.kept or weight.value is None or abs(weight.value) >= abs(weight.original):
            continue
        try:
            found = subject.reader.scalar(weight.coordinate)
        except InfraError:
            continue
        if isinstance(found, Held) and (why := _why(subject, weight, found.decoded)):
            where = f"{found.tensor} [{weight.row}, {weight.column}]"
            yield Fault(where, f"expected {weight.original:g}, found {weight.value:g}, {why}", _ADVICE)


def _why(subject: Subject, weight: CheckedWeight, found: Decoded) -> str:
    """By what it was clipped; empty if nothing says that it was."""
    if found.code:
        return f"the largest that its scale can hold ({found.code})" if found.ends_before(weight.original) else ""
    others = _others(subject, weight)
    same = int((np.abs(others) == abs(found.value)).sum())
    largest = others.size > 0 and float(np.abs(others).max()) <= abs(found.value)
    return f"as large as {same} others in its row and column, and none is larger" if same and largest else ""


def _others(subject: Subject, weight: CheckedWeight) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The rest of its row and of its column, of a plain matrix `(out, in)`."""
    artefact, name = subject.artefact, f"{weight.tensor}.weight"
    nothing = np.empty(0, np.float64)
    if artefact is None or name not in artefact.tensors or len(artefact.tensors[name].shape) != 2:
        return nothing
    row, column = artefact.line(name, weight.row, slice(None)), artefact.line(name, slice(None), weight.column)
    if weight.column >= row.size or weight.row >= column.size or row[weight.column] != weight.value:
        return nothing
    return np.concatenate([np.delete(row, weight.column), np.delete(column, weight.row)])


RULES = (
    Rule(
        "super-weight-clipped",
        "A super weight that is no larger than its neighbours no longer makes its super activation.",
        "error",
        _clipped,
    ),
)
