"""`summary.md`: the verdict and the matrix, small enough for a CI job page."""

from __future__ import annotations

from superweight.report.document import RunDocument
from superweight.report.overview import counts, headline, notes, spent
from superweight.report.table import cell_rows, markdown_table


def _one_line(text: str) -> str:
    return " ".join(text.split()).replace("<", "&lt;")


def render_markdown(document: RunDocument) -> str:
    """The first screen of the report in Markdown."""
    run = document.run
    facts = [
        f"{run.tier} tier",
        run.started,
        f"commit {run.commit}" if run.commit else "",
        run.environment.get("device", ""),
    ]
    head = [f"# {headline(document)}", " · ".join(fact for fact in facts if fact), counts(document), spent(document)]
    lines = [line for text in head if text for line in (text, "")]
    if document.reasons:
        lines += ["## Why", "", *[f"- {_one_line(reason)}" for reason in document.reasons[:20]], ""]
    if run.left_out:
        shown = ", ".join(run.left_out[:6]) + (", …" if len(run.left_out) > 6 else "")
        lines += [f"Not asked for in this run ({len(run.left_out)}): {shown}", ""]
    if document.look_back.lines:
        lines += ["## Against earlier runs", "", *[f"- {_one_line(line)}" for line in document.look_back.lines], ""]
    if document.cells:
        lines += ["## Cells", "", markdown_table(cell_rows(document)), ""]
    lines += [
        "Controls must get the verdict they declare; references, in parentheses, inform and never decide. "
        "Figures are baseline → value on the same windows or items.",
        "",
    ]
    return "\n".join([*lines, *[f"Note: {_one_line(note)}" for note in notes(document)]]) + "\n"
