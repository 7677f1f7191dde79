from fractions import Fraction

import pytest
import torch

from superweight.compress.rounding import Range, clipped, extremes, magnitude_moments, round_to_nearest


def rtn(values, bits, dtype=torch.float32):
    x = torch.tensor(values, dtype=dtype)
    return round_to_nearest(x.float(), extremes(x), bits)


def exact(values, bits):
    """The formula in rational numbers; Python rounds halves to even."""
    low, high = min(values), max(values)
    step = Fraction(high - low) / (2**bits - 1)
    return [float(round((value - low) / step) * step + low) for value in values]


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
    torch.testing.assert_close(round_to_nearest(x, extremes(x), bits), torch.tensor(expected), rtol=1e-6, atol=1e-4)


def test_every_block_has_its_own_grid():
    x = torch.tensor([[0.0, 1.0, 3.0], [0.0, 100.0, 300.0]])  # Δ = 1 and 100 at 2 bits: all are on their grid
    assert torch.equal(round_to_nearest(x, extremes(x), 2), x)


@pytest.mark.parametrize("value", [0.1, -0.1, 0.0, 1e-42, 3e38])
def test_constant_block_comes_back_exactly(value):
    assert torch.equal(rtn([value] * 7, 4), torch.tensor([value] * 7))


def test_constant_negative_zero_keeps_its_sign():
    assert torch.signbit(rtn([-0.0, -0.0], 4)).all()


def test_one_element_block():
    assert rtn([0.3], 2).item() == torch.tensor(0.3).item()


def test_moments_are_of_magnitudes_with_the_sample_deviation():
    # |X| = 1, 1, 3, 9: mean 3.5; squares 6.25 + 6.25 + 0.25 + 30.25 = 43; over n − 1 = 3
    mean, std = magnitude_moments(torch.tensor([[1.0, -1.0, 3.0, -9.0]]))
    assert mean.item() == 3.5
    assert std.item() == pytest.approx((43 / 3) ** 0.5, rel=1e-6)


def test_a_block_of_one_has_no_deviation():
    assert magnitude_moments(torch.tensor([[-2.0]])).std.item() == 0.0


def test_clip_and_round_by_hand():
    # threshold 3.5 + 1·3.785939 = 7.285939, so −9 → −7.285939; Δ = (3 + 7.285939)/3 = 3.428646
    # 1 → 8.285939/3.428646 = 2.42 → 2 → −0.428646; −1 → 1.83 → 2 → −0.428646; 3 → 3
    x = torch.tensor([[1.0, -1.0, 3.0, -9.0]])
    got = round_to_nearest(x, clipped(extremes(x), magnitude_moments(x), 1.0), 2)
    expected = torch.tensor([[-0.428646, -0.428646, 3.0, -7.285939]])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_infinite_z_leaves_the_ends_alone():
    x = torch.tensor([[2.0, 2.0, 2.0]])  # std 0: inf·0 would be NaN
    assert clipped(extremes(x), magnitude_moments(x), float("inf")) == Range(
        torch.tensor([[2.0]]), torch.tensor([[2.0]])
    )


def test_a_block_beyond_its_threshold_becomes_the_threshold():
    x = torch.tensor([[4.0, 5.0, 6.0]])  # mean 5, std 1, z = 0.5: threshold 5.5
    got = round_to_nearest(x, clipped(extremes(x), magnitude_moments(x), 0.5), 8)
    assert got.max().item() == 5.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extremes_of_every_dtype_are_exact(dtype):
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    low, high = extremes(x)
    assert torch.equal(low[:, 0], x.float().min(1).values)
    assert torch.equal(high[:, 0], x.float().max(1).values)
