"""The header of a safetensors file, read and checked without loading a tensor or importing torch."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from superweight.errors import InfraError

_LIMIT = 100_000_000  # bytes; the format's own limit for the header
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor's bytes are.

    Attributes:
        file: the safetensors file.
        dtype: as the format names it, `BF16`.
        shape: its shape.
        start: offset of the first byte in the file.
        stop: offset behind the last byte.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Read a safetensors header and check it against the file.

    Checked: the header lies within the file and is valid JSON; every tensor has a known dtype and as many bytes as
    its shape and dtype need; the tensors fill the rest of the file without gap or overlap.

    Raises:
        InfraError: corrupt; the message names the file, the bytes expected and the bytes found.
    """
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        lead = stream.read(8)
        if lead == b"version " or size < 8:
            raise _corrupt(path, _stub(lead, size))
        length = int.from_bytes(lead, "little")
        if length > min(size - 8, _LIMIT):
            raise _corrupt(
                path,
                f"the header says that it is {length} bytes long, but only {size - 8} bytes follow (limit {_LIMIT})",
            )
        raw = stream.read(length)
    tensors = {
        name: _tensor(path, name, entry, 8 + length)
        for name, entry in _parse(path, raw).items()
        if name != "__metadata__"
    }
    _check_layout(path, tensors, 8 + length, size)
    return tensors


def _stub(lead: bytes, size: int) -> str:
    if lead == b"version ":
        return f"it holds {size} bytes of text, a Git LFS pointer in place of the weights (`git lfs pull` fetches them)"
    return f"expected at least 8 bytes of header length, found {size} bytes"


def _parse(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _corrupt(path, f"the header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise _corrupt(path, f"the header should be a JSON object, found {type(header).__name__}")
    return header


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is there twice")
    return found


def _tensor(path: Path, name: str, entry: Any, base: int) -> TensorInfo:
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise _corrupt(
            path, f"the header's entry of {name} is not dtype, shape and two data_offsets: {entry!r}"
        ) from error
    if dtype not in _BITS:
        raise _corrupt(path, f"{name} has the dtype {dtype!r}; known are {', '.join(_BITS)}")
    numbers = [*shape, start, stop] if isinstance(shape, list) else [None]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise _corrupt(path, f"{name} has a shape or offsets that are not whole numbers from 0: {entry!r}")
    expected = -(-math.prod(shape) * _BITS[dtype] // 8)
    if stop - start != expected:
        raise _corrupt(
            path, f"{name}, {dtype} of shape {shape}, needs {expected} bytes, but the header gives it {stop - start}"
        )
    return TensorInfo(path, dtype, tuple(shape), base + start, base + stop)


def _check_layout(path: Path, tensors: dict[str, TensorInfo], base: int, size: int) -> None:
    position, before = base, "the header"
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start != position:
            raise _corrupt(path, f"{name} begins at byte {tensor.start}, but {before} ends at byte {position}")
        position, before = tensor.stop, name
    if position != size:
        missing = (
            f"it is cut short by {position - size} bytes" if size < position else f"{size - position} bytes too many"
        )
        raise _corrupt(path, f"the header describes a file of {position} bytes, found {size} bytes: {missing}")


def _corrupt(path: Path, what: str) -> InfraError:
    return InfraError(
        f"{path} is not a whole safetensors file: {what}. Get the file again from its origin.", reason="corrupt"
    )
