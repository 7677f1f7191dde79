"""Items that are answered differently, with their text, from the tables beside a run's evidence."""

from __future__ import annotations

import ast
import csv
import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from superweight.evidence.measured import ZeroShot
from superweight.plain_files import read_plain_text
from superweight.runs.document import CellDocument, RunDocument
from superweight.verdict.flips import Flip, flips

PER_TASK = 40
"""So many are shown of one task of one cell, the largest shifts first."""

IN_ALL = 1500
"""So many in one page, which stays a few megabytes then."""

_RANK = {"candidate": 0, "baseline": 0, "control": 1, "reference": 2}
_TEXT = 600  # characters of a question
_LISTS = ("choices", "loglikelihoods", "is_greedy", "responses")
_INFINITE = re.compile(r"\binf\b")
_NAN = re.compile(r"\bnan\b")


class TaskFlips(NamedTuple):
    """What is shown of one task of one cell."""

    task: str
    shown: list[Flip]
    every: int
    """How many there are."""
    table: str
    """Where they all are, below the run directory."""


class Flipped(NamedTuple):
    """Flips by cell id, and what is missing."""

    cells: dict[str, list[TaskFlips]]
    notes: list[str]


def flipped(document: RunDocument, directory: Path | None) -> Flipped:
    """Flips of every cell whose tables are there: of candidates before others, of those that did not pass first.

    Args:
        document: of the run.
        directory: the run directory; with None nothing is found.

    """
    if directory is None:
        return Flipped({}, [])
    left, missing, cut = IN_ALL, 0, 0
    baselines: dict[tuple[str, str], ZeroShot | None] = {}
    found: dict[str, list[TaskFlips]] = {}
    for cell in sorted(document.cells, key=lambda one: (_RANK[one.role], one.verdict == "PASS")):
        for task, count in _counted(cell):
            path = str(_path(cell.model, cell.recipe, task))
            if left <= 0:
                cut += 1
                found.setdefault(cell.id, []).append(TaskFlips(task, [], count, path))
                continue
            key = (cell.model, task)
            if key not in baselines:
                base = next((c for c in document.cells if c.model == cell.model and c.role == "baseline"), None)
                baselines[key] = None if base is None else _read(base, task, directory)
            changed = _changed(baselines[key], _read(cell, task, directory), count)
            if changed is None:
                missing += 1
                continue
            shown = [_cut(flip) for flip in changed[: min(PER_TASK, left)]]
            left -= len(shown)
            found.setdefault(cell.id, []).append(TaskFlips(task, shown, count, path))
    notes = []
    if missing:
        notes.append(
            f"The tables of {missing} figures are not beside the evidence: their changed answers are not shown."
        )
    if cut:
        notes.append(f"Changed answers are shown up to {IN_ALL:,}; those of {cut} more figures are in items/.")
    return Flipped(found, notes)


def _changed(baseline: ZeroShot | None, candidate: ZeroShot | None, count: int) -> list[Flip] | None:
    """The flips, if they are as many as the run itself found; None if the tables are not the run's."""
    if baseline is None or candidate is None:
        return None
    try:
        changed = flips(baseline, candidate, short=False)
    except Exception:  # whatever a damaged table may hold
        return None
    return changed if len(changed) == count else None


def _counted(cell: CellDocument) -> Iterator[tuple[str, int]]:
    """Tasks on which some answer changed."""
    if cell.role == "baseline":
        return
    for gate in cell.gates:
        if gate.kind == "zero-shot" and gate.details.get("flips"):
            yield gate.of, int(gate.details["flips"])


def _path(model: str, recipe: str, task: str) -> Path:
    return Path("items") / model / recipe / f"{task}.csv"


def _read(cell: CellDocument, task: str, directory: Path) -> ZeroShot | None:
    """A figure with its items as far as answers need them; None if there is no such table, or it is of another run."""
    figure = cell.zero_shot.get(task)
    if figure is None:
        return None
    if figure.items and "choices" in figure.items[0]:
        return figure
    try:
        text = read_plain_text(directory / _path(cell.model, cell.recipe, task))
        items = [_item(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
    except Exception:  # whatever a damaged table may hold
        return None
    if len(items) != figure.n or not _same_score(items, figure):
        return None
    return figure.model_copy(update={"items": items})


def _same_score(items: list[dict[str, Any]], figure: ZeroShot) -> bool:
    """Whether items give the figure, where its metric is a mean of theirs; else they are of another run."""
    scores = [float(item[figure.metric]) for item in items if isinstance(item.get(figure.metric), int | float)]
    return len(scores) != len(items) or math.isclose(math.fsum(scores) / len(scores), figure.value, abs_tol=1e-9)


def _item(row: dict[str, str]) -> dict[str, Any]:
    item: dict[str, Any] = {}
    for name, text in row.items():
        if name in _LISTS:
            item[name] = _list(name, text)
        elif name in ("doc_id", "target"):
            item[name] = int(text) if text.lstrip("-").isdigit() else text
        elif name in ("doc_hash", "text"):
            item[name] = text
        else:
            item[name] = _score(text)
    return item


def _list(name: str, text: str) -> Any:
    """A list as it was written; figures may be infinite or NaN, which literals cannot say."""
    if name == "loglikelihoods":
        text = _NAN.sub("-1e999", _INFINITE.sub("1e999", text))
    return ast.literal_eval(text) if text else None


def _score(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text


def _cut(flip: Flip) -> Flip:
    text = flip.text if len(flip.text) <= _TEXT else f"…{flip.text[1 - _TEXT :]}"
    return flip._replace(text=text)
