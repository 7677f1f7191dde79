"""Fingerprints of parameters, to tell what a recipe changed: a checksum over bits, on the device that holds them."""

from __future__ import annotations

import torch
from torch import nn

from superweight.checkpoint.bits import as_integers

_CHUNK = 1 << 24  # elements summed at a time, so that the widened copy stays small


def fingerprint(tensor: torch.Tensor) -> tuple[int, int]:
    """Two sums over the tensor's bits, plain and weighted by position, modulo 2^64.

    Any single changed element changes the first sum; elements that swap places change the second.
    """
    bits = as_integers(tensor.detach().contiguous()).flatten()
    plain = weighted = 0
    for start in range(0, bits.numel(), _CHUNK):
        wide = bits[start : start + _CHUNK].long()
        place = torch.arange(start + 1, start + 1 + wide.numel(), device=wide.device)
        plain += int(wide.sum())
        weighted += int((wide * place).sum())
    return plain % 2**64, weighted % 2**64


def fingerprints(model: nn.Module) -> dict[str, tuple[int, int]]:
    """The fingerprint of every parameter and buffer by name; tied parameters appear once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: fingerprint(tensor) for name, tensor in named}


def non_finite(model: nn.Module) -> list[str]:
    """Names of parameters that hold NaN or infinity."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not bool(torch.isfinite(parameter.detach().sum(dtype=torch.float64)))
    ]
