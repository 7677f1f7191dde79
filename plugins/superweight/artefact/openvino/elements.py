"""Single elements of OpenVINO's constants, and every value that an element type can hold."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np

from superweight.artefact.numbers import as_floats
from superweight.artefact.openvino.graph import BITS, Constant, Graph

PLAIN = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
"""Types that are plain numbers, and torch's names of them."""

_SAFETENSORS = {
    **{"f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "f8e4m3": "F8_E4M3", "f8e5m2": "F8_E5M2"},
    **{"f8e8m0": "F8_E8M0", "i8": "I8", "u8": "U8", "i32": "I32", "i64": "I64", "u32": "U32", "u64": "U64"},
}
_NUMPY = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2", "i8": "i1", "i32": "<i4", "i64": "<i8", "u64": "<u8"}
_FP4 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_NF4 = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def readable(dtype: str) -> bool:
    """Whether elements of a type are known here: `u3` and `u6` are split into two places, and are not."""
    return dtype in _SAFETENSORS or dtype in ("i4", "u4", "u2", "nf4", "f4e2m1")


def element(graph: Graph, constant: Constant, at: int) -> float:
    """One element of a constant, exactly.

    Args:
        graph: whose file of weights holds it.
        constant: of a type that is `readable`.
        at: which one, flattened.
    """
    bits = BITS[constant.dtype]
    with graph.weights.open("rb") as stream:
        stream.seek(constant.start + at * bits // 8)
        raw = stream.read(max(1, bits // 8))
    return _value(raw, constant.dtype, at)


def elements(graph: Graph, constant: Constant) -> np.ndarray[Any, Any]:
    """All elements of a constant, for small ones: float64, of its shape."""
    with graph.weights.open("rb") as stream:
        stream.seek(constant.start)
        raw = np.frombuffer(stream.read(constant.size), np.uint8)
    if BITS[constant.dtype] < 8:
        per_byte = 8 // BITS[constant.dtype]
        codes = raw[:, None] >> np.arange(per_byte) * BITS[constant.dtype] & (2 ** BITS[constant.dtype] - 1)
        values = np.array(_table(constant.dtype))[codes.ravel()[: prod(constant.shape)]]
        return np.asarray(values.reshape(constant.shape))
    found = raw.view(_NUMPY.get(constant.dtype, f"<u{BITS[constant.dtype] // 8}"))
    return np.asarray(as_floats(found, _SAFETENSORS[constant.dtype]).reshape(constant.shape))


def possible(dtype: str) -> tuple[float, ...]:
    """Every finite value that an element of a coded type can have, ascending, each once; of 8 bits and less."""
    values = {value for value in _table(dtype) if np.isfinite(value)}
    return tuple(sorted(values))


def _value(raw: bytes, dtype: str, at: int) -> float:
    bits = BITS[dtype]
    if bits < 8:  # the first of those that share a byte has its low bits
        return float(_table(dtype)[raw[0] >> at % (8 // bits) * bits & (2**bits - 1)])
    found = np.frombuffer(raw, _NUMPY.get(dtype, f"<u{bits // 8}"))
    return float(as_floats(found, _SAFETENSORS[dtype])[0])


@cache
def _table(dtype: str) -> tuple[float, ...]:
    """What every code of a type of 8 bits and less means."""
    if dtype == "nf4":
        return tuple(float(np.float32(value)) for value in _NF4)
    if dtype == "f4e2m1":
        return (*_FP4, *(-value for value in _FP4))
    if dtype == "i4":
        return (*range(8), *range(-8, 0))
    if BITS[dtype] < 8:
        return tuple(map(float, range(2 ** BITS[dtype])))
    codes = np.arange(256, dtype=np.uint8)
    return tuple(as_floats(codes.view("i1") if dtype == "i8" else codes, _SAFETENSORS[dtype]).tolist())
