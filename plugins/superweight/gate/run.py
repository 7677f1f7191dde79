"""The run of a gate: measures cells, judges them, and writes the run directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from superweight.cards import Cell, TierPerplexity
from superweight.errors import InfraError, InfraReason
from superweight.evidence import CellEvidence, Failure
from superweight.gate.leftovers import remove_leftovers
from superweight.gate.measurer import MakeMeasurer, Measurer, local_measurer
from superweight.gate.merge import Inbox, Outbox, fail_unmeasured
from superweight.gate.plan import Plan, RequestedGate, tier_sizes
from superweight.gate.provenance import Provenance
from superweight.gate.settings import Settings
from superweight.progress import Watch
from superweight.verdict import GateResult, JudgedCell, Rules, gates_of, infra_gate, judge_cell, may_stop

if TYPE_CHECKING:
    from superweight.runs.document import RunDocument


class GateRun:
    """One run of the gate, or one process's part of it.

    Args:
        plan: cells, and the gates that are asked of them.
        settings: where and how cells are measured, and where the run is written.
        provenance: when and by what the run is made.
        watch: told what is measured, as it begins and as it goes on.
        make_measurer: makes the measurer when the first cell is measured.

    Attributes:
        run_errors: what went wrong outside any cell, as a process that died; any makes the run INFRA.
        notes: what a reader of the result must know and the document does not say, as a report that was not written.
        document: of the run, once it is finished.
    """

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        *,
        provenance: Provenance | None = None,
        watch: Watch = lambda _: None,
        make_measurer: MakeMeasurer = local_measurer,
    ) -> None:
        self.plan = plan
        self.settings = settings
        self.provenance = provenance or Provenance()
        self.run_errors: list[str] = []
        self.notes: list[str] = []
        self.document: RunDocument | None = None
        self._watch = watch
        self._make_measurer = make_measurer
        self._measured: dict[str, CellEvidence] = {}
        self._inbox = Inbox()
        self._outbox = Outbox()
        self._started = False

    @property
    def evidence(self) -> Mapping[str, CellEvidence]:
        """Evidence by cell id: what this process measured, and what others handed over."""
        return self._inbox.merged_with(self._measured)

    @cached_property
    def measurer(self) -> Measurer:
        """What measures the cells of this process; made, with torch, when the first one is measured."""
        return self._make_measurer(self.plan, self.settings, self._measured, stop=self._may_stop, watch=self._watch)

    @property
    def rules(self) -> Rules:
        """By what this run is judged."""
        stopping = self.settings.stopping
        return Rules(
            book=self.plan.library.book,
            today=datetime.fromisoformat(self.provenance.started).date(),
            sequential=self.plan.tier.sequential if stopping is None else stopping,
            planned=self.plan.quality_gates,
            sizes=tier_sizes(self.plan.library.tiers),
        )

    @property
    def is_red(self) -> bool:
        """Whether the finished run stops a release."""
        undecided = ("INCONCLUSIVE",) if self.plan.tier.inconclusive_is_red else ()
        return self.document is None or self.document.verdict in ("REGRESSION", "INFRA", *undecided)

    def start(self) -> None:
        """Remove what an earlier run left in the run directory; `measure` and `finish` do it if it was not done."""
        if not self._started:
            self._started = True
            remove_leftovers(self.settings.out)

    def request(self, gates: Iterable[RequestedGate]) -> None:
        """Ask for more; what is asked for and not measured is INFRA."""
        self.plan = self.plan.asking_also(gates)

    def measure(self, cell: Cell) -> JudgedCell:
        """Measure and judge everything that the tier asks of a cell.

        What could not be measured is written down as a failure of the cell.
        """
        self.start()
        for measure in self.measurements(cell):
            with suppress(InfraError):
                measure()
        return self.judged(cell.id)

    def measurements(self, cell: Cell) -> Iterator[Callable[[], None]]:
        """Everything that the tier asks of a cell, a call each: detection or sanity, then every corpus and task.

        Each raises `InfraError` for what could not be measured, and has then written it down.
        """
        yield partial(self.measurer.detection if cell.role == "baseline" else self.measurer.sanity, cell)
        for entry in self.plan.entries:
            if isinstance(entry, TierPerplexity):
                yield partial(self.measurer.perplexity, cell, entry)
            else:
                yield partial(self.measurer.zero_shot, cell, entry)

    def record_failure(self, cell: Cell, stage: str, reason: InfraReason, message: str) -> None:
        """Write down what went wrong with a cell outside its measurements, so that no headline says otherwise.

        Args:
            cell: the cell.
            stage: the gate that was asked for, or what was being done.
            reason: `crash` for something that nobody foresaw, `test-failed`, `interrupted`.
            message: for people.

        """
        evidence = self._measured.setdefault(cell.id, CellEvidence.of(cell))
        evidence.failures.append(Failure(stage=stage, reason=reason, message=message))

    def judged(self, cell_id: str) -> JudgedCell:
        """A cell as far as it has been measured."""
        return self._judged(cell_id, self.evidence)

    def stands(self, gate: GateResult) -> bool:
        """Whether a candidate's regression would stand whatever the other candidates come to."""
        if gate.p_adjusted is None or gate.alpha is None:
            return True
        return gate.p_adjusted * max(1, len(self.plan.requested_candidates)) <= gate.alpha

    def hand_over(self, cell: Cell | None = None) -> str:
        """What this process measured, for the one that finishes the run: JSON, as `superweight.gate.merge` says.

        Args:
            cell: hand over it and its baseline only, in case this process does not live to hand over all.

        """
        chosen = [
            evidence
            for evidence in self._measured.values()
            if cell is None or evidence.id == cell.id or (evidence.role, evidence.model) == ("baseline", cell.model.id)
        ]
        return self._outbox.text(chosen, self.plan.requested_gates)

    def merge(self, text: str, worker: str) -> None:
        """Take what another process handed over.

        Args:
            text: what its `hand_over` returned.
            worker: a name of its own.

        """
        self.request(self._inbox.take(text, worker))

    def finish(self) -> RunDocument:
        """Judge the run, compare it with earlier ones, and write its directory and its place in the store.

        Raises:
            InfraError: the directory cannot be written; the judgement is in `document` all the same.

        """
        # A process that only measures needs no report.
        from superweight.gate.completeness import missing_required
        from superweight.gate.result import run_document, write_result

        self.start()
        evidence = dict(self.evidence)
        fail_unmeasured(evidence, self.plan)
        self.run_errors += missing_required(self.plan, evidence)
        order = {cell: index for index, cell in enumerate(self.plan.cell_by_id)}
        evidence = {cell: evidence[cell] for cell in sorted(evidence, key=lambda cell: order.get(cell, len(order)))}
        cells = [self._judged_or_infra(cell, evidence) for cell in evidence]
        self.document = run_document(self.plan, self.settings, self.provenance, cells, self.run_errors)
        self.notes += write_result(self.document, cells, self.settings)
        return self.document

    def _may_stop(self, evidence: CellEvidence, gate: str) -> bool:
        baseline = _baseline_of(evidence, self._measured)
        return baseline is not None and may_stop(evidence, gate, baseline, self.rules)

    def _judged(self, cell_id: str, evidence: Mapping[str, CellEvidence]) -> JudgedCell:
        cell = evidence[cell_id]
        gates = gates_of(cell, _baseline_of(cell, evidence), self.rules, list(evidence.values()))
        return judge_cell(cell, gates)

    def _judged_or_infra(self, cell_id: str, evidence: Mapping[str, CellEvidence]) -> JudgedCell:
        """A cell judged, or why it cannot be: a report is written whatever happens."""
        try:
            return self._judged(cell_id, evidence)
        except Exception as error:
            failure = Failure(stage="judging", reason="crash", message=f"{type(error).__name__}: {error}")
            return judge_cell(evidence[cell_id], [infra_gate("judging", "measurement", failure)])


def _baseline_of(cell: CellEvidence, evidence: Mapping[str, CellEvidence]) -> CellEvidence | None:
    return next((one for one in evidence.values() if one.model == cell.model and one.role == "baseline"), None)
