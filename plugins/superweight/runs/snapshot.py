"""A snapshot: what one run measured on one model, small enough to commit, in enough detail to compare item by item."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import ConfigDict, Field, ValidationError, model_validator

from superweight.cards.base import Coordinate
from superweight.cards.model import Role
from superweight.errors import InfraError
from superweight.evidence.compact import compact_json
from superweight.evidence.measured import CellEvidence, Noise, Perplexity, Record, StoredWeight, Verdict, ZeroShot
from superweight.evidence.moment import moment
from superweight.evidence.recomputed import perplexity_fits, score_fits
from superweight.evidence.seal import seal_of, sealed
from superweight.evidence.write import write_text
from superweight.plain_files import read_plain_text

SNAPSHOT_VERSION = "1.1"
_SEALED_SINCE = "1.1"

_HASH_DIGITS = 8  # of an item's hash; together with the item's number, enough to tell that a task was edited
_ROW = 100  # answers a line
_NOT_ASKED = "."


class CheckpointIdentity(Record):
    """Which weights were measured, and in which arithmetic."""

    content_hash: str = ""
    origin: str = ""
    dtype: str = ""
    compute_dtype: str = ""


class KeptWeight(Coordinate):
    """A super weight's bits before and after a recipe."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=False, allow_inf_nan=True)

    original: str = Field(description="bits in the checkpoint, hexadecimal")
    stored: str = Field(description="bits after compression")
    survived: bool = Field(description="whether it is kept, as its recipe promises or would")


class PerplexityFigure(Record):
    """Perplexity of one corpus with the mean negative log-likelihood of every window, in the order of the text."""

    value: float
    protocol: str
    window: int = Field(description="tokens a window")
    planned: int = Field(description="windows that would have been measured without stopping early")
    tokens_sha256: str = Field(description="of the token ids of all planned windows")
    kl: float | None = Field(default=None, description="mean divergence from the uncompressed model, nats a token")
    agreement: float | None = Field(default=None, description="share of tokens on which both rank the same one first")
    index: list[int] = Field(default_factory=list, description="which windows; the first so many if empty")
    nll: list[float] = Field(description="nats a token")

    @classmethod
    def of(cls, figure: Perplexity) -> PerplexityFigure:
        """The figure without what a comparison does not need."""
        by_window = sorted(figure.by_window(figure.nll).items())
        index = [window for window, _ in by_window]
        return cls(
            value=figure.value,
            protocol=figure.protocol,
            window=figure.window,
            planned=figure.planned or len(index),
            tokens_sha256=figure.tokens_sha256,
            kl=_mean(figure.kl),
            agreement=_mean(figure.agreement),
            index=[] if index == list(range(len(index))) else index,
            nll=[nll for _, nll in by_window],
        )

    def by_window(self) -> dict[int, float]:
        """Nats a token, keyed by the window's place in the text."""
        return dict(zip(self.index or range(len(self.nll)), self.nll, strict=True))

    @model_validator(mode="after")
    def _windows_have_one_figure_each(self) -> Self:
        if self.index and len(set(self.index)) != len(self.nll):
            raise ValueError(f"{len(self.nll)} figures for {len(set(self.index))} windows")
        return self


class TaskFigure(Record):
    """One zero-shot metric with the score of every item, in the order of the snapshot's list of items."""

    metric: str
    higher_is_better: bool = True
    value: float
    n: int = Field(description="items that were asked")
    planned: int = Field(description="items that would have been asked without stopping early")
    answers: list[str] = Field(
        default_factory=list, description=f"scores of 0 and 1 as digits, in rows; '{_NOT_ASKED}' was not asked"
    )
    scores: list[float | None] = Field(
        default_factory=list, description="scores that are not all 0 or 1; null was not asked"
    )

    @classmethod
    def of(cls, figure: ZeroShot, items: Sequence[str]) -> TaskFigure:
        """The figure with its scores in the order of `items`."""
        by_item = _scores(figure)
        scores = [by_item.get(item) for item in items] if by_item else []
        binary = all(score in (None, 0.0, 1.0) for score in scores)
        text = "".join(_NOT_ASKED if score is None else f"{score:.0f}" for score in scores) if binary else ""
        return cls(
            metric=figure.metric,
            higher_is_better=figure.higher_is_better,
            value=figure.value,
            n=figure.n,
            planned=figure.planned or figure.n,
            answers=[text[start : start + _ROW] for start in range(0, len(text), _ROW)],
            scores=[] if binary else scores,
        )

    def aligned(self) -> list[float | None]:
        """One score an item, None where it was not asked; empty if scores were not kept."""
        if not self.answers:
            return list(self.scores)
        return [None if answer == _NOT_ASKED else float(answer) for row in self.answers for answer in row]


