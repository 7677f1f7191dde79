"""Reading evidence that another version wrote, or that is damaged: what can be read, and what could not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from superweight.errors import InfraError
from superweight.plain_files import read_plain_text
from superweight.runs.document import RunDocument
from superweight.runs.doubts import doubts_of
from superweight.runs.read import held_in_doubt, read_document

_MOST = 2000  # parts that are left out before a document is given up


class Salvaged(NamedTuple):
    """A document as far as it can be read."""

    document: RunDocument
    lost: list[str]
    """What could not be read, and why."""


def salvage(path: Path) -> Salvaged:
    """Read `evidence.json` without the parts that this version cannot read.

    A part is the smallest thing whose absence the document allows: a field with a default, a gate, a figure, a cell.

    Args:
        path: the file, or the run directory it is in.

    Raises:
        InfraError: no such file, not JSON, or nothing of it is evidence.

    """
    try:
        return Salvaged(read_document(path), [])
    except InfraError as error:
        if error.reason != "corrupt":
            raise
        first = error
    file = path / "evidence.json" if path.is_dir() else path
    try:
        text = read_plain_text(file)
        raw = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise first from error
    lost: list[str] = []
    lost_cells = False
    for _ in range(_MOST):
        try:
            document = RunDocument.model_validate(raw)
            return Salvaged(held_in_doubt(document, doubts_of(document, text, lost_cells=lost_cells)), lost)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = [part for part in found["loc"] if isinstance(part, str | int)]
            removed = _remove(raw, where, found["type"] == "missing")
            if not removed:
                break
            lost_cells = lost_cells or removed[0] == "cells"
            name = ".".join(map(str, removed))
            lost.append(f"{name} could not be read and is left out: {'.'.join(map(str, where))}: {found['msg']}.")
    raise first


def _remove(raw: Any, where: list[str | int], missing: bool) -> list[str | int]:
    """Take out what holds the fault; what is not there faults what should hold it.

    Returns:
        the path to what was taken out; empty if nothing can be.

    """
    path: list[tuple[Any, Any]] = []
    node: Any = raw
    for part in where:
        if not _has(node, part):
            break
        path.append((node, part))
        node = node[part]
    if missing and len(path) == len(where):
        path.pop()
    if not path or (len(path) == 1 and path[0][1] in ("cells", "run", "verdict")):
        return []
    holder, part = path[-1]
    del holder[part]
    return [step for _, step in path]


def _has(node: Any, part: Any) -> bool:
    if isinstance(node, dict):
        return part in node
    return isinstance(node, list) and isinstance(part, int) and part < len(node)
