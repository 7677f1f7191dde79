"""Device code of the fused INT8 path; `int8_fused` calls it. Importing it needs Triton."""

# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, N803, SIM102  (SIM102: what is constant is decided before what is not)
from __future__ import annotations

import triton
import triton.language as tl

_Q_MAX = tl.constexpr(127.0)
_HALF_EVEN = tl.constexpr(12582912.0)  # 1.5·2²³: adding and subtracting it rounds a float32 below 2²² half to even
_MAGNITUDE = tl.constexpr(0x7FFFFFFF)  # the bits of a float32 without its sign


@triton.jit
def sum_rows(x, sums, channels, BLOCK: tl.constexpr):
    """Σ|x| of each row, float32."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    a = tl.load(x + row * channels + at, mask=at < channels, other=0.0).to(tl.float32)
    tl.store(sums + row, tl.sum(tl.abs(a), 0))


@triton.jit
def lower_median(a, inside, channels):
    """The lower middle one of the numbers `inside`: bit by bit, the largest key that at most half of them lie below."""
    bits = a.to(tl.int32, bitcast=True)
    key = bits ^ ((bits >> 31) & _MAGNITUDE)  # integers in the order of the numbers
    wanted = (channels - 1) // 2
    below = tl.sum((inside & (key < 0)).to(tl.int32), 0)
    found = tl.where(below <= wanted, 0, -2147483648)
    for step in range(31):
        trial = found + (1 << (30 - step))
        below = tl.sum((inside & (key < trial)).to(tl.int32), 0)
        found = tl.where(below <= wanted, trial, found)
    return (found ^ ((found >> 31) & _MAGNITUDE)).to(tl.float32, bitcast=True)


@triton.jit
def quantise_rows(
    x,
    limit,
    codes,
    scales,
    counts,
    slot_channels,
    slot_differences,
    channels,
    tokens,
    codes_stride,
    HANDLED: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One row a program: replace what is beyond its sequence's limit by the row's median, and round what results.

    The first SLOTS replaced entries are noted with their channel and what the codes lack of them; all are counted.
    """
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    inside = at < channels
    a = tl.load(x + row * channels + at, mask=inside, other=0.0).to(tl.float32)
    if HANDLED:
        cut = tl.load(limit + row // tokens)
        stand_in = 0.0
        count = tl.sum((tl.abs(a) > cut).to(tl.int32), 0)
        tl.store(counts + row, count)
        if count > 0:
            stand_in = lower_median(a, inside, channels)
        a = tl.where(tl.abs(a) > cut, stand_in, a)
    # the largest magnitude, by its bits: unlike a maximum of floats, that lets NaN through to the scale
    largest = tl.max(a.to(tl.int32, bitcast=True) & _MAGNITUDE, 0).to(tl.float32, bitcast=True)
    scale = tl.div_rn(largest, _Q_MAX)
    tl.store(scales + row, scale)
    divisor = tl.where(scale == 0.0, 1.0, scale)
    tl.store(codes + row * codes_stride + at, whole(a, divisor).to(tl.int8), mask=at < codes_stride)  # padded with 0
    if HANDLED:
        if count > 0:
            decoded = whole(stand_in, divisor) * scale
            channel = -1
            for slot in range(tl.minimum(count, SLOTS)):
                a = tl.load(x + row * channels + at, mask=inside, other=0.0).to(tl.float32)  # again: saves registers
                channel = tl.min(tl.where((tl.abs(a) > cut) & (at > channel), at, BLOCK), 0)
                tl.store(slot_channels + row * SLOTS + slot, channel)
                exact = tl.load(x + row * channels + channel).to(tl.float32)
                tl.store(slot_differences + row * SLOTS + slot, exact - decoded)


@triton.jit
def whole(a, divisor):
    """a/divisor rounded half to even, within ±127."""
    rounded = (tl.div_rn(a, divisor) + _HALF_EVEN) - _HALF_EVEN
    return tl.minimum(tl.maximum(rounded, -_Q_MAX), _Q_MAX)


@triton.jit
def finish_rows(
    sums,
    row_scale,
    column_scale,
    bias,
    out,
    x,
    limit,
    codes,
    weights,
    counts,
    slot_channels,
    slot_differences,
    kept_products,
    kept_outputs,
    first,
    rows,
    outputs,
    channels,
    tokens,
    sums_stride,
    codes_stride,
    weights_stride,
    KEPT: tl.constexpr,
    HANDLED: tl.constexpr,
    PER_CHANNEL: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    SLOTS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """int32 sums of rows first … first + rows to the result: scales, replaced entries, kept scalars, bias, one cast."""
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < outputs
    weight_row = weights + at.to(tl.int64) * weights_stride
    if PER_CHANNEL:
        column = tl.load(column_scale + at, mask=inside, other=0.0)
    else:
        column = tl.zeros([BLOCK], tl.float32) + tl.load(column_scale)
    for index in range(ROWS):
        local = (tl.program_id(0) * ROWS + index).to(tl.int64)
        if local < rows:
            row = local + first
            scale = tl.load(row_scale + row)
            y = tl.load(sums + local * sums_stride + at, mask=inside, other=0).to(tl.float32) * scale * column
            if HANDLED:
                count = tl.load(counts + row)
                if count > SLOTS:  # rare: all of them are found again
                    cut = tl.load(limit + row // tokens)
                    for channel in range(channels):
                        a = tl.load(x + row * channels + channel).to(tl.float32)
                        if tl.abs(a) > cut:
                            code = tl.load(codes + row * codes_stride + channel).to(tl.float32)
                            w = tl.load(weight_row + channel, mask=inside, other=0).to(tl.float32)
                            y += (a - code * scale) * (w * column)
                else:
                    for slot in range(count):
                        channel = tl.load(slot_channels + row * SLOTS + slot)
                        difference = tl.load(slot_differences + row * SLOTS + slot)
                        w = tl.load(weight_row + channel, mask=inside, other=0).to(tl.float32)
                        y += difference * (w * column)
            for kept in tl.static_range(KEPT):
                value = tl.load(kept_products + row * KEPT + kept)
                y += tl.where(at == tl.load(kept_outputs + kept), value, 0.0)
            if HAS_BIAS:
                y += tl.load(bias + at, mask=inside, other=0.0).to(tl.float32)
            tl.store(out + row * outputs + at, y.to(out.dtype.element_ty), mask=inside)
