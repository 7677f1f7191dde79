"""compressed-tensors: packed integers, plain integers and floats, with scales by tensor, row, group or block."""

from __future__ import annotations

from typing import Any

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place
from superweight.artefact.numbers import TORCH, rounded, spacing
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_WORD = 32


class CompressedTensors:
    """`weight_packed` (int32 words), or `weight` as int8 or float8, with `weight_scale` and perhaps a zero point.

    A code and its zero point are whole numbers; the value is their difference times the scale, in the scale's dtype,
    as `compressed_tensors.quantization` decodes it.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there are codes and a scale."""
        return f"{module}.weight_scale" in artefact.tensors and (
            f"{module}.weight_packed" in artefact.tensors or f"{module}.weight" in artefact.tensors
        )

    def describe(self, artefact: Artefact, module: str) -> str:
        """Bits, kind and grid."""
        weights = _arguments(artefact, module)
        kind = "float8" if weights.get("type") == "float" else f"{weights.get('num_bits', '?')} bits"
        sides = "symmetric" if weights.get("symmetric", True) else "asymmetric"
        grid = _grid(artefact, module)
        return f"compressed-tensors {artefact.settings.get('format', '')}, {kind}, {sides}, {grid}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code less its zero point, times the scale."""
        module = place.module
        scale_name = f"{module}.weight_scale"
        dtype = TORCH.get(artefact.tensors[scale_name].dtype, "")
        if not dtype:
            return CannotTell(f"{scale_name} is {artefact.tensors[scale_name].dtype}, which is no plain number")
        rows, columns = _shape(artefact, module)
        if place.row >= rows or place.column >= columns:
            return CannotTell(f"[{place.row}, {place.column}] lies outside {module} of shape ({rows}, {columns})")
        group = _group(artefact, place, columns)
        if isinstance(group, CannotTell):
            return group
        at = _scale_index(artefact.tensors[scale_name].shape, place.row, group)
        scale = artefact.number(scale_name, *at)
        if f"{module}.weight_packed" in artefact.tensors:
            return self._packed(artefact, place, columns, group, scale, dtype)
        return self._plain(artefact, place, at, scale, dtype)

    def _packed(
        self, artefact: Artefact, place: Place, columns: int, group: int, scale: float, dtype: str
    ) -> Decoded | CannotTell:
        bits = _arguments(artefact, place.module).get("num_bits")
        name = f"{place.module}.weight_packed"
        if not isinstance(bits, int) or not 1 <= bits <= 8:
            return CannotTell(f"config.json does not say how many bits the codes of {name} have")
        if artefact.tensors[name].dtype != "I32":
            return CannotTell(f"{name} is {artefact.tensors[name].dtype}; expected words of int32")
        words = -(-columns * bits // _WORD)
        found = artefact.tensors[name].shape
        if len(found) != 2 or found[1] != words:
            raise InfraError(
                f"{artefact.tensors[name].file}: {name} should have {words} words a row for {columns} codes of {bits} "
                f"bits, found shape {found}. The file is not what its settings say; write it again.",
                reason="corrupt",
            )
        offset = 2 ** (bits - 1)
        code = packed_code(artefact, name, (place.row,), place.column, bits) - offset
        zero = 0
        zeros = f"{place.module}.weight_zero_point"
        if zeros in artefact.tensors:
            zero = _zero_point(artefact, zeros, place.row, group, bits, offset)
        return Decoded(rounded((code - zero) * scale, dtype), dtype, abs(scale), f"{code} of {-offset} to {offset - 1}")

    def _plain(
        self, artefact: Artefact, place: Place, at: tuple[int, ...], scale: float, dtype: str
    ) -> Decoded | CannotTell:
        name, zeros = f"{place.module}.weight", f"{place.module}.weight_zero_point"
        kind = artefact.tensors[name].dtype
        code = artefact.number(name, place.row, place.column)
        if kind in TORCH:
            if TORCH[kind] not in ("float8_e4m3fn", "float8_e5m2"):
                return CannotTell(f"{name} is {kind} beside a scale, which is no format that is known here")
            step = abs(scale) * spacing(code, TORCH[kind])
            return Decoded(rounded(code * scale, dtype), dtype, step, f"{code:g} as {TORCH[kind]}")
        if kind != "I8":
            return CannotTell(f"{name} is {kind} beside a scale, which is no format that is known here")
        zero = artefact.number(zeros, *at) if zeros in artefact.tensors else 0.0
        return Decoded(rounded((code - zero) * scale, dtype), dtype, abs(scale), f"{code:g} of -128 to 127")


def packed_code(artefact: Artefact, name: str, before: tuple[int, ...], at: int, bits: int) -> int:
    """A code among those packed densely into int32 words along the last dimension; one may lie in two words."""
    word, shift = divmod(at * bits, _WORD)
    value = artefact.integer(name, *before, word) & 0xFFFFFFFF
    if shift + bits > _WORD:
        value |= (artefact.integer(name, *before, word + 1) & 0xFFFFFFFF) << _WORD
    return (value >> shift) & ((1 << bits) - 1)


def _zero_point(artefact: Artefact, name: str, row: int, group: int, bits: int, offset: int) -> int:
    """Zero points are packed along the rows, a column a group; or plain int8."""
    if artefact.tensors[name].dtype == "I8":
        return artefact.integer(name, row, min(group, artefact.tensors[name].shape[-1] - 1))
    word, shift = divmod(row * bits, _WORD)
    value = artefact.integer(name, word, group) & 0xFFFFFFFF
    if shift + bits > _WORD:
        value |= (artefact.integer(name, word + 1, group) & 0xFFFFFFFF) << _WORD
    return ((value >> shift) & ((1 << bits) - 1)) - offset


def _arguments(artefact: Artefact, module: str) -> dict[str, Any]:
    """The settings of the weights of the group that names the module, or its class, or all linear layers."""
    groups = artefact.settings.get("config_groups")
    found = [group for group in groups.values() if isinstance(group, dict)] if isinstance(groups, dict) else []
    naming = [one for one in found if _targets(one, module)] or found
    weights = naming[0].get("weights") if naming else None
    return weights if isinstance(weights, dict) else {}


def _targets(group: dict[str, Any], module: str) -> bool:
    import re

    targets = [str(target) for target in group.get("targets") or ()]
    return any(
        re.match(target.removeprefix("re:"), module) if target.startswith("re:") else module.endswith(target)
        for target in targets
    )


def _shape(artefact: Artefact, module: str) -> tuple[int, int]:
    """Rows and columns of the matrix."""
    packed = f"{module}.weight_packed"
    if packed not in artefact.tensors:
        shape = artefact.tensors[f"{module}.weight"].shape
    elif f"{module}.weight_shape" in artefact.tensors:
        shape = tuple(int(size) for size in artefact.numbers(f"{module}.weight_shape"))
    else:
        raise InfraError(f"{artefact.path} holds {packed} and no {module}.weight_shape", reason="missing-tensor")
    if len(shape) != 2:
        raise InfraError(f"{artefact.path}: {module} should be a matrix, found shape {shape}", reason="corrupt")
    return shape[0], shape[1]


def _group(artefact: Artefact, place: Place, columns: int) -> int | CannotTell:
    """Which column of the scales belongs to a column of the matrix."""
    order = f"{place.module}.weight_g_idx"
    scales = artefact.tensors[f"{place.module}.weight_scale"].shape
    if order in artefact.tensors:
        group = artefact.integer(order, place.column)
        if group >= 0:
            return group
    groups = scales[-1] if len(scales) == 2 else 1
    if groups <= 1:
        return 0
    if columns % groups:
        return CannotTell(f"{groups} scales a row do not divide the {columns} columns of {place.module}")
    return place.column // (columns // groups)


def _scale_index(shape: tuple[int, ...], row: int, group: int) -> tuple[int, ...]:
    """Where the scale of a row and a group is, in scales of a tensor `(1,)`, rows `(out, 1)` or groups `(out, n)`."""
    if len(shape) == 0:
        return ()
    if len(shape) == 1:
        return (0,) if shape[0] == 1 else (row,)
    return (min(row, shape[0] - 1), group)


def _grid(artefact: Artefact, module: str) -> str:
    shape = artefact.tensors[f"{module}.weight_scale"].shape
    columns = _shape(artefact, module)[1]
    if len(shape) == 2 and shape[1] > 1:
        return f"groups of {columns // shape[1]}"
    return "a scale a row" if shape and shape[0] > 1 else "one scale"
