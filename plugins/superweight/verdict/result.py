"""The answer to one question asked of one cell, with the figures it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from superweight.cards.gate_kinds import GATE_KINDS, INTEGRITY_KINDS, GateKind
from superweight.cards.model import Role
from superweight.evidence.measured import Failure, Record, Verdict
from superweight.ids import GateId

QUALITY: Mapping[str, GateKind] = GATE_KINDS
"""Kinds that compare figures with the uncompressed model's, and so can be wrong by chance."""

SEVERITY: tuple[Verdict, ...] = ("REGRESSION", "INFRA", "INCONCLUSIVE", "PASS")
"""Verdicts, the gravest first."""

DECIDING: tuple[Role, ...] = ("baseline", "candidate")
"""Roles whose verdicts can hold up a release."""


def severity(verdict: Verdict) -> int:
    """The place of a verdict among all, 0 for the gravest."""
    return SEVERITY.index(verdict)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """The gravest of verdicts: a proven regression outweighs what could not be measured, which outweighs what could
    not be decided. Of none it is INFRA, since silence is not a pass.
    """
    return min(verdicts, key=severity, default="INFRA")


def decides(role: Role) -> bool:
    """Whether the verdict of a cell of this role can hold up a release."""
    return role in DECIDING


OddityKind = Literal["too-good"]


class Oddity(Record):
    """Something odd about a figure, whatever its verdict."""

    kind: OddityKind = Field(description="too-good: better than the uncompressed model by more than the margin")
    text: str


AdviceKind = Literal[
    "restore",
    "promise-nothing",
    "finer-settings",
    "beside",
    "measure-more",
    "settle-margin",
    "look-elsewhere",
    "check-arithmetic",
    "check-card",
    "check-inputs",
]


class Advice(Record):
    """One thing to try about a gate that did not pass."""

    kind: AdviceKind = Field(
        description="restore: keep super weights exactly; promise-nothing: take the promise off the recipe card; "
        "finer-settings: another setting of the recipe; beside: what another recipe of this run reaches; measure-more: "
        "more windows or items; settle-margin: decide what loss is acceptable; look-elsewhere: the damage is not that "
        "of the super weights; check-arithmetic, check-card, check-inputs: what may be wrong with the measurement"
    )
    text: str = Field(description="a sentence")
    recipes: list[str] = Field(default_factory=list, description="other recipes that it names")
    tier: str = Field(default="", description="the tier that measures enough")
    n: int | None = Field(default=None, description="windows or items that would decide")


class WindowLoss(Record):
    """A window of text under both models."""

    window: int = Field(description="its place in the text")
    before: float = Field(description="the baseline's mean negative log-likelihood, nats a token")
    after: float = Field(description="the candidate's")

    @property
    def loss(self) -> float:
        """What the candidate lost, nats a token."""
        return self.after - self.before


class ChangedAnswer(Record):
    """An item that is answered differently under the candidate."""

    doc_id: int = Field(description="lm-eval's number of the item")
    direction: str = Field(description="`right → wrong`, `wrong → right`, `wrong → wrong`; ? is not known")
    shift: float | None = Field(
        description="what the new answer gained on the old one in log-likelihood, nats; infinite if one is impossible "
        "under one model; null of generated text"
    )
    text: str = Field(description="the question in one line, its end if long")
    before: str = Field(description="the baseline's answer")
    after: str = Field(description="the candidate's")


class GateResult(Record):
    """One question asked of one cell, with the figures that answer it."""

    gate: str = Field(description="`perplexity:wiki`, `zero-shot:piqa`, `super-weights`, `sanity`, `detection`")
    kind: str = Field(
        description=f"a kind of gate card, which another package may have added, or one of {', '.join(INTEGRITY_KINDS)}"
    )
    verdict: Verdict
    message: str = Field(
        description="the argument in words and figures: `summary`, and below it what the fields from `findings` to "
        "`advice` hold"
    )
    summary: str = Field(default="", description="the argument in one line; empty in evidence of versions before 1.3")
    findings: list[str] = Field(default_factory=list, description="what the summary rests on, a line each")
    expired_waivers: list[str] = Field(
        default_factory=list, description="waivers that would cover this, were they not out of date"
    )
    windows: list[WindowLoss] = Field(default_factory=list, description="windows that lost most, if it did not pass")
    answers: list[ChangedAnswer] = Field(
        default_factory=list, description="answers that changed most, if it did not pass; `details` counts all"
    )
    super_weights: str = Field(default="", description="what became of the super weights, if it did not pass")
    oddities: list[Oddity] = Field(default_factory=list, description="`flags` with their kind")
    notes: list[str] = Field(default_factory=list, description="what to know of a margin that holds all the same")
    advice: list[Advice] = Field(default_factory=list, description="what to try, the most telling first")
    decided_by: str = Field(
        default="",
        description="of a gate left undecided before all windows or items were in: the gate that decided the cell",
    )
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

    @property
    def id(self) -> GateId:
        """What is asked, and of which corpus or task."""
        return GateId.parse(self.gate)

    @property
    def of(self) -> str:
        """The corpus or task; empty where the question is about neither."""
        return self.id.of

    @property
    def headline(self) -> str:
        """The summary; of evidence of versions that recorded none, the whole message."""
        return self.summary or self.message

    @field_validator("details", mode="before")
    @classmethod
    def _read_infinities(cls, details: Any) -> Any:
        """Strict JSON has no infinities, so evidence.json holds them as strings."""
        if not isinstance(details, dict):
            return details  # which is refused
        return {name: float(value) if value in ("inf", "-inf", "nan") else value for name, value in details.items()}

    decides: bool = Field(default=True, description="false on references: shown, never decisive")


def infra_gate(gate: str, kind: str, failure: Failure) -> GateResult:
    """A question that could not be answered."""
    message = f"not measured ({failure.reason}): {failure.message}"
    summary, *findings = message.split("\n")  # of an error, which may go on below its first line
    return GateResult(
        gate=gate,
        kind=kind,
        verdict="INFRA",
        message=message,
        summary=summary,
        findings=findings,
        reason=failure.reason,
        details={"reason": failure.reason, "stage": failure.stage},
    )
