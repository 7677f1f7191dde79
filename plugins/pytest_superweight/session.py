"""The state of one pytest session: what its tests ask of the gate, and how its workers ended."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pytest_superweight.node_id import NodeId
from pytest_superweight.signals import progress_writer
from pytest_superweight.tally import Test
from superweight.gate.leftovers import remove_leftovers
from superweight.gate.provenance import Provenance, commit_of, now
from superweight.gate.settings import Settings
from superweight.ids import GateId

if TYPE_CHECKING:  # imported where they are used: test suites that are not ours pay for none of it
    from pytest_superweight.crumbs import Crumbs
    from pytest_superweight.deaths import Death
    from superweight.cards import Cell, Library, TierCard
    from superweight.gate.plan import Plan
    from superweight.gate.run import GateRun
    from superweight.report import RunDocument

KEY: pytest.StashKey[GateSession] = pytest.StashKey()


@dataclass
class GateSession:
    """Everything that lives as long as the pytest session."""

    settings: Settings
    arguments: Sequence[str] = ()
    """The command line."""
    expression: str = ""
    """What `-k` says."""
    root: Path = Path()
    """Of the project whose tests run."""
    started: str = field(default_factory=now)
    requested_gates: set[tuple[str, str]] = field(default_factory=set)
    """Ids of cells and gates that collected tests ask for; an empty gate is the cell itself."""
    active: bool = False
    run_errors: list[str] = field(default_factory=list)
    bad_card: str = ""
    write_error: str = ""
    document: RunDocument | None = None
    scheduled: bool = False
    """Whether xdist hands out work as our suites ask for."""
    crumbs: Crumbs | None = None
    deaths: dict[str, Death] = field(default_factory=dict)
    not_started: list[str] = field(default_factory=list)
    """Tests for which no worker was left."""

    @cached_property
    def library(self) -> Library:
        """Built-in cards and the user's."""
        from superweight.cards import load_library

        return load_library(self.settings.cards)

    @property
    def tier(self) -> TierCard:
        """What is measured in this run."""
        return self.library.tiers[self.settings.tier]

    @cached_property
    def plan(self) -> Plan:
        """Every cell of this run, before -k; nothing is asked of them yet."""
        from pytest_superweight.selection import model_ids_in, words_of
        from superweight.gate.plan import Plan

        words, model_ids = words_of(self.expression), model_ids_in(self.arguments)
        return Plan.of(self.library, self.settings, words=words, model_ids=model_ids).asking(())

    @cached_property
    def run(self) -> GateRun:
        """What measures and judges; made when the first cell runs, or when a worker hands over the first."""
        from superweight.gate.measurer import local_measurer
        from superweight.gate.plan import RequestedGate
        from superweight.gate.run import GateRun

        name = os.environ.get("PYTEST_XDIST_WORKER", "main")
        worker = int(name.removeprefix("gw")) if name != "main" else 0
        workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        return GateRun(
            self.plan.asking(RequestedGate(*requested) for requested in self.requested_gates),
            self.settings,
            provenance=self._provenance,
            watch=progress_writer(name, None if self.crumbs is None else self.crumbs.directory),
            make_measurer=partial(local_measurer, worker=worker, workers=workers),
        )

    @property
    def _provenance(self) -> Provenance:
        return Provenance(
            started=self.started,
            command=" ".join(["pytest", *self.arguments]),
            expression=self.expression,
            commit=commit_of(self.root),
            environment={"pytest": pytest.__version__},
        )

    def start(self) -> None:
        """Our tests are about to run: what an earlier run left must not be taken for this one's."""
        if not self.active:
            self.active = True
            remove_leftovers(self.settings.out)

    def request(self, cell: Cell, parameters: Mapping[str, Any]) -> None:
        """A test was collected that asks for figures of this cell."""
        from superweight.gate.plan import gate_name

        entries = [parameters[name] for name in ("superweight_corpus", "superweight_task") if name in parameters]
        self.requested_gates |= {(cell.id, ""), *((cell.id, gate_name(entry)) for entry in entries)}

    def hand_over(self, cell: Cell | None = None) -> str:
        """What this process measured, of one cell or of all; of a worker that measured nothing, what it was asked."""
        if "run" in vars(self) or cell is not None:
            return self.run.hand_over(cell)
        from superweight.gate.merge import Outbox

        return Outbox().text((), self.requested_gates)

    def merge(self, handed_over: str, worker: str) -> None:
        """Take what a worker measured."""
        self.run.merge(handed_over, worker)
        self.start()

    def last_started(self, worker: str) -> str | None:
        """The last test that a worker started, empty if it came to none; None if nobody knows."""
        return None if self.crumbs is None else self.crumbs.started(worker)

    def died(self, death: Death) -> None:
        """A worker is gone: what it was asked for is asked for all the same."""
        self.deaths[death.worker] = death
        self.run_errors.append(str(death))
        requested = set() if self.crumbs is None else self.crumbs.requested_gates(death.worker)
        self.requested_gates |= requested
        if requested:
            self.start()

    def abandon(self, nodeids: Sequence[str]) -> None:
        """No worker was left for these tests."""
        self.not_started = list(nodeids)
        count = "1 test was" if len(nodeids) == 1 else f"{len(nodeids)} tests were"
        self.run_errors.append(f"{count} not started, since no worker was left to run them: {nodeids[0]}, …")

    def finish(self) -> None:
        """Judge the run and write its directory.

        Raises:
            InfraError: the directory cannot be written; the judgement is in `document` all the same.

        """
        from superweight.gate.plan import RequestedGate

        self.run.request(RequestedGate(*requested) for requested in self.requested_gates)
        self.run.run_errors += self.run_errors
        self._record_unfinished()
        try:
            self.run.finish()
        finally:
            self.document = self.run.document

    def _record_unfinished(self) -> None:
        """Tests that a worker died over and tests that nobody started are failures of their cells."""
        for death in self.deaths.values():
            if death.fatal:
                self._record(death.fatal, "crash", death.cause)
        for nodeid in self.not_started:
            self._record(nodeid, "interrupted", "not started: no worker was left to run it")

    def _record(self, nodeid: str, reason: Literal["crash", "interrupted"], message: str) -> None:
        cells = self.plan.cell_by_id
        if (test := Test.of(nodeid, cells)) is not None:
            self.run.record_failure(cells[test.cell], self._stage(nodeid, test.cell), reason, message)

    def _stage(self, nodeid: str, cell: str) -> str:
        """The gate that a test asks for, or what the test is called if it asks for none or for several."""
        test, requested = NodeId.parse(nodeid), self.run.plan.requested_gates
        gates = [gate for one, gate in requested if one == cell and test.of and GateId.parse(gate).of == test.of]
        return gates[0] if len(gates) == 1 else test.name
