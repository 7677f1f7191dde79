"""The answer to one question asked of one cell, with the figures it rests on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from superweight.evidence.measured import Failure, Record, Verdict

Kind = Literal[
    "detection",
    "sanity",
    "super-weights",
    "perplexity",
    "zero-shot",
    "divergence",
    "agreement",
    "flips",
    "measurement",
]
QUALITY: tuple[Kind, ...] = ("perplexity", "zero-shot", "divergence", "agreement", "flips")
"""Kinds that compare figures with the uncompressed model's, and so can be wrong by chance."""


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
    planned: int | None = Field(default=None, description="windows or items that would have been used at most")
    higher_is_better: bool = Field(default=True, description="of the metric, and so of `difference`")
    alpha: float | None = Field(default=None, description="one-sided error rate of PASS, and of REGRESSION")
    p_pass: float | None = Field(default=None, description="p-value against a loss of the margin or more")
    p_regression: float | None = Field(default=None, description="p-value against a loss of the margin or less")
    p_adjusted: float | None = Field(
        default=None, description="`p_regression` after Holm's correction for the gates of the cell"
    )
    method: str = Field(default="", description="the test behind the interval and the p-values, in words")
    detectable: float | None = Field(
        default=None,
        description="smallest true difference that this run would have called a regression four times in five",
    )
    needed: int | None = Field(
        default=None,
        description="of an INCONCLUSIVE gate: windows or items that would decide, if what was seen is true",
    )
    flags: list[str] = Field(default_factory=list, description="what is odd about this figure, verdict aside")
    reason: str = Field(default="", description="failure class of an INFRA gate")
    waiver: dict[str, str] | None = Field(default=None, description="ticket, expiry and reason, if somebody waived it")
    informs: bool = Field(
        default=True,
        description="false where the uncompressed model does no better than guessing, so that no loss could be seen",
    )
    card: str = Field(default="", description="id of the gate card that set the margin")
    why: str = Field(default="", description="where the margin comes from")
    details: dict[str, Any] = Field(default_factory=dict)

    @field_validator("details", mode="before")
    @classmethod
    def _read_infinities(cls, details: Any) -> Any:
        """Strict JSON has no infinities, so evidence.json holds them as strings."""
        if not isinstance(details, dict):
            return details  # which is refused
        return {name: float(value) if value in ("inf", "-inf", "nan") else value for name, value in details.items()}

    decides: bool = Field(default=True, description="false on references: shown, never decisive")


def infra_gate(gate: str, kind: Kind, failure: Failure) -> GateResult:
    """A question that could not be answered."""
    return GateResult(
        gate=gate,
        kind=kind,
        verdict="INFRA",
        message=f"not measured ({failure.reason}): {failure.message}",
        reason=failure.reason,
        details={"reason": failure.reason, "stage": failure.stage},
    )
