"""Bits and fingerprints against struct and hand-made changes."""

import struct

import pytest
import torch

from superweight.checkpoint.bits import bits, hexadecimal
from superweight.measure.fingerprint import fingerprint, fingerprints, non_finite


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -1.5, 5.8757, float("inf"), 1e-42])
def test_float32_bits_are_what_struct_packs(value):
    assert bits(torch.tensor(value)) == struct.unpack("<I", struct.pack("<f", value))[0]


@pytest.mark.parametrize(
    ("dtype", "shown"), [(torch.float32, "0x3f800000"), (torch.bfloat16, "0x3f80"), (torch.float16, "0x3c00")]
)
def test_one_in_hexadecimal(dtype, shown):
    assert hexadecimal(torch.tensor(1.0, dtype=dtype)) == shown


def test_signs_of_zero_and_payloads_of_nan_are_told_apart():
    assert bits(torch.tensor(0.0)) != bits(torch.tensor(-0.0))
    quiet, other = (
        torch.tensor([pattern], dtype=torch.int32).view(torch.float32)[0] for pattern in (0x7FC00000, 0x7FC00001)
    )
    assert bits(quiet) != bits(other)
    assert bits(other) == 0x7FC00001


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_fingerprint_sees_one_bit_and_a_swap(dtype):
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = fingerprint(weight)
    assert fingerprint(weight.clone()) == before
    flipped = weight.clone()
    flipped.view({2: torch.int16, 4: torch.int32}[dtype.itemsize])[3, 5] ^= 1
    swapped = weight.clone()
    swapped[0, 0], swapped[0, 1] = weight[0, 1], weight[0, 0]
    assert len({before, fingerprint(flipped), fingerprint(swapped), fingerprint(-weight)}) == 4
    signed_zero = torch.zeros(4, dtype=dtype)
    assert fingerprint(signed_zero) != fingerprint(-signed_zero)


def test_a_fingerprint_is_the_same_in_any_layout():
    weight = torch.randn(37, 11)
    whole = fingerprint(weight)
    assert fingerprint(weight.t().contiguous().t()) == whole


def test_models_are_fingerprinted_by_name():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    before = fingerprints(model)
    with torch.no_grad():
        model[1].bias[2] = float("nan")
    after = fingerprints(model)
    assert [name for name in before if before[name] != after[name]] == ["1.bias"]
    assert non_finite(model) == ["1.bias"]
