"""What is measured on one cell: figures and items, never a judgement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from superweight.cards.base import Coordinate
from superweight.cards.cells import Cell
from superweight.cards.methods import Method, method_of
from superweight.cards.model import ControlVerdict, Role
from superweight.cards.promise import EXACT, Promise, PromiseText, lost
from superweight.evidence.artefact import Finding, Outcome
from superweight.evidence.record import Record as Record
from superweight.ids import CellId

Point = Literal["memory", "file", "reload"]
"""Where a compressed model is looked at: while it is held in memory, in its files, and after those were loaded."""


class Failure(Record):
    """A measurement that could not be made."""

    stage: str = Field(description="what was being done: checkpoint, detection, recipe, perplexity:…, zero-shot:…")
    reason: str = Field(description="machine-readable class, `crash` if unforeseen")
    message: str


class Perplexity(Record):
    """Perplexity of one corpus under one protocol."""

    value: float
    protocol: str
    corpus: str
    origin: str = Field(description="where the text came from")
    window: int = Field(description="tokens a window")
    windows: int = Field(description="windows that were measured")
    planned: int = Field(default=0, description="windows that would have been measured without stopping early")
    tokens: int = Field(description="tokens that were predicted")
    nll: list[float] = Field(
        description="mean negative log-likelihood of each window, nats a token, in the order of the text"
    )
    index: list[int] = Field(default_factory=list, description="which window of the text each is; 0, 1, 2, … if empty")
    kl: list[float] = Field(
        default_factory=list,
        description="of each window: mean Kullback-Leibler divergence from the baseline's next-token distribution, "
        "nats a token; empty if not measured",
    )
    agreement: list[float] = Field(
        default_factory=list, description="of each window: share of tokens on which both models rank the same one first"
    )
    tokens_sha256: str = Field(description="of the token ids of all planned windows")
    vocabulary: int = Field(
        default=0, description="tokens that the model chooses among, the perplexity of guessing; 0 if not known"
    )
    key: str = Field(default="", description="hash of everything that this figure depends on")

    @property
    def is_guessing(self) -> bool:
        """Whether a guess among all tokens would do no worse."""
        return 0 < self.vocabulary <= self.value

    def by_window(self, values: Sequence[float]) -> dict[int, float]:
        """Per-window values keyed by the window's place in the text."""
        return dict(zip(self.index or range(len(values)), values, strict=True))


class ZeroShot(Record):
    """One lm-eval task; the items are kept beside it in a table."""

    model_config = ConfigDict(extra="allow", ser_json_inf_nan="constants")

    task: str
    metric: str = Field(description="the metric that is gated")
    n: int = Field(description="items that were asked")
    planned: int = Field(default=0, description="items that would have been asked without stopping early")
    data: str = Field(description="where the rows came from and which split they are")
    higher_is_better: bool = True
    metrics: dict[str, float] = Field(default_factory=dict)
    stderr: dict[str, float] = Field(
        default_factory=dict, description="standard errors of those metrics that are means, as lm-eval computes them"
    )
    version: str = Field(default="", description="lm-eval's task version and lm-eval's own")
    num_fewshot: int = 0
    key: str = Field(default="", description="hash of everything that this figure depends on")
    warnings: list[str] = Field(default_factory=list, description="what a reader of the figure must know")
    left_out: list[dict[str, Any]] = Field(
        default_factory=list, description="rows that cannot be asked: doc_id, text and reason; they are no items"
    )
    items: list[dict[str, Any]] = Field(default_factory=list, exclude=True, repr=False)

    @model_validator(mode="after")
    def _metric_is_there(self) -> Self:
        if self.metric not in self.metrics:
            raise ValueError(f"the gated metric {self.metric!r} is not among {', '.join(self.metrics) or 'none'}")
        return self

    @property
    def value(self) -> float:
        """The gated metric."""
        return self.metrics[self.metric]

    @property
    def unanswered(self) -> int:
        """Items on which the model gave no finite log-likelihood to any choice, and so no answer."""
        choices = [item["loglikelihoods"] for item in self.items if item.get("loglikelihoods")]
        return sum(not any(math.isfinite(value) for value in values) for values in choices)

    def scores(self) -> dict[str, float]:
        """The gated metric item by item, keyed by `doc_id:doc_hash`."""
        return {item_key(item): float(item[self.metric]) for item in self.items}


def item_key(item: Mapping[str, Any]) -> str:
    """What tells that two models were asked the same question."""
    return f"{item['doc_id']}:{item['doc_hash']}"


class Noise(Record):
    """An A/A repeat: the uncompressed model measured again in another way, which should change nothing."""

    variation: str = Field(description="what was different: kernel, batch, device, seed")
    n: int = Field(description="windows or items that were repeated")
    value: float = Field(description="the repeat's figure")
    reference: float = Field(description="the same items' figure in the run itself")
    mean: float = Field(description="mean paired difference, repeat minus run: nats a token, or the metric's unit")
    sd: float = Field(description="standard deviation of the paired differences")
    changed: int = Field(description="windows or items whose figure is not the same")


