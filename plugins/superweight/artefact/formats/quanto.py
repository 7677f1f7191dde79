"""optimum-quanto: int8 and float8 by rows, int4 and int2 packed by groups, and a map of modules beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, decoded_to, on_floats, on_grid
from superweight.artefact.numbers import TORCH, rounded
from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

MAP = "quanto_qmap.json"
"""Which module is quantised to what."""

STORED = {"qint8": "I8", "qfloat8_e4m3fn": "F8_E4M3", "qfloat8_e5m2": "F8_E5M2", "qint4": "U8", "qint2": "U8"}
"""safetensors' dtype of the codes of each of quanto's types that are read here."""

BITS = {"qint4": 4, "qint2": 2}
"""Types whose codes are packed."""


_WIDTHS = ("intermediate_size", "moe_intermediate_size", "shared_expert_intermediate_size", "n_inner", "ffn_dim")
"""Names by which config.json says how many columns down projections have."""


def map_of(artefact: Artefact) -> Mapping[str, Any]:
    """Module → `{"weights": "qint8", "activations": "none"}`.

    Raises:
        InfraError: the file is missing (`missing-tensor`), or no such map (`corrupt`).
    """
    path = artefact.path / MAP
    if not path.is_file():
        raise InfraError(
            f"{path} is missing: without it optimum-quanto does not know what is quantised. Save the model again by "
            "QuantizedModelForCausalLM.save_pretrained.",
            reason="missing-tensor",
        )
    return read_json(path)


def type_of(artefact: Artefact, module: str) -> str:
    """The type of a module's weight; empty if the map does not name the module, or says it is none.

    Raises:
        InfraError: as `map_of`.
    """
    return type_in(map_of(artefact), module)


def type_in(known: Mapping[str, Any], module: str) -> str:
    """The type that a map gives a module; empty if none."""
    said = known.get(module)
    found = str(said.get("weights", "")) if isinstance(said, Mapping) else ""
    return "" if found == "none" else found


def group_size(columns: int) -> int:
    """Elements a scale of int4 and int2, as quanto chooses them for a number of columns; 0 for a scale a row."""
    size = 128
    while columns > 128 and columns % size and size > 32:
        size -= 32
    return size if columns > 128 and columns % size == 0 else 0


class Quanto:
    """`weight._data` of int8 or float8 with a scale a row; or `weight._data._data`, packed, with a scale a group.

    By rows an element is `code · scale` in the scale's dtype. Packed codes are `(groups, group size)`: with k of them a
    byte, group g shares its bytes with every group that is a k-th of all away. An element is `code · scale - shift`,
    rounded twice, or `(code - shift) · scale` where shifts are whole numbers.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there are codes of either kind."""
        return any(f"{module}.weight.{leaf}" in artefact.tensors for leaf in ("_data", "_data._data"))

    def describe(self, artefact: Artefact, module: str) -> str:
        """The type and its grid."""
        try:
            kind = type_of(artefact, module)
        except InfraError:
            kind = ""
        packed = artefact.tensors.get(f"{module}.weight._data._data")
        grid = "a scale a row" if packed is None or len(packed.shape) != 2 else f"groups of {packed.shape[1]}"
        return f"quanto {kind or 'without a type'}, {grid}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code and its scale."""
        kind = type_of(artefact, place.module)
        if kind not in STORED:
            named = f"says {kind}, which is not read here" if kind else "does not name it: quanto leaves it unloaded"
            return CannotTell(f"{MAP} {named} ({place.module})")
        scale = artefact.tensors.get(f"{place.module}.weight._scale")
        if scale is None or scale.dtype not in TORCH:
            return CannotTell(f"{place.module}.weight._scale is missing, or holds no plain numbers")
        if place.expert is not None:
            return CannotTell(f"{place.module} holds the experts of a layer in one tensor")
        return (_packed if kind in BITS else _by_row)(artefact, place, kind)


