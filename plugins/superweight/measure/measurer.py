"""Measure cells on demand: one model at a time, each figure once, failures written down."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterable, MutableMapping
from contextlib import suppress

import torch

from superweight.cards import Cell, Library, ModelCard, TierPerplexity, TierTask, baseline_recipe
from superweight.checkpoint import Cache
from superweight.errors import InfraError, SuperweightError
from superweight.evidence import CellEvidence, Failure, Store
from superweight.measure.environment import default_device
from superweight.measure.model_in_measurement import ModelInMeasurement
from superweight.measure.quality import QualityFigures, Stop
from superweight.measure.reference import Reference
from superweight.measure.runners import OpenRunner, open_runner
from superweight.progress import Step, Watch


class CellMeasurer:
    """Measures cells on demand and writes what it finds, or why it could not, into their evidence.

    Args:
        library: all cards.
        evidence: evidence by cell id; filled here.
        device: `cpu`, `cuda`, `cuda:N`; CUDA where there is one if not given.
        dtype: arithmetic of forward passes; the model card's, else the checkpoint's own, if not given.
        cache: where checkpoints and data are kept.
        store: where figures are written down as they are measured, and found again; None to keep none.
        stop: when a figure may end early; never if not given. Baselines are always measured in full.
        watch: told what is measured, as it begins and as it goes on.
        open_runner: makes what runs a cell; by the recipe's kind if not given.

    """

    def __init__(
        self,
        library: Library,
        evidence: MutableMapping[str, CellEvidence],
        *,
        device: str | None = None,
        dtype: str | None = None,
        cache: Cache | None = None,
        store: Store | None = None,
        stop: Stop | None = None,
        watch: Watch = lambda _: None,
        open_runner: OpenRunner = open_runner,
    ) -> None:
        self.library = library
        self.evidence = evidence
        self.device = device or default_device()
        self.dtype = dtype
        self.cache = cache or Cache()
        self.store = store
        self.stop = stop
        self.watch = watch
        self.open_runner = open_runner
        self._open_model: ModelInMeasurement | None = None
        self._current = ""  # the cell at hand, for preparations that take long
        self._broken: dict[str, InfraError] = {}
        self._done: dict[tuple[str, str], InfraError | None] = {}
        self._ahead: dict[str, list[TierPerplexity | TierTask]] = {}

    def plan(self, model_id: str, entries: Iterable[TierPerplexity | TierTask]) -> None:
        """Say what will be asked of a model, so that its baseline is measured before the first recipe is applied."""
        self._ahead[model_id] = list(entries)

    def detection(self, cell: Cell) -> None:
        """Find the model's super weights and confirm them; kept on the baseline cell."""
        baseline = self._baseline(cell)
        self._once(baseline, "detection", lambda model, evidence: model.detect_into(baseline, evidence))

    def sanity(self, cell: Cell) -> None:
        """Apply the recipe and compare every parameter, and every super weight, with the checkpoint's."""
        self._once(cell, "sanity", lambda model, evidence: model.inspect_into(cell, evidence), before=self._prepare)

    def perplexity(self, cell: Cell, entry: TierPerplexity) -> None:
        """Perplexity of one corpus; before that of the baseline, and the baseline's again in another way."""
        self._compared(cell, f"perplexity:{entry.corpus}", entry)

    def zero_shot(self, cell: Cell, entry: TierTask) -> None:
        """One zero-shot task; before that of the baseline, and the baseline's again in another way."""
        self._compared(cell, f"zero-shot:{entry.task}", entry)

    def noise(self, cell: Cell, entry: TierPerplexity | TierTask) -> None:
        """How much the baseline's figure moves when nothing but the way of computing it changes."""
        baseline = self._baseline(cell)
        stage = f"noise:{_gate(entry)}"
        self._once(baseline, stage, lambda model, evidence: model.measure_again(baseline, evidence, entry))

    def close(self) -> None:
        """Let go of the model in memory, and of what runs it."""
        if self._open_model is not None:
            self._open_model.close()
        self._open_model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _compared(self, cell: Cell, stage: str, entry: TierPerplexity | TierTask) -> None:
        baseline = self._baseline(cell)

        def baseline_first(cell: Cell) -> None:
            if cell.id != baseline.id:
                self._prepare(cell)
                self._once(baseline, stage, lambda model, evidence: model.measure_into(baseline, evidence, entry))
                with suppress(InfraError):  # written down on the baseline
                    self.noise(cell, entry)

        self._once(
            cell, stage, lambda model, evidence: model.measure_into(cell, evidence, entry), before=baseline_first
        )

    def _prepare(self, cell: Cell) -> None:
        """What must stand before a recipe is applied: what it has to protect, and the figures it is compared with."""
        self.detection(cell)
        self._measure_ahead(cell)

    def _measure_ahead(self, cell: Cell) -> None:
        for entry in self._ahead.pop(cell.model.id, []):
            measure = self.perplexity if isinstance(entry, TierPerplexity) else self.zero_shot
            try:
                measure(self._baseline(cell), entry)  # type: ignore[arg-type]
                self.noise(cell, entry)
            except InfraError:
                continue  # written down on the baseline; raised again when it is asked for

    def _baseline(self, cell: Cell) -> Cell:
        return Cell(cell.model, baseline_recipe(self.library))

    def _once(
        self,
        cell: Cell,
        stage: str,
        measure: Callable[[ModelInMeasurement, CellEvidence], None],
        before: Callable[[Cell], None] = lambda _: None,
    ) -> None:
        """Run a measurement, and first what it rests on, unless it was run before.

        What failed is written down on this cell, whichever part of it failed, and fails again with the same words.
        """
        known = (cell.id, stage)
        if known in self._done:
            if (error := self._done[known]) is not None:
                raise error
            return
        evidence = self.evidence.setdefault(cell.id, CellEvidence.of(cell))
        started = time.perf_counter()
        try:
            before(cell)
            started = time.perf_counter()
            self._current = cell.id
            self.watch(Step(cell.id, stage))
            measure(self._open(cell.model), evidence)
            self._done[known] = None
        except Exception as error:
            failure = _failure(stage, error)
            self._done[known] = failure
            evidence.failures.append(Failure(stage=stage, reason=failure.reason, message=str(failure)))
            raise failure from error
        finally:
            evidence.seconds[stage] = time.perf_counter() - started

    def _open(self, model: ModelCard) -> ModelInMeasurement:
        """Load a model, letting go of the one before; one that cannot be loaded is not tried twice."""
        if model.id in self._broken:
            raise self._broken[model.id]
        if self._open_model is None or self._open_model.reference.card.id != model.id:
            self.close()
            try:
                reference = Reference(
                    model,
                    self.library,
                    self.cache,
                    device=self.device,
                    dtype=self.dtype,
                    store=self.store,
                    step=lambda stage, done, planned: self.watch(Step(self._current, stage, done, planned)),
                )
            except Exception as error:
                self._broken[model.id] = _failure("loading", error)
                raise self._broken[model.id] from error
            figures = QualityFigures(reference, self.stop, self.watch)
            self._open_model = ModelInMeasurement(reference, figures, self.open_runner)
        return self._open_model


def _gate(entry: TierPerplexity | TierTask) -> str:
    return f"perplexity:{entry.corpus}" if isinstance(entry, TierPerplexity) else f"zero-shot:{entry.task}"


def _failure(stage: str, error: Exception) -> InfraError:
    """What went wrong, as it is written down: in its own words if it was foreseen, else where it crashed."""
    if isinstance(error, InfraError):
        return error
    if isinstance(error, SuperweightError):
        return InfraError(str(error), reason="bad-card")
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{where.filename.rsplit('/', 1)[-1]}:{where.lineno}"
    return InfraError(f"{stage} crashed at {place}: {type(error).__name__}: {error}", reason="crash")
