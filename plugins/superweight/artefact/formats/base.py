"""What a format is: how one scalar of a matrix is read from an artefact's tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from superweight.artefact.container import Artefact
from superweight.artefact.numbers import gaps
from superweight.forward.runner import CannotTell


class Decoded(NamedTuple):
    """One scalar as the artefact yields it.

    Attributes:
        value: as the format's own arithmetic decodes it, exactly.
        dtype: of that arithmetic, torch's name: `bfloat16`.
        step: distance to the nearest other value that the format can hold there.
        code: what is stored, in words; empty for plain numbers.
        lower: distance to the next smaller value that can be held there, where the grid is not even; infinity at the
            end of the range; None if it is `step`.
        upper: distance to the next larger one; likewise.
    """

    value: float
    dtype: str
    step: float
    code: str = ""
    lower: float | None = None
    upper: float | None = None

    def step_towards(self, number: float) -> float:
        """Distance to the next value on the side of a number; `step` where the range ends."""
        gap = self.upper if number > self.value else self.lower
        return gap if gap is not None and math.isfinite(gap) else self.step

    def ends_before(self, number: float) -> bool:
        """Whether a number lies beyond the largest or smallest value that can be held there, which this one is."""
        gap = self.upper if number > self.value else self.lower
        return gap == math.inf and number != self.value


def on_grid(values: Callable[[int], float], code: int, least: int, most: int, dtype: str, words: str) -> Decoded:
    """What an integer code yields, with its neighbours on the grid.

    Args:
        values: code → value, as the format decodes it; rising or falling.
        code: the one that is stored.
        least: the smallest code.
        most: the largest.
        dtype: of the arithmetic.
        words: the code in words.
    """
    value = values(code)
    sides = range(code - 1, least - 1, -1), range(code + 1, most + 1)  # rounding may give neighbours the same value
    around = [next((found for at in side if (found := values(at)) != value), value) for side in sides]
    return _between(value, around, dtype, words)


def on_floats(values: Callable[[float], float], code: float, kind: str, dtype: str) -> Decoded:
    """What a code that is a small float yields, with its neighbours.

    Args:
        values: code → value, as the format decodes it; rising or falling.
        code: the one that is stored.
        kind: its dtype, `float8_e4m3fn`.
        dtype: of the arithmetic.
    """
    below, above = gaps(code, kind)
    around = [values(other) for other in (code - below, code + above) if math.isfinite(other)]
    return _between(values(code), around, dtype, f"{code:g} as {kind}")


def _between(value: float, around: Sequence[float], dtype: str, words: str) -> Decoded:
    lower = min((value - other for other in around if other < value), default=math.inf)
    upper = min((other - value for other in around if other > value), default=math.inf)
    step = min(lower, upper)
    return Decoded(value, dtype, step if math.isfinite(step) else 0.0, words, lower, upper)


def decoded_to(found: Decoded, value: float) -> Decoded:
    """The same place on its grid, where the format's arithmetic rounds what it yields to its dtype.

    A step stays the grid's, or is the dtype's where that is coarser: neighbours that are rounded, too, may lie closer.

    Args:
        found: in exact arithmetic.
        value: as the format yields it.
    """
    lower, upper = (
        gap if gap is None or not math.isfinite(own) else max(gap, own)
        for gap, own in zip((found.lower, found.upper), gaps(value, found.dtype), strict=True)
    )
    sides = [gap for gap in (lower, upper) if gap is not None and math.isfinite(gap)]
    return found._replace(value=value, step=min(sides, default=found.step), lower=lower, upper=upper)


class Place(NamedTuple):
    """Where a scalar is looked for, Hugging Face orientation.

    Attributes:
        module: `model.layers.2.mlp.down_proj`.
        row: output channel.
        column: input channel.
        expert: index along the first dimension, where the experts of a layer lie in one tensor; else None.
    """

    module: str
    row: int
    column: int
    expert: int | None = None


class Format(Protocol):
    """Reads matrices that are stored in one way. One instance serves every artefact; all it knows is given."""

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether the module's matrix is stored in this way: by the names and dtypes of its tensors."""

    def describe(self, artefact: Artefact, module: str) -> str:
        """In words: `GPTQ v1, 4 bits, groups of 64`."""

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """What the artefact yields for one scalar; reads only the bytes that it needs.

        Raises:
            InfraError: a tensor of the module is missing, or does not have the shape that the format asks for.
        """
