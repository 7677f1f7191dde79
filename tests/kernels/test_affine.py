"""Integer and float8 codes against hand-worked blocks, brute force over the grid, and compressed-tensors itself."""

import numpy as np
import pytest
import torch

from superweight.artefact.numbers import as_floats
from superweight.kernels import affine
from superweight.kernels.dynamic import float8_by_token, int8_by_token
from superweight.kernels.rounding import extremes


def block(*values):
    return torch.tensor([values], dtype=torch.float32)


def test_symmetric_codes_by_hand():
    """max|X| = 7 over codes to 7: the scale is one; 2.5 is a tie and goes to the even neighbour."""
    x = block(7.0, -3.2, 2.5, 0.4)
    scale = affine.symmetric_scale(extremes(x), 4, torch.float32)
    codes = affine.integer_codes(x, scale, None, affine.code_range(4, symmetric=True))
    assert scale.item() == 1
    assert codes.tolist() == [[7, -3, 2, 0]]
    assert affine.decoded(codes, scale).tolist() == [[7.0, -3.0, 2.0, 0.0]]


def test_the_full_range_has_one_code_more_and_cuts_a_positive_extreme():
    x = block(7.5, -7.5)
    scale = affine.symmetric_scale(extremes(x), 4, torch.float32, full_range=True)
    codes = affine.integer_codes(x, scale, None, affine.code_range(4, symmetric=True, full_range=True))
    assert scale.item() == 1
    assert codes.tolist() == [[7, -8]]


def test_asymmetric_codes_by_hand():
    """From −1 to 14 in 15 steps of one; zero is code −8 + 1."""
    x = block(-1.0, 14.0, 0.0, 6.4)
    scale, zero = affine.asymmetric_scale(extremes(x), 4, torch.float32)
    codes = affine.integer_codes(x, scale, zero, affine.code_range(4))
    assert (scale.item(), zero.item()) == (1, -7)
    assert codes.tolist() == [[-8, 7, -7, -1]]
    assert affine.decoded(codes, scale, zero).tolist() == [[-1.0, 14.0, 0.0, 6.0]]


@pytest.mark.parametrize("values", [(3.0, 4.0, 3.5), (-3.0, -4.0, -3.5), (0.0, 0.0, 0.0), (-0.0, 1e-42, 0.0)])
def test_zero_is_always_on_an_asymmetric_grid_and_no_scale_is_zero(values):
    x = block(*values, 0.0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        scale, zero = affine.asymmetric_scale(extremes(x[:, :3]), 4, dtype)
        codes = affine.integer_codes(x, scale, zero, affine.code_range(4))
        assert (scale > 0).all()
        assert affine.decoded(codes, scale, zero)[0, -1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_codes_are_the_nearest_on_the_grid_that_is_stored(dtype, bits, symmetric):
    """By brute force over all codes in float64, with the scale as it was rounded."""
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(bits))
    ends, zero = extremes(x), None
    if symmetric:
        scale = affine.symmetric_scale(ends, bits, dtype)
    else:
        scale, zero = affine.asymmetric_scale(ends, bits, dtype)
    least, most = affine.code_range(bits, symmetric=symmetric)
    codes = affine.integer_codes(x, scale, zero, (least, most))
    offset = 0 if zero is None else zero.double()
    grid = (
        torch.arange(least, most + 1).double() - (0 if zero is None else offset)
    ) * scale.double()  # (blocks, codes)
    best = (x.double()[..., None] - grid[:, None]).abs().amin(-1)
    found = ((codes.double() - offset) * scale.double() - x.double()).abs()
    assert torch.allclose(found, best, rtol=0, atol=1e-6 * float(x.abs().max()))


def test_float8_codes_are_the_nearest_of_all():
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    scale = affine.float8_scale(extremes(x), torch.float32)
    codes = affine.float8_codes(x, scale)
    table = as_floats(np.arange(256, dtype=np.uint8), "F8_E4M3")
    grid = torch.tensor(table[np.isfinite(table)])
    best = ((x.double() / scale.double())[..., None] - grid).abs().amin(-1)
    assert torch.allclose((codes.double() - x.double() / scale.double()).abs(), best, rtol=0, atol=1e-4)
    assert float(affine.decoded(codes, scale).abs().max()) == pytest.approx(float(x.abs().max()), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["int", "float"])
def test_dynamic_activations_are_the_librarys_to_the_bit(dtype, kind):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(3)).to(dtype)
    x[0, 0, 5], x[1, 3] = 900.0, 0.0  # a massive entry, and a token of nothing
    args = QuantizationArgs(num_bits=8, type=kind, symmetric=True, strategy="token", dynamic=True)
    scale, zero = compute_dynamic_scales_and_zp(x, args, torch.nn.Identity())
    expected = fake_quantize(x, scale, zero, args)
    ours = (int8_by_token if kind == "int" else float8_by_token)(x)
    assert ours.dtype == dtype
    assert torch.equal(ours, expected)
