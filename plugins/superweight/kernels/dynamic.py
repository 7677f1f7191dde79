"""Dynamic activations by token as compressed-tensors computes them: scales from the largest magnitude of each token.

All of it happens in the input's own dtype, and an integer's step is max|x|/127.5, since −128 is a code: this is what
transformers runs when it loads such a file, to the bit. Serving engines have kernels of their own (vLLM divides by 127,
in float32).
"""

from __future__ import annotations

import torch

from superweight.kernels.affine import FLOAT8, FLOAT8_MAX

_INT8_STEPS = 127.5


def int8_by_token(x: torch.Tensor) -> torch.Tensor:
    """`(…, channels)` rounded to 255 steps of each token, in its dtype."""
    scale = _scale(x, _INT8_STEPS)
    return (x / scale).clamp(-128, 127).round() * scale


def float8_by_token(x: torch.Tensor) -> torch.Tensor:
    """`(…, channels)` rounded to 8-bit floats, a scale a token, in its dtype."""
    scale = _scale(x, FLOAT8_MAX)
    return (x / scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(FLOAT8).to(x.dtype) * scale


def _scale(x: torch.Tensor, steps: float) -> torch.Tensor:
    largest = x.abs().amax(-1, keepdim=True)
    scale = largest / torch.tensor(steps, dtype=x.dtype, device=x.device)
    return torch.where(scale == 0, torch.finfo(x.dtype).eps, scale)
