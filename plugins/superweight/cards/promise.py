"""What a recipe promises of super weights: every bit, one step of the format, or a bound in per cent."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

EXACT, WITHIN_STEP = "exact", "within-step"
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
            ValueError: it is none of these.
        """
        if text in (EXACT, WITHIN_STEP):
            return cls("exact") if text == EXACT else cls("within-step")
        found = _PER_CENT.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"expected '{EXACT}', '{WITHIN_STEP}' or a bound such as '2 %', found {text!r}")
        return cls("percent", float(found[1]))

    def __str__(self) -> str:
        return f"{self.percent:g} %" if self.kind == "percent" else self.kind

    def kept(self, original: float, value: float, step: float | None) -> bool:
        """Whether a scalar is as near to the original as was promised; never if it is no finite number.

        Args:
            original: the uncompressed model's.
            value: what the artefact yields.
            step: distance to the nearest other value that the format can hold there; None if there is no such grid.
        """
        off: Any = abs(value - original)
        if self.kind == "exact":
            return value == original
        if self.kind == "percent":
            return bool(off <= self.percent / 100 * abs(original))
        return value == original or (step is not None and bool(off <= step))
