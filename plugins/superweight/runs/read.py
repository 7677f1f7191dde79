"""Reading runs: a run's document, held against itself, and its snapshots, from the document or from a file."""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pydantic import ValidationError

from superweight.errors import InfraError
from superweight.evidence.measured import CellEvidence, ZeroShot
from superweight.evidence.recomputed import score_fits
from superweight.plain_files import read_plain, read_plain_text
from superweight.runs.document import RunDocument
from superweight.runs.doubts import doubts_of
from superweight.runs.snapshot import Snapshot, read_snapshot, snapshot_of
from superweight.verdict import Reason, combine

DOCUMENT = "evidence.json"


def read_document(path: Path) -> RunDocument:
    """Read `evidence.json`, or the one in a run directory.

    What is not as the run wrote it, or contradicts itself, is INFRA unless it is a REGRESSION; `doubts` says why.

    Raises:
        InfraError: no such file, not JSON, or not evidence.

    """
    path = path / DOCUMENT if path.is_dir() else path
    try:
        text = read_plain_text(path)
        document = RunDocument.model_validate_json(text)
    except OSError as error:
        raise InfraError(
            f"{path}: cannot be read ({error.strerror}); expected a run directory or its evidence.json.",
            reason="not-found",
        ) from error
    except UnicodeDecodeError as error:
        raise InfraError(f"{path}: not evidence of a run: not UTF-8 text ({error}).", reason="corrupt") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise InfraError(f"{path}: not evidence of a run: {where}: {first['msg']}.", reason="corrupt") from error
    return held_in_doubt(document, doubts_of(document, text))


def held_in_doubt(document: RunDocument, doubts: Sequence[str]) -> RunDocument:
    """A document that says at its head why it is not relied on; as it is, if there are no doubts."""
    if not doubts:
        return document
    recorded = document.causes or [Reason(text=text) for text in document.reasons]
    return document.model_copy(
        update={
            "verdict": combine([document.verdict, "INFRA"]),
            "reasons": [*doubts, *document.reasons],
            "causes": [*(Reason(text=doubt, outside=True) for doubt in doubts), *recorded],
            "doubts": list(doubts),
        }
    )


def snapshots_of(document: RunDocument, evidence: Sequence[CellEvidence] | None = None) -> list[Snapshot]:
    """One snapshot a model of the run, in the run's order.

    Args:
        document: of the run.
        evidence: its cells with their zero-shot items; the document's own if not given, which have them only where
            they were put there by hand or by `read_run`.

    """
    cells: Sequence[CellEvidence] = document.cells if evidence is None else evidence
    run = document.run
    return [
        snapshot_of(
            model,
            cells,
            tier=run.tier,
            taken=run.started,
            verdict=document.verdict,
            whole=not run.left_out,
            commit=run.commit,
            command=run.command,
            environment=run.environment,
        ).model_copy(update={"doubts": document.doubts})
        for model in dict.fromkeys(cell.model for cell in cells)
    ]


def read_snapshots(path: Path) -> list[Snapshot]:
    """The snapshots in a run directory, in its evidence.json, or in a file that `write_snapshot` wrote.

    Raises:
        InfraError: no such file, or it is none of these.

    """
    if path.is_dir() or _is_document(path):
        return snapshots_of(read_run(path))
    return [read_snapshot(path)]


def read_run(path: Path) -> RunDocument:
    """A run's document with the score of every zero-shot item, as far as its tables lie beside it.

    A table that is missing, or that is of another run, leaves its figure without items.

    Args:
        path: the run directory or its evidence.json.

    Raises:
        InfraError: as `read_document`.

    """
    document = read_document(path)
    directory = path if path.is_dir() else path.parent
    for cell in document.cells:
        for task, figure in cell.zero_shot.items():
            name = f"{cell.id}/{task}.csv"
            known = not document.tables or name in document.tables
            table = _table(directory / "items" / name, document.tables.get(name, "")) if known else b""
            figure.items = _items(table, figure)
    return document


def _table(path: Path, sha256: str) -> bytes:
    """A table as the run wrote it; nothing if there is none, or another than the document names."""
    try:
        content = read_plain(path)
    except (OSError, ValueError):  # ValueError: of a name that no file can have
        return b""
    return content if not sha256 or hashlib.sha256(content).hexdigest() == sha256 else b""


def _items(table: bytes, figure: ZeroShot) -> list[dict[str, object]]:
    """The scores in a table; none if they cannot be its figure's."""
    columns = ["doc_id", "doc_hash", figure.metric]
    try:  # Python keeps every digit
        frame = pd.read_csv(io.BytesIO(table), usecols=columns, dtype=str, keep_default_na=False)
        scores = [_score(text) for text in frame[figure.metric]]
    except (ValueError, KeyError):  # no table, or one without these columns, or without figures in them
        return []
    items = list(zip(frame["doc_id"], frame["doc_hash"], strict=True))
    value = figure.metrics.get(figure.metric, math.nan)
    if len(set(items)) != figure.n or len(items) != figure.n or not score_fits(figure.metric, value, scores):
        return []
    return [
        {"doc_id": doc_id, "doc_hash": doc_hash, figure.metric: score}
        for (doc_id, doc_hash), score in zip(items, scores, strict=True)
    ]


def _score(text: str) -> float:
    """A score as `write_items` writes it: a number, a truth value, or nothing for NaN."""
    return {"True": 1.0, "False": 0.0, "": float("nan")}[text] if text in ("True", "False", "") else float(text)


def _is_document(path: Path) -> bool:
    """Whether a file is a run's evidence rather than a snapshot; what is neither is told by whoever reads it."""
    try:
        raw = json.loads(read_plain_text(path))
    except OSError as error:
        raise InfraError(
            f"{path}: cannot be read ({error.strerror}); expected a run directory, its {DOCUMENT}, or a baseline.",
            reason="not-found",
        ) from error
    except (ValueError, RecursionError):
        return path.name == DOCUMENT
    return isinstance(raw, dict) and "run" in raw
