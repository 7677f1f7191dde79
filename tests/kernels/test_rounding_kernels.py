import math
from fractions import Fraction

import pytest
import torch
from torch._dynamo.utils import counters

from superweight.kernels import rounding
from superweight.kernels.compiling import compiler
from superweight.kernels.rounding import (
    LONG,
    Moments,
    Range,
    clipped,
    extremes,
    moments,
    round_,
    round_to_nearest,
    squared_errors,
)

needs_compiler = pytest.mark.skipif(compiler("cpu") is not None, reason="no C++ compiler")
GRID = (2.0, 3.0, 5.0, 9.0, math.inf)


def rtn(values, bits, z=math.inf):
    x = torch.tensor([values], dtype=torch.float32)
    round_(x, bits, z)
    return x[0]


def exact(values, bits):
    """The formula in rational numbers; Python rounds halves to even."""
    low, high = min(values), max(values)
    step = Fraction(high - low) / (2**bits - 1)
    return [float(round((value - low) / step) * step + low) for value in values]


def clip_at(x, z):
    ends = extremes(x)
    return clipped(ends, moments(x, ends), torch.full((1, 1), z))


def test_two_bits_by_hand():
    # Δ = (2 − (−1))/3 = 1; (X + 1)/1 = 0, 1.25, 1.5, 3 → 0, 1, 2 (half to even), 3
    assert rtn([-1.0, 0.25, 0.5, 2.0], 2).tolist() == [-1.0, 0.0, 1.0, 2.0]


def test_four_bits_by_hand():
    # Δ = (7.5 − 0)/15 = 0.5: 0.2 → 0.4 steps → 0, 0.3 → 0.6 → 1 step, 3.6 → 7.2 → 7 steps
    assert rtn([0.0, 0.2, 0.3, 3.6, 7.5], 4).tolist() == [0.0, 0.0, 0.5, 3.5, 7.5]


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 8])
def test_agrees_with_rational_arithmetic(bits):
    generator = torch.Generator().manual_seed(bits)
    sixteenths = torch.randint(-4000, 4000, (5, 37), generator=generator)  # so that float32 holds them exactly
    x = sixteenths.float() / 16
    expected = [exact([Fraction(n, 16) for n in row], bits) for row in sixteenths.tolist()]
    round_(x, bits)
    torch.testing.assert_close(x, torch.tensor(expected), rtol=1e-6, atol=1e-4)


def test_every_block_has_its_own_grid():
    x = torch.tensor([[0.0, 1.0, 3.0], [0.0, 100.0, 300.0]])  # Δ = 1 and 100 at 2 bits: all are on their grid
    assert torch.equal(round_to_nearest(x, extremes(x), 3), x)


@pytest.mark.parametrize("value", [0.1, -0.1, 0.0, 1e-42, 3e38])
def test_constant_block_comes_back_exactly(value):
    assert torch.equal(rtn([value] * 7, 4), torch.tensor([value] * 7))


@pytest.mark.parametrize("z", [2.0, math.inf])
def test_zeros_keep_their_signs_in_a_block_of_zeros(z):
    assert torch.signbit(rtn([-0.0, 0.0, -0.0], 4, z)).tolist() == [True, False, True]


def test_one_element_block():
    assert rtn([0.3], 2).item() == torch.tensor(0.3).item()


def test_values_are_rounded_to_the_dtype_they_are_stored_in():
    x = torch.tensor([[0.0, 1.0, 2.0, 3.1]])  # Δ = 3.1/3
    round_(x, 2, stored=torch.bfloat16)
    assert torch.equal(x, torch.tensor([[0.0, 3.1 / 3, 6.2 / 3, 3.1]]).bfloat16().float())


def test_moments_are_of_magnitudes_with_the_sample_deviation():
    # |X| = 1, 1, 3, 9: mean 3.5; squares 6.25 + 6.25 + 0.25 + 30.25 = 43; over n − 1 = 3
    x = torch.tensor([[1.0, -1.0, 3.0, -9.0]])
    mean, std = moments(x, extremes(x))
    assert mean.item() == 3.5
    assert std.item() == pytest.approx((43 / 3) ** 0.5, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e15])
