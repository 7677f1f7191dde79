"""`summary.md`: the verdict and the matrix, small enough for a CI job page."""

from __future__ import annotations

from collections.abc import Sequence

from superweight.report.document import RunDocument
from superweight.report.overview import counts, fingerprint, fixes, headline, notes, spent
from superweight.report.table import cell_rows, markdown_table

_REASONS, _LEFT_OUT, _FIXES = 20, 6, 6


def render_markdown(document: RunDocument) -> str:
    """The first screen of the report in Markdown."""
    run = document.run
    facts = [f"{run.tier} tier", run.started, f"commit {run.commit}" if run.commit else "", fingerprint(document)]
    lines = [f"# {headline(document)}", ""]
    for text in (" · ".join(fact for fact in facts if fact), counts(document), spent(document)):
        lines += [_plain(text), ""] if text else []
    lines += _section("Why", document.reasons[:_REASONS])
    lines += _section("What to try", [fix.sentence for fix in fixes(document)[:_FIXES]])
    if run.left_out:
        shown = ", ".join(run.left_out[:_LEFT_OUT]) + (", …" if len(run.left_out) > _LEFT_OUT else "")
        lines += [_plain(f"Not asked for in this run ({len(run.left_out)}): {shown}"), ""]
    lines += _section("Against earlier runs", document.look_back.lines)
    if document.cells:
        lines += ["## Cells", "", markdown_table(cell_rows(document)), ""]
    lines += [
        "Controls must get the verdict they declare; references, in parentheses, inform and never decide. "
        "Figures are baseline → value on the same windows or items. `report.html` has the whole of it.",
        "",
    ]
    return "\n".join([*lines, *[f"Note: {_plain(note)}" for note in notes(document)]]) + "\n"


def _section(title: str, found: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *[f"- {_plain(line)}" for line in found], ""] if found else []


def _plain(text: str) -> str:
    """One line without HTML, links or images of its own."""
    return " ".join(text.split()).replace("<", "&lt;").replace("](", "]\\(")
