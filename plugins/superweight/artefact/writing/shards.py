"""Safetensors files written a tensor at a time, so that no more of a model is in memory than is at hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from superweight.artefact.writing.tensors import Bytes, Slot, Unit
from superweight.errors import InfraError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

_ALIGNED = ("I64", "U64", "F64", "I32", "U32", "F32", "I16", "U16", "F16", "BF16")
"""Dtypes in the order in which they lie in a file, widest first, so that all begin at multiples of their size."""
_SIZES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Shard:
    """One file, and what it will hold."""

    name: str
    units: tuple[Unit, ...]

    @property
    def bytes(self) -> int:
        """Of its tensors."""
        return sum(unit.bytes for unit in self.units)

    @property
    def slots(self) -> list[Slot]:
        """Its tensors in the order in which they lie in it."""
        found = [slot for unit in self.units for slot in unit.slots]
        return sorted(found, key=lambda slot: _ALIGNED.index(slot.dtype) if slot.dtype in _ALIGNED else len(_ALIGNED))


def size_of(text: str) -> int:
    """Bytes of a size such as `5GB`, `512 MiB` or a plain number.

    Raises:
        InfraError: it is none, or nothing (`unsupported`).
    """
    digits = text.strip().upper().rstrip("BIKMGT ")
    unit = text.strip().upper()[len(digits) :].strip()
    try:
        size = int(float(digits) * _SIZES.get(unit, 1))
        if (unit and unit not in _SIZES) or size < 1:
            raise ValueError
    except (ValueError, OverflowError) as error:
        raise InfraError(f"{text!r} is no size; expected one such as 5GB or 512MiB.", reason="unsupported") from error
    return size


def shards_of(units: Sequence[Unit], limit: int) -> list[Shard]:
    """Units in order, as many to a file as fit; a larger one has a file of its own."""
    groups: list[list[Unit]] = [[]]
    filled = 0
    for unit in units:
        if groups[-1] and filled + unit.bytes > limit:
            groups.append([])
            filled = 0
        groups[-1].append(unit)
        filled += unit.bytes
    if len(groups) == 1:
        return [Shard(SINGLE, tuple(groups[0]))]
    names = (f"model-{number:05}-of-{len(groups):05}.safetensors" for number in range(1, len(groups) + 1))
    return [Shard(name, tuple(group)) for name, group in zip(names, groups, strict=True)]


def index_of(shards: Sequence[Shard]) -> dict[str, object]:
    """`model.safetensors.index.json`."""
    placed = {slot.name: shard.name for shard in shards for slot in shard.slots}
    return {
        "metadata": {"total_size": sum(shard.bytes for shard in shards)},
        "weight_map": dict(sorted(placed.items())),
    }


def write_shard(
    path: Path,
    shard: Shard,
    metadata: Mapping[str, str],
    produce: Callable[[Unit], Iterable[tuple[str, Bytes]]],
    progress: Callable[[int], object],
) -> None:
    """Write one file, its bytes on disk when this returns.

    Args:
        path: where.
        shard: what.
        metadata: for `__metadata__`.
        produce: gives the bytes of a unit's tensors, by name.
        progress: is told how many bytes were written.

    Raises:
        InfraError: a tensor is of another size than was planned (`crash`).
        OSError: of the disk.
    """
    header, offsets = _header(shard, metadata)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + shard.bytes)
        for unit in shard.units:
            for name, content in produce(unit):
                start, stop = offsets[name]
                if len(content) != stop - start:
                    raise InfraError(
                        f"{name} takes {len(content)} bytes, where {stop - start} were planned", reason="crash"
                    )
                file.seek(8 + len(header) + start)
                file.write(content.data)
            progress(unit.bytes)
        file.flush()
        os.fsync(file.fileno())


def _header(shard: Shard, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The header, padded so that tensors begin at a multiple of eight, and where each tensor is behind it."""
    offsets: dict[str, tuple[int, int]] = {}
    entries: dict[str, object] = {"__metadata__": dict(metadata)}
    at = 0
    for slot in shard.slots:
        offsets[slot.name] = (at, at + slot.bytes)
        entries[slot.name] = {"dtype": slot.dtype, "shape": list(slot.shape), "data_offsets": [at, at + slot.bytes]}
        at += slot.bytes
    if len(entries) != 1 + len(shard.slots):
        raise InfraError(f"{shard.name} would hold two tensors of one name", reason="crash")
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), offsets
