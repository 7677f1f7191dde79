"""What a matrix becomes in a file of compressed-tensors: names, dtypes and shapes beforehand, and the bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from superweight.artefact.writing.outline import Part, Source
from superweight.artefact.writing.schemes import Scheme
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.header import TensorInfo

if TYPE_CHECKING:
    import torch

    from superweight.compress import Matrix, Recipe
    from superweight.compress.integer import Codes

Bytes = np.ndarray[Any, Any]
"""uint8, one dimension."""

_WORD = 32
SAFETENSORS = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "F8_E4M3": 1}


class Slot(NamedTuple):
    """A tensor to be written: its name, safetensors' dtype, shape, and size in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @classmethod
    def of(cls, name: str, dtype: str, *shape: int) -> Slot:
        """A tensor of a dtype of whole bytes."""
        return cls(name, dtype, shape, math.prod(shape) * _BYTES[dtype])


@dataclass(frozen=True)
class Unit:
    """What is read, and written to one shard, at once: a matrix with its codes, or a tensor as it is.

    Attributes:
        slots: the tensors that are written.
        source: the matrix; None of a tensor that is copied.
        copied: the tensor that is; None of a matrix.
        cast: safetensors' dtype to which it is rounded; empty if its bytes are copied.
    """

    slots: tuple[Slot, ...]
    source: Source | None = None
    copied: TensorInfo | None = None
    cast: str = ""

    @property
    def bytes(self) -> int:
        """Of all its tensors."""
        return sum(slot.bytes for slot in self.slots)


def coded_unit(source: Source, scheme: Scheme, scale: str) -> Unit:
    """What a matrix becomes.

    Args:
        source: the matrix.
        scheme: how its codes are stored.
        scale: safetensors' dtype of scales.
    """
    slots = [slot for part in source.parts for slot in _slots(part, source.shape[1], scheme, scale)]
    return Unit(tuple(slots), source)


def copied_unit(name: str, info: TensorInfo, cast: str = "") -> Unit:
    """A tensor as it is, or rounded to another dtype."""
    slot = Slot.of(name, cast, *info.shape) if cast else Slot(name, info.dtype, info.shape, info.stop - info.start)
    return Unit((slot,), copied=info, cast=cast)


def _slots(part: Part, columns: int, scheme: Scheme, scale: str) -> Iterator[Slot]:
    module, rows = part.module, part.rows.stop - part.rows.start
    scales = scale_shape(scheme, rows, columns)
    if scheme.packed:
        yield Slot.of(f"{module}.weight_packed", "I32", rows, -(-columns * scheme.bits // _WORD))
        yield Slot.of(f"{module}.weight_shape", "I64", 2)
    else:
        yield Slot.of(f"{module}.weight", "F8_E4M3" if scheme.kind == "float" else "I8", rows, columns)
    yield Slot.of(f"{module}.weight_scale", scale, *scales)
    if not scheme.symmetric:
        packed = scheme.packed and scheme.strategy != "tensor"
        yield (
            Slot.of(f"{module}.weight_zero_point", "I32", -(-rows * scheme.bits // _WORD), scales[-1])
            if packed
            else Slot.of(f"{module}.weight_zero_point", "I8", *scales)
        )


def scale_shape(scheme: Scheme, rows: int, columns: int) -> tuple[int, ...]:
    """Of one tensor's scales, as compressed-tensors has them."""
    if scheme.strategy == "tensor":
        return (1,)
    return (rows, columns // scheme.group_size if scheme.group_size else 1)


def coded_tensors(source: Source, codes: Codes, scheme: Scheme) -> dict[str, torch.Tensor]:
    """The tensors of `coded_unit`, by name, packed by the library."""
    found: dict[str, torch.Tensor] = {}
    for part in source.parts:
        for leaf, tensor in _of_part(codes, part.rows, scheme).items():
            found[f"{part.module}.{leaf}"] = tensor.contiguous()
    return found


def _of_part(codes: Codes, rows: slice, scheme: Scheme) -> dict[str, torch.Tensor]:
    import torch
    from compressed_tensors.compressors import pack_to_int32

    whole = scheme.strategy == "tensor"
    values = codes.codes[rows]
    scale = codes.scale.view(1) if whole else codes.scale[rows]
    found = {"weight_scale": scale}
    if codes.zero_point is not None:
        zero = codes.zero_point.view(1) if whole else codes.zero_point[rows]
        pack = scheme.packed and not whole
        found["weight_zero_point"] = pack_to_int32(zero, scheme.bits, packed_dim=0) if pack else zero
    if not scheme.packed:
        return {"weight": values, **found}
    shape = torch.tensor(values.shape, dtype=torch.int64)
    return {"weight_packed": pack_to_int32(values, scheme.bits), "weight_shape": shape, **found}


def codes_of(recipe: Recipe[Any], matrix: Matrix) -> Codes:
    """The codes of a recipe that has some."""
    find: Callable[[Matrix], Codes] = recipe.codes  # type: ignore[attr-defined]
    return find(matrix)


def raw_bytes(tensor: torch.Tensor) -> Bytes:
    """What a tensor is in a file, little-endian."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy()


def copied_bytes(checkpoint: Checkpoint, unit: Unit) -> Bytes:
    """The bytes of a tensor that is copied."""
    import torch

    info = unit.copied
    assert info is not None
    if unit.cast:
        names = {value: name for name, value in SAFETENSORS.items()}
        return raw_bytes(checkpoint.read(unit.slots[0].name).to(getattr(torch, names[unit.cast])))
    if info.start == info.stop:
        return np.empty(0, "u1")
    return np.memmap(info.file, dtype="u1", mode="r", offset=info.start, shape=(info.stop - info.start,))
