"""Numbers from bytes, beside the arithmetic of torch."""

import math

import numpy as np
import pytest
import torch

from superweight.artefact.numbers import NUMPY, TORCH, as_floats, gaps, hexadecimal, rounded, spacing
from superweight.errors import InfraError

FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def dtype_of(name):
    return getattr(torch, TORCH[name])


def every_bit_pattern(name):
    size = dtype_of(name).itemsize
    if size == 1:
        return torch.arange(256, dtype=torch.uint8)
    if size == 2:
        return torch.arange(-32768, 32768, dtype=torch.int16)
    generator = torch.Generator().manual_seed(size)
    return torch.randint(-(2**62), 2**62, (4096,), generator=generator).to(BITS[size])


@pytest.mark.parametrize("name", FLOATS)
def test_bits_are_read_as_torch_reads_them(name):
    bits = every_bit_pattern(name)
    raw = np.frombuffer(bits.numpy().tobytes(), NUMPY[name])
    np.testing.assert_array_equal(as_floats(raw, name), bits.view(dtype_of(name)).double().numpy())


def test_exponents_of_e8m0_are_powers_of_two():
    found = as_floats(np.array([0, 1, 127, 128, 254, 255], np.uint8), "F8_E8M0")
    assert list(found[:5]) == [2.0**-127, 2.0**-126, 1, 2, 2.0**127]
    assert math.isnan(found[5])


@pytest.mark.parametrize("name", ["F8_E4M3FNUZ", "F8_E5M2FNUZ", "F4", "C64"])
def test_unknown_number_formats_are_refused(name):
    with pytest.raises(InfraError, match=name):
        as_floats(np.zeros(2, np.uint8), name)


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16"])
def test_rounding_is_torchs(name):
    generator = torch.Generator().manual_seed(1)
    numbers = torch.randn(5000, generator=generator).double() * torch.exp2(
        torch.randint(-150, 140, (5000,), generator=generator)
    )
    special = torch.tensor(
        [
            0.0,
            -0.0,
            65504,
            65519.999,
            65520,
            3.4e38,
            3.3961e38,
            1e39,
            -1e39,
            2.0**-149,
            2.0**-150,
            1.5 * 2**-149,
            2.0**-25,
        ],
        dtype=torch.float64,
    )
    for number in [*numbers.tolist(), *special.tolist()]:
        number = torch.tensor(number).item() if name in ("float16", "bfloat16") else number  # torch rounds twice else
        expected = torch.tensor(number, dtype=torch.float64).to(getattr(torch, name)).double().item()
        assert rounded(number, name) == expected, number


@pytest.mark.parametrize("name", ["F8_E4M3", "F8_E5M2"])
def test_rounding_to_eight_bits_is_torchs(name):
    for number in torch.linspace(-480, 480, 2001).tolist():
        expected = torch.tensor(number).to(dtype_of(name)).double().item()
        assert rounded(number, TORCH[name]) == expected, number


@pytest.mark.parametrize("name", ["F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_gaps_lead_to_the_neighbours(name):
    """The numbers of a dtype, sorted: each gap leads to the one before and the one after."""
    values = every_bit_pattern(name).view(dtype_of(name)).double()
    ordered = sorted(set(values[values.isfinite()].tolist()))
    for before, number, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
        lower, upper = gaps(number, TORCH[name])
        assert (number - lower, number + upper) == (before, after)
    assert gaps(ordered[-1], TORCH[name])[1] == math.inf
    assert gaps(ordered[0], TORCH[name])[0] == math.inf


def test_what_is_not_finite_has_no_neighbours():
    assert gaps(math.inf, "float32") == gaps(math.nan, "bfloat16") == (math.inf, math.inf)


def test_spacing_at_zero_is_the_smallest_number():
    assert spacing(0.0, "float32") == 2.0**-149
    assert spacing(0.0, "float8_e4m3fn") == 2.0**-9


@pytest.mark.parametrize("name", FLOATS)
def test_hexadecimal_is_the_bits(name):
    bits = every_bit_pattern(name)[:2000]
    digits = 2 * dtype_of(name).itemsize
    for pattern, number in zip(bits.tolist(), bits.view(dtype_of(name)).double().tolist(), strict=True):
        if not math.isnan(number):
            assert hexadecimal(number, TORCH[name]) == f"0x{pattern & (16**digits - 1):0{digits}x}"


@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_what_is_too_large_has_bits_too(name):
    assert hexadecimal(rounded(1e300 if name != "float64" else math.inf, name), name).startswith("0x7")
