"""torchao: tensor subclasses taken apart, `_weight_qdata` and its scales, with class and attributes in the metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, decoded_to, on_floats, on_grid
from superweight.artefact.numbers import TORCH, rounded
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

READ = ("Int8Tensor", "IntxUnpackedToInt8Tensor", "Float8Tensor")
"""Classes that are decoded here; the others lie as the kernels of one device want them."""

_PLAIN = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Subclass:
    """What the metadata says of one matrix.

    Attributes:
        name: of the class, `Int8Tensor`.
        dtype: of the decoded matrix.
        block: elements a scale, along rows and columns; empty if it says none.
        bits: of the codes.
        parts: names of its tensors: `qdata`, `scale`, `zero_point`.
        dynamic: whether activations are quantised as well.
    """

    name: str
    dtype: str
    block: tuple[int, ...]
    bits: int
    parts: tuple[str, ...]
    dynamic: bool

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest code."""
        return -(1 << self.bits - 1), (1 << self.bits - 1) - 1


def subclass_of(artefact: Artefact, module: str) -> Subclass:
    """What the metadata says of a module's weight.

    Raises:
        InfraError: nothing (`missing-tensor`), or nothing that can be read (`corrupt`).
    """
    said = artefact.metadata.get(f"{module}.weight")
    if said is None:
        raise InfraError(
            f"{artefact.path}: the safetensors metadata should name the class of {module}.weight, found none: torchao "
            "cannot put the tensor together again. Save the model with the tool that quantised it.",
            reason="missing-tensor",
        )
    try:
        return _subclass(json.loads(said))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InfraError(
            f"{artefact.path}: the safetensors metadata of {module}.weight should be a class and its attributes: "
            f"{type(error).__name__}: {error}. Save the model again.",
            reason="corrupt",
        ) from error


def _subclass(said: Any) -> Subclass:
    data: Mapping[str, Any] = said["_data"]
    target = data.get("target_dtype") or {}
    bits = int(str(target.get("_data", "int8")).removeprefix("int"))
    if not 1 <= bits <= 8:
        raise ValueError(f"codes of {bits} bits")
    return Subclass(
        name=str(said["_type"]),
        dtype=str((data.get("dtype") or {}).get("_data", "")),
        block=tuple(int(size) for size in data.get("block_size") or ()),
        bits=bits,
        parts=tuple(str(part) for part in said["_tensor_data_names"]),
        dynamic=bool(data.get("act_quant_kwargs") or data.get("activation_quantization")),
    )


def part(module: str, name: str) -> str:
    """The tensor that holds one part of a module's weight."""
    return f"{module}._weight_{name}"


class TorchAO:
    """`_weight_qdata` of int8 or float8, `(out, in)`, beside `_weight_scale`, a scale a block.

    Integers are `(code - zero point) · scale`, the difference in the matrix's dtype, the product in the wider of both,
    rounded to the matrix's; float8 is `code · scale` in float32, rounded. So `dequantize` of the classes has it.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there is such a part."""
        return part(module, "qdata") in artefact.tensors

    def describe(self, artefact: Artefact, module: str) -> str:
        """The class, its bits and its blocks."""
        try:
            known = subclass_of(artefact, module)
        except InfraError:
            return "torchao, without readable metadata"
        bits = f", {known.bits} bits" if known.name == "IntxUnpackedToInt8Tensor" else ""
        activations = ", activations quantised as they come" if known.dynamic else ""
        return f"torchao {known.name}{bits}, {_grid(artefact, module)}{activations}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code, its zero point and its scale."""
        known, name = subclass_of(artefact, place.module), part(place.module, "qdata")
        if why := _unreadable(artefact, place.module, known):
            return CannotTell(why)
        shape = artefact.tensors[name].shape
        if place.expert is not None or not (0 <= place.row < shape[0] and 0 <= place.column < shape[1]):
            return CannotTell(f"[{place.row}, {place.column}] lies outside {name} of shape {shape}")
        at = _block(artefact, place)
        scale, code = artefact.number(part(place.module, "scale"), *at), artefact.number(name, place.row, place.column)
        if known.name == "Float8Tensor":
            kind = TORCH[artefact.tensors[name].dtype]
            found = on_floats(lambda one: one * scale, code, kind, known.dtype)
            return decoded_to(found, rounded(rounded(code * scale, "float32"), known.dtype))
        return _integer(artefact, place.module, known, at, (int(code), scale))


