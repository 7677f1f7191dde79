"""Asymmetric round-to-nearest of blocks, in place, in few passes and bounded memory (arXiv:2411.07191, section 4).

Everything gives the same bits compiled and not, in pieces of any size, and on every device, since it is made of
elementwise float32 and float64 arithmetic, least and largest elements, and sums of whole numbers below 2^53, which
float64 adds without error in any order.

A matrix of blocks is `(blocks, n)`, contiguous, in any float dtype; what belongs to a block is `(blocks, 1)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple, TypeVar

import torch

from superweight.kernels.compiling import compiled, fused

T = TypeVar("T")

LONG = 1 << 17
"""Longer blocks come one at a time, as rows of `ROW` elements, so that all cores have some."""

ROW = 1 << 14
ROWS = 1 << 6
"""So many at a time, always: squared errors are added up in this order."""


class Range(NamedTuple):
    """The ends of each block's grid, float32 `(blocks, 1)`."""

    low: torch.Tensor
    high: torch.Tensor


class Moments(NamedTuple):
    """Mean and standard deviation of each block's magnitudes, float32 `(blocks, 1)`."""

    mean: torch.Tensor
    std: torch.Tensor


def piece_elements(device: torch.device) -> int:
    """How many elements are worked on at a time: what stays in a CPU's cache, or keeps a GPU busy."""
    return 1 << 18 if device.type == "cpu" else 1 << 24


def part_elements(device: torch.device) -> int:
    """How many elements `round_` should be given at a time: more where it runs compiled and makes no copies."""
    return max(piece_elements(device), 1 << 20 if compiled(device.type) else 0)


def round_(x: torch.Tensor, bits: int, z: float = math.inf, stored: torch.dtype | None = None) -> None:
    """Round each block to 2^bits evenly spaced values between its ends, in place.

    Δ = (high − low)/(2^bits − 1), Q = round((X − low)/Δ), X̂ = Δ·Q + low. The paper prints 2^(bits−1) − 1; its code uses
    2^bits − 1, as here. Ties round to even. Where the ends meet (a constant block) elements keep their bits.

    Args:
        x: `(blocks, n)`, contiguous; one block if n exceeds `LONG`.
        bits: of a code.
        z: clip at mean|X| + z·std|X| first (section 4.2); infinite: do not.
        stored: the dtype the values are rounded to, once; that of `x` if None.
    """
    levels, dtype, clip = 2**bits - 1, stored or x.dtype, math.isfinite(z)
    threshold = torch.full((1, 1), z, device=x.device)
    if clip and x.shape[1] <= LONG:
        _run(_clip_and_round_rows, x, threshold, levels, dtype, _summand_bits(x.shape[1]))
        return
    ends = extremes(x)
    if clip:
        ends = clipped(ends, moments(x, ends), threshold)
    for rows in _rows(x):
        low, high = (_spread(end, rows) for end in ends)
        _run(_round_rows, rows, low, high, levels, dtype, clip)


def round_to_nearest(x: torch.Tensor, ends: Range, levels: int, *, clip: bool = True) -> torch.Tensor:
    """What `round_` does to float32 `(blocks, n)`, as a new tensor.

    Args:
        x: float32.
        ends: of the grid of each block.
        levels: steps between them.
        clip: whether elements may lie beyond the ends.
    """
    low, high = ends
    step = (high - low) / torch.full_like(low, levels)  # CUDA multiplies by the reciprocal of a number
    if clip:  # unlike `clamp`, says which zero it takes of −0.0 and 0.0: x's
        x = torch.where(x < low, low, x)
        x = torch.where(x > high, high, x)
    rounded = (x - low).div_(torch.where(step == 0, 1.0, step)).round_().mul_(step).add_(low)
    return torch.where(step == 0, x, rounded)


def extremes(x: torch.Tensor) -> Range:
    """The least and the largest element of each block, exactly."""
    found = [_run(_row_extremes, rows) for rows in _rows(x)]
    if x.shape[1] <= LONG:
        return Range(*found[0])
    return Range(
        torch.cat([low for low, _ in found]).amin(0, keepdim=True),
        torch.cat([high for _, high in found]).amax(0, keepdim=True),
    )


def moments(x: torch.Tensor, ends: Range) -> Moments:
    """Mean and sample standard deviation (n − 1, as `torch.std`) of |X| for each block; a block of one has std 0.

    Args:
        x: `(blocks, n)`.
        ends: its extremes, which say in what units to add.
    """
    n = x.shape[-1]
    unit, square_unit = _run(_units, *ends, _summand_bits(n))
    mean = _run(_mean, _sum(_row_magnitudes, x, unit), unit, n)
    return Moments(mean, _run(_std, _sum(_row_squares, x, square_unit, mean), square_unit, max(1, n - 1)))


