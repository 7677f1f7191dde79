"""What a recipe promises of super weights: every bit, one step of the format, or a bound in per cent."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator

EXACT, WITHIN_STEP = "exact", "within-step"
LOST = 0.5
"""Share of its magnitude below which, or of another sign, a super weight no longer does what it did (figure 6 of
arXiv:2411.07191: at half, quality falls off)."""
_PER_CENT = re.compile(r"(\d+(?:\.\d+)?) ?%")


class Promise(NamedTuple):
    """How far a super weight may be from the original.

    Attributes:
        kind: `exact` keeps every bit; `within-step` rounds to a neighbour on the format's own grid; `percent` bounds
            the relative change.
        percent: the bound, of `percent` alone.
    """

    kind: Literal["exact", "within-step", "percent"]
    percent: float = 0.0

    @classmethod
    def of(cls, text: str) -> Promise:
        """Read `exact`, `within-step` or a bound such as `2 %`.

        Raises:
            ValueError: it is none of these, or a bound that a lost super weight would keep.
        """
        asked = text.strip()
        if asked in (EXACT, WITHIN_STEP):
            return cls("exact") if asked == EXACT else cls("within-step")
        found = _PER_CENT.fullmatch(asked)
        if found is None:
            raise ValueError(f"expected '{EXACT}', '{WITHIN_STEP}' or a bound such as '2 %', found {text!r}")
        percent = float(found[1])
        if percent >= 100 * (1 - LOST):
            raise ValueError(f"expected a bound below {1 - LOST:.0%}, where a super weight is lost; found {text!r}")
        return cls("percent", percent)

    def __str__(self) -> str:
        return f"{self.percent:g} %" if self.kind == "percent" else self.kind

    def kept(self, original: float, value: float, step: float | None) -> bool:
        """Whether a scalar is as near to the original as was promised; never if it is no finite number, or is lost.

        Args:
            original: the uncompressed model's.
            value: what the artefact yields.
            step: distance to the next value that the format can hold there; None if there is no such grid.
        """
        if not (math.isfinite(original) and math.isfinite(value)):
            return False
        if value == original or self.kind == "exact":
            return value == original
        off = abs(value - original)
        if self.kind == "percent":
            return off <= self.percent / 100 * abs(original)
        return step is not None and math.isfinite(step) and off <= step and not lost(original, value)


def lost(original: float, value: float) -> bool:
    """Whether a super weight no longer does what it did: no finite number, of another sign, or below half of it."""
    return not math.isfinite(value) or value * original <= 0 or abs(value) < LOST * abs(original)


def _readable(text: str) -> str:
    """The text itself, as `Promise` writes it.

    Raises:
        ValueError: it is none.
    """
    return str(Promise.of(text))


PromiseText = Annotated[str, AfterValidator(_readable)]
"""A promise as a card writes it."""
