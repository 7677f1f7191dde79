"""A run directory: evidence.json, summary.md, report.html and the per-item tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from superweight.evidence.measured import CellEvidence
from superweight.evidence.write import write_items, write_text
from superweight.report.document import RunDocument, json_schema, to_json
from superweight.report.html import render_html
from superweight.report.markdown import render_markdown


def write_run(directory: Path, document: RunDocument, evidence: Sequence[CellEvidence]) -> None:
    """Write everything a run leaves behind; each file is whole or absent.

    Raises:
        InfraError: the directory cannot be written, or the disk is full.

    """
    write_items(directory / "items", evidence)
    write_text(directory / "evidence.json", to_json(document))
    write_text(directory / "evidence.schema.json", json.dumps(json_schema(), indent=1) + "\n")
    render(directory, document)


def render(directory: Path, document: RunDocument) -> None:
    """Write what can be rebuilt from evidence.json."""
    write_text(directory / "summary.md", render_markdown(document))
    write_text(directory / "report.html", render_html(document))
