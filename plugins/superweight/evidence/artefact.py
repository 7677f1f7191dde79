"""What was found in the files of a compressed model: super weights, one by one, and faults of the format."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from superweight.cards.base import Coordinate
from superweight.evidence.record import Record

Outcome = Literal["exact", "within-step", "moved", "lost", "cannot-tell"]
Severity = Literal["error", "warning"]
Answer = Literal["kept", "broken", "cannot-tell"]


class CheckedWeight(Coordinate):
    """A super weight in a file, beside the uncompressed model's."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=False, allow_inf_nan=True)

    status: str = Field(default="", description="causal, spoke, listed, …, where the list says so")
    tensor: str = Field(default="", description="what holds it in the artefact")
    stored_as: str = Field(default="", description="the format of that tensor, `GPTQ v1, 4 bits, groups of 64`")
    original: float
    original_bits: str = Field(description="hexadecimal, in `original_dtype`")
    original_dtype: str
    value: float | None = Field(default=None, description="what the artefact yields")
    bits: str = Field(default="", description="hexadecimal, in `dtype`")
    dtype: str = Field(default="", description="in which the artefact is decoded")
    code: str = Field(default="", description="what is stored, in words: `13 of 0 to 15`")
    step: float | None = Field(
        default=None, description="distance to the nearest other value that the format can hold there"
    )
    outcome: Outcome
    kept: bool = Field(description="whether that is what was promised")
    reason: str = Field(default="", description="why it cannot be told")

    @property
    def change(self) -> float | None:
        """Relative change, 0 for none; None if there is no value."""
        return None if self.value is None or not self.original else self.value / self.original - 1

    @property
    def steps(self) -> float | None:
        """How many steps of the format it is away; None where there is no grid."""
        return None if self.value is None or not self.step else abs(self.value - self.original) / self.step


class Finding(Record):
    """A fault of a file that can be seen without running it."""

    rule: str = Field(description="id of the rule, `bnb-absmax-shape`")
    severity: Severity = Field(description="an error ruins the model; a warning may")
    where: str = Field(description="the file, and the tensor or key in it")
    found: str = Field(description="what is wrong: expected, and found")
    advice: str = Field(description="what to do")


class ArtefactCheck(Record):
    """One artefact, looked at without running it."""

    artefact: str = Field(description="path")
    format: str = Field(description="what holds its weights, in words")
    reference: str = Field(default="", description="the uncompressed model; empty if there was none")
    promise: str = Field(default="", description="exact, within-step or a bound in per cent")
    named_by: str = Field(default="", description="who named the super weights: card, detection, a file")
    bytes: int = Field(description="size on disk of all its files")
    read: int = Field(default=0, description="bytes of tensors that were looked at")
    seconds: float = 0.0
    super_weights: list[CheckedWeight] = Field(default_factory=list)
    findings: list[Finding] = Field(default_factory=list)
    unchecked: dict[str, str] = Field(default_factory=dict, description="rules that could not be applied, and why")

    format_only: bool = Field(default=False, description="whether nothing was asked but the rules of the format")

    @property
    def broken(self) -> bool:
        """Whether a super weight is not what was promised, or a rule found an error."""
        lost = any(not weight.kept for weight in self.super_weights if weight.outcome != "cannot-tell")
        return lost or any(finding.severity == "error" for finding in self.findings)

    @property
    def cannot_tell(self) -> bool:
        """Whether some super weight cannot be told, or there was none to look for."""
        return not self.super_weights or any(weight.outcome == "cannot-tell" for weight in self.super_weights)

    @property
    def answer(self) -> Answer:
        """As promised, not so, or not known: a rule that could not be applied is no rule that was kept."""
        if self.broken:
            return "broken"
        asked = self.cannot_tell and not self.format_only
        return "cannot-tell" if asked or self.unchecked else "kept"


Load = Literal["default", "dequantised"]


class RoundTrip(Record):
    """An artefact loaded again by transformers, beside the recipe applied to the model in memory."""

    load: Load = Field(description="default: as from_pretrained does it; dequantised: weights decoded while loading")
    failure: str = Field(default="", description="what transformers said, if it did not load or run")
    parameters: int = Field(default=0, description="of the model, tied ones counted once")
    differing: dict[str, int] = Field(
        default_factory=dict, description="parameters that hold other numbers than in memory, and how many"
    )
    activations: Literal["as they are", "quantised", "partly quantised", "unknown"] = "unknown"
    quantising: int = Field(default=0, description="modules seen to quantise their input in this load")
    expected: int = Field(default=0, description="modules that the recipe says quantise their input")
    logits: float | None = Field(
        default=None,
        description="largest difference of a logit from the recipe in memory, with activations as this load has them",
    )
    largest: float | None = Field(default=None, description="largest magnitude of those logits")
    changed_choices: int = Field(default=0, description="positions at which another token is ranked first")
    positions: int = 0
    note: str = Field(default="", description="why a difference is no fault; empty if there should be none")
    tools: dict[str, str] = Field(default_factory=dict, description="versions of what loaded it")

    @property
    def equal(self) -> bool:
        """Whether every number and every logit is the recipe's."""
        return not self.failure and self.parameters > 0 and not self.differing and self.logits == 0.0

    def __str__(self) -> str:
        if self.failure:
            return f"{self.load} load: failed: {self.failure}"
        weights = f"{self.parameters - len(self.differing)} of {self.parameters} parameters equal"
        logits = "logits equal bit for bit" if self.logits == 0 else f"logits differ by up to {self.logits:.3g}"
        return f"{self.load} load: {weights}; {logits}; activations {self.activations}"
