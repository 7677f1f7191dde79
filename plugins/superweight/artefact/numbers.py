"""Numbers as files hold them: from bytes to Python floats and back, without torch."""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import Any

import numpy as np

from superweight.errors import InfraError

NUMPY = {
    **{"BOOL": "u1", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4"},
    **{"U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8"},
    **{"BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1", "F8_E4M3FNUZ": "u1", "F8_E5M2FNUZ": "u1"},
}
"""What numpy reads a safetensors dtype as; floats that numpy lacks come as the integers of their bits."""

TORCH = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2",
}  # fmt: skip
"""torch's names of safetensors' floating-point dtypes."""

_MANTISSA = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7, "float8_e4m3fn": 3, "float8_e5m2": 2}
_LEAST_EXPONENT = {
    "float64": -1022, "float32": -126, "float16": -14, "bfloat16": -126, "float8_e4m3fn": -6, "float8_e5m2": -14,
}  # fmt: skip
_LARGEST = {
    "float64": float(np.finfo(np.float64).max), "float32": float(np.finfo(np.float32).max), "float16": 65504.0,
    "bfloat16": math.ldexp(255, 120), "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0,
}  # fmt: skip
_STRUCT = {"float64": ("<d", "<Q"), "float32": ("<f", "<I"), "float16": ("<e", "<H")}


def as_floats(raw: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """Values of an array that was read as `NUMPY` says, in float64: exact.

    Args:
        raw: of any shape.
        dtype: safetensors' name.

    Raises:
        InfraError: no number format that is known here (`unsupported`).
    """
    if dtype == "BF16":
        return as_floats((raw.astype(np.uint32) << 16).view(np.float32), "F32")
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return np.asarray(_eight_bit(4 if dtype == "F8_E4M3" else 5)[raw])
    if dtype == "F8_E8M0":
        return np.where(raw == 255, np.nan, np.exp2(raw.astype(np.float64) - 127))
    if dtype in NUMPY and not dtype.startswith("F8"):
        with np.errstate(invalid="ignore"):  # NaNs of any kind
            return np.asarray(raw, dtype=np.float64)
    raise InfraError(f"numbers of the dtype {dtype} cannot be read here", reason="unsupported")


@cache
def _eight_bit(exponent_bits: int) -> np.ndarray[Any, Any]:
    """All 256 values of an 8-bit float: E4M3 without infinities (`fn`), or IEEE-like E5M2."""
    mantissa_bits, bias = 7 - exponent_bits, 2 ** (exponent_bits - 1) - 1
    values = np.empty(256)
    for code in range(256):
        exponent, mantissa = (code & 127) >> mantissa_bits, code & (2**mantissa_bits - 1)
        lead, scale = (1, exponent - bias) if exponent else (0, 1 - bias)
        magnitude = (lead + mantissa / 2**mantissa_bits) * 2.0**scale
        if exponent_bits == 4 and code & 127 == 127:
            magnitude = math.nan
        if exponent_bits == 5 and exponent == 31:
            magnitude = math.nan if mantissa else math.inf
        values[code] = -magnitude if code & 128 else magnitude
    return values


def rounded(value: float, dtype: str) -> float:
    """A number rounded to nearest, ties to even, to one of torch's floating-point dtypes, by its name.

    What is too large becomes infinity; in float8_e4m3fn, which has none, the largest number.
    """
    if not math.isfinite(value) or value == 0 or dtype == "float64":
        return value
    step = spacing(value, dtype)
    near = math.copysign(round(abs(value) / step) * step, value)  # Python rounds ties to even
    if abs(near) <= _LARGEST[dtype]:
        return near
    return math.copysign(_LARGEST[dtype] if dtype == "float8_e4m3fn" else math.inf, value)


def spacing(value: float, dtype: str) -> float:
    """Distance between neighbouring numbers of a dtype at a finite value, on the side away from zero."""
    exponent = math.frexp(value)[1] - 1 if value else _LEAST_EXPONENT[dtype]
    return math.ldexp(1.0, max(exponent, _LEAST_EXPONENT[dtype]) - _MANTISSA[dtype])


def gaps(value: float, dtype: str) -> tuple[float, float]:
    """Distances from a number of a dtype to the next smaller and the next larger one; infinity where there is none."""
    if not math.isfinite(value):
        return math.inf, math.inf
    outward = spacing(value, dtype)
    fraction, exponent = math.frexp(abs(value))
    inward = outward / 2 if fraction == 0.5 and exponent - 1 > _LEAST_EXPONENT[dtype] else outward
    if abs(value) + outward > _LARGEST[dtype]:
        outward = math.inf
    return (inward, outward) if value > 0 else (outward, inward) if value < 0 else (outward, outward)


def hexadecimal(value: float, dtype: str) -> str:
    """The bits of a number that the dtype can hold: `0x3f800000` for float32 one."""
    if dtype == "bfloat16":
        return f"0x{struct.unpack('<I', struct.pack('<f', value))[0] >> 16:04x}"
    if dtype in _STRUCT:
        number, bits = _STRUCT[dtype]
        return f"0x{struct.unpack(bits, struct.pack(number, value))[0]:0{2 * struct.calcsize(bits)}x}"
    table = _eight_bit(4 if dtype == "float8_e4m3fn" else 5)
    same = np.flatnonzero((table == value) & (np.signbit(table) == np.signbit(value)))
    return f"0x{int(same[0]):02x}" if len(same) else "0x7f"
