"""Read whole files, and refuse pipes and devices, which would block or never end."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_plain(path: Path) -> bytes:
    """Content of a regular file, or of what a link to one points at.

    Raises:
        OSError: it cannot be read, or is a pipe, a socket or a device.
    """
    with open(path, "rb", opener=_without_waiting) as file:  # Path.open takes no opener
        expect_file(file.fileno(), path)
        return file.read()


def read_plain_text(path: Path) -> str:
    """The same, as UTF-8.

    Raises:
        OSError: as `read_plain`.
        UnicodeDecodeError: not UTF-8.
    """
    return read_plain(path).decode("utf-8")


def expect_file(descriptor: int, path: Path) -> None:
    """Refuse what is open and is no regular file.

    Raises:
        OSError: it is none.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(errno.EINVAL, "is a pipe or a device, not a file", str(path))


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
