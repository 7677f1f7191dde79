"""`summary.md`: the verdict and the matrix, small enough for a CI job page."""

from __future__ import annotations

from collections import Counter

from superweight.report.document import RunDocument
from superweight.report.format import SYMBOLS
from superweight.report.table import cell_rows, markdown_table

_HEADLINES = {
    "PASS": "may ship",
    "REGRESSION": "must not ship",
    "INCONCLUSIVE": "not decided",
    "INFRA": "not measured: nothing can be said",
}


def headline(document: RunDocument) -> str:
    """The verdict in words."""
    return f"{SYMBOLS[document.verdict]} {document.verdict}: {_HEADLINES[document.verdict]}"


def counts(document: RunDocument) -> str:
    """How many cells of which role got which verdict."""
    found = Counter((cell.role, cell.verdict) for cell in document.cells)
    return ", ".join(f"{n} {role} {verdict}" for (role, verdict), n in sorted(found.items()))


def render_markdown(document: RunDocument) -> str:
    """The first screen of the report in Markdown."""
    run = document.run
    facts = [
        f"{run.tier} tier",
        run.started,
        f"commit {run.commit}" if run.commit else "",
        run.environment.get("device", ""),
    ]
    lines = [f"# {headline(document)}", "", " · ".join(fact for fact in facts if fact), "", counts(document), ""]
    if document.reasons:
        lines += ["## Why", "", *[f"- {' '.join(reason.splitlines())}" for reason in document.reasons[:20]], ""]
    if document.cells:
        lines += ["## Cells", "", markdown_table(cell_rows(document)), ""]
    lines += [
        "Controls must get the verdict they declare; references, in parentheses, inform and never decide. "
        "Figures are baseline → value on the same windows or items.",
        "",
    ]
    notes = sorted({cell.checkpoint["note"] for cell in document.cells if cell.checkpoint.get("note")})
    return "\n".join([*lines, *[f"Note: {note}" for note in notes]]) + "\n"
