"""Files that are either whole or absent: written to a temporary name, flushed, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from superweight.errors import InfraError
from superweight.evidence.measured import CellEvidence


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically by text, in UTF-8; what has no UTF-8 is written as its escape, as in JSON.

    Raises:
        InfraError: as `write_bytes`.

    """
    write_bytes(path, text.encode(errors="backslashreplace"))  # half a surrogate pair has no UTF-8


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file atomically.

    Raises:
        InfraError: `disk-full` or no permission; the old file, if any, is untouched.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        Path(temporary).unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> InfraError:
    full = error.errno in (28, 122)  # ENOSPC, EDQUOT
    advice = "free some space or choose another directory" if full else "choose another directory"
    return InfraError(
        f"{path}: could not be written ({error.strerror}); {advice}.", reason="disk-full" if full else "unsupported"
    )


def write_items(directory: Path, cells: Iterable[CellEvidence]) -> dict[str, str]:
    """Write one CSV per task and corpus under `directory/model/recipe/`; floats keep every digit.

    The tables replace those of an earlier run as a whole.

    Returns:
        the sha256 of each, by `model/recipe/name.csv`.

    Raises:
        InfraError: as `write_text`.
    """
    written: dict[str, str] = {}
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        for cell in cells:
            for name, table in _tables(cell):
                content = table.to_csv(index=False).encode(errors="backslashreplace")
                write_bytes(fresh / cell.model / cell.recipe / f"{name}.csv", content)
                written[f"{cell.id}/{name}.csv"] = hashlib.sha256(content).hexdigest()
        shutil.rmtree(directory, ignore_errors=True)
        if fresh.exists():
            fresh.replace(directory)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return written


def _tables(cell: CellEvidence) -> Iterator[tuple[str, pd.DataFrame]]:
    for task, figure in cell.zero_shot.items():
        if figure.items:
            yield task, pd.DataFrame(figure.items, dtype=object)  # text of data sets, which need not be Unicode
    for corpus, perplexity in cell.perplexity.items():
        windows = perplexity.index or range(len(perplexity.nll))
        columns = {"window": windows, "nll": perplexity.nll, "kl": perplexity.kl, "agreement": perplexity.agreement}
        columns = {name: values for name, values in columns.items() if len(values) == len(windows)}
        yield f"perplexity-{corpus}", pd.DataFrame(columns)
