"""One scalar of a matrix that compressed-tensors wrote: its code, its scale, its zero point."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, decoded_to, on_floats, on_grid
from superweight.artefact.formats.compressed_tensors.codes import floats, packed_code, packed_down, packed_float
from superweight.artefact.formats.compressed_tensors.scheme import LEAVES, Scheme, is_compressed_tensors, scheme_of
from superweight.artefact.numbers import TORCH, rounded
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_PACKED = ("pack-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp6-pack-quantized")
_PLAIN = ("int-quantized", "float-quantized", "naive-quantized", "mxfp8-quantized")
_ARITHMETIC = ("F64", "F32", "F16", "BF16")


class _Scale(NamedTuple):
    """What a code is multiplied with.

    Attributes:
        number: what it is, exactly.
        dtype: of the arithmetic.
        group: the column of the scales, and of the zero points.
        at: where the scale is.
    """

    number: float
    dtype: str
    group: int
    at: tuple[int, ...]


class CompressedTensors:
    """`weight_packed`, or `weight` as int8 or float8, with `weight_scale` and perhaps a zero point.

    A code less its zero point is multiplied by the scale in the scale's dtype, as the library's `dequantize` does it;
    in bfloat16 by a power of two of the `mx` formats, and in float32 by the two scales of NVFP4.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether the library would look for codes here, or there are any."""
        if not is_compressed_tensors(artefact):
            return False
        here = artefact.leaves.get(module, {})
        return bool(LEAVES & here.keys()) or ("weight" in here and scheme_of(artefact, module) is not None)

    def describe(self, artefact: Artefact, module: str) -> str:
        """Format, bits, kind and grid."""
        scheme = scheme_of(artefact, module)
        if not isinstance(scheme, Scheme):
            return "compressed-tensors"
        kind = f"float{scheme.bits}" if scheme.kind == "float" else f"{scheme.bits} bits"
        sides = "symmetric" if scheme.symmetric else "asymmetric"
        return f"compressed-tensors {scheme.format}, {kind}, {sides}, {_grid(scheme)}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code less its zero point, times the scale."""
        scheme = scheme_of(artefact, place.module)
        if scheme is None:
            return CannotTell(
                f"config.json ignores {place.module}, or names it in no group, and the file has codes for it"
            )
        if isinstance(scheme, CannotTell):
            return scheme
        if (reason := unlike_settings(artefact, place.module, scheme)) is not None:
            return CannotTell(reason)
        shape = matrix_shape(artefact, place.module, scheme)
        if place.row >= shape[0] or place.column >= shape[1]:
            return CannotTell(f"[{place.row}, {place.column}] lies outside {place.module} of shape {shape}")
        scale = _scale(artefact, place, scheme, shape)
        if isinstance(scale, CannotTell):
            return scale
        zero = _zero(artefact, place, scheme, scale)
        return zero if isinstance(zero, CannotTell) else _decoded(artefact, place, scheme, scale, zero)


def unlike_settings(artefact: Artefact, module: str, scheme: Scheme) -> str | None:
    """Why a module is not stored as its settings say, as far as the names and dtypes of its tensors tell."""
    here = artefact.leaves[module]
    packed, plain = here.get("weight_packed"), here.get("weight")
    if (packed is None) == (plain is None):
        return (
            f"{module} has {'neither weight nor weight_packed' if packed is None else 'both weight and weight_packed'}"
        )
    if "weight_scale" not in here:
        return f"config.json says that {module} is quantised, and the file has no scale for it"
    kind = "" if packed is None else packed.dtype
    if scheme.format not in (_PACKED if packed is not None else _PLAIN):
        return f"the format {scheme.format!r} of {module} is none that is known here to keep {', '.join(sorted(here))}"
    if packed is not None and kind != ("I32" if scheme.kind == "int" else "U8"):
        return f"{module}.weight_packed is {kind}; expected {'I32' if scheme.kind == 'int' else 'U8'}"
    if packed is not None and scheme.kind == "float" and scheme.bits not in (4, 6):
        return f"floats of {scheme.bits} bits are not packed by a format that is known here"
    if plain is not None and plain.dtype not in (("I8",) if scheme.kind == "int" else ("F8_E4M3", "F8_E5M2")):
        return f"{module}.weight is {plain.dtype}, which is no code of type {scheme.kind}"
    return None


