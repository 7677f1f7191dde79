"""Bits and fingerprints against struct and hand-made changes."""

import struct

import numpy as np
import pytest
import torch

from superweight.checkpoint.bits import all_finite, bits, hexadecimal
from superweight.measure.fingerprint import fingerprint, fingerprints, grid_sums, non_finite


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


def on_cpu(tensor):
    return fingerprint(tensor)


def as_on_a_gpu(tensor):
    return tuple(grid_sums(tensor.detach().contiguous().flatten()).tolist())


METHODS = pytest.mark.parametrize("taken", [on_cpu, as_on_a_gpu])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@METHODS
@DTYPES
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (2, 4096), (130, 65)])
def test_a_fingerprint_sees_every_bit(taken, dtype, shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    before = taken(weight)
    assert taken(weight.clone()) == before
    bits = weight.flatten().view(INTEGER[dtype.itemsize])  # of the same memory
    for place in {0, bits.numel() // 2, bits.numel() - 1}:
        for bit in range(8 * dtype.itemsize):
            flip = torch.tensor(-(1 << bit) if bit == 8 * dtype.itemsize - 1 else 1 << bit, dtype=bits.dtype)
            bits[place] ^= flip
            assert taken(weight) != before, (place, bit)
            bits[place] ^= flip
    assert taken(weight) == before


@METHODS
@DTYPES
def test_a_fingerprint_sees_elements_that_change_places(taken, dtype):
    weight = torch.randn(3 * 4096 + 5, generator=torch.Generator().manual_seed(2)).to(dtype)
    before = taken(weight)
    for one, other in [(0, 1), (0, 2), (5, 5 + 4096), (7, 4096), (1, 3 * 4096 + 1), (-1, -2), (0, 2 * 4096 + 2048)]:
        swapped = weight.clone()
        swapped[one], swapped[other] = weight[other], weight[one]
        assert taken(swapped) != before, (one, other)


@METHODS
@DTYPES
def test_a_fingerprint_sees_what_recipes_do(taken, dtype):
    weight = torch.randn(256, 96, generator=torch.Generator().manual_seed(3)).to(dtype)
    negated, reordered, rounded = weight.clone(), weight.clone(), weight.clone()
    negated[:, 7] *= -1  # flips the top bit of an even number of elements, and no other
    reordered[[3, 9]] = weight[[9, 3]]
    rounded[:] = (weight.float() * 8).round() / 8
    found = [taken(one) for one in (weight, negated, reordered, rounded, -weight, weight.flip(0), weight.t())]
    assert len(set(found)) == len(found)
    zeros = torch.zeros(4, dtype=dtype)
    assert taken(zeros) != taken(-zeros)


def test_sums_along_a_grid_are_those_of_plain_arithmetic():
    bits = torch.randint(-(2**31), 2**31, (5000 * 4096 + 3,), generator=torch.Generator().manual_seed(4)).int()
    found = grid_sums(bits.view(torch.float32)).numpy()
    grid, rest = bits[:-3].view(5000, 4096).numpy(), bits[-3:].numpy()
    assert (found[:4096] == np.add.reduce(grid, 0, dtype=np.int64)).all()
    assert (found[4096:-3] == np.add.reduce(grid, 1, dtype=np.int64)).all()
    assert (found[-3:] == rest).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@DTYPES
def test_fingerprints_on_a_gpu_are_made_of_the_same_sums(dtype):
    weight = torch.randn(300, 4096, generator=torch.Generator().manual_seed(5)).to(dtype)
    there = weight.cuda()
    assert torch.equal(grid_sums(there.flatten()), grid_sums(weight.flatten()))
    before = fingerprint(there)
    there[3, 5] = -there[3, 5]
    assert fingerprint(there) != before
    there[3, 5] = -there[3, 5]
    assert fingerprint(there) == before


def test_a_fingerprint_is_the_same_in_any_layout():
    weight = torch.randn(37, 11)
    whole = fingerprint(weight)
    assert fingerprint(weight.t().contiguous().t()) == whole


def test_models_are_fingerprinted_by_name():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4))
    before = fingerprints(model)
    assert list(before) == [name for name, _ in [*model.named_parameters(), *model.named_buffers()]]
    with torch.no_grad():
        model[2].bias[2] = float("nan")
    after = fingerprints(model)
    assert [name for name in before if before[name] != after[name]] == ["2.bias"]
    assert fingerprints(model, ["2.bias", "0.bias"]) == {name: after[name] for name in ("0.bias", "2.bias")}
    assert non_finite(model) == ["2.bias"]


@DTYPES
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_that_is_not_finite_among_many(dtype, bad):
    weight = torch.randn(64, 63, generator=torch.Generator().manual_seed(6)).to(dtype)
    assert all_finite(weight)
    weight[40, 2] = bad
    assert not all_finite(weight)


@DTYPES
def test_infinities_that_would_cancel_and_sums_that_overflow(dtype):
    weight = torch.zeros(64, 64).to(dtype)
    weight[1, 1], weight[2, 2] = float("inf"), -float("inf")
    assert not all_finite(weight)
    assert all_finite(torch.full((64, 64), torch.finfo(dtype).max, dtype=dtype))
    assert all_finite(torch.empty(0, dtype=dtype))
