"""A directory that is there whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from superweight.checkpoint.fetching.problems import is_disk_full
from superweight.errors import InfraError


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """Give an empty directory beside the target, which becomes the target when the block ends well.

    Raises:
        InfraError: there is something at the target (`unsupported`), or the disk is full (`disk-full`).
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InfraError(f"{target} is there already. Name a new directory, or remove it first.", reason="unsupported")
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.tmp-", dir=target.absolute().parent))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.chmod(0o755)  # mkdtemp's is for its owner alone
        temporary.replace(target)
    except Exception as error:
        if is_disk_full(error):
            raise InfraError(
                f"{target}: the disk is full; nothing was written. Free space there, or name a directory on another.",
                reason="disk-full",
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(file: Path) -> None:
    """Have the bytes on disk before the name is; safetensors writes for its owner alone."""
    file.chmod(0o644)
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())
