"""Blocks of GGUF's quantisation types: what they decode to, and what else one of their codes could say.

The gguf package decodes; nothing here knows a type's layout. Which bits of a block are a weight's own is found by
flipping every bit and looking at whose values follow: a code's bits reach its weight, or the few weights that share an
entry of a codebook; a scale's bits reach sixteen weights and more.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from superweight.artefact.formats import Decoded
from superweight.artefact.numbers import gaps
from superweight.checkpoint.fetching.problems import missing_package

PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types that are plain numbers, and torch's names of them."""

_WITH_A_CODE = 8  # weights that one code can be shared by; the smallest group that shares a scale has 16
_WITH_A_SIGN = 2  # weights that a sign can be shared by, where the last of eight follows from the others
_QUIET = 12  # random blocks in a row that show nothing new, when what bits reach is taken as known


def decodable(kind: str) -> bool:
    """Whether the gguf package decodes a quantisation type.

    Raises:
        InfraError: missing-package.
    """
    return kind in PLAIN or kind in _decoders()


def decode(raw: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Values of blocks as the gguf package gives them.

    Args:
        raw: bytes, (blocks, bytes of one).
        kind: a type that is `decodable`.

    Returns:
        float32, (blocks, weights of one).
    """
    from gguf import GGMLQuantizationType, dequantize

    with np.errstate(all="ignore"):
        return np.asarray(dequantize(np.ascontiguousarray(raw), GGMLQuantizationType[kind]), np.float32)


def decoded(raw: np.ndarray[Any, Any], kind: str, element: int) -> Decoded:
    """One weight of a block, with the values nearest to it that the block can hold there.

    Args:
        raw: bytes of the block, uint8.
        kind: a type that is `decodable`.
        element: the weight, counted in its block.
    """
    value = float(decode(raw[None], kind)[0, element])
    if not np.isfinite(value):
        return Decoded(value, "float32", 0.0, "no number", math.inf, math.inf)
    if kind in PLAIN:
        lower, upper = gaps(value, PLAIN[kind])
        return Decoded(value, "float32", min(lower, upper), "", lower, upper)
    possible = _possible(raw, kind, element)
    at, last = int(np.searchsorted(possible, value)), len(possible) - 1
    lower = value - float(possible[at - 1]) if at else math.inf
    upper = float(possible[at + 1]) - value if at < last else math.inf
    step = min(lower, upper)
    words = f"value {at} of 0 to {last}, ascending"
    return Decoded(value, "float32", step if math.isfinite(step) else 0.0, words, lower, upper)


def _possible(raw: np.ndarray[Any, Any], kind: str, element: int) -> np.ndarray[Any, Any]:
    """Every finite value that a weight can have while the scales of its block stay: float64, ascending, each once."""
    own, shared = own_bits(kind, element)
    signed = _varied(np.unpackbits(raw, bitorder="little"), own)
    seen = decode(_packed(signed), kind)[:, element]
    differing = np.unique(seen.view(np.uint32), return_index=True)[1]
    found = [decode(_packed(_varied(signed[one], shared)), kind)[:, element] for one in differing] if shared else [seen]
    values = np.unique(np.concatenate(found).astype(np.float64))
    return values[np.isfinite(values)]


def _varied(block: np.ndarray[Any, Any], bits: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """The block once for every way to set some of its bits."""
    blocks = np.repeat(block[None], 2 ** len(bits), axis=0)
    blocks[:, bits] = np.arange(len(blocks))[:, None] >> np.arange(len(bits)) & 1
    return blocks


@cache
def own_bits(kind: str, element: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Numbers of the bits of a weight's code, low bits of a byte first.

    Returns:
        those of the weight alone, or of its sign; and those of a codebook's entry that several weights share.
    """
    reach = _reach(kind)
    weights = reach.sum(axis=1)
    alone = np.flatnonzero(reach[:, element] & (weights <= _WITH_A_SIGN))
    shared = np.flatnonzero(reach[:, element] & (weights > _WITH_A_SIGN) & (weights <= _WITH_A_CODE))
    return tuple(alone.tolist()), tuple(shared.tolist())


@cache
def _reach(kind: str) -> np.ndarray[Any, Any]:
    """Whether a bit of a block has a say in a weight: (bits, weights)."""
    weights, size = _decoders()[kind]
    random = np.random.default_rng(0)
    reach = np.zeros((8 * size, weights), bool)
    quiet = 0
    while quiet < _QUIET:  # in one block alone, a zero can hide what a bit does
        block = random.integers(0, 2, 8 * size, dtype=np.uint8)
        flipped = decode(_packed(block[None] ^ np.eye(8 * size, dtype=np.uint8)), kind)
        seen = reach | (flipped.view(np.uint32) != decode(_packed(block[None]), kind).view(np.uint32))
        quiet = quiet + 1 if (seen == reach).all() else 0
        reach = seen
    return reach


def _packed(bits: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.packbits(bits, axis=-1, bitorder="little")


@cache
def _decoders() -> dict[str, tuple[int, int]]:
    """Quantisation type → weights and bytes of a block, of all that the gguf package decodes."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
    except ImportError as error:
        raise missing_package("gguf", "Reading a GGUF file") from error
    found: dict[str, tuple[int, int]] = {}
    for kind in GGMLQuantizationType:
        weights, size = GGML_QUANT_SIZES.get(kind, (1, 1))
        if weights > 1:
            try:
                dequantize(np.zeros((1, size), np.uint8), kind)
            except NotImplementedError:
                continue
            found[kind.name] = (weights, size)
    return found
