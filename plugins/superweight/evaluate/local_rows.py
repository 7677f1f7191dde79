"""Rows in files of one's own, read to the letter and afresh: what `datasets` would guess at is refused."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import Any

from superweight.checkpoint import Cache
from superweight.errors import InfraError
from superweight.plain_files import read_plain
from superweight.plain_text import briefly

_READERS = ("json", "csv", "text", "parquet", "arrow", "xml")  # of `datasets`, for files of any origin
_JSON = (".json", ".jsonl")
_PATTERN = ("*", "?", "[")  # in the name of a file
_SHOWN = 300  # characters of what a reader says


def needs_files(reader: Any) -> bool:
    """Whether a data set's path is the name of what reads files, which takes all files at hand if it is given none."""
    return reader in _READERS


def local_files(reader: Any, data_files: Any) -> dict[str, list[Path]]:
    """Files on this machine that rows come from, by split; empty if they come from elsewhere.

    Args:
        reader: the path of the data set, as `datasets.load_dataset` takes it; of files, the name of what reads them.
        data_files: likewise: a name, a list of names, or either by split.
    """
    if not needs_files(reader) or not data_files:
        return {}
    splits = data_files if isinstance(data_files, dict) else {"train": data_files}
    if any(mark in name for name in _flat(data_files) for mark in ("://", *_PATTERN)):
        return {}
    return {str(split): [Path(name) for name in _flat(some)] for split, some in splits.items()}


def all_json(files: dict[str, list[Path]]) -> bool:
    """Whether the files are JSON by their names, packed in nothing."""
    return all(path.name.endswith(_JSON) for paths in files.values() for path in paths)


def json_rows(files: dict[str, list[Path]]) -> dict[str, Any]:
    """A `datasets.Dataset` for every split, in memory; a key that a row lacks is None in it.

    Raises:
        InfraError: a file cannot be read (`not-found`), or is not a list of rows, or one row a line, that agree on the
            type of every key and have no key twice and no number that is none (`corrupt`).
    """
    import datasets

    found = {}
    for split, paths in files.items():
        rows = [row for path in paths for row in _rows(path)]
        keys = list(dict.fromkeys(key for row in rows for key in row))
        names = ", ".join(map(str, paths))
        try:
            found[split] = datasets.Dataset.from_dict({key: [row.get(key) for row in rows] for key in keys})
        except Exception as error:  # whatever Arrow makes of values that do not go together
            raise _corrupt(names, f"rows must have the same type under each key ({briefly(error)})") from error
        if len(found[split]) != len(rows):
            raise _corrupt(names, f"expected {len(rows)} rows with keys, found {len(found[split])}")
    return found


def rows_cache(reader: Any, settings: dict[str, Any], cache: Cache) -> Path:
    """Where `datasets` keeps what it makes of rows: of local files, which it knows by name and time, by their content.

    Args:
        reader: as in `local_files`.
        settings: what else `datasets.load_dataset` is given; `data_files` and `data_dir` count.
        cache: where everything is kept.

    Raises:
        InfraError: a file cannot be read (`not-found`).
    """
    folder = cache.path("datasets")
    files = list(_read_by_datasets(reader, settings))
    if not files:
        return folder
    digest = hashlib.sha256()
    for path in files:
        digest.update(hashlib.sha256(_content(path)).digest())
    return folder / "local" / digest.hexdigest()


def _read_by_datasets(reader: Any, settings: dict[str, Any]) -> Iterator[Path]:
    """Local files that rows may come from: those named, those that fit a pattern, and all of a directory."""
    files = settings.get("data_files")
    yield from (path for paths in local_files(reader, files).values() for path in paths)
    for pattern in _flat(files):
        if "://" not in pattern and any(mark in pattern for mark in _PATTERN):
            found = glob(pattern, recursive=True)  # noqa: PTH207 - a `Path` takes no absolute pattern
            yield from sorted(path for path in map(Path, found) if path.is_file())
    for folder in (reader, settings.get("data_dir")):
        with suppress(OSError, ValueError):  # of a name that no directory can have
            if isinstance(folder, str) and Path(folder).is_dir():
                yield from sorted(path for path in Path(folder).rglob("*") if path.is_file())


def _flat(files: Any) -> Iterator[str]:
    """Names in `data_files`, whatever its form."""
    for each in files.values() if isinstance(files, dict) else [files]:
        yield from map(str, each if isinstance(each, list) else [each])


def _content(path: Path) -> bytes:
    try:
        return read_plain(path.expanduser())
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InfraError(
            f"{path}: expected a file of rows: {why}. Correct data_files in the task's YAML or the corpus card; a "
            "path in it is relative to where the run is started.",
            reason="not-found",
        ) from error


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = _content(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _corrupt(path, f"is not UTF-8 text: {error}") from error
    first = text.lstrip()[:1]
    if not first:
        raise _corrupt(path, "holds no rows")
    rows = _parsed(path, text, "") if first == "[" else list(_lines(path, text))
    if not isinstance(rows, list) or not rows:
        raise _corrupt(path, "holds no rows")
    for place, row in enumerate(rows):
        if not isinstance(row, dict) or not row:
            raise _corrupt(path, f"row {place}: expected an object with keys, found {str(row)[:_SHOWN]!r}")
    return rows


def _lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _parsed(path, line, f"line {number}: ")


def _parsed(path: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"{where}{str(error)[:_SHOWN]}") from error


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are all different.

    Raises:
        ValueError: one is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} is there twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that can be kept")
    return number


def _corrupt(path: Path | str, what: str) -> InfraError:
    return InfraError(
        f"{path}: {what}. Expected a JSON list of rows, or one row a line. Correct the file.", reason="corrupt"
    )
