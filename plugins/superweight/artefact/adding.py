"""How the sum of a weight and an adapter's correction is rounded, in every way in which it is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from superweight.artefact.numbers import rounded, spacing

DTYPES = ("float32", "bfloat16", "float16")
"""In which a base can be loaded and an adapter be kept."""


class Way(NamedTuple):
    """In which dtypes a base and its adapter meet.

    PEFT adds the two when it merges, and each output to the other's when it does not: the same sum either way, in the
    wider of both dtypes, then rounded to the base's. It keeps adapters in float32 unless told otherwise; engines that
    keep them in the base's dtype round each part, and the parts' sum, to that first.

    Attributes:
        base: the dtype in which the base is loaded.
        adapter: the dtype in which the adapter is kept.
    """

    base: str
    adapter: str

    def __str__(self) -> str:
        return f"base in {self.base}, adapter in {self.adapter}"

    def restored(self, base: float, parts: Sequence[float]) -> float:
        """What a scalar becomes.

        Args:
            base: the base's scalar, in any dtype; rounded to that in which the base is loaded.
            parts: what the terms of the adapter add to it, before they are rounded to its dtype.
        """
        loaded, correction = rounded(base, self.base), self._correction(parts)
        if self.base == self.adapter:
            return _add(loaded, correction, self.base)
        return rounded(_add(loaded, correction, "float32"), self.base)

    def _correction(self, parts: Sequence[float]) -> float:
        """The parts' sum, accumulated in float32 as matrix products are."""
        total = 0.0
        for part in parts:
            total = _add(total, rounded(part, self.adapter), "float32")
        return rounded(total, self.adapter)


def ways(*dtypes: str) -> tuple[Way, ...]:
    """For a base that is loaded in these dtypes: PEFT's own ways first, then with the adapter in the base's dtype."""
    return tuple(dict.fromkeys([Way(base, "float32") for base in dtypes] + [Way(base, base) for base in dtypes]))


def parts(correction: float) -> list[float]:
    """A float32 number as few bfloat16 numbers, largest first, that give it in float32 in whatever order.

    So that it stays what it is in an engine that keeps adapters in bfloat16 and accumulates in float32. The number
    itself, if there are none: too small a number has bits that bfloat16 does not reach.
    """
    splits = (_split(correction, towards_zero=towards_zero) for towards_zero in (False, True))
    wide = Way("float32", "float32")
    for split in splits:
        if all(wide.restored(0.0, order) == correction for order in permutations(split)):
            return split
    return [correction]


def _split(correction: float, *, towards_zero: bool) -> list[float]:
    """High part first; towards zero all have one sign, so that no partial sum needs more bits than the whole."""
    found: list[float] = []
    while correction and len(found) < _MOST_PARTS:
        part = rounded(correction, "bfloat16")
        if towards_zero and abs(part) > abs(correction):
            part -= math.copysign(spacing(correction, "bfloat16"), part)
        found.append(part)
        correction -= part
    return found


_MOST_PARTS = 3  # of 8 bits each: float32 has 24


def _add(a: float, b: float, dtype: str) -> float:
    """Two numbers of a dtype's precision or less: added in float32, which is wide enough for the result to be right."""
    with np.errstate(over="ignore", invalid="ignore"):
        return rounded(float(np.float32(a) + np.float32(b)), dtype)