def _by_row(artefact: Artefact, place: Place, kind: str) -> Decoded | CannotTell:
    name, scales = f"{place.module}.weight._data", f"{place.module}.weight._scale"
    info, shape = artefact.tensors.get(name), artefact.tensors[scales].shape
    if info is None or info.dtype != STORED[kind]:
        return CannotTell(f"{MAP} says {kind}; {name} is {'missing' if info is None else info.dtype}")
    if len(info.shape) != 2 or not (place.row < info.shape[0] and place.column < info.shape[1]):
        return CannotTell(f"[{place.row}, {place.column}] lies outside {name} of shape {info.shape}")
    if shape not in ((), (info.shape[0], 1)):
        return CannotTell(f"{scales} has the shape {shape}, which is not a scale a row of {info.shape}")
    code, dtype = artefact.number(name, place.row, place.column), TORCH[artefact.tensors[scales].dtype]
    scale = artefact.number(scales, *((place.row, 0) if shape else ()))
    if info.dtype in TORCH:
        found = on_floats(lambda one: one * scale, code, TORCH[info.dtype], dtype)
    else:
        found = on_grid(lambda one: one * scale, int(code), -128, 127, dtype, f"{code:g} of -128 to 127")
    return decoded_to(found, rounded(code * scale, dtype))


def _packed(artefact: Artefact, place: Place, kind: str) -> Decoded | CannotTell:
    where = _where(artefact, place, kind)
    if isinstance(where, CannotTell):
        return where
    group, within = where
    name, scales, shifts = (f"{place.module}.weight.{leaf}" for leaf in ("_data._data", "_scale", "_shift"))
    if shifts not in artefact.tensors or artefact.tensors[shifts].shape != artefact.tensors[scales].shape:
        return CannotTell(f"{shifts} is missing, or of another shape than {scales}")
    packed = artefact.tensors[name].shape[0]
    lane, byte = divmod(group, packed)
    code = artefact.integer(name, byte, within) >> (lane * BITS[kind]) & (2 ** BITS[kind] - 1)
    dtype = TORCH[artefact.tensors[scales].dtype]
    scale, shift = artefact.number(scales, group, 0), artefact.number(shifts, group, 0)
    if TORCH.get(artefact.tensors[shifts].dtype, dtype) != dtype:
        return CannotTell(f"{shifts} is {artefact.tensors[shifts].dtype} beside scales of {dtype}")
    floating, most = artefact.tensors[shifts].dtype in TORCH, 2 ** BITS[kind] - 1

    def exact(one: int) -> float:
        return one * scale - shift if floating else (one - shift) * scale

    value = rounded(code * scale, dtype) - shift if floating else exact(code)
    return decoded_to(on_grid(exact, code, 0, most, dtype, f"{code} of 0 to {most}"), rounded(value, dtype))


def _where(artefact: Artefact, place: Place, kind: str) -> tuple[int, int] | CannotTell:
    """Which group an element is in, and which of the group it is; only the number of rows is not in the tensors."""
    name, scales = f"{place.module}.weight._data._data", f"{place.module}.weight._scale"
    info, shape, rows = artefact.tensors.get(name), artefact.tensors[scales].shape, artefact.hidden_size
    if info is None or info.dtype != STORED[kind]:
        return CannotTell(f"{MAP} says {kind}; {name} is {'missing' if info is None else info.dtype}")
    if len(info.shape) != 2 or len(shape) != 2 or shape[1] != 1 or info.shape[0] != -(-shape[0] * BITS[kind] // 8):
        return CannotTell(f"{name} of shape {info.shape} does not hold the codes of {shape} scales")
    if not rows or shape[0] % rows:
        return CannotTell(f"config.json says that {place.module} has {rows} rows, which {shape[0]} groups do not fill")
    columns = shape[0] // rows * info.shape[1]
    widths = {artefact.size_of(one) for one in _WIDTHS} - {None}
    if widths and columns not in widths:
        return CannotTell(f"{place.module} would have {columns} columns, which config.json does not say of any layer")
    if (group_size(columns) or columns) != info.shape[1]:
        return CannotTell(f"quanto reads {columns} columns in groups of {group_size(columns)}, found {info.shape[1]}")
    if not (place.row < rows and place.column < columns):
        return CannotTell(f"[{place.row}, {place.column}] lies outside {place.module} of shape ({rows}, {columns})")
    return divmod(place.row * columns + place.column, info.shape[1])
