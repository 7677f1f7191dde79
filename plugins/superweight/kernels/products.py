"""Which library multiplies float32 matrices on a CPU.

torch hands float32 products to MKL and bfloat16 ones to oneDNN. MKL does not use AVX-512 on every processor that has
it; oneDNN does, and is twice as fast there. Their sums differ in the last bits.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def onednn_products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Hand `functional.linear` to oneDNN in this block, where that is another library than torch's choice.

    Args:
        dtype: of the products; only float32 ones are handed over.
        device: where they run; only those of an x86 CPU are handed over.
    """
    return _OneDnn() if differ(dtype, device) else nullcontext()


def differ(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether `onednn_products` changes anything for products of this dtype on this device."""
    here = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    there = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return dtype == torch.float32 and here and there


class _OneDnn(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.linear and not kwargs and _fits(*args):
            x, weight, bias = (*args, None)[:3]
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return func(*args, **(kwargs or {}))


def _fits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    given = (x, weight) if bias is None else (x, weight, bias)
    narrowed = torch.is_autocast_enabled("cpu") or any(tensor.dtype != torch.float32 for tensor in given)
    return not narrowed and x.numel() > 0 and weight.is_contiguous() and not torch.is_grad_enabled()