class StoredPoint(Record):
    """What one scalar is at one point of a compressed model's way."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=True)

    point: Point
    value: float | None = Field(default=None, description="None if it cannot be told")
    bits: str = Field(default="", description="hexadecimal, in `dtype`")
    dtype: str = ""
    step: float | None = Field(
        default=None, description="distance to the nearest other value that the format can hold there"
    )
    code: str = Field(default="", description="what is stored, in words: `13 of 0 to 15`")
    held_by: str = Field(default="", description="what was looked at, and how")
    outcome: Outcome
    reason: str = Field(default="", description="why it cannot be told")
    corrupt: bool = Field(default=False, description="whether it cannot be told since the file contradicts itself")


class StoredWeight(Coordinate):
    """A super weight before and after a recipe, compared as bits."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=False, allow_inf_nan=True)

    status: str
    origin: str = Field(description="who named it: card, detection, or both")
    dtype: str
    original: float
    original_bits: str = Field(description="hexadecimal")
    stored: float = Field(description="at the last point where it can be told")
    stored_bits: str
    survived: bool = Field(description="whether it is exactly the original at every point")
    reloaded: float | None = Field(default=None, description="after the files were loaded by their own runtime")
    reloaded_bits: str | None = None
    points: list[StoredPoint] = Field(
        default_factory=list, description="where it was looked at: in memory, in the file, after reload"
    )
    disagreement: str = Field(
        default="", description="how the file and what was loaded from it contradict each other; mostly they do not"
    )

    @property
    def contradicted(self) -> bool:
        """Whether a file contradicts itself, or what was loaded from it."""
        return bool(self.disagreement) or any(point.corrupt for point in self.points)

    def kept(self, promise: Promise) -> bool | None:
        """Whether it is what was promised, at every point where it can be told; None if that cannot be told of any.

        A file that contradicts itself, or what was loaded from it, keeps nothing.
        """
        if self.contradicted:
            return False
        told = [point for point in self.points if point.value is not None]
        if promise.kind == "exact" and all(point.point == "memory" for point in told):
            return self.survived
        seen = [(point.value, point.step) for point in told] or [(self.stored, None)]
        judged = [_kept(promise, self.original, value, step) for value, step in seen if value is not None]
        return False if False in judged else None if None in judged else True

    def describe(self, promise: Promise | None = None) -> str:
        """Coordinates, expected and found value and bits, in one line."""
        kept = self.survived if promise is None else self.kept(promise)
        word = "survived" if self.survived else {True: "kept", False: "LOST", None: "CANNOT TELL"}[kept]
        head = f"{word}: {self} ({self.status}, {self.dtype}) expected {self.original!r} ({self.original_bits}), found "
        if [point.point for point in self.points] in ([], ["memory"]):
            return f"{head}{self.stored!r} ({self.stored_bits}){self._clause(self.stored, None)}"
        found = [self._at(point) for point in self.points]
        return head + "; ".join([*found, *([self.disagreement] if self.disagreement else [])])

    def _at(self, point: StoredPoint) -> str:
        where = {"memory": "in memory", "file": "in the file", "reload": "after reload"}[point.point]
        if point.value is None:
            return f"{where} cannot tell: {point.reason}"
        return f"{where} {point.value!r} ({point.bits} {point.dtype}){self._clause(point.value, point.step)}"

    def _clause(self, value: float, step: float | None) -> str:
        off = self.off(value, step)
        return f", off by {off}" if off else ""

    def off(self, value: float, step: float | None) -> str:
        """How far a value is from the original, in per cent and in steps, `+0.52% or 0.64 steps`; empty for none."""
        off = value - self.original
        if not off:
            return ""
        percent = [f"{off / self.original:+.2%}"] if self.original else []
        steps = [f"{abs(off) / step:.2f} steps"] if step else []
        return " or ".join([*percent, *steps])


def _kept(promise: Promise, original: float, value: float, step: float | None) -> bool | None:
    if promise.kind == "within-step" and step is None and value != original and not lost(original, value):
        return None
    return promise.kept(original, value, step)


class Sanity(Record):
    """Whether a recipe did what it says and nothing else."""

    declared: list[str] = Field(description="parameters the recipe says it changed")
    changed: list[str] = Field(description="parameters whose bits did change")
    undeclared: list[str] = Field(description="changed without being declared")
    unchanged: list[str] = Field(description="declared but bit for bit the same")
    hooks: list[str] = Field(default_factory=list, description="modules whose activations the recipe changes")
    non_finite: list[str] = Field(default_factory=list, description="parameters that hold NaN or infinity")


