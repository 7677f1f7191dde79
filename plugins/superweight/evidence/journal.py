"""A journal: an append-only file of measurements whose every line is checked; a crash costs one record at most."""

from __future__ import annotations

import errno
import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from superweight.errors import InfraError
from superweight.gc_pause import gc_paused

FORMAT = 1  # the version that a header names
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, and the shell's `ulimit -f`


class Journal:
    """One measurement's records on disk, open for writing; a context manager.

    Every line is a JSON document: `{"crc":"0b5f3e1a","record":{…}}`. Floats keep every digit, and infinities and NaN
    are written as Python's json writes them. The first line is a header that says what is measured. The checksum is
    CRC-32 (IEEE 802.3) over the line's record, begun from the checksum of the line before, so that it also notices a
    line that is missing, out of place, or of another beginning.

    What is read back is always a beginning of what was appended, and every record whose `append` returned is in it;
    for that the file is flushed after each record, and its directories once (Pillai et al., OSDI 2014: without, file
    systems promise neither the order nor the name). A crash leaves a last line that has no end, which is cut off. Any
    other line that is not as it was written is damage: the lines before it are used, `note` says so, and the file as it
    was is kept beside this one as `….damaged-1`, `….damaged-2` and so on. So is one whose header is damaged, of another
    format or of another key, of which nothing is used.

    Made by `Store.journal`, which holds the file's lock as long as the journal is open. A child made by `os.fork` has
    no part in it: there the journal counts as closed.

    Args:
        path: the file; it exists, empty or not.
        descriptor: of the file, open for reading and appending; whoever opened it closes it.
        key: content key of the measurement.
        what: what is measured, for humans; kept in the header.
        release: called once, on closing.

    Attributes:
        path: the file.
        records: the whole records found on opening, then those appended, all as JSON gives them back.
        created: when the measurement was begun, UTC in ISO 8601, to the second.
        note: what a human should be told about the file; empty if all is well.

    Raises:
        InfraError: as `append`.

    """

    def __init__(
        self, path: Path, descriptor: int, *, key: str, what: Mapping[str, Any], release: Callable[[], None]
    ) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        self.created = ""
        self.note = ""
        self._descriptor = descriptor
        self._key = key
        self._what = dict(what)
        self._release = release
        self._process = os.getpid()
        self._open = True
        self._one_at_a_time = threading.Lock()
        # Bytes up to the end of the last whole line, and its checksum. One attribute, so that an interrupt cannot come
        # between the two.
        self._tail = (0, 0)
        try:
            self._read()
        except OSError as error:
            raise unwritable(path, error) from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it is on the disk when this returns.

        If this raises, the record is not in the journal, which ends where it ended before and can be appended to.

        Args:
            record: a JSON object; the journal keeps a copy.

        Raises:
            InfraError: `disk-full` if the disk, a quota or a limit on file sizes is used up, `unsupported` if the file
                cannot be written for another reason.
            RuntimeError: the journal is closed, or was opened by another process.
            TypeError: not JSON.

        """
        with self._writing():
            if self._tail == (0, 0):  # a restart that found no room for the header
                self._begin()
            self.records.append(self._write(dict(record)))

    def restart(self) -> None:
        """Drop all records and begin again, with a new `created`.

        Raises:
            InfraError: as `append`; the records are dropped all the same.
            RuntimeError: as `append`.

        """
        with self._writing():
            self.records.clear()
            self._tail = (0, 0)
            self._begin()

    def close(self) -> None:
        """Let other processes have the file; to close twice does nothing."""
        if os.getpid() != self._process:
            return
        with self._one_at_a_time:
            if self._open:
                self._open = False
                self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        if os.getpid() != self._process:
            raise RuntimeError(f"{self.path}: the journal belongs to process {self._process}, not to its child.")
        with self._one_at_a_time:
            if not self._open:
                raise RuntimeError(f"{self.path}: the journal is closed; open it again with Store.journal.")
            yield

    def _read(self) -> None:
        """Take over what the file holds, and cut off what is not whole."""
        with open(self._descriptor, "rb", closefd=False) as stream:
            data = stream.read()
        found = read_lines(data, self._key)
        if found.damage:
            aside = self._set_aside(data)
            self.note = f"{self.path}: {found.damage}; the file as it was is kept as {aside.name}."
        self.records, self._tail = found.records, (found.end, found.checksum)
        if found.header is None:
            self._begin()
        else:
            self.created = str(found.header["created"])
            if found.end < len(data):
                os.ftruncate(self._descriptor, found.end)
                os.fsync(self._descriptor)
        if not self.records:  # whoever made the file may have been killed before this
            sync_directories(self.path)

    def _set_aside(self, data: bytes) -> Path:
        """Keep a copy of a damaged file under the first free name; this file stays the one that is locked."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        unfinished = self.path.with_name(f"{self.path.name}.damaged")
        with unfinished.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(aside)
        sync_directories(aside)
        return aside

    def _begin(self) -> None:
        self.created = datetime.now(UTC).isoformat(timespec="seconds")
        header = {"format": FORMAT, "key": self._key, "created": self.created}
        # What is random tells this beginning from one before it: their lines never pass as one sequence to a reader
        # who reads while a journal is restarted.
        header["beginning"] = os.urandom(8).hex()
        what = json.loads(json.dumps(self._what, default=str))
        self._write({**header, "what": what})

    def _write(self, record: dict[str, Any]) -> dict[str, Any]:
        """Write one line behind the last whole one and flush it; the record as JSON gives it back."""
        end, before = self._tail
        payload = json.dumps(record, separators=(",", ":")).encode("ascii")
        checksum = zlib.crc32(payload, before)
        line = _line(payload, checksum)
        copy: dict[str, Any] = json.loads(payload)
        try:
            os.ftruncate(self._descriptor, end)  # an earlier failure may have left something behind
            rest = memoryview(line)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except BaseException as error:  # an interrupt also leaves part of a line
            with suppress(OSError):
                os.ftruncate(self._descriptor, end)
            if isinstance(error, OSError):
                raise unwritable(self.path, error) from error
            raise
        self._tail = (end + len(line), checksum)
        return copy


