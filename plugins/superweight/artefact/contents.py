"""What identifies an artefact, wherever it lies: a hash of its weights and settings."""

from __future__ import annotations

from pathlib import Path

from superweight.checkpoint.fetching.cache import Cache, file_sha256
from superweight.checkpoint.files import open_directory


def content_sha256(path: Path, cache: Cache | None = None) -> str:
    """Of a directory, as `Checkpoint.content_hash`; of a file, its sha256.

    Args:
        path: the artefact.
        cache: remembers the hashes of big files, so that they are read once.

    Raises:
        InfraError: as `checkpoint.files.open_directory`.
    """
    if path.is_dir():
        return open_directory(path, cache=cache).content_hash
    return file_sha256(path) if cache is None else cache.sha256(path)
