"""Dynamic symmetric INT8 activations, with super-activation handling (arXiv:2411.07191, section 4.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from superweight.kernels.compiling import fused

Q_MAX = 127
"""Codes run from −127 to 127, so that zero is a code and the grid is symmetric."""


@dataclass(frozen=True)
class Quantised:
    """Activations as INT8, with the entries that stay in full precision.

    Attributes:
        codes: int8 `(sequences, tokens, channels)`; at a replaced entry, the code of what stands in for it.
        scale: float32 `(sequences, 1, 1)` or `(sequences, tokens, 1)`.
        where: int64 `(3, n)`: sequence, token and channel of each replaced entry.
        entries: float32 `(n,)`: the entries themselves, exact.
        shape: of the input.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    where: torch.Tensor
    entries: torch.Tensor
    shape: torch.Size

    def differences(self) -> torch.Tensor:
        """What the integer product lacks of each replaced entry, a − â: float32 `(n,)`."""
        sequence, token, channel = self.where
        scale = self.scale.expand(*self.codes.shape[:2], 1)[sequence, token, 0]
        return self.entries - self.codes[sequence, token, channel].float() * scale

    def dequantised(self) -> torch.Tensor:
        """float32 in the input's shape, the replaced entries put back exactly."""
        x = self.codes.float() * self.scale
        x[tuple(self.where)] = self.entries
        return x.view(self.shape)


@dataclass(frozen=True)
class ActivationQuantiser:
    """How the input of a linear layer is quantised.

    Attributes:
        granularity: what shares a scale. `tensor`: one sequence of a batch, so that figures do not depend on how
            sequences are batched. `token`: one token.
        handled: None rounds as is. `massive` takes every entry larger than `ratio` times the mean magnitude of its
            sequence. `largest` takes the one largest entry of each scale.
        ratio: see `massive`.
        replacement: the median that stands in for an entry is taken over its token's channels, its channel's tokens,
            or the whole sequence; of an even number of values, the lower middle one.
    """

    granularity: Literal["tensor", "token"]
    handled: Literal["massive", "largest"] | None = None
    ratio: float = 100.0
    replacement: Literal["token", "channel", "tensor"] = "token"

    def __call__(self, x: torch.Tensor) -> Quantised:
        """Quantise `(tokens, channels)` or `(…, tokens, channels)`; arithmetic in float32."""
        x_stc, where, entries = self._replace(x)
        scale = self._scale(x_stc)
        return Quantised(encode(x_stc, scale), scale, where, entries, x.shape)

    def simulate(self, x: torch.Tensor) -> torch.Tensor:
        """`self(x).dequantised()`, the same bits in fewer passes."""
        x_stc, where, entries = self._replace(x)
        rounded = round_trip(x_stc, self._scale(x_stc))
        if entries.numel():
            rounded[tuple(where)] = entries
        return rounded.view(x.shape)

    def _replace(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """float32 `(sequences, tokens, channels)` with stand-ins, where they stand, and what they stand for."""
        wide = x.detach().float() if x.dim() > 1 else x.detach().float().unsqueeze(0)
        x_stc = wide.reshape(math.prod(wide.shape[:-2]), *wide.shape[-2:])
        where = self.find(x_stc)
        entries = x_stc[tuple(where)]
        if entries.numel():
            x_stc = x_stc.index_put(tuple(where), self._stand_ins(x_stc, where))
        return x_stc, where, entries

    def _scale(self, x_stc: torch.Tensor) -> torch.Tensor:
        if self.granularity == "token":
            return scale_of(x_stc.abs().amax(-1, keepdim=True))
        largest = x_stc.abs().flatten(1).amax(-1) if x_stc.numel() else x_stc.new_zeros(len(x_stc))
        return scale_of(largest[:, None, None])

    def find(self, x_stc: torch.Tensor) -> torch.Tensor:
        """Sequence, token and channel of the entries that count as super activations: int64 `(3, n)`."""
        if self.handled is None or x_stc.numel() == 0:
            return torch.empty(3, 0, dtype=torch.int64, device=x_stc.device)
        magnitude = x_stc.abs()
        if self.handled == "massive":
            return _beyond(magnitude, self.ratio * magnitude.mean((-2, -1)))
        flat = magnitude.flatten(-2) if self.granularity == "tensor" else magnitude.flatten(0, 1)
        groups = torch.arange(flat.shape[0], device=flat.device)
        return torch.stack(torch.unravel_index(groups * flat.shape[1] + flat.argmax(-1), x_stc.shape))

    def _stand_ins(self, x_stc: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
        sequence, token, channel = where
        if self.replacement == "token":
            return x_stc[sequence, token].median(-1).values
        if self.replacement == "channel":
            return x_stc[sequence, :, channel].median(-1).values
        return x_stc.flatten(1).median(-1).values[sequence]


@fused
def encode(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The int8 code of each number: round(x/scale), half to even; 0 where the scale is 0."""
    return _codes(x, scale)


@fused
def round_trip(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """What each number decodes to, float32. By way of int8, so that nothing decodes to −0."""
    return _codes(x, scale).float().mul_(scale)


def scale_of(largest: torch.Tensor) -> torch.Tensor:
    """The step of a grid whose last code stands for `largest`."""
    return largest / torch.full_like(largest, Q_MAX)  # by a number, CUDA would multiply with its reciprocal


def _codes(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (x / torch.where(scale == 0, 1.0, scale)).round_().clamp_(-Q_MAX, Q_MAX).to(torch.int8)


def _beyond(magnitude: torch.Tensor, limit_s: torch.Tensor) -> torch.Tensor:
    """Positions of the entries larger than their sequence's limit; looks only at tokens that have one."""
    sequence, token = (magnitude.amax(-1) > limit_s[:, None]).nonzero(as_tuple=True)
    hit, channel = (magnitude[sequence, token] > limit_s[sequence, None]).nonzero(as_tuple=True)
    return torch.stack([sequence[hit], token[hit], channel])
