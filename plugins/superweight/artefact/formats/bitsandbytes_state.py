"""What bitsandbytes keeps beside a 4-bit matrix: the JSON of its state, and the tables that codes are looked up in."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from superweight.artefact.container import Artefact
from superweight.errors import InfraError

TABLES = {
    "nf4": (
        *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
        *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
        *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
    ),
    "fp4": tuple(
        float(np.float32(sign * twelfths / 12)) for sign in (1, -1) for twelfths in (0, 0.0625, 8, 12, 4, 6, 2, 3)
    ),
}
"""What each of the 16 codes stands for, as a share of its block's largest magnitude; float32."""

BLOCK_SIZES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
"""Those that bitsandbytes decodes."""

DTYPES = ("float32", "float16", "bfloat16")
"""Those that it decodes to."""

_ALIKE = 1e-5
"""How far a stored table may be from the known one: devices divide differently in the last bit."""

PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4",
         "quant_state.bitsandbytes__fp4")  # fmt: skip
"""What may stand beside `weight`, after `weight.`."""


@dataclass(frozen=True)
class QuantState:
    """What the tensor `weight.quant_state.bitsandbytes__nf4` says: JSON, as bytes.

    Attributes:
        quant_type: nf4 or fp4, as the JSON says; what the tensor's name says is `label`.
        label: as the tensor's name says.
        blocksize: elements a scale.
        dtype: of the decoded matrix.
        shape: of the matrix, `(out, in)`.
        nested_blocksize: scales a scale, where scales are quantised again; else 0.
        nested_dtype: in which they are decoded; else empty.
        nested_offset: what is added to each.
    """

    quant_type: str
    label: str
    blocksize: int
    dtype: str
    shape: tuple[int, ...]
    nested_blocksize: int = 0
    nested_dtype: str = ""
    nested_offset: float = 0.0

    @property
    def numel(self) -> int:
        """Elements of the matrix."""
        return math.prod(self.shape)

    @property
    def blocks(self) -> int:
        """Scales of the matrix."""
        return -(-self.numel // self.blocksize)


def state_of(artefact: Artefact, module: str) -> QuantState:
    """The quantisation state of a 4-bit module.

    Raises:
        InfraError: it is missing (`missing-tensor`), or says nothing that bitsandbytes would take (`corrupt`).
    """
    labelled = [f"{module}.weight.quant_state.bitsandbytes__{label}" for label in TABLES]
    names = [name for name in labelled if name in artefact.tensors]
    if len(names) != 1:
        raise InfraError(
            f"{artefact.path} should hold one of {' and '.join(labelled)}, found {len(names)}: 4-bit codes cannot be "
            "read without it. Quantise again.",
            reason="missing-tensor",
        )
    raw = artefact.raw(names[0])
    artefact.read += raw.nbytes
    try:
        return _state(json.loads(np.asarray(raw, np.uint8).tobytes()), names[0].rpartition("__")[2])
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InfraError(
            f"{artefact.tensors[names[0]].file}: {names[0]} should be JSON with quant_type, blocksize, dtype and "
            f"shape: {type(error).__name__}: {error}. Quantise again.",
            reason="corrupt",
        ) from error


def is_table(artefact: Artefact, name: str, quant_type: str) -> bool:
    """Whether a file's `quant_map` is the one that its type has."""
    values = artefact.numbers(name)
    return values.shape == (16,) and bool(np.allclose(values, TABLES[quant_type], rtol=0, atol=_ALIKE))


def _state(said: Any, label: str) -> QuantState:
    state = QuantState(
        quant_type=str(said["quant_type"]),
        label=label,
        blocksize=int(said["blocksize"]),
        dtype=str(said["dtype"]),
        shape=tuple(int(size) for size in said["shape"]),
        nested_blocksize=int(said.get("nested_blocksize", 0)),
        nested_dtype=str(said.get("nested_dtype", "")),
        nested_offset=float(said.get("nested_offset", 0.0)),
    )
    if state.quant_type not in TABLES:
        raise ValueError(f"the type {state.quant_type!r} is neither nf4 nor fp4")
    if state.blocksize not in BLOCK_SIZES:
        raise ValueError(
            f"a block size of {state.blocksize}, where bitsandbytes knows {', '.join(map(str, BLOCK_SIZES))}"
        )
    if state.dtype not in DTYPES or state.nested_dtype not in ("", *DTYPES):
        raise ValueError(f"the dtype {state.dtype!r} / {state.nested_dtype!r} is none of {', '.join(DTYPES)}")
    if len(state.shape) != 2 or min(state.shape) < 1:
        raise ValueError(f"the shape {state.shape} is no matrix's")
    return state
