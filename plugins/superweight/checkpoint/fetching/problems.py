"""Errors of disks, networks and missing packages, as InfraError."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from superweight.errors import InfraError

_NO_DIRECTORY = (errno.EACCES, errno.EEXIST, errno.ELOOP, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it stems from, says that the disk or the quota is used up."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):  # libraries that write from Rust raise errors of their own
            return True
        error = error.__cause__ or error.__context__
    return False


def disk_full(where: Path, what: str) -> InfraError:
    """The error for a full disk: which disk, while doing what, and the ways out."""
    return InfraError(
        f"No disk space left under {where} while {what}. Free space there and run again (a partial download is "
        "resumed), or set SUPERWEIGHT_CACHE to a directory on a larger disk.",
        reason="disk-full",
    )


def unusable(where: Path, error: OSError) -> InfraError:
    """The error for a cache that cannot be used: which directory, what stands in the way, and the way out."""
    at = error.filename or where
    return InfraError(
        f"{where}: the cache cannot be used ({error.strerror or error}: {at}). Give this user access to it, or set "
        "SUPERWEIGHT_CACHE to a directory that can be written.",
        reason="unsupported",
    )


@contextmanager
def disk_errors(where: Path, what: str) -> Iterator[None]:
    """Turn a full disk, and files under `where` that cannot be used, into an InfraError; other errors pass."""
    try:
        yield
    except InfraError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(where, what) from error
        if isinstance(error, OSError) and _stands_in_the_way(error, where):
            raise unusable(where, error) from error
        raise


def _stands_in_the_way(error: OSError, where: Path) -> bool:
    """Whether an error is about a directory, something under it, or something that it should lie in."""
    if not isinstance(error.filename, str | bytes | os.PathLike):
        return False
    path = Path(os.fsdecode(error.filename)).absolute()
    return path.is_relative_to(where) or (where.is_relative_to(path) and error.errno in _NO_DIRECTORY)


def missing_package(package: str, need: str) -> InfraError:
    """The error for an optional dependency that is not installed."""
    return InfraError(
        f"{need} needs the Python package {package}, which is not installed. Install the measuring part: "
        "pip install 'pytest-superweight[gate]'.",
        reason="missing-package",
    )