class CellFigures(Record):
    """What one recipe made of the model."""

    role: Role
    promises: bool = Field(default=False, description="whether every super weight must keep its bits")
    key: str = Field(default="", description="hash of everything that the figures depend on")
    super_weights: list[KeptWeight] = Field(default_factory=list)
    bits_per_weight: float | None = Field(default=None, description="over the weights that the recipe compresses")
    model_bits_per_weight: float | None = Field(default=None, description="over every parameter of the model")
    perplexity: dict[str, PerplexityFigure] = Field(default_factory=dict, description="by corpus")
    zero_shot: dict[str, TaskFigure] = Field(default_factory=dict, description="by task")
    failures: dict[str, str] = Field(default_factory=dict, description="why a stage was not measured")


class Snapshot(Record):
    """What one run measured on one model."""

    schema_version: str
    model: str
    tier: str
    taken: str = Field(description="when the run was started; ISO 8601, UTC")
    promoted: str = Field(default="", description="when it became the release baseline; empty if it is none")
    verdict: Verdict = Field(description="of the run")
    whole: bool = Field(default=True, description="whether the run was asked for everything in its tier")
    commit: str = ""
    command: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    checkpoint: CheckpointIdentity = Field(default_factory=CheckpointIdentity)
    noise: dict[str, Noise] = Field(default_factory=dict, description="A/A repeats by gate, on the uncompressed model")
    items: dict[str, list[str]] = Field(
        default_factory=dict, description="of each task: the items' numbers and how their hashes begin"
    )
    cells: dict[str, CellFigures] = Field(default_factory=dict, description="by recipe")
    doubts: list[str] = Field(
        default_factory=list, exclude=True, description="found on reading: why nothing may count as no worse than this"
    )

    def scores(self, recipe: str, task: str) -> dict[str, float]:
        """The score of every item that was asked; empty if the scores were not kept."""
        figure = self.cells[recipe].zero_shot[task]
        aligned = figure.aligned()
        return (
            {item: score for item, score in zip(self.items[task], aligned, strict=True) if score is not None}
            if aligned
            else {}
        )

    @property
    def baseline(self) -> CellFigures | None:
        """The uncompressed model's figures."""
        return next((cell for cell in self.cells.values() if cell.role == "baseline"), None)

    @model_validator(mode="after")
    def _scores_belong_to_items(self) -> Self:
        for recipe, cell in self.cells.items():
            for task, figure in cell.zero_shot.items():
                found, expected = len(figure.aligned()), len(self.items.get(task, []))
                if found not in (0, expected):
                    raise ValueError(f"cells.{recipe}.zero_shot.{task}: {found} scores for {expected} items")
        return self


def snapshot_of(
    model: str,
    cells: Sequence[CellEvidence],
    *,
    tier: str,
    taken: str,
    verdict: Verdict,
    whole: bool = True,
    commit: str = "",
    command: str = "",
    environment: Mapping[str, str] | None = None,
) -> Snapshot:
    """What a run measured on one model.

    Args:
        model: model id.
        cells: evidence of the run; cells of other models are left out.
        tier: of the run.
        taken: when the run was started, ISO 8601.
        verdict: of the run.
        whole: whether the run was asked for everything in its tier.
        commit: of the project that was gated.
        command: that started the run.
        environment: machine, device, library versions.

    """
    measured = [cell for cell in cells if cell.model == model]
    baseline = next((cell for cell in measured if cell.role == "baseline"), None)
    identity = next((cell.checkpoint for cell in ([baseline] if baseline else []) + measured if cell.checkpoint), {})
    tasks = sorted({task for cell in measured for task in cell.zero_shot})
    items = {task: _item_list(cell.zero_shot[task] for cell in measured if task in cell.zero_shot) for task in tasks}
    return Snapshot(
        schema_version=SNAPSHOT_VERSION,
        model=model,
        tier=tier,
        taken=taken,
        verdict=verdict,
        whole=whole,
        commit=commit,
        command=command,
        environment=dict(sorted((environment or {}).items())),
        checkpoint=CheckpointIdentity(
            **{name: str(identity.get(name) or "") for name in CheckpointIdentity.model_fields}
        ),
        noise=dict(sorted(baseline.noise.items())) if baseline else {},
        items=items,
        cells={cell.recipe: _figures(cell, items) for cell in sorted(measured, key=_baseline_first)},
    )