@dataclass
class Lines:
    """What a journal's bytes hold."""

    header: dict[str, Any] | None = None  # None: nothing of this key and format
    records: list[dict[str, Any]] = field(default_factory=list)
    end: int = 0  # bytes up to the end of the last whole line
    checksum: int = 0  # of that line
    damage: str = ""  # what is wrong with the first line that is not used, unless it has no end


def read_lines(data: bytes, key: str) -> Lines:
    """Read lines from the beginning up to the first that is not whole.

    Args:
        data: the file, or as much of it as there is yet.
        key: content key that the header has to name.

    """
    with gc_paused():  # all of it is going to be kept
        return _read_lines(data, key)


def _read_lines(data: bytes, key: str) -> Lines:
    found = Lines()
    while (stop := data.find(b"\n", found.end) + 1) > 0:
        read = _record(data[found.end : stop], found.checksum)
        if read is None:
            found.damage = f"line {len(found.records) + 2} is damaged, and neither it nor what follows is used"
            if found.header is None:
                found.damage = "the first line is damaged, and nothing of it is used"
            break
        record, checksum = read
        if found.header is None:
            found.damage = _misfit(record, key)
            if found.damage:
                break
            found.header = record
        else:
            found.records.append(record)
        found.end, found.checksum = stop, checksum
    return found


def _line(payload: bytes, checksum: int) -> bytes:
    return b'{"crc":"%08x","record":%b}\n' % (checksum, payload)


_BEFORE, _AFTER = len(_line(b"", 0)) - len(b"}\n"), len(b"}\n")


def _record(line: bytes, before: int) -> tuple[dict[str, Any], int] | None:
    """The record in a line and the line's checksum; None if any byte is not the one that was written."""
    payload = line[_BEFORE:-_AFTER]
    checksum = zlib.crc32(payload, before)
    if line != _line(payload, checksum):
        return None
    try:
        record = json.loads(payload)
    except (ValueError, RecursionError):  # bytes of someone else, that fit by chance or on purpose
        return None
    return (record, checksum) if isinstance(record, dict) else None


def _misfit(header: Mapping[str, Any], key: str) -> str:
    if header.get("format") != FORMAT:
        return f"of format {header.get('format')!r}, where this version of superweight reads and writes {FORMAT}"
    if header.get("key") != key or "created" not in header:
        return f"of another measurement, {header.get('key')!r}"
    return ""


def unwritable(path: Path, error: OSError) -> InfraError:
    """The error for a journal that cannot be opened or written: which file, why, and the ways out."""
    if error.errno in _FULL:
        return InfraError(
            f"{path}: no room to write a record ({error.strerror}). Free space there, or raise the quota or the limit "
            "on file sizes, and run again: what is recorded so far is kept and not measured again.",
            reason="disk-full",
        )
    where = error.filename or path
    return InfraError(
        f"{path}: expected a file that can be read and written, found {where}: {error.strerror or error}. Give this "
        "user access to it, or choose another directory for the store.",
        reason="unsupported",
    )


def sync_directories(path: Path) -> None:
    """Flush the directories on the way to a new file, so that its name outlives a power cut as well."""
    for directory in path.parents[:4]:  # <key[:2]>, journal, the store's root, and what holds it
        with suppress(OSError):  # some file systems, and some owners, do not let directories be flushed
            descriptor = os.open(directory, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