def _integer(
    artefact: Artefact, module: str, known: Subclass, at: tuple[int, ...], pair: tuple[int, float]
) -> Decoded | CannotTell:
    (code, scale), zeros = pair, part(module, "zero_point")
    zero = rounded(artefact.number(zeros, *at), known.dtype) if zeros in artefact.tensors else 0.0
    if zero and ignores_zero_points(artefact, module, known):
        return CannotTell(f"{zeros} is {zero:g}: torchao decodes rows of int8 with it, and multiplies without")
    (least, most), dtype = known.range, known.dtype
    found = on_grid(lambda one: (one - zero) * scale, code, least, most, dtype, f"{code} of {least} to {most}")
    wide = _wider(known.dtype, TORCH[artefact.tensors[part(module, "scale")].dtype])
    return decoded_to(found, rounded(rounded(rounded(code - zero, known.dtype) * scale, wide), known.dtype))


def ignores_zero_points(artefact: Artefact, module: str, known: Subclass) -> bool:
    """Whether the class multiplies as if all zero points were 0, as it does with whole rows of int8."""
    columns = artefact.tensors[part(module, "qdata")].shape[-1]
    return known.name == "Int8Tensor" and bool(known.block) and known.block[-1] >= columns


def _unreadable(artefact: Artefact, module: str, known: Subclass) -> str:
    """Why the module cannot be decoded; empty if it can."""
    if known.name not in READ:
        return f"{module} is a torchao {known.name}, which lies as the kernels of one device want it; probe it there"
    if missing := [name for name in known.parts if part(module, name) not in artefact.tensors]:
        return f"the metadata promises {', '.join(part(module, name) for name in missing)}, which the files do not hold"
    if "act_pre_scale" in known.parts:
        return f"{module} scales activations before it multiplies: its weights alone do not tell what it yields"
    if known.dtype not in _PLAIN:
        return f"the metadata does not say which dtype {module} decodes to"
    codes, scale = (artefact.tensors.get(part(module, name)) for name in ("qdata", "scale"))
    if codes is None or scale is None or scale.dtype not in TORCH:
        return f"{part(module, 'scale')} is missing, or holds no plain numbers"
    wanted = ("F8_E4M3", "F8_E5M2") if known.name == "Float8Tensor" else ("I8",)
    if codes.dtype not in wanted:
        return f"{part(module, 'qdata')} is {codes.dtype}, where {known.name} asks for {' or '.join(wanted)}"
    return _misfit(artefact, module, known)


def _misfit(artefact: Artefact, module: str, known: Subclass) -> str:
    """Why scales and codes do not fit each other; empty if they do."""
    shape = artefact.tensors[part(module, "qdata")].shape
    if len(shape) != 2:
        return f"{part(module, 'qdata')} is no matrix: its shape is {shape}"
    if known.name != "Float8Tensor" and len(known.block) != 2:
        return f"the metadata of {module} gives the blocks {known.block} for a matrix"
    for name in ("scale", "zero_point"):
        info = artefact.tensors.get(part(module, name))
        if info is not None and not fits(shape, info.shape, known.block):
            return (
                f"{part(module, name)} has the shape {info.shape}, which blocks of {known.block} in {shape} do not give"
            )
    return ""


def fits(shape: tuple[int, ...], scales: tuple[int, ...], block: tuple[int, ...]) -> bool:
    """Whether scales of a shape belong to codes of a shape, block by block; without blocks, by whole numbers."""
    if math.prod(scales) == 1:
        return not block or block == shape
    if len(scales) != len(shape) or any(not count or size % count for size, count in zip(shape, scales, strict=True)):
        return False
    return not block or tuple(size // count for size, count in zip(shape, scales, strict=True)) == block


def _block(artefact: Artefact, place: Place) -> tuple[int, ...]:
    """Where the scale of an element is."""
    shape = artefact.tensors[part(place.module, "qdata")].shape
    scales = artefact.tensors[part(place.module, "scale")].shape
    if math.prod(scales) == 1:
        return (0,) * len(scales)
    return (place.row // (shape[0] // scales[0]), place.column // (shape[1] // scales[1]))


def _wider(one: str, other: str) -> str:
    return one if one == other else "float32"


def _grid(artefact: Artefact, module: str) -> str:
    scale = artefact.tensors.get(part(module, "scale"))
    shape = artefact.tensors[part(module, "qdata")].shape
    if scale is None or math.prod(scale.shape) == 1 or len(shape) != 2 or len(scale.shape) != 2:
        return "one scale"
    rows, columns = (size // max(count, 1) for size, count in zip(shape, scale.shape, strict=True))
    if rows == 1:
        return "a scale a row" if columns == shape[1] else f"groups of {columns}"
    return f"blocks of {rows} by {columns}"
