"""The header of a GGUF file, read and checked before anything is converted."""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from superweight.checkpoint.fetching.problems import missing_package
from superweight.errors import InfraError

_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by GGUF type
_STRING, _ARRAY = 8, 9


class GgufTensor(NamedTuple):
    """A tensor of a GGUF file.

    Attributes:
        name: `blk.2.ffn_down.weight`.
        kind: quantisation type, `Q4_K`; `F32` and the like for plain numbers.
        shape: rows first, as numpy has it; the last dimension is the one that blocks lie along.
        start: byte of the file where its data begin.
        size: bytes of its data.
        block: weights in one block, 1 for plain numbers.
        block_bytes: bytes in one block.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    start: int
    size: int
    block: int
    block_bytes: int


class GgufArray(NamedTuple):
    """An array in a GGUF header, not read: what its elements are (a GGUF type), how many, and where they begin."""

    kind: int
    length: int
    start: int


GgufValue = int | float | str | GgufArray


@dataclass(frozen=True)
class GgufSummary:
    """What a GGUF file holds.

    Attributes:
        architecture: `general.architecture`, `llama`.
        quantisation: quantisation type → how many tensors have it, `{"Q4_1": 210, "F32": 61}`.
        block_sizes: quantisation type → weights in one block, 1 for plain numbers.
        bits: quantisation type → bits per weight, scales included.
        tensors: names of the tensors, in the file's order.
        part: which part of a split model this file is, from 1, and how many there are; `(1, 1)` of a whole one.
        held: every tensor by its name, in the file's order.
        keys: metadata, key → value; arrays are not read, but for where they are.
        ends: byte after the header, where the first tensor's data begin; and byte after the last tensor's.
        alignment: bytes that every tensor's data begin at a multiple of.
    """

    architecture: str
    quantisation: dict[str, int] = field(default_factory=dict)
    block_sizes: dict[str, int] = field(default_factory=dict)
    bits: dict[str, float] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    part: tuple[int, int] = (1, 1)
    held: Mapping[str, GgufTensor] = field(default_factory=dict)
    keys: Mapping[str, GgufValue] = field(default_factory=dict)
    ends: tuple[int, int] = (0, 0)
    alignment: int = 32

    @property
    def note(self) -> str:
        """`already quantised: Q4_1 (5 bits per weight, blocks of 32) × 210 tensors`; empty for unquantised files."""
        parts = [
            f"{name} ({self.bits[name]:g} bits per weight, blocks of {size}) × {self.quantisation[name]} tensors"
            for name, size in self.block_sizes.items()
            if size > 1
        ]
        return f"already quantised in its GGUF file: {', '.join(parts)}" if parts else ""


def read_gguf_header(path: Path) -> GgufSummary:
    """Read a GGUF header and check that every tensor lies within the file.

    Raises:
        InfraError: corrupt (not a GGUF, or cut short: names the bytes expected and found), unsupported (version or
            quantisation type), missing-package (gguf).
    """
    with path.open("rb") as stream:
        if path.stat().st_size < 24:
            raise _corrupt(path, f"expected at least 24 bytes of header, found {path.stat().st_size}")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Walk(path, data).summary()


def read_gguf_array(path: Path, array: GgufArray) -> list[str] | list[float]:
    """The elements of an array in a header that was checked before: text, or numbers.

    Raises:
        InfraError: it is an array of arrays (`unsupported`), or the file is another by now (`corrupt`).
    """
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        walk = _Walk(path, data, array.start)
        if array.kind == _STRING:
            return [walk.text() for _ in walk.count(array.length, 8)]
        if array.kind == _ARRAY:
            raise InfraError(f"{path}: arrays of arrays in a header are not read here", reason="unsupported")
        layout = f"<{array.length}{walk.code(array.kind)}"
        return list(struct.unpack_from(layout, data, walk.take(struct.calcsize(layout))))


class _Walk:
    """Goes through a header from its first byte, never past the file's last."""

    def __init__(self, path: Path, data: mmap.mmap, at: int = 0) -> None:
        self.path, self.data, self.at = path, data, at

    def summary(self) -> GgufSummary:
        tensors, keys = self._preamble()
        known: dict[str, GgufValue] = {}
        for _ in self.count(keys, 12):
            key = self.text()
            known[key] = self.value(self.number("I"))
        alignment = _whole(known, "general.alignment", 32)
        if alignment <= 0:
            raise _corrupt(self.path, f"general.alignment is {alignment}")
        entries = [self._tensor() for _ in self.count(tensors, 24)]
        base = -(-self.at // alignment) * alignment
        held = {entry.name: entry._replace(start=base + entry.start) for entry in entries}
        part = (_whole(known, "split.no", 0) + 1, max(1, _whole(known, "split.count", 1)))
        self._check_extent(entries, held, base, part[1])
        layouts = {entry.kind: entry for entry in entries}
        names = dict(Counter(entry.kind for entry in entries).most_common())
        return GgufSummary(
            str(known.get("general.architecture") or ""),
            names,
            {name: layouts[name].block for name in names},
            {name: layouts[name].block_bytes * 8 / layouts[name].block for name in names},
            tuple(held),
            part,
            held,
            known,
            (base, max((entry.start + entry.size for entry in held.values()), default=base)),
            alignment,
        )

    def _preamble(self) -> tuple[int, int]:
        """How many tensors and how many keys follow."""
        if self.data[:4] != b"GGUF":
            raise _corrupt(self.path, f"expected the first four bytes to be b'GGUF', found {bytes(self.data[:4])!r}")
        self.at = 4
        version = self.number("I")
        if version not in _VERSIONS:
            raise InfraError(
                f"{self.path} is GGUF version {version}; versions 2 and 3, little-endian, can be read. "
                "Convert it again with a current llama.cpp.",
                reason="unsupported",
            )
        return self.number("Q"), self.number("Q")

    def _tensor(self) -> GgufTensor:
        """The next tensor; where it begins is counted from the end of the header."""
        name, dimensions = self.text(), self.number("I")
        shape = tuple(self.number("Q") for _ in self.count(dimensions, 8))[::-1]
        kind, block, size = _layout(self.path, name, self.number("I"))
        if shape and shape[-1] % block:
            raise _corrupt(
                self.path, f"{name} has rows of {shape[-1]} weights, which {kind} cannot hold: {block} a block"
            )
        return GgufTensor(name, kind, shape, self.number("Q"), math.prod(shape) // block * size, block, size)

    def _check_extent(self, entries: list[GgufTensor], held: Mapping[str, GgufTensor], base: int, parts: int) -> None:
        expected = max((entry.start + entry.size for entry in held.values()), default=base)
        if len(self.data) < expected:
            raise _corrupt(
                self.path,
                f"its tensors end at byte {expected}, but the file has {len(self.data)} bytes: "
                f"it is cut short by {expected - len(self.data)} bytes",
            )
        if not entries and parts == 1:  # the first part of a split model may have the metadata alone
            raise _corrupt(self.path, "it holds no tensor")
        if len(held) < len(entries):
            twice = Counter(entry.name for entry in entries).most_common(1)[0][0]
            raise _corrupt(self.path, f"it names {twice} more than once")

    def take(self, size: int) -> int:
        """Go `size` bytes on; the offset where they begin."""
        start, self.at = self.at, self.at + size
        if self.at > len(self.data):
            raise _corrupt(
                self.path,
                f"its header goes on past byte {start} by {size} bytes, but the file ends at byte {len(self.data)}",
            )
        return start

    def count(self, items: int, size: int) -> Iterator[int]:
        """Count to `items`, if so many of `size` bytes can still follow."""
        if items * size > len(self.data) - self.at:
            self.take(items * size)
        return iter(range(items))

    def number(self, code: str) -> int:
        size = struct.calcsize(f"<{code}")
        return int(struct.unpack_from(f"<{code}", self.data, self.take(size))[0])

    def text(self) -> str:
        length = self.number("Q")
        start = self.take(length)
        return self.data[start : start + length].decode("utf-8", errors="replace")

    def value(self, kind: int) -> GgufValue:
        """The next value; of an array, where it is."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        code = self.code(kind)
        return self._real(code) if code in "fd" else self.number(code)

    def _real(self, code: str) -> float:
        size = struct.calcsize(f"<{code}")
        return float(struct.unpack_from(f"<{code}", self.data, self.take(size))[0])

    def _array(self) -> GgufArray:
        """Pass over an array."""
        found = GgufArray(self.number("I"), self.number("Q"), self.at)
        if found.kind == _STRING:
            for _ in self.count(found.length, 8):
                self.take(self.number("Q"))
        elif found.kind == _ARRAY:
            for _ in self.count(found.length, 12):
                self._array()
        else:
            self.take(found.length * struct.calcsize(f"<{self.code(found.kind)}"))
        return found

    def code(self, kind: int) -> str:
        """How a GGUF type is called by struct."""
        if kind not in _SCALARS:
            raise _corrupt(self.path, f"its header has a value of the unknown type {kind} before byte {self.at}")
        return _SCALARS[kind]


def _whole(known: Mapping[str, GgufValue], key: str, default: int) -> int:
    found = known.get(key)
    return found if isinstance(found, int) else default


def _layout(path: Path, tensor: str, kind: int) -> tuple[str, int, int]:
    """A quantisation type's name, weights in a block, and bytes in one."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise missing_package("gguf", "Reading a GGUF file") from error
    try:
        known = GGMLQuantizationType(kind)
    except ValueError as error:
        raise InfraError(
            f"{path}: tensor {tensor} has the quantisation type {kind}, which the installed gguf package does not know."
            " Upgrade gguf, or convert the file again.",
            reason="unsupported",
        ) from error
    block, size = GGML_QUANT_SIZES[known]
    return known.name, block, size


def _corrupt(path: Path, what: str) -> InfraError:
    return InfraError(f"{path} is not a whole GGUF file: {what}. Get the file again from its origin.", reason="corrupt")
