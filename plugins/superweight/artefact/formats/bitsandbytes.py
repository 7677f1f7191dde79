"""bitsandbytes: 4-bit blocks of the flattened matrix (nf4, fp4; scales perhaps nested), and rows of LLM.int8()."""

from __future__ import annotations

import math

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.base import Decoded, Place, decoded_to, on_grid
from superweight.artefact.formats.bitsandbytes_state import PARTS, TABLES, QuantState, is_table, state_of
from superweight.artefact.numbers import TORCH, rounded
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_PER_127 = float(np.float32(7.874015718698502e-3))
"""The reciprocal of 127 by which an int8 code and its row's scale are multiplied, in float32."""


class BitsAndBytes4bit:
    """`weight` with two codes a byte, the first in the high half; a scale (`weight.absmax`) a block.

    Element n of the flattened matrix is `TABLES[type][code n] · absmax[n // blocksize]` in float32, rounded to the
    dtype of the state. Nested scales are `nested_quant_map[absmax] · nested_absmax[… // nested_blocksize]`, rounded to
    their own dtype, plus the offset, rounded again. That is `bitsandbytes.functional.dequantize_4bit`, bit for bit.

    Scales that are not one-dimensional are read in the order in which they lie, as the library does.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there are parts of a 4-bit state, or one column of bytes where the settings say 4 bits."""
        weight = artefact.tensors.get(f"{module}.weight")
        if weight is None:
            return False
        if any(f"{module}.weight.{part}" in artefact.tensors for part in PARTS):
            return True
        return bool(artefact.settings.get("load_in_4bit")) and len(weight.shape) == 2 and weight.shape[1] == 1

    def describe(self, artefact: Artefact, module: str) -> str:
        """Type, block size and whether scales are nested; how scales lie, if not as they should."""
        try:
            state = state_of(artefact, module)
        except InfraError:
            return "bitsandbytes, 4 bits, without a readable state"
        nested = ", nested scales" if state.nested_blocksize else ""
        return f"bitsandbytes {state.quant_type}, 4 bits, blocks of {state.blocksize}{nested}"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The share that the code stands for, times the block's scale."""
        state = state_of(artefact, place.module)
        rows, columns = state.shape
        if place.expert is not None or not (0 <= place.row < rows and 0 <= place.column < columns):
            return CannotTell(f"[{place.row}, {place.column}] lies outside {place.module} of shape ({rows}, {columns})")
        table = f"{place.module}.weight.quant_map"
        if table in artefact.tensors and not is_table(artefact, table, state.quant_type):
            return CannotTell(f"{table} is not the table of {state.quant_type}: what decodes it depends on the kernel")
        at = place.row * columns + place.column
        scale = _scale(artefact, place.module, state, at // state.blocksize)
        if isinstance(scale, CannotTell):
            return scale
        code = _code(artefact, f"{place.module}.weight", state, at)
        if isinstance(code, CannotTell):
            return code
        shares = sorted(set(TABLES[state.quant_type]))  # both zeros of fp4 are one

        share = shares.index(TABLES[state.quant_type][code])
        found = on_grid(lambda at: shares[at] * scale, share, 0, len(shares) - 1, state.dtype, f"{code} of 0 to 15")
        return decoded_to(found, rounded(rounded(shares[share] * scale, "float32"), state.dtype))


def _code(artefact: Artefact, name: str, state: QuantState, at: int) -> int | CannotTell:
    codes = artefact.raw(name).reshape(-1).view(np.uint8)  # bytes, whatever dtype they are stored as
    if len(codes) * 2 < state.numel:
        return CannotTell(f"{name} holds {len(codes) * 2} codes where its state says {state.shape}")
    artefact.read += 1
    byte = int(codes[at // 2])
    return byte & 15 if at % 2 else byte >> 4


def _scale(artefact: Artefact, module: str, state: QuantState, block: int) -> float | CannotTell:
    """The scale of a block, a float32."""
    name, nested = f"{module}.weight.absmax", f"{module}.weight.nested_absmax"
    info = artefact.tensors.get(name)
    if info is None:
        return CannotTell(f"there is no {name}: the scales of its 4-bit codes are missing")
    if math.prod(info.shape) != state.blocks:
        return CannotTell(f"{name} holds {math.prod(info.shape)} scales where its state asks for {state.blocks}")
    if nested not in artefact.tensors:
        if info.dtype not in TORCH:
            return CannotTell(f"{name} is {info.dtype} and there is no {nested} to read it by")
        return rounded(_element(artefact, name, block), "float32")
    if info.dtype != "U8":
        return CannotTell(f"{name} is {info.dtype} beside {nested}, which asks for uint8")
    return _nested(artefact, module, state, block)


def _nested(artefact: Artefact, module: str, state: QuantState, block: int) -> float | CannotTell:
    outer, table = f"{module}.weight.nested_absmax", f"{module}.weight.nested_quant_map"
    if not state.nested_blocksize or not state.nested_dtype:
        return CannotTell(f"the state of {module} does not say how its scales are quantised")
    shapes = {name: artefact.tensors[name].shape if name in artefact.tensors else () for name in (outer, table)}
    if math.prod(shapes[outer]) != -(-state.blocks // state.nested_blocksize) or shapes[table] != (256,):
        return CannotTell(f"{outer} and {table} have the shapes {shapes[outer]} and {shapes[table]}, which do not fit")
    code = int(_element(artefact, f"{module}.weight.absmax", block))
    share, scale = artefact.number(table, code), _element(artefact, outer, block // state.nested_blocksize)
    within = rounded(rounded(share * scale, "float32"), state.nested_dtype)
    offset = rounded(state.nested_offset, "float32")
    return rounded(within + rounded(offset, state.nested_dtype), state.nested_dtype)


def _element(artefact: Artefact, name: str, at: int) -> float:
    """Element of a tensor in the order in which it lies."""
    index = np.unravel_index(at, artefact.tensors[name].shape)
    return artefact.number(name, *(int(one) for one in index))


class BitsAndBytesInt8:
    """`weight` of int8, row by row, and `SCB`, the largest magnitude of each row.

    An element is `code · SCB[row] / 127`, in float32 and in this order, as `int8_vectorwise_dequant` has it.
    """

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether there is `SCB`, or int8 where the settings say 8 bits."""
        weight = artefact.tensors.get(f"{module}.weight")
        if weight is None or weight.dtype != "I8":
            return False
        return f"{module}.SCB" in artefact.tensors or bool(artefact.settings.get("load_in_8bit"))

    def describe(self, artefact: Artefact, module: str) -> str:
        """Always the same."""
        return "bitsandbytes LLM.int8(), a scale a row"

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """The code times its row's scale."""
        name, scales = f"{place.module}.weight", f"{place.module}.SCB"
        shape = artefact.tensors[name].shape
        if scales not in artefact.tensors:
            return CannotTell(f"there is no {scales}: the scales of {name} are missing")
        if len(shape) != 2 or not (0 <= place.row < shape[0] and 0 <= place.column < shape[1]):
            return CannotTell(f"[{place.row}, {place.column}] lies outside {name} of shape {shape}")
        info = artefact.tensors[scales]
        if math.prod(info.shape) != shape[0] or info.dtype != "F32":
            return CannotTell(f"{scales} is {info.dtype} of shape {info.shape} where {shape[0]} of float32 are needed")
        form = f"{place.module}.weight_format"
        if form in artefact.tensors and (artefact.tensors[form].shape != () or artefact.integer(form) != 0):
            return CannotTell(f"{form} does not say that the codes lie row by row, which is all that is read here")
        scale, code = _element(artefact, scales, place.row), artefact.integer(name, place.row, place.column)

        found = on_grid(lambda one: one * scale / 127, code, -127, 127, "float32", f"{code} of -127 to 127")
        return decoded_to(found, rounded(rounded(code * scale, "float32") * _PER_127, "float32"))
