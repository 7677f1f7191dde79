"""Codes as compressed-tensors packs them: integers into int32 words, small floats into bytes."""

from __future__ import annotations

from functools import cache

from superweight.artefact.container import Artefact

_WORD = 32


def packed_code(artefact: Artefact, name: str, before: tuple[int, ...], at: int, bits: int) -> int:
    """A code among those packed densely into int32 words along the last dimension; one may lie in two words."""
    word, shift = divmod(at * bits, _WORD)
    value = artefact.integer(name, *before, word) & 0xFFFFFFFF
    if shift + bits > _WORD:
        value |= (artefact.integer(name, *before, word + 1) & 0xFFFFFFFF) << _WORD
    return (value >> shift) & ((1 << bits) - 1)


def packed_down(artefact: Artefact, name: str, at: int, column: int, bits: int) -> int:
    """The same along the rows of a matrix, as zero points are packed."""
    word, shift = divmod(at * bits, _WORD)
    value = artefact.integer(name, word, column) & 0xFFFFFFFF
    if shift + bits > _WORD:
        value |= (artefact.integer(name, word + 1, column) & 0xFFFFFFFF) << _WORD
    return (value >> shift) & ((1 << bits) - 1)


def packed_float(artefact: Artefact, name: str, row: int, column: int, bits: int) -> float:
    """A float of 4 bits (E2M1, two a byte, the first in the low half) or 6 (E2M3, four in three bytes)."""
    first, shift = divmod(column * bits, 8)
    value = artefact.integer(name, row, first)
    if shift + bits > 8:
        value |= artefact.integer(name, row, first + 1) << 8
    return float_of_code((value >> shift) & ((1 << bits) - 1), bits)


def float_of_code(code: int, bits: int) -> float:
    """What a code of 4 bits (E2M1) or 6 (E2M3) stands for."""
    sign = -1.0 if code >> (bits - 1) else 1.0
    return sign * _magnitudes(bits)[code & ((1 << (bits - 1)) - 1)]


@cache
def floats(bits: int) -> tuple[float, ...]:
    """Every value of a packed float of 4 or 6 bits, in rising order."""
    return tuple(sorted({sign * value for value in _magnitudes(bits) for sign in (-1.0, 1.0)}))


@cache
def _magnitudes(bits: int) -> tuple[float, ...]:
    """Two bits of exponent, biased by one, and the rest mantissa; without infinity or NaN."""
    mantissa = bits - 3
    steps = 2**mantissa
    lead = [fraction / steps for fraction in range(steps)]
    return (*lead, *((1 + fraction / steps) * 2.0**exponent for exponent in range(3) for fraction in range(steps)))
