"""The store: journals of measurements by content key, under one directory that several runs may share."""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from superweight.evidence.journal import Journal, read_lines, unwritable
from superweight.plain_files import expect_file, read_plain

try:
    import fcntl
except ImportError:  # Windows: treated as a file system that knows no locks
    _LOCKS = False
else:
    _LOCKS = True

PATIENCE = 2.0  # seconds of waiting that nobody needs to be told about
_POLL = 0.02  # seconds
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)

# What this process holds open, by file. The kernel's lock would make a process wait for itself for ever, and a child
# made by fork would keep the lock of a parent that was killed; only the process as a whole can know either.
_held: dict[Path, int | None] = {}
_guard = threading.Lock()


class Store:
    """Measurements by content key, under one directory that several runs may share.

    A journal has one writer at a time: whoever opens it next waits until the first has closed it or has died, and then
    finds its records. The lock is the kernel's (`flock`, on the journal itself), so that a killed process leaves none
    behind. Two processes that each wait for what the other holds would wait for ever: hold one journal at a time, or
    open them in the same order everywhere.

    Where the file system knows no locks (NFS without lockd, some cluster file systems) journals open without one, and
    `UndoLog.note` says so. Two runs there may spoil each other's journal; checksums notice, and cost measurements,
    never their truth.

    Args:
        root: the directory; created when the first journal is.
        waiting: called with a message, once a journal, when another process has held it for two seconds.

    """

    def __init__(self, root: Path, *, waiting: Callable[[str], None] | None = None) -> None:
        self.root = root.resolve()
        self._waiting = waiting

    def journal(self, key: str, what: Mapping[str, Any]) -> Journal:
        """Open a measurement's journal for writing, or create it; waits while another process has it open.

        Args:
            key: content key, lower-case hexadecimal.
            what: what is measured, for humans; kept in the header of a new journal.

        Raises:
            InfraError: `disk-full`, or `unsupported` if the directory cannot be used.
            RuntimeError: this process already has it open, in this thread or another.
            ValueError: not a key.

        """
        path = self._path(key)
        with _guard:
            if path in _held:
                raise RuntimeError(f"{path}: the journal is already open in this process; close it first.")
            _held[path] = None
        try:
            descriptor, locked = _open_locked(path, self._waiting)
            journal = Journal(path, descriptor, key=key, what=what, release=lambda: _release(path))
        except OSError as error:
            _release(path)
            raise unwritable(path, error) from error
        except BaseException:
            _release(path)
            raise
        if not locked:
            unlocked = f"{path}: locks are not supported here; let one run at a time use this store."
            journal.note = f"{journal.note} {unlocked}".lstrip()
        return journal

    def peek(self, key: str) -> list[dict[str, Any]]:
        """The whole records of a measurement, without waiting; none if there is no journal of this format.

        Whoever has the journal open may go on appending.

        Raises:
            InfraError: `unsupported` if the file cannot be read.
            ValueError: not a key.

        """
        path = self._path(key)
        try:
            data = read_plain(path)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise unwritable(path, error) from error
        return read_lines(data, key).records

    def _path(self, key: str) -> Path:
        if not re.fullmatch("[0-9a-f]{4,128}", key):
            raise ValueError(f"expected a content key, 4 to 128 lower-case hexadecimal digits, found {key!r}")
        return self.root / "journal" / key[:2] / f"{key}.jsonl"


def _open_locked(path: Path, waiting: Callable[[str], None] | None) -> tuple[int, bool]:
    """Open a file for reading and appending and lock it; its descriptor, and whether there are locks at all."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = _held[path] = os.open(path, flags, 0o666)
        expect_file(descriptor, path)
        locked = _lock(descriptor, path, waiting)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, locked
        _held[path] = None  # deleted by someone while this process waited; the name is free again
        os.close(descriptor)


def _lock(descriptor: int, path: Path, waiting: Callable[[str], None] | None) -> bool:
    if not _LOCKS:
        return False
    patient_until = time.monotonic() + PATIENCE
    try:
        while time.monotonic() < patient_until:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            time.sleep(_POLL)
        if waiting:
            waiting(f"Waiting for another process that is taking the same measurement; it has {path} open …")
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise
    return True


def _release(path: Path) -> None:
    with _guard:
        descriptor = _held.pop(path, None)
        if descriptor is not None:
            if _LOCKS:  # closing alone would not do while a child that was not made by Python has the descriptor too
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            with suppress(OSError):  # every record has been flushed, so there is nothing left to go wrong
                os.close(descriptor)


def _let_go_in_child() -> None:
    """Close what the parent holds; the parent's lock stays, and dies with the parent alone."""
    global _guard
    _guard = threading.Lock()  # another thread may have held it at the moment of the fork
    for descriptor in _held.values():
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_in_child)
