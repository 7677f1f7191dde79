"""The first things that anybody asks of a run, in words: the same in HTML, in Markdown and on a terminal."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from superweight.cards.model import Role
from superweight.evidence.measured import Verdict
from superweight.report.document import CellDocument, RunDocument
from superweight.report.format import SYMBOLS

_HEADLINES = {
    "PASS": "may ship",
    "REGRESSION": "must not ship",
    "INCONCLUSIVE": "not decided",
    "INFRA": "not measured: nothing can be said",
}
_TRY = "try: "


class Fix(NamedTuple):
    """Something to try, and where it would help."""

    sentence: str
    cells: list[str]


def headline(document: RunDocument) -> str:
    """The verdict in words; a run that was asked for a part of its tier never says that a model may ship."""
    words = _HEADLINES[document.verdict]
    if document.run.left_out and document.verdict == "PASS":
        words = "as far as this run was asked, which is not the whole tier"
    waived = sum(gate.waiver is not None for cell in document.cells for gate in cell.gates)
    told = f", with {waived} waived failure{'' if waived == 1 else 's'}" if waived else ""
    return f"{SYMBOLS[document.verdict]} {document.verdict}: {words}{told}"


def tally(document: RunDocument) -> list[tuple[Role, Verdict, int]]:
    """Role, verdict, and how many cells: what decides comes first."""
    order = ("candidate", "baseline", "control", "reference")
    found = Counter((cell.role, cell.verdict) for cell in document.cells)
    return [
        (role, verdict, n) for (role, verdict), n in sorted(found.items(), key=lambda i: (order.index(i[0][0]), i[0]))
    ]


def counts(document: RunDocument) -> str:
    """How many cells of which role got which verdict."""
    return ", ".join(f"{n} {role} {verdict}" for role, verdict, n in tally(document))


def spent(document: RunDocument) -> str:
    """How many windows and items the compressed models were measured on, and how many that saved."""
    parts = []
    for kind, unit in (("perplexity", "windows"), ("zero-shot", "items")):
        gates = [g for cell in document.cells if cell.role != "baseline" for g in cell.gates if g.kind == kind]
        used, planned = sum(g.n or 0 for g in gates), sum(g.planned or g.n or 0 for g in gates)
        if used < planned:
            parts.append(f"{used:,} of {planned:,} {unit}")
    return f"Measured {' and '.join(parts)}; the rest would have changed no verdict." if parts else ""


def notes(document: RunDocument) -> list[str]:
    """What a reader of the figures should know of the models: their cards' notes, and what made the run slow."""
    found = {cell.checkpoint["note"] for cell in document.cells if cell.checkpoint.get("note")}
    slow = {(cell.model, cell.checkpoint["slow"]) for cell in document.cells if cell.checkpoint.get("slow")}
    return sorted(found) + [f"{model}: every answer was computed alone, since {why}" for model, why in sorted(slow)]


def fixes(document: RunDocument) -> list[Fix]:
    """What the arguments of gates that did not pass say to try, of cells that decide; each sentence once."""
    found: dict[str, list[str]] = {}
    for cell in document.cells:
        if cell.verdict == "PASS" or not decides(cell):
            continue
        for gate in cell.gates:
            for line in gate.message.splitlines():
                if line.startswith(_TRY) and cell.id not in found.setdefault(line.removeprefix(_TRY), []):
                    found[line.removeprefix(_TRY)].append(cell.id)
    return [Fix(sentence, cells) for sentence, cells in found.items()]


def not_measured(document: RunDocument) -> list[str]:
    """What was left out, and what was asked for and failed."""
    failed = {
        f"{cell.id} {failure.stage}: {failure.reason}: {' '.join(failure.message.split())}": None
        for cell in document.cells
        for failure in cell.failures
    }
    return [*failed, *(f"{line}: not asked for in this run" for line in document.run.left_out)]


def decides(cell: CellDocument) -> bool:
    """Whether a cell's verdict can hold up a release."""
    return cell.role in ("candidate", "baseline")


def fingerprint(document: RunDocument) -> str:
    """Machine and main libraries in one line."""
    environment = document.run.environment
    names = ("torch", "transformers", "lm-eval", "pytest-superweight")
    versions = [f"{name} {environment[name]}" for name in names if environment.get(name)]
    return " · ".join(part for part in (environment.get("device", ""), *versions) if part)
