"""A change: one figure or fact of a cell in two runs, and whether it got worse."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from superweight.evidence.measured import Record
from superweight.ids import GateId

ChangeVerdict = Literal["PASS", "REGRESSION", "INCONCLUSIVE", "CANNOT COMPARE", "NOTE"]


class Change(Record):
    """One thing about a cell, before and after."""

    model: str
    recipe: str
    kind: str = Field(description="of a gate card, or `super-weights`, `size`, `role`, `cell`")
    gate: str = Field(description="`perplexity:wiki`, `zero-shot:piqa`, `super-weights`, `size`, `role`, `cell`")
    verdict: ChangeVerdict = Field(description="of the later run against the earlier; NOTE judges nothing")
    message: str
    decides: bool = Field(default=False, description="true on what is, or was, a candidate or the uncompressed model")
    reason: str = Field(default="", description="why it cannot be compared, for machines")
    metric: str | None = None
    before: float | None = Field(default=None, description="over the windows or items that both runs have")
    after: float | None = Field(default=None, description="likewise")
    difference: float | None = Field(default=None, description="ratio − 1 of perplexities; after − before of the rest")
    interval: tuple[float, float] | None = Field(default=None, description="of `difference`")
    margin: float | None = Field(default=None, description="largest accepted loss, as a positive number")
    higher_is_better: bool = True
    n: int | None = Field(default=None, description="windows or items that both runs have")
    p_pass: float | None = Field(default=None, description="p-value against a loss of the margin or more")
    p_regression: float | None = Field(default=None, description="p-value against a loss of the margin or less")
    p_adjusted: float | None = Field(default=None, description="`p_regression` after Holm's correction for the cell")
    alpha: float | None = Field(default=None, description="one-sided error rate of PASS, and of REGRESSION")
    method: str = ""
    card: str = Field(default="", description="id of the gate card that set the margin")

    @property
    def of(self) -> str:
        """The corpus or task; empty where the change is about neither."""
        return GateId.parse(self.gate).of

    @property
    def names_its_gate(self) -> bool:
        """Whether the message says by itself what it is about: of figures it does, and of a cell as a whole."""
        return not self.of or self.before is not None or self.reason == "no-card"

    @property
    def blocks(self) -> bool:
        """Whether nobody may say that nothing got worse, since this could not be compared."""
        return self.decides and self.verdict == "CANNOT COMPARE" and self.reason != "not-asked"


def overall(changes: Iterable[Change]) -> ChangeVerdict:
    """One answer to whether the later run is worse; references and controls are shown and decide nothing."""
    deciding = [change for change in changes if change.decides]
    if any(change.verdict == "REGRESSION" for change in deciding):
        return "REGRESSION"
    compared = any(change.verdict in ("PASS", "INCONCLUSIVE") for change in deciding)
    if not compared or any(change.blocks for change in deciding):
        return "CANNOT COMPARE"
    return "INCONCLUSIVE" if any(change.verdict == "INCONCLUSIVE" for change in deciding) else "PASS"
