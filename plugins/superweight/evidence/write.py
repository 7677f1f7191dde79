"""Files that are either whole or absent: written to a temporary name, flushed, then renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pandas as pd

from superweight.errors import InfraError
from superweight.evidence.measured import CellEvidence


def write_text(path: Path, text: str) -> None:
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
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
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
    advice = "free some space or choose another --superweight-out" if full else "choose another --superweight-out"
    return InfraError(
        f"{path}: could not be written ({error.strerror}); {advice}.", reason="disk-full" if full else "unsupported"
    )


def write_items(directory: Path, cell: CellEvidence) -> list[Path]:
    """Write one CSV per task and corpus under `directory/model/recipe/`; floats keep every digit.

    Returns:
        The files written.

    """
    written = []
    for task, figure in cell.zero_shot.items():
        if figure.items:
            written.append(
                _write_table(directory / cell.model / cell.recipe / f"{task}.csv", pd.DataFrame(figure.items))
            )
    for corpus, perplexity in cell.perplexity.items():
        table = pd.DataFrame({"window": range(len(perplexity.nll)), "nll": perplexity.nll})
        written.append(_write_table(directory / cell.model / cell.recipe / f"perplexity-{corpus}.csv", table))
    return written


def _write_table(path: Path, table: pd.DataFrame) -> Path:
    write_text(path, table.to_csv(index=False))
    return path
