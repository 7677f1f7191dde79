"""Files that are read back: whole, and never waited for."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_bytes(path: Path) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it cannot be read, or is no regular file: a pipe would be waited for, a device has no end.

    """
    with open(path, "rb", opener=_without_waiting) as stream:
        expect_file(stream.fileno(), path)
        return stream.read()


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: not UTF-8.

    """
    return read_bytes(path).decode("utf-8")


def expect_file(descriptor: int, path: Path) -> None:
    """Refuse what is open and is no regular file.

    Raises:
        OSError: it is none.

    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
