"""How an xdist worker died, in words: by what, over which test, and with how much memory in use."""

from __future__ import annotations

import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pytest_superweight.memory import UNKNOWN, Kills, available, kills, resident
from superweight.progress import Step

_WAIT = 2.0  # seconds for the exit code of a process whose pipe is closed
_PAUSE = 0.2  # seconds between two looks at memory
_GIB = 2**30


@dataclass(frozen=True)
class Death:
    """One worker that did not end in order."""

    worker: str
    error: str
    code: int | None = None
    """Exit code, or minus the signal; None if it cannot be had."""
    test: str | None = None
    """Id of the last test that it started, empty if it came to none; None if nobody knows."""
    finished: bool = False
    """Whether that test was over."""
    step: Step | None = None
    held: int | None = None
    """Bytes of memory when last seen."""
    everyone: int | None = None
    """Bytes of memory of all workers, then."""
    limit: int | None = None
    """Bytes of memory that there are."""
    before: Kills = UNKNOWN
    after: Kills = UNKNOWN

    @property
    def fatal(self) -> str:
        """The test that it died over, if it died over one."""
        return "" if self.finished else self.test or ""

    def __str__(self) -> str:
        parts = (f"worker {self.worker} {self._how} {self._when}".rstrip(), self._memory)
        return "; ".join(part for part in parts if part) + self._advice

    @property
    def cause(self) -> str:
        """What its test came to: the long story is told once, of the run."""
        return f"the test was not over when worker {self.worker} {self._how}"

    @property
    def _how(self) -> str:
        if self.code is None:
            return f"died ({self.error})"
        if self.code >= 0:
            return f"exited with code {self.code}"
        try:
            return f"was killed by {signal.Signals(-self.code).name} ({-self.code})"
        except ValueError:
            return f"was killed by signal {-self.code}"

    @property
    def _when(self) -> str:
        if self.test is None:
            return ""
        if not self.test:
            return "before its first test"
        return f"after {self.test} was over" if self.finished else f"while it ran {self.test}{self._at}"

    @property
    def _at(self) -> str:
        if self.step is None:
            return ""
        far = f", {self.step.done} of {self.step.planned}" if self.step.planned else ""
        return f" (at {self.step.stage} of {self.step.cell}{far})"

    @property
    def _memory(self) -> str:
        if self.held is None:
            return ""
        limit = f" of {self.limit / _GIB:.1f}" if self.limit else ""
        if self.everyone is None or self.everyone == self.held:
            return f"resident memory {self.held / _GIB:.1f}{limit} GiB when last seen"
        return (
            f"resident memory {self.held / _GIB:.1f} GiB when last seen, of all workers together "
            f"{self.everyone / _GIB:.1f}{limit} GiB"
        )

    @property
    def _advice(self) -> str:
        if self.code != -9:
            return ""
        if _rose(self.before.group, self.after.group):
            return ". The kernel killed for want of memory during this run: use fewer workers (-n)"
        if _rose(self.before.machine, self.after.machine):
            return ". The kernel killed for want of memory on this machine during this run: use fewer workers (-n)"
        return ". The kernel kills like this when memory runs out: if it did, use fewer workers (-n)"


class Watchman:
    """Knows the processes of workers, and how much memory they held when last seen."""

    def __init__(self) -> None:
        self._before = kills()
        self._pids: dict[str, int] = {}
        self._held: dict[str, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="superweight-memory", daemon=True)

    def add(self, node: Any) -> None:
        """A worker is there."""
        process = _process(node)
        if process is not None and resident(process.pid) is not None:
            self._pids[node.gateway.id] = process.pid
            if not self._thread.is_alive() and not self._ended.is_set():
                self._thread.start()

    def death(self, node: Any, error: object, *, test: str | None, finished: bool, step: Step | None) -> Death:
        """What can be told of a worker that is gone."""
        worker = node.gateway.id
        return Death(
            worker,
            str(error),
            _code(node),
            test,
            finished,
            step,
            held=self._held.get(worker),
            everyone=sum(self._held.values()) if worker in self._held else None,
            limit=available(),
            before=self._before,
            after=kills(),
        )

    def remove(self, node: Any) -> None:
        """A worker is gone, and what it held is free."""
        self._pids.pop(node.gateway.id, None)
        self._held.pop(node.gateway.id, None)

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _look(self) -> None:
        while not self._ended.wait(_PAUSE):
            for worker, pid in list(self._pids.items()):
                if (held := resident(pid)) is not None:
                    self._held[worker] = held


def _rose(before: int | None, after: int | None) -> bool:
    return before is not None and after is not None and after > before


def _process(node: Any) -> subprocess.Popen[bytes] | None:
    """The worker's process, if it is one of this machine's."""
    found = getattr(getattr(node.gateway, "_io", None), "popen", None)
    return found if isinstance(found, subprocess.Popen) else None


def _code(node: Any) -> int | None:
    process = _process(node)
    with suppress(subprocess.TimeoutExpired):
        return None if process is None else process.wait(_WAIT)
    return None
