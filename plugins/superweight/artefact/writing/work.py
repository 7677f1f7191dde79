"""The directory in which an artefact grows: hidden until it is whole, and taken up again after a kill."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from superweight.checkpoint.fetching.cache import file_sha256
from superweight.checkpoint.fetching.problems import is_disk_full
from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError

_MANIFEST = "superweight-writing.json"
_LOCK = ".lock"


class Work:
    """What is written of one artefact so far.

    Attributes:
        target: the name that it will have.
        directory: where it grows.
        done: sha256 of every file that is whole, by name; those that an earlier run wrote were read again.
    """

    def __init__(self, target: Path, identity: str) -> None:
        self.target = target
        self.directory = target.parent / f".{target.name}.partial"
        self._identity = identity
        self.done: dict[str, str] = {}

    def note(self, name: str) -> None:
        """Count a file as whole: it was written and checked."""
        self.done[name] = file_sha256(self.directory / name, progress=False)
        self._write_manifest()

    def take_up(self) -> None:
        """Count what an earlier run of the same inputs left whole; clear away whatever else is there."""
        manifest = self.directory / _MANIFEST
        known = read_json(manifest) if manifest.is_file() else {}
        listed = known.get("files") if known.get("identity") == self._identity else {}
        for name, sha256 in (listed or {}).items():
            path = self.directory / name
            if path.is_file() and file_sha256(path) == sha256:
                self.done[name] = sha256
        for path in self.directory.iterdir():
            if path.name not in {*self.done, _LOCK}:
                _remove(path)
        self._write_manifest()

    def require(self, size: int) -> None:
        """Refuse to begin what will not fit.

        Raises:
            InfraError: the disk has not that many bytes left (`disk-full`).
        """
        free = shutil.disk_usage(self.directory).free
        if size > free:
            raise InfraError(
                f"{self.target} takes {size / 1e6:,.1f} MB more, and {free / 1e6:,.1f} MB are free on that disk. Free "
                "space there, or write to another disk.",
                reason="disk-full",
            )

    def publish(self) -> None:
        """Give the directory its name."""
        for name in (_MANIFEST, _LOCK):
            (self.directory / name).unlink(missing_ok=True)
        for path in self.directory.rglob("*"):
            _flush(path)
        _flush(self.directory)
        os.rename(self.directory, self.target)  # over an empty directory, if there is one  # noqa: PTH104
        _flush(self.target.parent)

    def _write_manifest(self) -> None:
        temporary = self.directory / f"{_MANIFEST}.new"
        temporary.write_text(json.dumps({"identity": self._identity, "files": self.done}, indent=1) + "\n")
        _flush(temporary)
        temporary.replace(self.directory / _MANIFEST)


@contextmanager
def working(target: Path, identity: str) -> Iterator[Work]:
    """Hold the place in which an artefact grows.

    When the block is left by a kill, an interruption or a full disk, what is whole stays, hidden, for the next run.

    Raises:
        InfraError: something has that name (`unsupported`), another process is writing it (`unsupported`), the disk is
            full (`disk-full`), or somebody interrupted (`interrupted`).
    """
    refuse_taken(target)
    work = Work(target, identity)
    work.directory.mkdir(parents=True, exist_ok=True)
    with _alone(work):
        try:
            refuse_taken(target)
            work.take_up()
            yield work
        except BaseException as error:
            told = _told(error, work)
            if not work.done or not isinstance(told, InfraError) or told.reason not in _GONE_ON_FROM:
                shutil.rmtree(work.directory, ignore_errors=True)
            if told is error:
                raise
            raise told from error


_GONE_ON_FROM = ("disk-full", "interrupted")


def _told(error: BaseException, work: Work) -> BaseException:
    """An error as it is told: of a full disk or an interruption, with what the next run goes on from."""
    if isinstance(error, KeyboardInterrupt):
        return InfraError(f"interrupted; the same command goes on from {_kept(work)}", reason="interrupted")
    if isinstance(error, InfraError) or not is_disk_full(error):
        return error
    return InfraError(
        f"No disk space left while writing {work.target}. Free space there and run again: the same command goes on "
        f"from {_kept(work)}.",
        reason="disk-full",
    )


def refuse_taken(target: Path) -> None:
    """Refuse a name that something has, unless it is an empty directory.

    Raises:
        InfraError: `unsupported`.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InfraError(f"{target} is there already. Remove it, or give another name.", reason="unsupported")


@contextmanager
def publish_file(target: Path) -> Iterator[Path]:
    """A hidden name beside a file; what is written there gets the file's name when the block ends well."""
    temporary = target.with_name(f".{target.name}.partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _kept(work: Work) -> str:
    return f"{len(work.done)} whole files in {work.directory}" if work.done else "the beginning"


@contextmanager
def _alone(work: Work) -> Iterator[None]:
    lock = FileLock(work.directory / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InfraError(f"another process is writing {work.target}; wait for it", reason="unsupported") from error
    try:
        yield
    finally:
        lock.release()


def _remove(path: Path) -> None:
    forget: Callable[[Path], object] = shutil.rmtree if path.is_dir() else Path.unlink
    forget(path)


def _flush(path: Path) -> None:
    """Have bytes, or a directory's names, on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