def snapshot_text(snapshot: Snapshot) -> str:
    """The snapshot as JSON whose lines are short and whose keys are always in the same order."""
    return compact_json(sealed(snapshot.model_dump(mode="python", exclude_none=True)))


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace a snapshot's file atomically.

    Raises:
        InfraError: as `write_text`.

    """
    write_text(path, snapshot_text(snapshot))


def read_snapshot(path: Path) -> Snapshot:
    """Read what `snapshot_text` wrote; `doubts` says if it is not as it was written, or contradicts itself.

    Raises:
        InfraError: no such file (`not-found`), or it holds something else, or it is damaged (`corrupt`), or a later
            version wrote it (`unsupported`).

    """
    expected = "expected a snapshot of a run, as `superweight baseline` writes it"
    try:
        text = read_plain_text(path)
        snapshot = Snapshot.model_validate_json(text)
        moment(snapshot.taken)
    except OSError as error:
        raise InfraError(f"{path}: cannot be read ({error.strerror}); {expected}.", reason="not-found") from error
    except UnicodeDecodeError as error:
        raise InfraError(f"{path}: is not text; {expected}.", reason="corrupt") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise InfraError(f"{path}: {where}: {first['msg']}; {expected}.", reason="corrupt") from error
    except ValueError as error:
        raise InfraError(f"{path}: taken: {error}; {expected}.", reason="corrupt") from error
    if snapshot.schema_version.split(".")[0] != SNAPSHOT_VERSION.split(".")[0]:
        raise InfraError(
            f"{path}: schema_version {snapshot.schema_version}, this is a reader of {SNAPSHOT_VERSION}; {expected} by "
            "this version. Promote a run again.",
            reason="unsupported",
        )
    return snapshot.model_copy(update={"doubts": [f"{path} {one}" for one in _doubts(snapshot, text)]})


def _doubts(snapshot: Snapshot, text: str) -> list[str]:
    """Why a snapshot is not relied on; one of an earlier version has no digest and is held against itself."""
    match seal_of(text, since=_SEALED_SINCE):
        case "intact":
            return []
        case "broken":
            return ["is not as it was written, since its digest does not fit: promote a run again"]
    found = []
    for recipe, cell in snapshot.cells.items():
        for corpus, text_figure in cell.perplexity.items():
            if not perplexity_fits(text_figure.value, text_figure.nll):
                found.append(f"contradicts itself: {recipe} perplexity:{corpus} is not that of its windows")
        for task, figure in cell.zero_shot.items():
            if not score_fits(figure.metric, figure.value, list(snapshot.scores(recipe, task).values())):
                found.append(f"contradicts itself: {recipe} zero-shot:{task} is not that of its items")
    return found


def _baseline_first(cell: CellEvidence) -> tuple[bool, str]:
    return (cell.role != "baseline", cell.recipe)


def _figures(cell: CellEvidence, items: Mapping[str, Sequence[str]]) -> CellFigures:
    return CellFigures(
        role=cell.role,
        promises=cell.promises,
        key=cell.key,
        super_weights=_kept_weights(cell),
        bits_per_weight=cell.size.compressed_bits_per_weight if cell.size else None,
        model_bits_per_weight=cell.size.model_bits_per_weight if cell.size else None,
        perplexity={corpus: PerplexityFigure.of(figure) for corpus, figure in sorted(cell.perplexity.items())},
        zero_shot={task: TaskFigure.of(figure, items[task]) for task, figure in sorted(cell.zero_shot.items())},
        failures={failure.stage: failure.reason for failure in cell.failures},
    )


def _kept_weights(cell: CellEvidence) -> list[KeptWeight]:
    lost = {weight.key for weight in cell.lost_super_weights}
    ordered = sorted(cell.super_weights, key=lambda weight: weight.key)
    return [_kept(weight, kept=weight.key not in lost) for weight in ordered]


def _kept(weight: StoredWeight, *, kept: bool) -> KeptWeight:
    return KeptWeight(
        layer=weight.layer,
        expert=weight.expert,
        row=weight.row,
        column=weight.column,
        original=weight.original_bits,
        stored=weight.stored_bits,
        survived=kept,
    )


def _item_list(figures: Iterable[ZeroShot]) -> list[str]:
    """Every item that any cell was asked, in the task's own order."""
    found = {_short(key) for figure in figures for key in figure.scores()}
    return sorted(found, key=lambda item: (_number(item), item))


def _number(item: str) -> float:
    number = item.partition(":")[0]
    return int(number) if number.isdecimal() else math.inf


def _scores(figure: ZeroShot) -> dict[str, float]:
    return {_short(key): score for key, score in figure.scores().items()}


def _short(key: str) -> str:
    number, _, digest = key.partition(":")
    return f"{number}:{digest[:_HASH_DIGITS]}"


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
