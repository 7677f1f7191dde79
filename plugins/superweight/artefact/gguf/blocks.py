"""Blocks of GGUF's quantisation types: what they decode to, and what else one of their codes could say.

The gguf package decodes; nothing here knows a type's layout. Which bits of a block are a weight's own is found by
flipping every bit and looking at whose values follow: a code's bits reach its weight, or the few weights that share an
entry of a codebook; a scale's bits reach sixteen weights and more.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from superweight.artefact.formats import Decoded
from superweight.artefact.numbers import gaps
from superweight.checkpoint.fetching.problems import missing_package

PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Types that are plain numbers, and torch's names of them."""

_WITH_A_CODE = 8  # weights that one code can be shared by; the smallest group that shares a scale has 16
_WITH_A_SIGN = 2  # weights that a sign can be shared by, where the last of eight follows from the others
_BASES = 6  # random blocks in which the settings of bits are tried
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
    code = codes(kind)[element]
    blocks = np.repeat(np.unpackbits(raw, bitorder="little")[None], len(code.settings), axis=0)
    blocks[:, code.bits] = code.settings
    values = np.unique(decode(_packed(blocks), kind)[:, element].astype(np.float64))
    return values[np.isfinite(values)]


class Code(NamedTuple):
    """What a weight's code can be.

    Attributes:
        bits: numbers of the bits of its block that the code has, low bits of a byte first.
        settings: for every value that it can give, one way to set them: (values, bits).
    """

    bits: np.ndarray[Any, Any]
    settings: np.ndarray[Any, Any]


@cache
def codes(kind: str) -> tuple[Code, ...]:
    """The code of every weight of a block.

    Bits of the weight alone, or of its sign, and bits of a codebook's entry that several weights share are tried apart,
    for all weights of the block at once; what differs is combined.
    """
    weights = _decoders()[kind][0]
    reach = _reach(kind)
    reached = reach.sum(axis=1)
    alone = _settings(kind, reach & (reached <= _WITH_A_SIGN)[:, None])
    shared = _settings(kind, reach & ((reached > _WITH_A_SIGN) & (reached <= _WITH_A_CODE))[:, None])
    return tuple(_combined(alone[element], shared[element]) for element in range(weights))


def _combined(one: Code, other: Code) -> Code:
    pairs = [np.concatenate(pair) for pair in itertools.product(one.settings, other.settings)]
    return Code(np.concatenate([one.bits, other.bits]), np.array(pairs, np.uint8))


def _settings(kind: str, reach: np.ndarray[Any, Any]) -> list[Code]:
    """For every weight, the bits of the group that reaches it, and those of their settings that differ in its value."""
    groups = _groups(reach)
    longest = max((len(bits) for bits in groups.values()), default=0)
    tried = np.arange(2**longest)
    random, size = np.random.default_rng(1), len(reach)
    found: list[Code] = [Code(np.empty(0, np.intp), np.zeros((1, 0), np.uint8))] * reach.shape[1]
    for _ in range(_BASES):  # in one block alone, a scale of zero can hide what differs
        blocks = np.repeat(random.integers(0, 2, (1, size), dtype=np.uint8), len(tried), axis=0)
        for bits in set(groups.values()):
            blocks[:, bits] = tried[:, None] >> np.arange(len(bits)) & 1
        values = decode(_packed(blocks), kind).view(np.uint32)
        for element, bits in groups.items():
            differing = np.unique(values[: 2 ** len(bits), element], return_index=True)[1]
            if len(differing) > len(found[element].settings):
                found[element] = Code(np.array(bits), blocks[differing][:, bits])
    return found


def _groups(reach: np.ndarray[Any, Any]) -> dict[int, tuple[int, ...]]:
    """Weight → the bits that reach it, with those that reach any weight that these do, and so on."""
    bits_of = {int(element): frozenset(np.flatnonzero(reach[:, element]).tolist()) for element in range(reach.shape[1])}
    joined: list[set[int]] = []
    for bits in filter(None, bits_of.values()):
        touching = [group for group in joined if group & bits]
        joined = [group for group in joined if not group & bits] + [set(bits).union(*touching)]
    whole = {bit: tuple(sorted(group)) for group in joined for bit in group}
    return {element: whole[min(bits)] for element, bits in bits_of.items() if bits}


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
