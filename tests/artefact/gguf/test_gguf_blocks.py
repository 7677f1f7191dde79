"""Blocks of every quantisation type: decoded as llama.cpp does it, and their steps by each type's own formula."""

import math
import re

import gguf
import numpy as np
import pytest

from superweight.artefact.gguf.blocks import PLAIN, decodable, decode, decoded
from support.ggufs import KIND, llama_cpp_blocks

WRITTEN = llama_cpp_blocks()
DECODED = sorted(set(WRITTEN) - {"Q1_0"})
# What the weights of a block can be, in units of the scale that they share.
CODEBOOKS = {
    "IQ4_NL": (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113),
    "MXFP4": (-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6),
    "IQ2": (-43, -25, -8, 8, 25, 43),
    "IQ3_S": (-15, -13, -11, -9, -7, -5, -3, -1, 1, 3, 5, 7, 9, 11, 13, 15),
    "IQ3_XXS": (-62, -52, -44, -36, -28, -20, -12, -4, 4, 12, 20, 28, 36, 44, 52, 62),
}


def blocks(kind):
    """(raw, values) of every block of a type."""
    raw, values = WRITTEN[kind]
    block, size = gguf.GGML_QUANT_SIZES[KIND[kind]]
    return list(zip(raw.reshape(-1, size), values.reshape(-1, block), strict=True))


def half(raw, at):
    return float(raw[at : at + 2].view(np.float16)[0])


@pytest.mark.parametrize("kind", DECODED)
def test_a_block_is_decoded_as_llama_cpp_does_it(kind):
    for raw, values in blocks(kind):
        assert decode(raw[None], kind)[0].tobytes() == values.tobytes()
        found = [decoded(raw, kind, at).value for at in range(0, len(values), 37)]
        assert found == [float(value) for value in values[::37]]


def test_a_type_that_the_gguf_package_cannot_decode_is_known_to_be_one():
    assert [kind for kind in WRITTEN if not decodable(kind)] == ["Q1_0"]
    assert not any(decodable(kind) for kind in ("Q8_1", "Q8_K", "I8", "I32", "F64"))
    assert all(decodable(kind) for kind in PLAIN)


