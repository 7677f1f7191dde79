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
    """The verdict in words; a run that was asked for a part of its tier never says that a model may ship."""
    left_out = len(document.run.left_out)
    words = _HEADLINES[document.verdict]
    if left_out and document.verdict == "PASS":
        words = "as far as this run was asked, which is not the whole tier"
    waived = sum(gate.waiver is not None for cell in document.cells for gate in cell.gates)
    told = f", with {waived} waived failure{'' if waived == 1 else 's'}" if waived else ""
    return f"{SYMBOLS[document.verdict]} {document.verdict}: {words}{told}"


def counts(document: RunDocument) -> str:
    """How many cells of which role got which verdict."""
    found = Counter((cell.role, cell.verdict) for cell in document.cells)
    return ", ".join(f"{n} {role} {verdict}" for (role, verdict), n in sorted(found.items()))


def spent(document: RunDocument) -> str:
    """How many windows and items the compressed models were measured on, and how many that saved."""
    parts = []
    for kind, unit in (("perplexity", "windows"), ("zero-shot", "items")):
        gates = [g for cell in document.cells if cell.role != "baseline" for g in cell.gates if g.kind == kind]
        used, planned = sum(g.n or 0 for g in gates), sum(g.planned or g.n or 0 for g in gates)
        if used < planned:
            parts.append(f"{used:,} of {planned:,} {unit}")
    return f"Measured {' and '.join(parts)}; the rest would have changed no verdict." if parts else ""


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


def notes(document: RunDocument) -> list[str]:
    """What a reader of the figures should know of the models: their cards' notes, and what made the run slow."""
    found = {cell.checkpoint["note"] for cell in document.cells if cell.checkpoint.get("note")}
    slow = {(cell.model, cell.checkpoint["slow"]) for cell in document.cells if cell.checkpoint.get("slow")}
    return sorted(found) + [f"{model}: every answer was computed alone, since {why}" for model, why in sorted(slow)]
