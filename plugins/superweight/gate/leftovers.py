"""The files that an earlier run left in the run directory."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_FILES = (
    "evidence.json",
    "summary.md",
    "report.html",
    "badge.json",
    "figures.csv",
    "compare.md",
    "compare.json",
)


def remove_leftovers(out: Path) -> None:
    """Remove what could be taken for the result of the run that starts now.

    A directory that cannot be written to is told when the run is written.
    """
    for name in _FILES:
        with suppress(OSError):
            (out / name).unlink()
