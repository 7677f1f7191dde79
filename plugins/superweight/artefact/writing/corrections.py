"""What must be added to a base's scalar so that the sum, as it is rounded where it runs, is the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from superweight.artefact.adding import Way, parts
from superweight.artefact.numbers import rounded, spacing


def correction(original: float, base: float, required: Sequence[Way], wished: Sequence[Way] = ()) -> float:
    """The float32 number that brings a scalar back in most ways: in all that are required, if there is one.

    There may be none: the sum is rounded, and a base that is more than twice as large as the original, or of the other
    sign, or much smaller, can have bits between the numbers that the sum could be. Several terms change nothing, as
    their sum is rounded before it is added.

    Args:
        original: the uncompressed model's scalar.
        base: the artefact's.
        required: ways in which it must come back.
        wished: those in which it should.
    """

    def merit(candidate: float) -> tuple[float, ...]:
        split = parts(candidate)
        kept, liked = (sum(is_exact(original, base, split, way) for way in some) for some in (required, wished))
        off = sum(abs(way.restored(base, split) - rounded(original, way.base)) for way in required)
        return kept, -off, liked, -len(split), -abs(candidate - (original - base))

    return max(dict.fromkeys(_candidates(original, base, [*required, *wished])), key=merit)


def is_exact(original: float, base: float, split: Sequence[float], way: Way) -> bool:
    """Whether a scalar comes back as the original, rounded to the dtype in which the base is loaded."""
    return way.restored(base, split) == rounded(original, way.base)


def _candidates(original: float, base: float, among: Sequence[Way]) -> Iterator[float]:
    """Zero, and the difference in each dtype with its neighbours in float32 and in bfloat16."""
    yield 0.0
    for dtype in dict.fromkeys(way.base for way in among):
        difference = float(np.float32(rounded(original, dtype) - rounded(base, dtype)))
        for grid in ("float32", "bfloat16", "float16"):
            near = rounded(difference, grid)
            yield from (float(np.float32(near + off * spacing(near, grid))) for off in (0, -1, -0.5, 0.5, 1))