class Peak(Record):
    """An entry of largest magnitude."""

    value: float
    channel: int
    token: int
    bos: bool = Field(description="whether it was in the prompt with BOS")


class LayerPeaks(Record):
    """The largest entries at one decoder layer, on detection's prompt."""

    layer: int
    down_input: Peak = Field(description="of the down projection's input")
    down_output: Peak = Field(description="of what it gives")
    residual: Peak = Field(description="of the residual stream after the layer")
    residual_median: float = Field(description="median magnitude of the residual stream after the layer")


class SuperActivation(Record):
    """A massive entry of the residual stream, on detection's prompt."""

    model_config = ConfigDict(extra="allow")

    layer: int = Field(description="index of the decoder layer that writes it")
    module: str = Field(default="", description="name of the parameter that writes it")
    token: int | None = Field(default=None, description="position in the prompt, BOS included")
    token_id: int | None = None
    token_text: str = ""
    bos: bool | None = Field(default=None, description="whether the prompt began with BOS")
    channel: int = Field(description="of the residual stream: the row of the super weights that write it")
    value: float = Field(description="the entry after the layer")
    first_layer: int | None = Field(default=None, description="first of the layers that leave half of it or more")
    last_layer: int | None = Field(default=None, description="last of them")
    peak: float | None = Field(default=None, description="its largest magnitude after any layer, with its sign")
    peak_layer: int | None = Field(default=None, description="the layer after which it has that magnitude")


class ExaminedWeight(Coordinate):
    """A weight that detection examined, with its standing."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=False, allow_inf_nan=True)

    value: float | None = Field(default=None, description="the stored scalar")
    bits: str = Field(default="", description="its bits, hexadecimal")
    dtype: str = ""
    status: str = Field(description="causal, spoke or inert")
    effect: float | None = Field(
        default=None, description="perplexity when it alone is zeroed over that of the untouched model"
    )
    interval: tuple[float, float] | None = Field(default=None, description="two-sided, 98 %, of `effect`")
    group: str | None = Field(default=None, description="the group it was zeroed with: column, row or all")
    group_effect: float | None = Field(default=None, description="perplexity ratio when that group is zeroed")
    null_effect: float | None = Field(default=None, description="largest ratio of as many equally large other weights")
    activation: int | None = Field(default=None, description="index into `super_activations`")
    contribution: float | None = Field(default=None, description="its share of the entry that it writes")
    input_value: float | None = Field(default=None, description="what it multiplies there")
    suppression: float | None = Field(
        default=None, description="share of the super activation's peak that goes when it alone is zeroed"
    )
    origin: str = Field(default="", description="detection, or card if only that names it")
    value_differs: bool | None = Field(
        default=None, description="whether the model card gives another value; missing where it gives none"
    )

    @property
    def is_super(self) -> bool:
        """Whether ablation confirmed it: a compressed model must keep it."""
        return self.status in ("causal", "spoke")

    @model_serializer(mode="wrap")
    def _without_unknown(self, handler: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def] # noqa: ANN202
        """As it was measured; a return type here would be all that the JSON Schema says of this."""
        fields = handler(self)
        return {name: value for name, value in fields.items() if name != "value_differs" or value is not None}


class ClaimedWeight(Coordinate):
    """A super weight that a model card names."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=False, allow_inf_nan=True)

    value: float | None = Field(default=None, description="as it was published")
    status: str = Field(description="causal, spoke, inert, listed or corrected")
    source: str = Field(default="", description="who says so")


class ZeroedGroup(Record):
    """Weights that detection zeroed together."""

    model_config = ConfigDict(extra="allow")

    kind: str = Field(description="column: they share an input column; row: an output row; all: every candidate")
    members: list[Coordinate] = Field(default_factory=list)
    effect: float | None = Field(default=None, description="perplexity ratio when all members are zeroed")
    without_causal: float | None = Field(default=None, description="ratio when only those not causal are zeroed")
    null_effect: float | None = Field(default=None, description="largest ratio of as many equally large other weights")


class DetectionEvidence(Record):
    """What detection found in the uncompressed model, beside what its card claims."""

    model_config = ConfigDict(extra="allow")

    super_weights: list[ExaminedWeight] = Field(default_factory=list, description="causal, then spokes, then inert")
    super_activations: list[SuperActivation] = Field(default_factory=list, description="entries that they write")
    groups: list[ZeroedGroup] = Field(default_factory=list)
    peaks: list[LayerPeaks] = Field(default_factory=list, description="by layer")
    perplexity: float | None = Field(default=None, description="of the untouched model on the confirmation text")
    tokens: int | None = Field(default=None, description="predicted tokens of that text")
    prompt: str = Field(default="", description="the prompt that was traced")
    rounds: int | None = Field(default=None, description="passes over the prompt until no new candidate appeared")
    settings: dict[str, float] = Field(default_factory=dict, description="thresholds")
    card: list[ClaimedWeight] = Field(default_factory=list, description="super weights that the model card names")
    known: bool = Field(default=False, description="whether the card makes a claim at all")

    @property
    def confirmed(self) -> list[ExaminedWeight]:
        """The super weights: what ablation confirmed."""
        return [weight for weight in self.super_weights if weight.is_super]


