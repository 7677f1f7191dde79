"""Asks loaded modules what their weights are: the effective weight of a column is what the module makes of a unit vector.

Whatever a module stores and however it multiplies, `forward(e_c)` less the bias is column c of the matrix that it works
with, rounded to the dtype it computes in. That holds for quantised activations, too, as far as they hold the number one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch


def effective_columns(
    module: torch.nn.Module, columns: Iterable[int], width: int, dtype: torch.dtype = torch.float32, batch: int = 256
) -> torch.Tensor:
    """Columns of a linear module's matrix, as the module multiplies by them.

    Args:
        module: any module that maps `(…, width)` linearly to `(…, rows)`; quantised or not.
        columns: input channels to ask for.
        width: how many input channels there are.
        dtype: of the unit vectors; the module may compute in another.
        batch: unit vectors a call: 1 where one vector takes another kernel than many.

    Returns:
        `(rows, columns)` in float64.
    """
    wanted = torch.tensor(list(columns))
    assert bool((wanted >= 0).all() and (wanted < width).all()), f"columns are 0 to {width - 1}"
    with torch.no_grad():
        parts = [_products(module, some, width, dtype) for some in wanted.split(batch)]
    answers = torch.cat(parts) - _bias(module)
    return answers.T.contiguous()


def effective_matrix(module: torch.nn.Module, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The whole matrix, `(rows, width)` in float64, by as many unit vectors as it has columns."""
    return effective_columns(module, range(width), width, dtype)


def effective_weights(
    model: torch.nn.Module, places: Sequence[tuple[str, int, int]], dtype: torch.dtype = torch.float32
) -> list[float]:
    """Single effective weights of a loaded model.

    Args:
        model: loaded by whatever loads it; some loaders unpack at the first forward pass of the model, which
            `run_once` does.
        places: name of a module, row, column.
        dtype: of the unit vectors.
    """
    modules = dict(model.named_modules())
    width = {name: int(modules[name].in_features) for name, _, _ in places}
    return [
        float(effective_columns(modules[name], [column], width[name], dtype)[row, 0]) for name, row, column in places
    ]


def run_once(model: Any, tokens: Sequence[int] = (1, 2, 3)) -> None:
    """One forward pass: after it modules are as they are when text is scored (unpacked, repacked, compiled)."""
    with torch.no_grad():
        model(torch.tensor([list(tokens)]))


def _products(module: torch.nn.Module, columns: torch.Tensor, width: int, dtype: torch.dtype) -> torch.Tensor:
    units = torch.zeros(len(columns), width, dtype=dtype)
    units[torch.arange(len(columns)), columns] = 1
    return module(units).detach().to(torch.float64).reshape(len(columns), -1)


def _bias(module: torch.nn.Module) -> torch.Tensor:
    bias = getattr(module, "bias", None)
    none = bias is None or not bias.numel()  # auto-round's kernels have an empty one
    return torch.zeros((), dtype=torch.float64) if none else bias.detach().to(torch.float64)