@pytest.mark.parametrize("n", [2, 127, 16384, LONG, LONG + 1, 3 * LONG + 5])
def test_moments_agree_with_float64(n, scale):
    x = torch.randn(1, n, generator=torch.Generator().manual_seed(n)) * 0.02
    x[0, n // 2] = 7.0  # as a super weight stands out
    x *= scale
    mean, std = moments(x, extremes(x))
    absolute = x.double().abs()
    assert mean.item() == pytest.approx(absolute.mean().item(), rel=2e-7, abs=1.5e-45)
    if scale > 1e-20:  # squares of less are no float32
        assert std.item() == pytest.approx(absolute.std().item(), rel=3e-7)


def test_a_block_of_one_has_no_deviation():
    x = torch.tensor([[-2.0]])
    assert moments(x, extremes(x)).std.item() == 0.0


def test_squares_beyond_float32_do_not_clip():
    x = torch.tensor([[1e30, -1e30, 2e30, 3e30]])
    assert clip_at(x, 2.0) == Range(torch.tensor([[-1e30]]), torch.tensor([[3e30]]))


def test_clip_and_round_by_hand():
    # threshold 3.5 + 1·3.785939 = 7.285939, so −9 → −7.285939; Δ = (3 + 7.285939)/3 = 3.428646
    # 1 → 8.285939/3.428646 = 2.42 → 2 → −0.428646; −1 → 1.83 → 2 → −0.428646; 3 → 3
    expected = torch.tensor([-0.428646, -0.428646, 3.0, -7.285939])
    torch.testing.assert_close(rtn([1.0, -1.0, 3.0, -9.0], 2, z=1.0), expected, rtol=0, atol=1e-5)


def test_infinite_z_leaves_the_ends_alone():
    x = torch.tensor([[2.0, 2.0, 2.0]])  # std 0: inf·0 would be NaN
    assert clip_at(x, math.inf) == Range(torch.tensor([[2.0]]), torch.tensor([[2.0]]))


def test_a_block_beyond_its_threshold_becomes_the_threshold():
    assert rtn([4.0, 5.0, 6.0], 8, z=0.5).max().item() == 5.5  # mean 5, std 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_of_every_dtype_are_exact(dtype):
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    low, high = extremes(x)
    assert torch.equal(low[:, 0], x.float().min(1).values)
    assert torch.equal(high[:, 0], x.float().max(1).values)


def test_long_blocks_come_alone():
    with pytest.raises(ValueError, match="one at a time"):
        round_(torch.zeros(2, LONG + 1), 4)


def test_squared_errors_leave_out_what_is_spared():
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(2))
    x[1, 7] = 9.0
    expected = []
    for z in GRID:
        rounded = x.clone()
        round_(rounded, 3, z)
        squares = (rounded.double() - x.double()).square()
        squares[1, 7] = squares[2, 0] = 0.0
        expected.append(squares.sum().item())
    assert squared_errors(x, 3, GRID, torch.tensor([57, 100])).tolist() == pytest.approx(expected, rel=1e-6)


def blocks(dtype):
    """Awkward matrices of blocks of one dtype."""
    generator = torch.Generator().manual_seed(4)
    for shape in ((2, 2), (5, 16), (33, 64), (7, 127), (40, 128), (3, 14336), (1, LONG + 3), (1, 2 * LONG)):
        x = torch.randn(shape, generator=generator) * 0.02
        yield x.to(dtype)
        x[0, shape[1] // 2] = 60.0
        yield x.to(dtype)
        yield (x * torch.randn(shape, generator=generator).mul_(3).exp_()).to(dtype)  # heavy tails
    x = torch.randn(24, 96, generator=generator)
    x[:4] = 0.3  # constant
    x[4:8] = -0.0
    x[8, ::2], x[8, 1::2] = -0.0, 0.0
    x[9] *= 1e-42
    x[10] *= 1e-39
    x[11] *= 30000 if dtype == torch.float16 else 1e38 / 4
    x[12] = x[12].sign()
    x[13] = x[13].abs()
    x[14] = torch.arange(96) / 2  # on ties
    x[15, 1:] = 0.0
    yield x.clamp(-65504, 65504).to(dtype) if dtype == torch.float16 else x.to(dtype)


def everything(dtype, device="cpu"):
    """The bits of everything that is computed, of every matrix of blocks."""
    for x in blocks(dtype):
        x = x.to(device)
        ends = extremes(x)
        yield from (*ends, *moments(x, ends))
        if device == "cpu":  # elsewhere the errors of blocks are added up in another order
            yield squared_errors(x, 4, GRID, torch.tensor([1, 3]))
        for z in (math.inf, 2.0):
            for stored in {dtype, torch.bfloat16} if dtype == torch.float32 else {dtype}:
                rounded = x.clone()
                round_(rounded, 4, z, stored)
                yield rounded


def as_bits(tensors):
    return [tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes() for tensor in tensors]


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_compiled_and_eager_agree_bit_for_bit(dtype, monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "0")
    eager = as_bits(everything(dtype))
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "1")
    compiled = as_bits(everything(dtype))
    assert rounding.compiled("cpu")
    assert [i for i, (a, b) in enumerate(zip(eager, compiled, strict=True)) if a != b] == []


@needs_compiler
def test_any_shape_runs_through_the_same_graphs(monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "1")

    def use(shape):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        squared_errors(x, 4, GRID)
        for z in (math.inf, 3.0):
            round_(x, 4, z)

    # Sizes become symbols as they are first seen to differ: blocks few and many, short and wide, a long one, a single one.
    for shape in ((6, 64), (5, 130), (32, 128), (9, 16384), (1, LONG * 2), (1, LONG + 100), (1, 64), (17, 14336)):
        use(shape)
    before = counters["stats"]["unique_graphs"]
    for shape in ((576, 33), (1536, 64), (7, 4096), (1, LONG * 3 + 5), (1, 130), (23, 1000)):
        use(shape)
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_rows_of_a_long_block_give_the_moments_of_the_whole(rows, monkeypatch):
    monkeypatch.setattr(rounding, "LONG", 128)
    monkeypatch.setattr(rounding, "ROW", 32)
    monkeypatch.setattr(rounding, "ROWS", rows)
    x = torch.randn(1, 1000, generator=torch.Generator().manual_seed(1))
    expected = Moments(x.abs().mean().view(1, 1), x.abs().std().view(1, 1))
    torch.testing.assert_close(moments(x, extremes(x)), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("compile_it", ["0", "1"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_gpu_gives_the_same_bits(dtype, compile_it, monkeypatch):
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", "0")
    expected = as_bits(value for value in everything(dtype) if value.dtype != torch.float64)
    monkeypatch.setenv("SUPERWEIGHT_COMPILE", compile_it)
    found = as_bits(everything(dtype, "cuda"))
    assert [i for i, (a, b) in enumerate(zip(expected, found, strict=True)) if a != b] == []
