"""Whether an artefact's weights are the reference's at all: elements of every layer, decoded and compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.reading import Reader, SafetensorsReader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_ELEMENTS = 2048  # of all layers together
_LEAST, _MOST = 24, 96  # of a layer
_ALIKE = 0.5
"""Least correlation of a layer's elements; unrelated ones reach a fifth, weights of two bits nine tenths."""
_SHIFT = 0.6
"""Largest median distance in steps of the format, with its sign. Rounding gives about none, and clipping moves few."""


class _Sample(NamedTuple):
    """Elements of one layer.

    Attributes:
        where: the first of them.
        originals: the reference's.
        values: the artefact's.
        steps: of the format, NaN where numbers are plain.
    """

    where: Coordinate
    originals: list[float]
    values: list[float]
    steps: list[float]


def _another(subject: Subject) -> Iterator[Fault]:
    for sample in _samples(subject):
        one, other = np.array(sample.originals), np.array(sample.values)
        if not one.std() or np.isnan(other).any():
            continue
        alike = float(np.corrcoef(one, other)[0, 1]) if other.std() else 0.0
        if alike < _ALIKE:
            found = f"{len(one)} weights of layer {sample.where.layer} correlate by {alike:.2f} with the reference's"
            advice = "Give the model that it was made from; if that is it, write the artefact again."
            yield Fault(subject.reader.path.name, f"expected nearly 1; {found}", advice)


def _shifted(subject: Subject) -> Iterator[Fault]:
    samples = list(_samples(subject))
    steps = np.array([step for sample in samples for step in sample.steps])
    off = np.array([v - o for one in samples for v, o in zip(one.values, one.originals, strict=True)])
    coded = np.isfinite(steps) & (steps > 0)
    if coded.sum() >= _LEAST and abs(middle := float(np.median(off[coded] / steps[coded]))) > _SHIFT:
        found = f"expected weights around the reference's; the median lies {middle:+.2f} steps off"
        yield Fault(
            subject.reader.path.name, found, "Its zero points are read as another version of the format has them."
        )


def _samples(subject: Subject) -> Iterator[_Sample]:
    """Elements of the down projection of every layer, the same in every run."""
    reference = subject.reference
    if not isinstance(reference, SafetensorsReader):
        return
    matrices = list(reference.matrices())
    few = min(_MOST, max(_LEAST, _ELEMENTS // max(1, len(matrices))))
    for layer, expert, (rows, columns) in matrices:
        chance = np.random.default_rng(layer)
        places = zip(chance.integers(0, rows, few).tolist(), chance.integers(0, columns, few).tolist(), strict=True)
        coordinates = [Coordinate(layer=layer, expert=expert, row=row, column=column) for row, column in places]
        if (sample := _sample(subject.reader, reference, coordinates)) is not None:
            yield sample


def _sample(artefact: Reader, reference: Reader, coordinates: list[Coordinate]) -> _Sample | None:
    """The elements, if both tell them."""
    sample = _Sample(coordinates[0], [], [], [])
    for where in coordinates:
        original = reference.scalar(where)
        try:
            found = artefact.scalar(where)
        except InfraError:
            return None  # said where super weights are looked up, and by the rules on shapes
        if isinstance(original, CannotTell) or isinstance(found, CannotTell):
            return None
        sample.originals.append(original.decoded.value)
        sample.values.append(found.decoded.value)
        sample.steps.append(found.decoded.step if found.decoded.code else np.nan)
    return sample


RULES = (
    Rule("weights-unlike", "Its weights are another model's, another layer's, or decoded wrongly.", "error", _another),
    Rule("weights-shifted", "Every weight is read a step too high or too low.", "error", _shifted),
)
