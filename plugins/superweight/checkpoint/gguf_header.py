"""The header of a GGUF file, read and checked before anything is converted."""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from superweight.checkpoint.fetching.problems import missing_package
from superweight.errors import InfraError

_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # by GGUF type
_STRING, _ARRAY = 8, 9


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
    """

    architecture: str
    quantisation: dict[str, int] = field(default_factory=dict)
    block_sizes: dict[str, int] = field(default_factory=dict)
    bits: dict[str, float] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    part: tuple[int, int] = (1, 1)

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


class _Walk:
    """Goes through a header from its first byte, never past the file's last."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at = path, data, 0

    def summary(self) -> GgufSummary:
        tensors, keys = self._preamble()
        known: dict[str, int | str | None] = {}
        for _ in self.count(keys, 12):
            key = self.text()
            known[key] = self.value(self.number("I"))
        alignment = _whole(known, "general.alignment", 32)
        if alignment <= 0:
            raise _corrupt(self.path, f"general.alignment is {alignment}")
        entries = [self._tensor() for _ in self.count(tensors, 24)]
        self._check_extent(entries, -(-self.at // alignment) * alignment)
        names = dict(Counter(entry.layout.name for entry in entries).most_common())
        layouts = {entry.layout.name: entry.layout for entry in entries}
        return GgufSummary(
            str(known.get("general.architecture") or ""),
            names,
            {name: layouts[name].block for name in names},
            {name: layouts[name].bytes * 8 / layouts[name].block for name in names},
            tuple(entry.name for entry in entries),
            (_whole(known, "split.no", 0) + 1, max(1, _whole(known, "split.count", 1))),
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

    def _tensor(self) -> _Entry:
        """The next tensor."""
        name, dimensions = self.text(), self.number("I")
        shape = [self.number("Q") for _ in self.count(dimensions, 8)]
        layout, offset = _layout(self.path, name, self.number("I")), self.number("Q")
        return _Entry(name, offset, math.prod(shape) // layout.block * layout.bytes, layout)

    def _check_extent(self, entries: list[_Entry], base: int) -> None:
        expected = max((base + entry.offset + entry.size for entry in entries), default=base)
        if len(self.data) < expected:
            raise _corrupt(
                self.path,
                f"its tensors end at byte {expected}, but the file has {len(self.data)} bytes: "
                f"it is cut short by {expected - len(self.data)} bytes",
            )
        if not entries:
            raise _corrupt(self.path, "it holds no tensor")

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

    def value(self, kind: int) -> int | str | None:
        """The next value if it is an integer or text; arrays and floats are passed over."""
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            self._skip_array()
            return None
        code = self._code(kind)
        if code in "fd":
            self.take(struct.calcsize(f"<{code}"))
            return None
        return self.number(code)

    def _skip_array(self) -> None:
        kind, length = self.number("I"), self.number("Q")
        if kind == _STRING:
            for _ in self.count(length, 8):
                self.take(self.number("Q"))
        elif kind == _ARRAY:
            for _ in self.count(length, 12):
                self._skip_array()
        else:
            self.take(length * struct.calcsize(f"<{self._code(kind)}"))

    def _code(self, kind: int) -> str:
        if kind not in _SCALARS:
            raise _corrupt(self.path, f"its header has a value of the unknown type {kind} before byte {self.at}")
        return _SCALARS[kind]


@dataclass(frozen=True)
class _Layout:
    """A quantisation type: its name, weights in a block, bytes in a block."""

    name: str
    block: int
    bytes: int


class _Entry(NamedTuple):
    """A tensor: its name, where its data begin, how many bytes they take, and how they are laid out."""

    name: str
    offset: int
    size: int
    layout: _Layout


def _whole(known: dict[str, int | str | None], key: str, default: int) -> int:
    found = known.get(key)
    return found if isinstance(found, int) else default


def _layout(path: Path, tensor: str, kind: int) -> _Layout:
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
    return _Layout(known.name, block, size)


def _corrupt(path: Path, what: str) -> InfraError:
    return InfraError(f"{path} is not a whole GGUF file: {what}. Get the file again from its origin.", reason="corrupt")
