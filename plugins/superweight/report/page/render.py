"""The page as a whole."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from superweight.cards.gate_kinds import required_kinds
from superweight.evidence.moment import moment
from superweight.ids import GateId
from superweight.progress import duration
from superweight.report.format import SYMBOLS, displayable
from superweight.report.overview import (
    failed_controls,
    headline,
    in_order,
    machine_line,
    measured_share,
    model_notes,
    not_measured,
    reasons,
    releases,
    silent,
    suggestions,
    tally,
)
from superweight.report.overview import model_verdicts as model_lines
from superweight.report.page.cells import CellView, cell_view, column
from superweight.report.page.flips import flipped
from superweight.report.page.matrix import matrix
from superweight.report.page.since_release import comparisons
from superweight.report.pictures import gallery
from superweight.report.shippable import candidate_rows
from superweight.runs.document import SCHEMA_VERSION, RunDocument
from superweight.runs.history import RunEntry
from superweight.verdict import decides

_BRIEF = 200  # cells; of more, a page keeps only the arguments of gates that did not pass


def render_html(
    document: RunDocument,
    *,
    directory: Path | None = None,
    runs: Sequence[RunEntry] = (),
    models: Sequence[str] = (),
    lost: Sequence[str] = (),
) -> str:
    """The report as one HTML page: no network, no outside file; every string is escaped.

    A content security policy lets only the page's own script run, by its hash, and nothing be loaded; so not even a
    string that escaped escaping could do anything.

    Args:
        document: of the run.
        directory: the run directory, for the text of items; they are left out without one.
        runs: the history, in the order of time.
        models: whose pictures are drawn; a choice is made if empty.
        lost: what of the evidence could not be read.

    """
    pictures = gallery(document, runs, models)
    items = flipped(document, directory)
    views = [cell_view(cell, items.cells.get(cell.id, [])) for cell in in_order(document.cells)]
    return displayable(
        jinja_environment()
        .get_template("report.html")
        .render(
            **_first_screen(document),
            **_parts_of_the_page(),
            document=document,
            run=document.run,
            missing=[*lost, *_older(document), *not_measured(document), *items.notes, *pictures.notes],
            comparisons=comparisons(document),
            pictures=pictures.models,
            views=views,
            brief=len(views) > _BRIEF,
            columns=[gate for gate in map(GateId.parse, _gates(document)) if gate.kind in required_kinds()],
            column=column,
            choices=_choices(document, views),
        )
    )


def _first_screen(document: RunDocument) -> dict[str, Any]:
    """What the first screen says."""
    return {
        "headline": headline(document),
        "shown": "What may ship" if releases(document) else "What passed, and what did not",
        "kind": _kind(document),
        "lines": model_lines(document),
        "tally": _tally(document),
        "took": _took(document),
        "fingerprint": machine_line(document),
        "spent": measured_share(document),
        "notes": model_notes(document),
        "candidates": candidate_rows(document),
        "reasons": reasons(document),
        "fixes": suggestions(document),
        "matrix": matrix(document),
        "interval": _interval(document),
    }


def _parts_of_the_page() -> dict[str, Any]:
    """What does not depend on the run."""
    script = asset("report.js")
    return {
        "script": Markup(script),  # written here, and free of `</`
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "css": Markup(asset("report.css")),
        "safe_svg": Markup,  # of `drawing.draw`, which is XML with everything escaped
        "decides": decides,
        "symbols": SYMBOLS,
    }


def _choices(document: RunDocument, views: Sequence[CellView]) -> dict[str, list[str]]:
    """By what cells can be chosen."""
    verdicts = {view.cell.verdict for view in views}
    return {
        "model": list(dict.fromkeys(cell.model for cell in document.cells)),
        "recipe": list(dict.fromkeys(view.cell.recipe for view in views)),
        "role": list(dict.fromkeys(view.cell.role for view in views)),
        "gate": _gates(document),
        "verdict": [verdict for verdict in SYMBOLS if verdict in verdicts],
    }


def _tally(document: RunDocument) -> list[tuple[str, str]]:
    """Counts in words, and how each is coloured; a control that is as expected is no bad news."""
    missed, unread = len(failed_controls(document)), len(silent(document))
    parts = [
        (f"{_some(n, role)} {SYMBOLS[verdict]} {verdict}", "aside" if missed else str(verdict))
        for role, verdict, n in tally(document)
        if role in ("candidate", "baseline")
    ]
    controls = sum(cell.role == "control" for cell in document.cells)
    if missed:
        parts.append((f"{missed} of {_some(controls, 'control')} ✗ not as expected", "INFRA"))
    if unread:
        parts.append((f"{unread} of {_some(controls, 'control')} ! not measured", "INFRA"))
    elif controls and not missed:
        parts.append((f"{_some(controls, 'control')} ✓ as expected", "aside"))
    references = sum(cell.role == "reference" for cell in document.cells)
    return parts + ([(f"{_some(references, 'reference')}, which decide nothing", "aside")] if references else [])


def _some(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _gates(document: RunDocument) -> list[str]:
    return list(dict.fromkeys(gate.gate for cell in document.cells for gate in cell.gates))


def _interval(document: RunDocument) -> str:
    """The level of the intervals, `95 %`, if it is the same everywhere."""
    levels = {gate.confidence for cell in document.cells for gate in cell.gates if gate.confidence is not None}
    return f"{100 * levels.pop():g} %" if len(levels) == 1 else "interval"


def _kind(document: RunDocument) -> str:
    """How the head of the page is coloured: a part of a tier is not green."""
    return "INCONCLUSIVE" if document.verdict == "PASS" and document.run.left_out else document.verdict


def _took(document: RunDocument) -> str:
    """How long the run took, in words; empty if it does not say."""
    try:
        return duration((moment(document.run.finished) - moment(document.run.started)).total_seconds())
    except ValueError:
        return ""


def _older(document: RunDocument) -> list[str]:
    """What evidence of an older schema may lack."""
    if document.schema_version == SCHEMA_VERSION:
        return []
    return [
        f"This evidence is of schema {document.schema_version}, and this report is made for {SCHEMA_VERSION}: what "
        "only the newer one records is missing here."
    ]


@cache
def asset(name: str) -> str:
    """A style sheet or a script of the pages."""
    return files("superweight.report.page").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def jinja_environment() -> Environment:
    """Templates of the pages; whatever they are given is escaped."""
    return Environment(
        loader=PackageLoader("superweight.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
