"""The result of a run: one document of all judged cells, compared with earlier runs, and written to disk."""

from __future__ import annotations

from collections.abc import Sequence

from superweight.gate.completeness import left_out
from superweight.gate.plan import Plan
from superweight.gate.provenance import Provenance, environment_of, now
from superweight.gate.settings import Settings
from superweight.report import keep_report, write_index, write_run
from superweight.runs.document import RunDocument, RunInfo, build_document
from superweight.runs.look_back import look_back
from superweight.runs.read import snapshots_of
from superweight.verdict import JudgedCell


def run_document(
    plan: Plan, settings: Settings, made: Provenance, cells: Sequence[JudgedCell], run_errors: Sequence[str]
) -> RunDocument:
    """The judgement of a run, beside the release and the runs before.

    Args:
        plan: what was asked.
        settings: where the release baselines and the history are; the run is added to the history.
        made: when and by what.
        cells: every cell, judged.
        run_errors: what went wrong outside any cell; makes the run INFRA.

    """
    evidence = [cell.evidence for cell in cells]
    not_asked = left_out(plan, {cell.id: cell for cell in evidence})
    info = RunInfo(
        started=made.started,
        finished=now(),
        command=made.command,
        tier=plan.tier.id,
        expression=made.expression,
        commit=made.commit,
        environment=environment_of(evidence, made.environment),
        left_out=[str(part) for part in not_asked],
        not_asked=not_asked,
    )
    document = build_document(info, cells, run_errors)
    document.look_back = look_back(
        document,
        snapshots_of(document, evidence),
        plan.library.book.gate,
        baselines=settings.baselines,
        store=settings.store,
    )
    return document


def write_result(document: RunDocument, cells: Sequence[JudgedCell], settings: Settings) -> list[str]:
    """Write the run directory, and the report's place in the store.

    Returns:
        what could not be written although evidence.json could; a report can be made of it at any time.

    Raises:
        InfraError: evidence.json cannot be written.

    """
    out, store = settings.out, settings.store
    try:
        write_run(out, document, [cell.evidence for cell in cells], store)
        if store is not None and document.look_back.run:
            keep_report(store, document.look_back.run, out)
            write_index(store)
    except Exception as error:
        if not (out / "evidence.json").is_file():  # which is written first
            raise
        return [f"not everything was written: {error}. `superweight report` tries again"]
    return []
