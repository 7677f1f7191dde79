"""`summary.md`: the verdict and the matrix, small enough for a CI job page."""

from __future__ import annotations

from collections.abc import Sequence

from superweight.report.comparison_text import look_back_lines
from superweight.report.format import displayable
from superweight.report.overview import (
    ReasonView,
    counts,
    headline,
    in_order,
    machine_line,
    measured_share,
    model_notes,
    reasons,
    suggestions,
)
from superweight.report.table import cell_rows, markdown_table
from superweight.runs.document import RunDocument

_REASONS, _LEFT_OUT, _FIXES, _CELLS = 20, 6, 6, 30


def render_markdown(document: RunDocument) -> str:
    """The first screen of the report in Markdown."""
    run = document.run
    facts = [f"{run.tier} tier", run.started, f"commit {run.commit}" if run.commit else "", machine_line(document)]
    lines = [f"# {headline(document)}", ""]
    for text in (" · ".join(fact for fact in facts if fact), counts(document), measured_share(document)):
        lines += [_plain(text), ""] if text else []
    lines += _section("Read with care", model_notes(document))
    lines += _section("Why", [_reason(reason) for reason in reasons(document)[:_REASONS]])
    lines += _section("What to try", [fix.sentence for fix in suggestions(document)[:_FIXES]])
    if run.left_out:
        shown = ", ".join(run.left_out[:_LEFT_OUT]) + (", …" if len(run.left_out) > _LEFT_OUT else "")
        lines += [_plain(f"Not asked for in this run ({len(run.left_out)}): {shown}"), ""]
    lines += _section("Against earlier runs", look_back_lines(document.look_back))
    if document.cells:
        cells = in_order(document.cells)
        if len(cells) > _CELLS:
            cells = [cell for cell in cells if cell.role != "reference"][:_CELLS]
        table = markdown_table(cell_rows(document.model_copy(update={"cells": cells})))
        rest = len(document.cells) - len(cells)
        lines += ["## Cells", "", table, "", *([f"{rest} other cells are in `report.html`.", ""] if rest else [])]
    lines += [
        "Controls must get the verdict they declare; references, in parentheses, inform and never decide. "
        "Figures are baseline → value on the same windows or items. `report.html` has the whole of it.",
        "",
    ]
    return displayable("\n".join(lines))


def _reason(reason: ReasonView) -> str:
    return "; ".join(reason.said) if reason.cell is None else f"{reason.cell.id}: {'; '.join(reason.said)}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *[f"- {_plain(line)}" for line in lines], ""] if lines else []


def _plain(text: str) -> str:
    """One line without HTML, links or images of its own."""
    return " ".join(text.split()).replace("<", "&lt;").replace("](", "]\\(")
