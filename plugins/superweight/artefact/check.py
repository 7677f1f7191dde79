"""Check an artefact without running it: whether super weights survive in its files, and what its format gets wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

from superweight.artefact.likeness import expect_same_model
from superweight.artefact.lint import Subject, lint
from superweight.artefact.names import alike
from superweight.artefact.numbers import hexadecimal, rounded
from superweight.artefact.reading import Held, Reader
from superweight.artefact.smoothing import smoothed
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise, lost
from superweight.errors import InfraError
from superweight.evidence.artefact import ArtefactCheck, CheckedWeight, Outcome
from superweight.forward.runner import CannotTell


def check(
    artefact: Reader,
    reference: Reader,
    super_weights: Mapping[Coordinate, str],
    promise: Promise,
    *,
    named_by: str = "",
    thorough: bool = False,
) -> ArtefactCheck:
    """Compare every super weight of an artefact with the uncompressed model's.

    Args:
        artefact: the compressed model.
        reference: the uncompressed one.
        super_weights: coordinate → status.
        promise: what is expected of each.
        named_by: who names them, for the record.
        thorough: let the format lint read every scale.

    Raises:
        InfraError: the artefact is another model than the reference, or the reference itself (`unsupported`); the
            reference does not hold a super weight that is asked for (`cannot-tell`, `non-finite`), or not what its
            header says.
    """
    started = time.perf_counter()
    expect_same_model(artefact, reference)
    weights = []
    for where, status in super_weights.items():
        original = _original(reference, where)
        weight = compared(where, status, original, _held(artefact, where, original), promise)
        weights.append(_unless_smoothed(artefact, reference, weight))
    found = look(artefact, reference, weights, thorough=thorough)
    named = {"reference": str(reference.path), "promise": str(promise), "named_by": named_by}
    return found.model_copy(update={**named, "super_weights": weights, "seconds": time.perf_counter() - started})


def look(
    artefact: Reader,
    reference: Reader | None = None,
    super_weights: Sequence[CheckedWeight] = (),
    *,
    thorough: bool = False,
    alone: bool = False,
) -> ArtefactCheck:
    """The format lint alone.

    Args:
        artefact: the compressed model.
        reference: the uncompressed one, which some rules need.
        super_weights: what became of each.
        thorough: read every scale, however large the file.
        alone: nothing else is asked, so that super weights which nobody looked at leave no question open.
    """
    started = time.perf_counter()
    findings, unchecked = lint(Subject(artefact, reference, super_weights, thorough))
    return ArtefactCheck(
        artefact=str(artefact.path),
        format=artefact.about,
        bytes=artefact.bytes,
        read=artefact.read,
        seconds=time.perf_counter() - started,
        findings=findings,
        unchecked=unchecked,
        format_only=alone,
    )


def compared(
    where: Coordinate, status: str, original: Held, found: Held | CannotTell, promise: Promise
) -> CheckedWeight:
    """One super weight, and whether it is what was promised; what cannot be told was not kept."""
    number, dtype = original.decoded.value, original.decoded.dtype
    known = {
        **where.coordinate.model_dump(),
        "status": status,
        "original": number,
        "original_bits": hexadecimal(number, dtype),
        "original_dtype": dtype,
    }
    if isinstance(found, CannotTell):
        return CheckedWeight(**known, outcome="cannot-tell", kept=False, reason=found.reason)
    yields = found.decoded
    value, step = rounded(yields.value, yields.dtype), yields.step_towards(number)
    return CheckedWeight(
        **known,
        tensor=found.tensor,
        stored_as=found.stored_as,
        value=value,
        bits=hexadecimal(value, yields.dtype),
        dtype=yields.dtype,
        code=yields.code,
        step=step,
        outcome=outcome(number, value, step),
        kept=promise.kept(number, value, step),
    )


def _unless_smoothed(artefact: Reader, reference: Reader, weight: CheckedWeight) -> CheckedWeight:
    """A weight that moved with its whole column cannot be told: the layer before may make up for it."""
    if weight.kept or weight.outcome not in ("moved", "lost"):
        return weight
    why = smoothed(artefact, reference, weight)
    return weight if why is None else weight.model_copy(update={"outcome": "cannot-tell", "reason": why})


def outcome(original: float, value: float, step: float) -> Outcome:
    """What became of a super weight: exact means equal as a number, whatever the dtypes."""
    if value == original:
        return "exact"
    if lost(original, value):
        return "lost"
    return "within-step" if abs(value - original) <= step else "moved"


def _original(reference: Reader, where: Coordinate) -> Held:
    """What the uncompressed model holds.

    Raises:
        InfraError: that cannot be told, or it is itself compressed (`cannot-tell`); it is no number that a super weight
            can be (`non-finite`).
    """
    found = reference.scalar(where)
    if isinstance(found, CannotTell):
        raise _no_reference(f"the reference {reference.path} does not show {where}: {found.reason}")
    if found.decoded.code:
        raise _no_reference(
            f"the reference {reference.path} is compressed itself: {where} is stored as {found.stored_as}"
        )
    if not math.isfinite(found.decoded.value) or not found.decoded.value:
        raise InfraError(
            f"the reference {reference.path} holds {found.decoded.value:g} at {where}, which is no super weight. "
            "Correct the list, or give the model that it was made for.",
            reason="non-finite",
        )
    return found


def _no_reference(problem: str) -> InfraError:
    return InfraError(f"{problem}. Give the model that the artefact was made from, uncompressed.", reason="cannot-tell")


def _held(artefact: Reader, where: Coordinate, original: Held) -> Held | CannotTell:
    """What the artefact holds; a file that is not what it says cannot tell, and the format lint says more."""
    try:
        found = artefact.scalar(where)
    except InfraError as error:
        return CannotTell(str(error))
    if isinstance(found, Held) and not alike(original.tensor, found.tensor):
        return CannotTell(f"the reference has it in {original.tensor}, and the artefact has {found.tensor} there")
    return found
