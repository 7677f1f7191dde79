"""Faults of an artefact's files, found beside its reference's while a cell is measured."""

from __future__ import annotations

from collections.abc import Iterator

from superweight.artefact.check import compared, look
from superweight.artefact.reading import Reader, open_reader
from superweight.cards.promise import Promise
from superweight.errors import InfraError
from superweight.evidence.artefact import CheckedWeight, Finding
from superweight.forward.runner import CannotTell
from superweight.measure.artefact_points import as_held
from superweight.measure.reference import Reference


def look_for_faults(reader: Reader | CannotTell, reference: Reference) -> tuple[list[Finding], dict[str, str]]:
    """Apply the format lint.

    Returns:
        what was found; and the rules that could not be applied, with the reason.
    """
    if isinstance(reader, CannotTell):
        return [], {}
    try:
        beside: Reader | None = open_reader(reference.checkpoint.directory)
    except InfraError:
        beside = None
    found = look(reader, beside, list(_super_weights(reader, reference)))
    return found.findings, found.unchecked


def _super_weights(reader: Reader, reference: Reference) -> Iterator[CheckedWeight]:
    """Those that the file shows, for the rules that ask what became of them."""
    for where, known in reference.protected.items():
        try:
            held = reader.scalar(where)
        except InfraError:
            continue  # said of the super weight itself
        yield compared(where, known.status, as_held(known.original), held, Promise("within-step"))
