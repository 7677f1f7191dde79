"""The measurer of a run: what it must be able to do, and the one of this machine."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, MutableMapping
from typing import Protocol

from superweight.cards import Cell, TierPerplexity, TierTask
from superweight.evidence import CellEvidence, Store
from superweight.gate.plan import Plan
from superweight.gate.settings import Settings
from superweight.gc_pause import gc_paused
from superweight.progress import Watch

Stop = Callable[[CellEvidence, str], bool]


class Measurer(Protocol):
    """Measures cells and writes what it finds, or why it could not, into their evidence.

    Every method but `plan` raises `InfraError` for what could not be measured, and has then written it down as a
    failure of the cell.
    """

    def plan(self, model_id: str, entries: Iterable[TierPerplexity | TierTask]) -> None:
        """Say what will be asked of a model."""

    def detection(self, cell: Cell) -> None:
        """Find the super weights of the cell's model."""

    def sanity(self, cell: Cell) -> None:
        """Apply the recipe, and compare parameters and super weights with the checkpoint's."""

    def perplexity(self, cell: Cell, entry: TierPerplexity) -> None:
        """Perplexity of one corpus, and before that the baseline's."""

    def zero_shot(self, cell: Cell, entry: TierTask) -> None:
        """One task, and before that the baseline's."""


class MakeMeasurer(Protocol):
    """Makes the measurer of a run, when its first cell is measured."""

    def __call__(
        self,
        plan: Plan,
        settings: Settings,
        evidence: MutableMapping[str, CellEvidence],
        *,
        stop: Stop,
        watch: Watch,
    ) -> Measurer:
        """A measurer that fills `evidence`, ends a figure when `stop` says so, and tells `watch` what it does."""


def local_measurer(
    plan: Plan,
    settings: Settings,
    evidence: MutableMapping[str, CellEvidence],
    *,
    stop: Stop,
    watch: Watch,
    worker: int = 0,
    workers: int = 1,
) -> Measurer:
    """The measurer of this process; imports torch.

    Args:
        plan: all cards, and the measurements that each model is asked for.
        settings: device, arithmetic and store.
        evidence: by cell id; filled as cells are measured.
        stop: whether a figure of a cell, named by its gate, may end early.
        watch: told what is measured, as it begins and as it goes on.
        worker: number of this process among those that measure on this machine, from 0; where there are several GPUs,
            each has one in turn.
        workers: how many processes measure on this machine; each has its share of the cores.

    """
    with gc_paused():
        from superweight.measure import CellMeasurer, default_device, share_cores

        gc.freeze()  # half a million objects of torch and transformers that stay; collections need not walk them
    share_cores(min(workers, len(plan.requested_models)))
    measurer = CellMeasurer(
        plan.library,
        evidence,
        device=settings.device or default_device(worker),
        dtype=settings.dtype,
        store=None if settings.store is None else Store(settings.store, waiting=_say),
        stop=stop,
        watch=watch,
    )
    for model_id in sorted(plan.requested_models):
        measurer.plan(model_id, plan.planned_entries(model_id))
    return measurer


def _say(line: str) -> None:
    print(line, file=sys.__stderr__)
