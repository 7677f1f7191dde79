"""Failures that come from outside, said in this library's words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from superweight.errors import InfraError


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


@contextmanager
def disk_errors(where: Path, what: str) -> Iterator[None]:
    """Turn a full disk inside the block into an InfraError; other errors pass."""
    try:
        yield
    except InfraError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise disk_full(where, what) from error
        raise


def missing_package(package: str, need: str) -> InfraError:
    """The error for an optional dependency that is not installed."""
    return InfraError(
        f"{need} needs the Python package {package}, which is not installed. Install the measuring part: "
        "pip install 'pytest-superweight[gate]'.",
        reason="missing-package",
    )
