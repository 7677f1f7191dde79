"""What an xdist worker leaves on the disk as it goes, so that what it did can be told when it is dead."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pytest_superweight.signals import read_progress
from superweight.progress import Step


class Crumbs:
    """A directory that the controller and its workers share: a few small files a worker.

    Args:
        directory: where they are; on another machine there is none, and nothing is left.

    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def collected(self, worker: str, requested_gates: Iterable[tuple[str, str]]) -> None:
        """The worker knows its tests: cells and gates that they ask for."""
        with suppress(OSError):
            self._path(worker, "requested").write_text(json.dumps(sorted(requested_gates)), encoding="utf-8")

    def starts(self, worker: str, nodeid: str) -> None:
        """The worker is about to run this test."""
        with suppress(OSError):
            self._path(worker, "test").write_text(nodeid, encoding="utf-8", errors="surrogateescape")

    def started(self, worker: str) -> str | None:
        """The last test that the worker started, empty if it came to none; None if it leaves no crumbs."""
        with suppress(OSError):
            return self._path(worker, "test").read_text(encoding="utf-8", errors="surrogateescape")
        return "" if self._path(worker, "requested").exists() else None

    def requested_gates(self, worker: str) -> set[tuple[str, str]]:
        """Cells and gates that the tests of the worker ask for."""
        with suppress(OSError, ValueError):
            return {
                (cell, gate) for cell, gate in json.loads(self._path(worker, "requested").read_text(encoding="utf-8"))
            }
        return set()

    def step(self, worker: str) -> Step | None:
        """What the worker measured last, if that was in the test that it started last."""
        with suppress(OSError):
            begun = self._path(worker, "test").stat().st_mtime_ns
            if self._path(worker, "json").stat().st_mtime_ns >= begun:
                return read_progress(self.directory).get(worker)
        return None

    def _path(self, worker: str, kind: str) -> Path:
        return self.directory / f"{worker}.{kind}"