def clipped(ends: Range, moments: Moments, z: torch.Tensor) -> Range:
    """The ends of each block clamped to ±(mean|X| + z·std|X|); infinite z leaves them alone (section 4.2).

    Args:
        ends: `(blocks, 1)`.
        moments: of those blocks.
        z: float32 `(1, 1)`, or `(z, 1, 1)` for as many ranges `(z, blocks, 1)`.
    """
    return Range(*_run(_clipped, *ends, *moments, z))


def squared_errors(
    x: torch.Tensor, bits: int, grid: Sequence[float], spared: torch.Tensor | None = None
) -> torch.Tensor:
    """Σ(X̂ − X)² over all blocks, for each z of a grid: float64 `(z,)`.

    Reads x four times whatever the size of the grid: for the ends, for mean and for deviation, and for all errors at
    once. Blocks that a z does not clip have the error of an infinite one, and are not computed again.

    Args:
        x: `(blocks, n)`, as for `round_`.
        bits: of a code.
        grid: values of z; the last is infinite.
        spared: flat indices of elements that do not count, int64 `(m,)`.
    """
    ends = extremes(x)
    z = torch.tensor(grid, dtype=torch.float32, device=x.device).view(-1, 1, 1)
    low, high = clipped(ends, moments(x, ends), z)
    clips = ((low != ends.low) | (high != ends.high))[..., 0]  # (z, blocks)
    clips[-1] = True  # what the others fall back on
    exponent = _exponent(ends.high - ends.low) + 1  # |X̂ − X| < 2^exponent
    total = torch.zeros(len(grid), dtype=torch.float64, device=x.device)
    start = 0
    for rows in _rows(x):
        count, n = rows.shape
        unit = _power(_summand_bits(n) - 2 * _spread(exponent, rows))
        here = None if spared is None else spared[(spared >= start) & (spared < start + rows.numel())] - start
        ranges = Range(low.expand(-1, count, 1), high.expand(-1, count, 1))
        total += _grid_errors(rows, ranges, clips.expand(-1, count), unit, 2**bits - 1, here)
        start += rows.numel()
    return total