def matrix_shape(artefact: Artefact, module: str, scheme: Scheme) -> tuple[int, int]:
    """Rows and columns of the matrix, by its codes.

    Raises:
        InfraError: the codes are of no matrix, or of another than `weight_shape` says (`corrupt`); that is not there
            (`missing-tensor`).
    """
    here = artefact.leaves[module]
    stored = here.get("weight_packed") or here["weight"]
    if len(stored.shape) != 2:
        raise _corrupt(artefact, module, f"its codes should be a matrix, found shape {stored.shape}")
    if "weight_packed" not in here:
        return stored.shape[0], stored.shape[1]
    if scheme.kind == "float":
        return stored.shape[0], stored.shape[1] * 8 // scheme.bits
    if "weight_shape" not in here:
        raise InfraError(f"{artefact.path} holds {module}.weight_packed and no weight_shape", reason="missing-tensor")
    said = tuple(int(size) for size in artefact.numbers(f"{module}.weight_shape", 8, 1).reshape(-1))
    if len(said) != 2 or stored.shape != (said[0], -(-said[1] * scheme.bits // 32)):
        raise _corrupt(
            artefact,
            module,
            f"{stored.shape} words of int32 do not hold {said} codes of {scheme.bits} bits, a row each",
        )
    return said[0], said[1]


def scale_shape(scheme: Scheme, shape: tuple[int, int]) -> tuple[int, int] | None:
    """The shape of the scales of a matrix as `(rows, columns)`; None if the settings do not say."""
    rows, columns = shape
    if scheme.strategy == "tensor":
        return 1, 1
    if scheme.strategy == "channel":
        return rows, 1
    if scheme.strategy in ("group", "tensor_group") and scheme.group_size and scheme.group_size > 0:
        return rows, -(-columns // scheme.group_size)
    if scheme.strategy == "block" and scheme.block and min(scheme.block) > 0:
        return -(-rows // scheme.block[0]), -(-columns // scheme.block[1])
    return None


def same_scales(found: tuple[int, ...], expected: tuple[int, int]) -> bool:
    """Whether scales have a shape that stands for `(rows, columns)`: dimensions of one may be left out at the end."""
    return found in (expected, expected[:1] if expected[1] == 1 else expected, () if expected == (1, 1) else expected)


def _scale(artefact: Artefact, place: Place, scheme: Scheme, shape: tuple[int, int]) -> _Scale | CannotTell:
    name = f"{place.module}.weight_scale"
    info = artefact.tensors[name]
    expected = scale_shape(scheme, shape)
    if expected is None:
        return CannotTell(f"config.json does not say what shares a scale in {place.module}: {scheme.strategy}")
    if not same_scales(info.shape, expected):
        raise _corrupt(artefact, place.module, f"expected scales of shape {expected}, found {info.shape}")
    group = _group(artefact, place, scheme, expected[1])
    if isinstance(group, CannotTell):
        return group
    row = {"tensor": 0, "block": place.row // scheme.block[0] if scheme.block else 0}.get(scheme.strategy, place.row)
    at = (row, group)[: len(info.shape)]
    return _multiplied(artefact, place.module, scheme, at, group)


def _multiplied(
    artefact: Artefact, module: str, scheme: Scheme, at: tuple[int, ...], group: int
) -> _Scale | CannotTell:
    """By what, and in which arithmetic."""
    name = f"{module}.weight_scale"
    kind = artefact.tensors[name].dtype
    if scheme.format.startswith("mx"):
        if kind not in ("U8", "F8_E8M0"):
            return CannotTell(f"{name} is {kind}; the scales of {scheme.format} are exponents of 8 bits")
        exponent = artefact.integer(name, *at) - 127
        power = math.inf if exponent > 127 else 2.0**exponent
        return _Scale(power, "bfloat16", group, at)
    if scheme.format.startswith("nvfp4"):
        if kind != "F8_E4M3":
            return CannotTell(f"{name} is {kind}; the scales of {scheme.format} are float8_e4m3fn")
        whole = artefact.number(f"{module}.weight_global_scale", 0)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            both = np.float32(artefact.number(name, *at)) / np.float32(whole)
        return _Scale(float(both), "bfloat16", group, at)
    if kind not in _ARITHMETIC:
        return CannotTell(f"{name} is {kind}, which is no plain number")
    return _Scale(artefact.number(name, *at), TORCH[kind], group, at)


def _group(artefact: Artefact, place: Place, scheme: Scheme, groups: int) -> int | CannotTell:
    """Which column of the scales belongs to a column of the matrix."""
    order = f"{place.module}.weight_g_idx"
    if (order in artefact.tensors) != scheme.reordered:
        there = "a" if order in artefact.tensors else "no"
        return CannotTell(
            f"the file has {there} {order}, and config.json says {'' if scheme.reordered else 'no '}actorder"
        )
    if scheme.strategy == "block" and scheme.block:
        return place.column // scheme.block[1]
    if groups == 1 or not scheme.group_size:
        return 0
    if scheme.reordered:
        said = artefact.numbers(order)
        if place.column >= said.size or (said.min() >= 0 and said.max() >= groups):
            raise _corrupt(
                artefact, place.module, f"weight_g_idx does not name one of {groups} groups for every column"
            )
        if said.min() >= 0:
            return int(said.reshape(-1)[place.column])
    return place.column // scheme.group_size


def _zero(artefact: Artefact, place: Place, scheme: Scheme, scale: _Scale) -> float | CannotTell:
    """The zero point; 0 of what is symmetric."""
    name = f"{place.module}.weight_zero_point"
    info = artefact.tensors.get(name)
    if info is None:
        if scheme.symmetric:
            return 0.0
        raise InfraError(
            f"{artefact.path}: {place.module} is asymmetric and has no zero points", reason="missing-tensor"
        )
    if scheme.symmetric:
        nothing = info.dtype in ("I8", *_ARITHMETIC) and not artefact.numbers(name).any()
        return 0.0 if nothing else CannotTell(f"config.json says that {place.module} is symmetric; it has zero points")
    if scheme.kind == "float" and scheme.bits < 8:
        return CannotTell(f"{place.module} has zero points, which loaders of {scheme.format} do not read")
    scales = artefact.tensors[f"{place.module}.weight_scale"].shape
    if "weight_packed" in artefact.leaves[place.module] and scheme.strategy in ("group", "channel"):
        expected = (-(-scales[0] * scheme.bits // 32), *scales[1:])
        if info.dtype != "I32":
            return CannotTell(f"{name} is {info.dtype}; expected words of int32")
        if info.shape != expected:
            raise _corrupt(artefact, place.module, f"expected zero points in {expected} words, found {info.shape}")
        return packed_down(artefact, name, place.row, scale.group, scheme.bits) - 2.0 ** (scheme.bits - 1)
    if info.shape != scales:
        raise _corrupt(artefact, place.module, f"expected zero points of shape {scales}, found {info.shape}")
    return artefact.number(name, *scale.at)


def _decoded(artefact: Artefact, place: Place, scheme: Scheme, scale: _Scale, zero: float) -> Decoded:
    """On the exact grid, and rounded as the library's arithmetic rounds it."""
    exact = (_integer if scheme.kind == "int" else _float)(artefact, place, scheme, scale, zero)
    between = rounded(exact.value, "float32") if scheme.format.startswith("nvfp4") else exact.value
    return decoded_to(exact, rounded(between, scale.dtype))


def _integer(artefact: Artefact, place: Place, scheme: Scheme, scale: _Scale, zero: float) -> Decoded:
    packed, half = f"{place.module}.weight_packed", 2 ** (scheme.bits - 1)
    if packed in artefact.tensors:
        code = packed_code(artefact, packed, (place.row,), place.column, scheme.bits) - half
    else:
        code = artefact.integer(f"{place.module}.weight", place.row, place.column)
    words = f"{code} of {-half} to {half - 1}" + (f", zero point {zero:g}" if zero else "")
    return on_grid(lambda other: (other - zero) * scale.number, code, -half, half - 1, scale.dtype, words)


def _float(artefact: Artefact, place: Place, scheme: Scheme, scale: _Scale, zero: float) -> Decoded:
    packed, plain = f"{place.module}.weight_packed", f"{place.module}.weight"
    if packed not in artefact.tensors:
        number, kind = artefact.number(plain, place.row, place.column), TORCH[artefact.tensors[plain].dtype]
        return on_floats(lambda other: (other - zero) * scale.number, number, kind, scale.dtype)
    number, every = packed_float(artefact, packed, place.row, place.column, scheme.bits), floats(scheme.bits)
    words, at, end = f"{number:g} as float{scheme.bits}", every.index(number), len(every) - 1
    return on_grid(lambda other: every[other] * scale.number, at, 0, end, scale.dtype, words)


def _grid(scheme: Scheme) -> str:
    if scheme.strategy in ("group", "tensor_group"):
        return f"groups of {scheme.group_size}" + (", reordered" if scheme.reordered else "")
    if scheme.strategy == "block" and scheme.block:
        return f"blocks of {scheme.block[0]} × {scheme.block[1]}"
    return "a scale a row" if scheme.strategy == "channel" else "one scale"


def _corrupt(artefact: Artefact, module: str, what: str) -> InfraError:
    return InfraError(
        f"{artefact.path}: {module}: {what}. The file is not what its settings say; write it again.", reason="corrupt"
    )
