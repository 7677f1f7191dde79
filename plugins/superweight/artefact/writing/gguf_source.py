"""What a GGUF file is written from: metadata, and tensors in their order; here, an earlier GGUF file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from superweight.artefact.gguf.blocks import decodable, decode
from superweight.checkpoint.fetching.cache import Cache
from superweight.checkpoint.fetching.problems import missing_package
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.gguf_header import GgufTensor, read_gguf_header
from superweight.errors import InfraError


class Key(NamedTuple):
    """An entry of the metadata: name, value, its GGUF type, and that of an array's elements."""

    name: str
    value: Any
    kind: Any
    element: Any = None


@dataclass(frozen=True)
class Held:
    """A tensor that is to be written.

    Attributes:
        name: as GGUF has it.
        shape: rows first.
        kind: the type that it has where it comes from.
        raw: its bytes in that type, uint8, read when called.
        values: the same as float32 of the shape.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    raw: Callable[[], np.ndarray[Any, Any]]
    values: Callable[[], np.ndarray[Any, Any]]


@dataclass(frozen=True)
class GgufSource:
    """Everything that a file is written from.

    Attributes:
        architecture: `llama`.
        keys: the metadata.
        tensors: in the order in which they are written.
    """

    architecture: str
    keys: Sequence[Key]
    tensors: Sequence[Held]


def original_in_cache(checkpoint: Checkpoint) -> Path:
    """The GGUF file that a checkpoint was converted from.

    Raises:
        InfraError: it is no longer there (`not-found`).
    """
    name, sha256 = str(checkpoint.provenance.get("file")), checkpoint.provenance.get("sha256")
    cache = Cache()
    for path in _named(cache, name, checkpoint.origin):
        if cache.sha256(path) == sha256:
            return path
    raise InfraError(
        f"the GGUF file {name} (sha256 {sha256}), whose metadata and tokenizer are needed, is not in the cache. Give "
        "its path as the source.",
        reason="not-found",
    )


def _named(cache: Cache, name: str, origin: str) -> Iterator[Path]:
    """Files of a name where sources keep theirs, and the one that the origin names."""
    for place in ("files", "hub"):
        yield from (path for path in cache.path(place).rglob(name) if path.is_file())
    said = Path(origin.partition(" ")[2].rpartition(" (sha256 ")[0])
    if said.name == name and said.is_file():
        yield said


def source_of_gguf(path: Path, sha256: str) -> GgufSource:
    """All of a GGUF file.

    Raises:
        InfraError: it is another file than was converted (`hash-mismatch`), or a tensor cannot be decoded
            (`unsupported`).
    """
    found = Cache().sha256(path)
    if found != sha256:
        raise InfraError(
            f"{path} has the sha256 {found}; the checkpoint was converted from {sha256}. Give that file.",
            reason="hash-mismatch",
        )
    summary = read_gguf_header(path)
    return GgufSource(summary.architecture, list(_keys(path)), [_held(path, one) for one in summary.held.values()])


def _keys(path: Path) -> Iterator[Key]:
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError as error:
        raise missing_package("gguf", "Reading a GGUF file") from error
    for name, entry in GGUFReader(path).fields.items():
        if not name.startswith("GGUF."):
            kind = entry.types[0]
            yield Key(name, entry.contents(), kind, entry.types[-1] if kind == GGUFValueType.ARRAY else None)


def _held(path: Path, tensor: GgufTensor) -> Held:
    def raw() -> np.ndarray[Any, Any]:
        return np.asarray(np.memmap(path, np.uint8, "r", tensor.start, (tensor.size,)))

    def values() -> np.ndarray[Any, Any]:
        if not decodable(tensor.kind):
            raise InfraError(f"{path}: {tensor.name} is {tensor.kind}, which cannot be decoded", reason="unsupported")
        blocks = raw().reshape(-1, tensor.block_bytes)
        return decode(blocks, tensor.kind).reshape(tensor.shape)

    return Held(tensor.name, tensor.shape, tensor.kind, raw, values)