def even_steps(kind, raw, at):
    """The scale that a weight's code is multiplied by, from the layout that ggml-common.h gives."""
    if kind in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"):
        return half(raw, 0)
    if kind == "Q2_K":  # 16 bytes of scale and minimum, 64 of codes, d, dmin
        return half(raw, 80) * int(raw[at // 16] & 15)
    if kind == "Q6_K":  # 128 + 64 bytes of codes, 16 scales, d
        return half(raw, 208) * int(raw[192:208].view(np.int8)[at // 16])
    if kind == "TQ2_0":
        return half(raw, 64)
    if kind == "TQ1_0":
        return half(raw, 52)
    assert kind in ("Q4_K", "Q5_K")  # d, dmin, 12 bytes of 6-bit scales and minima
    scales, group = raw[4:16], at // 32
    if group < 4:
        return half(raw, 0) * int(scales[group] & 63)
    return half(raw, 0) * int((scales[group + 4] & 15) | ((scales[group - 4] >> 6) << 4))


@pytest.mark.parametrize(
    "kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0"]
)
def test_a_step_is_the_scale_of_the_block(kind):
    for raw, values in blocks(kind):
        for at in range(0, len(values), 5):
            found, expected = decoded(raw, kind, at), abs(even_steps(kind, raw, at))
            assert found.step == pytest.approx(expected, rel=1e-5, abs=abs(found.value) * 1e-6)
            for gap in (found.lower, found.upper):
                assert math.isinf(gap) or gap == pytest.approx(expected, rel=1e-5, abs=abs(found.value) * 1e-6)


@pytest.mark.parametrize(
    "kind", ["IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]
)
def test_steps_of_codebooks_are_the_distances_in_the_codebook(kind):
    book = {"IQ4_XS": "IQ4_NL", "NVFP4": "MXFP4"}.get(kind, kind if kind in CODEBOOKS else "IQ2")
    for raw, values in blocks(kind):
        for at in range(0, len(values), 11):
            found = decoded(raw, kind, at)
            rank, last = map(int, re.fullmatch(r"value (\d+) of 0 to (\d+), ascending", found.code).groups())
            assert last == len(CODEBOOKS[book]) - 1
            if found.value:
                assert any(is_entry(found, rank, sign * np.array(CODEBOOKS[book])) for sign in (1, -1))


def is_entry(found, rank, entries):
    """Whether value and distances are those of a codebook's entry, by rank, at some positive scale."""
    entries = np.sort(entries)
    scale = found.value / entries[rank]
    lower = scale * (entries[rank] - entries[rank - 1]) if rank else math.inf
    upper = scale * (entries[rank + 1] - entries[rank]) if rank + 1 < len(entries) else math.inf
    expected = (min(lower, upper), lower, upper)
    return scale > 0 and (found.step, found.lower, found.upper) == pytest.approx(expected, rel=1e-4)


def test_steps_of_three_values_with_the_shift_of_a_block():
    for raw, values in blocks("IQ1_S"):  # d, 32 bytes of entries, 8 words with scale and shift
        for at in range(0, len(values), 11):
            word = int(raw[34:].view(np.uint16)[at // 32])
            scale = half(raw, 0) * (2 * (word >> 12 & 7) + 1)
            found, shift = decoded(raw, "IQ1_S", at), -0.125 if word & 0x8000 else 0.125
            assert found.value / scale - shift == pytest.approx(round(found.value / scale - shift), abs=1e-5)
            assert found.step == pytest.approx(scale, rel=1e-5)


def test_steps_of_three_values_with_the_shift_of_eight_weights():
    for raw, values in blocks("IQ1_M"):  # 32 bytes of entries, 16 with shifts, 4 words of scales and a quarter of d
        words = [int(word) for word in raw[48:].view(np.uint16)]
        scale = sum((word >> 12) << 4 * number for number, word in enumerate(words))
        d = float(np.array([scale], np.uint16).view(np.float16)[0])
        for at in range(0, len(values), 11):
            unit = d * (2 * (words[at // 64] >> 3 * (at // 16 % 4) & 7) + 1)
            assert decoded(raw, "IQ1_M", at).step == pytest.approx(unit / 4, rel=1e-4)


def test_a_block_without_a_scale_has_no_steps():
    raw = np.zeros(gguf.GGML_QUANT_SIZES[KIND.Q4_K][1], np.uint8)
    found = decoded(raw, "Q4_K", 3)
    assert (found.value, found.step) == (0, 0)


@pytest.mark.parametrize("kind", ["Q8_0", "Q6_K", "IQ3_S"])
@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_within_no_step(kind, scale):
    raw = WRITTEN[kind][0][: gguf.GGML_QUANT_SIZES[KIND[kind]][1]].copy()
    at = {"Q8_0": 0, "Q6_K": 208, "IQ3_S": 0}[kind]
    raw[at : at + 2] = np.array([scale], np.float16).view(np.uint8)
    found = decoded(raw, kind, 5)
    assert not math.isfinite(found.value)
    assert found.step_towards(5.0) == 0


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_plain_numbers_have_the_step_of_their_dtype(kind):
    raw = np.asarray(gguf.quantize(np.array([[5.875]], np.float32), KIND[kind])).view(np.uint8)
    found = decoded(raw[0], kind, 0)
    assert found.value == 5.875
    assert found.code == ""
    assert found.step == 4 * 2.0 ** -{"F32": 23, "F16": 10, "BF16": 7}[kind]


@pytest.mark.parametrize("kind", DECODED)
def test_any_bytes_give_a_number_or_none_and_a_step(kind):
    size = gguf.GGML_QUANT_SIZES[KIND[kind]][1]
    random = np.random.default_rng(7)
    for _ in range(20):
        raw = random.integers(0, 256, size, dtype=np.uint8)
        at = int(random.integers(gguf.GGML_QUANT_SIZES[KIND[kind]][0]))
        found = decoded(raw, kind, at)
        assert math.isfinite(found.step)
        assert found.step >= 0
        value = float(decode(raw[None], kind)[0, at])
        assert found.value == value or (math.isnan(value) and math.isnan(found.value))
