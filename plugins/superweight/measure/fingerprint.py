"""Fingerprints of parameters, to tell what a recipe changed: over bits, on the device that holds them, at its speed."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor

import torch
import xxhash
from torch import nn

from superweight.checkpoint.bits import all_finite, as_integers

_COLUMNS = 4096  # of the grid that a GPU sums along both sides
_ROWS = 4096  # summed at a time, so that the widened copy stays small


def fingerprint(tensor: torch.Tensor) -> str:
    """A fingerprint of a tensor's bits in row-major order, to be compared with others taken on the same kind of device.

    On the CPU it is the 128-bit XXH3 of the bytes. On a GPU it is that of sums along a grid (`grid_sums`). Either way a
    changed element is seen, and so are elements that changed places; that a change of more goes unseen has a chance of
    2^-128 on the CPU, and on a GPU takes four elements at the corners of a rectangle whose changes cancel.

    Returns:
        32 hexadecimal digits.

    """
    flat = tensor.detach().contiguous().flatten()
    hashed = flat if flat.device.type == "cpu" else grid_sums(flat)
    return xxhash.xxh3_128_hexdigest(hashed.view(torch.uint8).numpy().data)


def grid_sums(flat: torch.Tensor) -> torch.Tensor:
    """A one-dimensional tensor's bits as integers, laid out as a grid: sums of its rows and columns, and what is left.

    Returns:
        int64 `(columns + rows + elements left over,)` on the CPU. The sums are exact: 64 bits are taken as twice 32.

    """
    elements = as_integers(flat) if flat.element_size() < 8 else flat.view(torch.int32)
    whole = elements.numel() // _COLUMNS * _COLUMNS
    columns = torch.zeros(_COLUMNS, dtype=torch.int64, device=flat.device)
    rows: list[torch.Tensor] = []
    for start in range(0, whole, _ROWS * _COLUMNS):
        wide = elements[start : min(start + _ROWS * _COLUMNS, whole)].view(-1, _COLUMNS).long()
        columns += wide.sum(0)
        rows.append(wide.sum(1))
    return torch.cat([columns, *rows, elements[whole:].long()]).cpu()


def fingerprints(model: nn.Module, only: Collection[str] | None = None) -> dict[str, str]:
    """Fingerprints of parameters and buffers by name, all or some; tied parameters appear once."""
    named = [*model.named_parameters(), *model.named_buffers()]
    chosen = {name: tensor for name, tensor in named if only is None or name in only}
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # hashing lets go of the interpreter
        return dict(zip(chosen, threads.map(fingerprint, chosen.values()), strict=True))


def non_finite(model: nn.Module) -> list[str]:
    """Names of parameters that hold NaN or infinity."""
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.is_floating_point() and not all_finite(parameter.detach())
    ]
