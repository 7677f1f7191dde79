"""From a card's source to files on disk, whatever kind of source it is."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from superweight.cards.source import DirectorySource, GgufSource, HubSource, Source, WheelSource
from superweight.checkpoint import gguf
from superweight.checkpoint.fetching import hub, wheel
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.download import wrong_hash
from superweight.checkpoint.fetching.wheel import fetch_file
from superweight.checkpoint.files import Checkpoint, open_directory
from superweight.errors import InfraError


class Planned(NamedTuple):
    """Something that a source needs: what, its size in bytes (None if unknown), and whether it is here already."""

    what: str
    size: int | None
    present: bool


def resolve(source: Source, cache: Cache, *, progress: bool = True) -> Checkpoint:
    """Get a checkpoint onto this machine, check it, and describe it.

    Fetched and converted once; later calls take what is in the cache and need no network.

    Raises:
        InfraError: with the reason why it cannot be had or used.
    """
    match source:
        case DirectorySource():
            return open_directory(source.path, cache=cache, progress=progress)
        case GgufSource():
            return _from_gguf(Path(source.path).expanduser(), source.sha256, str(source), cache, progress)
        case WheelSource():
            return _from_wheel(source, cache, progress)
        case HubSource():
            return _from_hub(source, cache, progress)


def planned_downloads(source: Source, cache: Cache) -> list[Planned]:
    """What a source needs, how large it is, and what of it is here already; never fails for want of a network."""
    match source:
        case DirectorySource() | GgufSource():
            path = Path(source.path).expanduser()
            return [Planned(str(source), _size_on_disk(path), path.exists())]
        case WheelSource():
            size, present = (None, True) if _converted(source, cache) else wheel.describe(source, cache)
            return [Planned(str(source), size, present)]
        case HubSource():
            return [Planned(*item) for item in hub.describe(source, cache)]


def _size_on_disk(path: Path) -> int | None:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file()) if path.is_dir() else None


def _from_gguf(path: Path, sha256: str | None, origin: str, cache: Cache, progress: bool) -> Checkpoint:
    if not path.is_file():
        raise InfraError(f"{path} is not there or is not a file. Correct the path.", reason="not-found")
    found = cache.sha256(path, progress=progress)
    if sha256 not in (None, found):
        raise wrong_hash(
            str(path), expected=str(sha256), found=found, advice="Correct the card, or get the file again."
        )
    directory = gguf.convert(path, found, cache, progress=progress)
    return open_directory(directory, origin=f"{origin} (sha256 {found})", cache=cache, progress=progress)


def _from_wheel(source: WheelSource, cache: Cache, progress: bool) -> Checkpoint:
    if not source.file.endswith(".gguf"):
        raise InfraError(
            f"{source}: a checkpoint inside a wheel must be one .gguf file, found {source.file!r}.",
            reason="unsupported",
        )
    if (directory := _converted(source, cache)) is not None:
        origin = f"{source} (sha256 {source.file_sha256})"
        return open_directory(directory, origin=origin, cache=cache, progress=progress)
    path = fetch_file(source, cache, progress=progress)
    return _from_gguf(path, source.file_sha256, str(source), cache, progress)


def _converted(source: WheelSource, cache: Cache) -> Path | None:
    """The conversion of a GGUF whose hash the card pins, if it was made before."""
    directory = gguf.converted_path(source.file_sha256, cache) if source.file_sha256 else None
    return directory if directory is not None and directory.is_dir() else None


def _from_hub(source: HubSource, cache: Cache, progress: bool) -> Checkpoint:
    snapshot = hub.fetch(source, cache, progress=progress)
    origin = f"hub {source.repository}@{snapshot.commit}"
    if source.gguf_file is None:
        return open_directory(snapshot.directory, origin=origin, cache=cache, progress=progress)
    return _from_gguf(snapshot.directory / source.gguf_file, None, f"{origin}, {source.gguf_file}", cache, progress)
