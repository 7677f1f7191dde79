"""Codes packed into 32-bit words without gaps, lowest bits first: 2, 4 and 8 bits fill words, others straddle them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from superweight.artefact.container import Artefact

WORD = 32
_ALL = 0xFFFFFFFF


def words_for(codes: int, bits: int) -> int:
    """How many words hold so many codes."""
    return -(-codes * bits // WORD)


def stored_code(artefact: Artefact, name: str, at: int, bits: int, index: Callable[[int], tuple[int, ...]]) -> int:
    """One code of a tensor of words; reads one word, or the two in which it lies.

    Args:
        artefact: what holds the tensor.
        name: of the tensor, int32.
        at: number of the code in its row of codes.
        bits: of a code.
        index: number of a word in that row → its index in the tensor.
    """
    word, shift = divmod(at * bits, WORD)
    value = artefact.integer(name, *index(word)) & _ALL
    if shift + bits > WORD:
        value |= (artefact.integer(name, *index(word + 1)) & _ALL) << WORD
    return (value >> shift) & ((1 << bits) - 1)


def unpacked(words: np.ndarray[Any, Any], bits: int, codes: int) -> np.ndarray[Any, Any]:
    """The first codes of words packed along the last dimension.

    Args:
        words: `(…, words)`, int32.
        bits: of a code.
        codes: how many.

    Returns:
        `(…, codes)`, int64.
    """
    first, shift = np.divmod(np.arange(codes) * bits, WORD)
    wide = np.concatenate([words, np.zeros_like(words[..., :1])], axis=-1).astype(np.uint32).astype(np.uint64)
    pairs = wide[..., first] | (wide[..., first + 1] << np.uint64(WORD))
    return ((pairs >> shift.astype(np.uint64)) & np.uint64((1 << bits) - 1)).astype(np.int64)


def words_of(artefact: Artefact, name: str) -> np.ndarray[Any, Any]:
    """A whole tensor of words or other integers, for small ones: zero points, group numbers."""
    array = np.asarray(artefact.raw(name))
    artefact.read += array.nbytes
    return array