def _grid_errors(
    rows: torch.Tensor,
    grids: Range,
    clips: torch.Tensor,
    unit: torch.Tensor,
    levels: int,
    spared: torch.Tensor | None,
) -> torch.Tensor:
    """The errors of rows `(rows, n)` under grids `(z, rows, 1)` where they clip `(z, rows)`: float64 `(z,)`."""
    z, row = clips.nonzero(as_tuple=True)
    pairs = (row, grids.low[z, row], grids.high[z, row], unit[row])
    step = max(1, piece_elements(rows.device) // rows.shape[1])  # the eager form copies so many rows
    batches = zip(*(torch.split(each, step) for each in pairs), strict=True)
    whole = torch.cat([_run(_row_errors, rows, *batch, levels) for batch in batches])
    errors = torch.zeros(clips.shape, dtype=torch.float64, device=rows.device).index_put_((z, row), whole[:, 0])
    if spared is not None and len(spared):
        row = spared // rows.shape[1]
        ends = Range(grids.low[:, row], grids.high[:, row])  # (z, spared, 1)
        x = rows.view(-1)[spared].float().view(1, -1, 1).expand_as(ends.low)
        errors.index_add_(1, row, _whole_squares(x, ends, unit[row], levels)[..., 0], alpha=-1)
    return torch.where(clips, errors, errors[-1]).div_(unit[:, 0]).sum(-1)


def _round_rows(
    x: torch.Tensor, low: torch.Tensor, high: torch.Tensor, levels: int, stored: torch.dtype, clip: bool
) -> None:
    x.copy_(round_to_nearest(x.float(), Range(low, high), levels, clip=clip).to(stored))


def _clip_and_round_rows(x: torch.Tensor, z: torch.Tensor, levels: int, stored: torch.dtype, bits: int) -> None:
    """All of `round_` for whole blocks, so that they stay in the cache between one pass and the next."""
    n = x.shape[1]
    ends = _row_extremes(x)
    unit, square_unit = _units(*ends, bits)
    mean = _mean(_row_magnitudes(x, unit), unit, n)
    std = _std(_row_squares(x, square_unit, mean), square_unit, max(1, n - 1))
    _round_rows(x, *_clipped(*ends, mean, std, z), levels, stored, True)


def _row_extremes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = x.amin(-1, keepdim=True).float(), x.amax(-1, keepdim=True).float()
    # Of −0.0 and 0.0 either may come out; an end is 0.0.
    return torch.where(low == 0, 0.0, low), torch.where(high == 0, 0.0, high)


def _row_magnitudes(x: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float64, copy=True).abs_().mul_(unit).round_().sum(-1, keepdim=True)


def _row_squares(x: torch.Tensor, unit: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    difference = x.to(torch.float32, copy=True).abs_().sub_(mean)
    return difference.mul_(difference).double().mul_(unit).round_().sum(-1, keepdim=True)


def _row_errors(
    x: torch.Tensor, row: torch.Tensor, low: torch.Tensor, high: torch.Tensor, unit: torch.Tensor, levels: int
) -> torch.Tensor:
    """Of rows of x `(rows, n)`, each perhaps several times with other ends."""
    return _whole_squares(x[row].float(), Range(low, high), unit, levels).sum(-1, keepdim=True)


def _whole_squares(x: torch.Tensor, ends: Range, unit: torch.Tensor, levels: int) -> torch.Tensor:
    """(X̂ − X)² of float32, in whole units."""
    difference = round_to_nearest(x, ends, levels) - x
    return (difference * difference).double().mul_(unit).round_()


def _units(low: torch.Tensor, high: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What makes whole numbers of `bits` bits of |X| and of squares no larger: powers of two, float64."""
    exponent = _exponent(torch.maximum(low.abs(), high.abs()))
    return _power(bits - exponent), _power(bits - 2 * exponent)


def _mean(whole: torch.Tensor, unit: torch.Tensor, n: int) -> torch.Tensor:
    return (whole / unit / torch.full_like(unit, n)).float()  # CUDA multiplies by the reciprocal of a number


def _std(whole: torch.Tensor, unit: torch.Tensor, n: int) -> torch.Tensor:
    std = (whole / unit / torch.full_like(unit, n)).sqrt().float()
    return torch.where(std == std, std, math.inf)  # where a square is beyond float32


def _clipped(
    low: torch.Tensor, high: torch.Tensor, mean: torch.Tensor, std: torch.Tensor, z: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    threshold = torch.where(z == math.inf, math.inf, mean + z * std)
    return low.clamp(-threshold, threshold), high.clamp(-threshold, threshold)


def _sum(
    rows_sum: Callable[..., torch.Tensor], x: torch.Tensor, unit: torch.Tensor, *more: torch.Tensor
) -> torch.Tensor:
    """What `rows_sum` adds up, for each block: whole numbers as float64 `(blocks, 1)`."""
    found = [_run(rows_sum, rows, *(_spread(each, rows) for each in (unit, *more))) for rows in _rows(x)]
    return found[0] if x.shape[1] <= LONG else torch.cat(found).long().sum(0, keepdim=True).double()


def _summand_bits(n: int) -> int:
    """How many bits a whole number may have, so that float64 adds a row of them exactly and int64 n."""
    return min(52 - (n if n <= LONG else ROW).bit_length(), 62 - n.bit_length())


def _rows(x: torch.Tensor) -> list[torch.Tensor]:
    """Blocks as they are or, if long, the one block as rows, in parts of bounded size, and a last shorter row."""
    n = x.shape[1]
    if n <= LONG:
        return [x]
    if x.shape[0] != 1:
        raise ValueError(f"blocks of more than {LONG} elements come one at a time; these are {tuple(x.shape)}")
    whole = n // ROW * ROW
    rows = torch.split(x[:, :whole].view(-1, ROW), ROWS)
    return [*rows, x[:, whole:]] if whole < n else [*rows]


def _run(function: Callable[..., T], x: torch.Tensor, *more: torch.Tensor | torch.dtype | int) -> T:
    """Call a function fused; eagerly on a single row, which would take a graph of its own."""
    return (_fused(function) if x.shape[0] > 1 else function)(x, *more)


@cache
def _fused(function: Callable[..., T]) -> Callable[..., T]:
    return fused(function)


def _spread(of_block: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """What belongs to a block, for each of its rows."""
    return of_block.expand(rows.shape[0], 1).contiguous()


def _exponent(x: torch.Tensor) -> torch.Tensor:
    """An int64 e with x < 2^e for positive float32."""
    return (x.contiguous().view(torch.int32) >> 23).long() - 126


def _power(exponent: torch.Tensor) -> torch.Tensor:
    """2^e in float64, exactly."""
    return ((exponent + 1023) << 52).view(torch.float64)
