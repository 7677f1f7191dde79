"""W8A8 on CUDA in few launches and without waiting for the device: quantise, multiply, finish.

Finding massive entries with `nonzero` makes the host wait in every layer. Here each token notes its own: up to `SLOTS`
of them in a table, and where a token has more, the last step finds them again. So nothing is bounded, and nothing is
read back. `int8` holds the same arithmetic in plain torch, which serves wherever this does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from superweight.kernels.activations import ActivationQuantiser

SLOTS = 8
"""Massive entries a token that are noted; more are found again, slowly."""

ACCUMULATOR_BYTES = 32 << 20
"""Of int32 sums at a time: they are read back at once, and should then still be in the cache of the device."""

_WIDEST = 1 << 15  # channels, which one program holds in registers
_FEWEST_ROWS = 17  # that CUDA's integer product takes
_ROWS, _BLOCK = 4, 1024  # of the result, in one program

Kept = Sequence[tuple[int, int, torch.Tensor]]
"""Output row, input column and value (0-dim) of each scalar stored aside."""


@dataclass(frozen=True)
class Rows:
    """Quantised tokens.

    Attributes:
        x: `(rows, in)`, as they came.
        codes: int8 `(rows + 16, in to the next multiple of 8)`, the added columns 0, the added rows anything.
        scale: float32 `(rows,)`.
        tokens: rows a sequence.
        limit: float32 `(sequences,)`: what an entry's magnitude must exceed to be replaced; None if none ever is.
        counts: int32 `(rows,)`: replaced entries.
        channels: int32 `(rows, SLOTS)`: of the first of them.
        differences: float32 `(rows, SLOTS)`: what the codes lack of these, a − â.
    """

    x: torch.Tensor
    codes: torch.Tensor
    scale: torch.Tensor
    tokens: int
    limit: torch.Tensor | None
    counts: torch.Tensor
    channels: torch.Tensor
    differences: torch.Tensor

    def decoded(self, channel: int) -> torch.Tensor:
        """X̂[:, channel], float32 `(rows,)`: replaced entries exact."""
        rounded = self.codes[: len(self.x), channel].float() * self.scale
        if self.limit is None:
            return rounded
        exact = self.x[:, channel].float().view(-1, self.tokens)
        return torch.where(exact.abs() > self.limit[:, None], exact, rounded.view_as(exact)).flatten()


def covers(x: torch.Tensor, quantiser: ActivationQuantiser) -> bool:
    """Whether this path does what `quantiser` asks of `x`, on its device."""
    how = (quantiser.granularity, quantiser.handled, quantiser.replacement)
    return (
        x.is_cuda
        and torch.version.hip is None
        and x.numel() > 0
        and x.shape[-1] <= _WIDEST
        and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
        and how in (("token", None, quantiser.replacement), ("token", "massive", "token"))
        and _device() is not None
    )


def linear(
    x: torch.Tensor,
    codes: torch.Tensor,
    scale: torch.Tensor,
    kept: Kept,
    quantiser: ActivationQuantiser,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    *,
    accumulator_bytes: int = ACCUMULATOR_BYTES,
) -> torch.Tensor:
    """As `int8.Int8Weight.linear` of the quantised `x` `(…, in)`, with int8 `codes` `(out, in)` and their `scale`."""
    rows = quantise(x, quantiser)
    weights = functional.pad(codes, (0, -codes.shape[1] % 8, 0, -len(codes) % 8)) if _odd(codes) else codes
    result = torch.empty(len(rows.x), len(codes), dtype=dtype, device=x.device)
    products = torch.stack([rows.decoded(column) * value.float() for _, column, value in kept], 1) if kept else None
    outputs = torch.cat([torch.full((1,), row, device=x.device) for row, _, _ in kept]) if kept else None
    step = max(128, accumulator_bytes // (4 * len(weights)) // 128 * 128)
    sums = torch.empty(max(_FEWEST_ROWS, min(step, len(rows.x))), len(weights), dtype=torch.int32, device=x.device)
    for start in range(0, len(rows.x), step):
        count = min(step, len(rows.x) - start)
        multiply(rows, weights, sums, start, count)
        finish(rows, weights, scale, bias, result, sums, start, count, products, outputs)
    return result.view(*x.shape[:-1], len(codes))


def quantise(x: torch.Tensor, quantiser: ActivationQuantiser) -> Rows:
    """Codes of `(…, tokens, in)`, with what they lack: one pass over `x`, two where massive entries are handled."""
    channels, tokens = x.shape[-1], x.shape[-2] if x.dim() > 1 else 1
    flat = x.detach().contiguous().view(-1, channels)
    count = len(flat)
    launch = {"BLOCK": 1 << max(4, (channels - 1).bit_length())}
    launch["num_warps"] = max(4, min(32, launch["BLOCK"] // 512))
    handled = quantiser.handled is not None
    width = channels + -channels % 8
    codes = torch.empty(count + _FEWEST_ROWS - 1, width, dtype=torch.int8, device=x.device)
    scale = torch.empty(count, device=x.device)
    noted = count if handled else 0
    counts = torch.empty(noted, dtype=torch.int32, device=x.device)
    places = torch.empty(noted, SLOTS, dtype=torch.int32, device=x.device)
    differences = torch.empty(noted, SLOTS, device=x.device)
    limit = _limit(flat, tokens, quantiser.ratio, launch) if handled else None
    _device().quantise_rows[(count,)](
        flat, limit if handled else scale, codes, scale, counts, places, differences,
        channels, tokens, width, HANDLED=handled, SLOTS=SLOTS, **launch,
    )  # fmt: skip
    return Rows(flat, codes, scale, tokens, limit, counts, places, differences)


def multiply(rows: Rows, weights: torch.Tensor, sums: torch.Tensor, start: int, count: int) -> None:
    """The integer product of `count` rows from `start`, into the first rows of `sums`."""
    taken = max(_FEWEST_ROWS, count)
    torch._int_mm(rows.codes[start : start + taken], weights.t(), out=sums[:taken])


def finish(
    rows: Rows,
    weights: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    result: torch.Tensor,
    sums: torch.Tensor,
    start: int,
    count: int,
    products: torch.Tensor | None = None,
    outputs: torch.Tensor | None = None,
) -> None:
    """Turn `sums` into rows `start …` of `result`, with all that the integer product lacks.

    Args:
        rows: what was multiplied.
        weights: int8 codes `(out, in)`, padded.
        scale: float32 `(out, 1)` or `(1, 1)`.
        bias: `(out,)`.
        result: `(rows, out)`, written to.
        sums: int32, from `multiply`.
        start: first row of the piece.
        count: rows of the piece.
        products: float32 `(rows, n)`, X̂[:, c]·w of each kept scalar.
        outputs: int64 `(n,)`, the output each of these is added to.
    """
    grid = (-(-count // _ROWS), -(-result.shape[1] // _BLOCK))
    unused = rows.scale  # stands for what is not read
    _device().finish_rows[grid](
        sums, rows.scale, scale, unused if bias is None else bias, result, rows.x,
        unused if rows.limit is None else rows.limit, rows.codes, weights, rows.counts, rows.channels,
        rows.differences, unused if products is None else products, unused if outputs is None else outputs,
        start, count, result.shape[1], rows.x.shape[1], rows.tokens, sums.stride(0), rows.codes.stride(0),
        weights.stride(0), KEPT=0 if outputs is None else len(outputs), HANDLED=rows.limit is not None,
        PER_CHANNEL=scale.numel() > 1, HAS_BIAS=bias is not None, SLOTS=SLOTS, ROWS=_ROWS, BLOCK=_BLOCK,
    )  # fmt: skip


@cache
def _device() -> Any:
    """The device code, imported once it is wanted; None without Triton."""
    try:
        from superweight.kernels import int8_triton
    except ImportError:
        return None
    return int8_triton


def _limit(flat: torch.Tensor, tokens: int, ratio: float, launch: dict[str, int]) -> torch.Tensor:
    """`ratio` times the mean magnitude of each sequence, float32."""
    sums = torch.empty(len(flat), device=flat.device)
    _device().sum_rows[(len(flat),)](flat, sums, flat.shape[1], **launch)
    return sums.view(-1, tokens).sum(1).mul_(ratio / (tokens * flat.shape[1]))


def _odd(codes: torch.Tensor) -> bool:
    return bool(codes.shape[0] % 8 or codes.shape[1] % 8)
