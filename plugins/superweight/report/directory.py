"""A run directory: evidence.json, summary.md, report.html, badge.json, figures.csv and the per-item tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from superweight.errors import InfraError
from superweight.evidence.measured import CellEvidence
from superweight.evidence.moment import moment
from superweight.evidence.write import write_items, write_text
from superweight.report.badge import badge
from superweight.report.export import write_export
from superweight.report.markdown import render_markdown
from superweight.report.page import render_html
from superweight.runs.document import RunDocument, json_schema, to_json
from superweight.runs.history import RunEntry, read_history


def write_run(
    directory: Path, document: RunDocument, evidence: Sequence[CellEvidence], store: Path | None = None
) -> None:
    """Write everything a run leaves behind; each file is whole or absent.

    Args:
        directory: where.
        document: of the run.
        evidence: its cells with their items.
        store: directory of the history, for its pictures.

    Raises:
        InfraError: the directory cannot be written, or the disk is full.

    """
    document = document.model_copy(update={"tables": write_items(directory / "items", evidence)})
    write_text(directory / "evidence.json", to_json(document))
    write_text(directory / "evidence.schema.json", json.dumps(json_schema(), indent=1) + "\n")
    render(directory, document, store=store)


def render(
    directory: Path,
    document: RunDocument,
    *,
    store: Path | None = None,
    models: Sequence[str] = (),
    lost: Sequence[str] = (),
) -> None:
    """Write what can be rebuilt from evidence.json.

    Args:
        directory: the run directory.
        document: its evidence.
        store: directory of the history; without one, or with one that cannot be read, its pictures are left out.
        models: whose pictures are drawn; a choice is made if empty.
        lost: what of the evidence could not be read.

    Raises:
        InfraError: as `write_run`.

    """
    runs: list[RunEntry] = []
    with suppress(InfraError):  # the run itself has told of it
        runs = read_history(store).runs if store is not None else []
    runs = [run for run in runs if run.when <= moment(document.run.started)]
    write_text(directory / "summary.md", render_markdown(document))
    write_text(directory / "badge.json", badge(document))
    write_export(directory / "figures.csv", [document])
    write_text(
        directory / "report.html", render_html(document, directory=directory, runs=runs, models=models, lost=lost)
    )
