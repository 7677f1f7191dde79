"""The answer to one question asked of one cell, with the figures it rests on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from superweight.evidence.measured import Failure, Record, Verdict

Kind = Literal["detection", "sanity", "super-weights", "perplexity", "zero-shot", "measurement"]


class GateResult(Record):
    """One question asked of one cell, with the figures that answer it."""

    gate: str = Field(description="`perplexity:wiki`, `zero-shot:piqa`, `super-weights`, `sanity`, `detection`")
    kind: Kind
    verdict: Verdict
    message: str = Field(description="the argument in words and figures")
    metric: str | None = None
    value: float | None = None
    baseline: float | None = None
    difference: float | None = Field(
        default=None, description="as compared with the margin: ratio − 1, or candidate − baseline"
    )
    interval: tuple[float, float] | None = Field(default=None, description="of `difference`")
    confidence: float | None = None
    margin: float | None = Field(default=None, description="largest accepted loss, as a positive number")
    n: int | None = Field(default=None, description="windows or items, the same ones under both models")
    why: str = Field(default="", description="where the margin comes from")
    details: dict[str, Any] = Field(default_factory=dict)
    decides: bool = Field(default=True, description="false on references: shown, never decisive")


def infra_gate(gate: str, kind: Kind, failure: Failure) -> GateResult:
    """A question that could not be answered."""
    return GateResult(
        gate=gate,
        kind=kind,
        verdict="INFRA",
        message=f"not measured ({failure.reason}): {failure.message}",
        details={"reason": failure.reason, "stage": failure.stage},
    )