class Size(Record):
    """Bits per weight, scales and side tables included."""

    model_config = ConfigDict(extra="allow")

    compressed_bits_per_weight: float = Field(description="over the weights that the recipe compresses")
    model_bits_per_weight: float = Field(description="over every parameter of the model")


class Coverage(Record):
    """How much of the decoder layers a recipe sees, and what it leaves alone on purpose."""

    share: float = Field(description="linear weights' share of the decoder layers' parameters, from 0 to 1")
    by_kind: dict[str, float] = Field(
        default_factory=dict,
        description="share by kind: attention, mlp, expert, other (these are compressed), router, vector, left alone, "
        "unknown",
    )
    left_alone: dict[str, str] = Field(
        default_factory=dict,
        description="matrices and tables that no recipe compresses, and why; * for a layer's number",
    )
    unknown: list[str] = Field(default_factory=list, description="what was not understood, with its shape")


class CellEvidence(Record):
    """Everything measured on one model under one recipe."""

    model: str
    recipe: str
    role: Role
    why: str = ""
    expects: ControlVerdict | None = None
    promises: bool = False
    promise: PromiseText = Field(
        default=EXACT, description="when a super weight counts as kept: exact, within-step, or a bound in per cent"
    )
    beside: str | None = Field(default=None, description="the candidate that a reference is shown beside")
    key: str = Field(default="", description="hash of everything that the figures depend on")
    checkpoint: dict[str, Any] = Field(
        default_factory=dict, description="origin, content hash, dtype, arithmetic, device"
    )
    recipe_parameters: dict[str, Any] = Field(default_factory=dict)
    stands_in: str = Field(
        default="",
        description="kind of recipe that recipe_parameters stand in for, since no super weight is known; mostly none",
    )
    recipe_figures: dict[str, Any] = Field(
        default_factory=dict, description="what the recipe chose or counted on the way"
    )
    detection: DetectionEvidence | None = Field(
        default=None, description="super weights and activations; on the baseline only"
    )
    super_weights: list[StoredWeight] = Field(default_factory=list)
    format_findings: list[Finding] = Field(
        default_factory=list, description="faults of an artefact's files that show without running it"
    )
    format_unchecked: dict[str, str] = Field(
        default_factory=dict, description="rules on files that could not be applied, and why"
    )
    peaks: list[LayerPeaks] = Field(
        default_factory=list, description="by layer, under the recipe; empty where they could not be traced"
    )
    sanity: Sanity | None = None
    size: Size | None = None
    coverage: Coverage | None = Field(default=None, description="of the model; the same under every recipe")
    perplexity: dict[str, Perplexity] = Field(default_factory=dict, description="by corpus")
    zero_shot: dict[str, ZeroShot] = Field(default_factory=dict, description="by task")
    noise: dict[str, Noise] = Field(
        default_factory=dict, description="A/A repeats by gate, `perplexity:wiki`; on the baseline only"
    )
    reused: dict[str, str] = Field(
        default_factory=dict, description="stages whose figures were taken from the store, and when they were measured"
    )
    failures: list[Failure] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict, description="time spent by stage")

    @classmethod
    def of(cls, cell: Cell) -> CellEvidence:
        """A cell of which nothing is known yet."""
        return cls(
            model=cell.model.id,
            recipe=cell.recipe.id,
            role=cell.role,
            why=cell.why,
            expects=cell.expects,
            promises=cell.promises,
            promise=str(cell.recipe.kept_means),
            beside=cell.recipe.beside,
            recipe_parameters=cell.recipe.method.model_dump(mode="json"),
        )

    @property
    def method(self) -> Method | None:
        """What was done to the model; None if no package at hand has a kind of recipe that reads the parameters."""
        return method_of(self.recipe_parameters)

    @property
    def lost_super_weights(self) -> list[StoredWeight]:
        """Super weights that are not what the recipe's promise, binding or not, says; or of which that is not known."""
        promise = Promise.of(self.promise)
        return [weight for weight in self.super_weights if weight.kept(promise) is not True]

    @property
    def not_applicable(self) -> bool:
        """Whether this is a reference that has nothing to show on this model."""
        return self.role == "reference" and any(failure.reason == "not-applicable" for failure in self.failures)

    @property
    def id(self) -> str:
        """`model/recipe`."""
        return str(CellId(self.model, self.recipe))


Verdict = Literal["PASS", "REGRESSION", "INCONCLUSIVE", "INFRA"]
