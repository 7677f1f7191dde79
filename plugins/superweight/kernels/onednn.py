"""Which library multiplies matrices on a CPU.

torch hands float32 products to MKL and bfloat16 ones to oneDNN. MKL does not use AVX-512 on every processor that has
it; oneDNN does, and is twice as fast there. The same holds of the products inside torch's attention kernel, bfloat16
ones included unless the processor multiplies tiles. The libraries' sums differ in the last bits.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from superweight.kernels.causal_attention import causal_attention, suits


def onednn_products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[Any]:
    """Hand `functional.linear` and causal attention to oneDNN in this block, where torch's choice is another library.

    Args:
        dtype: of the products. Float32 linear layers are handed over, and attention in float32 or bfloat16.
        device: where they run; only those of an x86 CPU are handed over.
    """
    handed: dict[Any, Callable[..., torch.Tensor | None]] = (
        {functional.linear: _linear} if differ(dtype, device) else {}
    )
    if dtype == torch.float32 or (dtype == torch.bfloat16 and not _multiplies_tiles()):
        handed |= {functional.scaled_dot_product_attention: _attention} if _at_hand(device) else {}
    return _Handed(handed, dtype) if handed else nullcontext()


def differ(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether linear layers of this dtype on this device come from another library under `onednn_products`."""
    return dtype == torch.float32 and _at_hand(device)


def _at_hand(device: torch.device) -> bool:
    here = device.type == "cpu" and platform.machine().lower() in ("x86_64", "amd64")
    return here and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _multiplies_tiles() -> bool:
    """Whether the processor has AMX, for which torch's attention kernel has bfloat16 products of its own."""
    return bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())


class _Handed(TorchFunctionMode):
    def __init__(self, handed: dict[Any, Callable[..., torch.Tensor | None]], dtype: torch.dtype) -> None:
        super().__init__()
        self._handed = handed
        self._dtype = dtype

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        by = self._handed.get(func)
        found = None if by is None or torch.is_grad_enabled() else by(self._dtype, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {})) if found is None else found


def _linear(dtype: torch.dtype, *given: Any, **named: Any) -> torch.Tensor | None:
    """The product, or None where that is torch's to make."""
    if named or not _fits(*given):
        return None
    x, weight, bias = (*given, None)[:3]
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def _fits(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> bool:
    given = (x, weight) if bias is None else (x, weight, bias)
    if any(type(tensor) not in (torch.Tensor, torch.nn.Parameter) for tensor in given):
        return False  # a quantiser's own class, which says itself how it is multiplied
    narrowed = torch.is_autocast_enabled("cpu") or any(tensor.dtype != torch.float32 for tensor in given)
    return not narrowed and x.numel() > 0 and weight.is_contiguous()


def _attention(
    dtype: torch.dtype,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **named: Any,
) -> torch.Tensor | None:
    """Causal attention, or None where that is torch's to make."""
    if attn_mask is not None or dropout_p or not is_causal or not suits(query, key, value):
        return None
    if torch.is_autocast_enabled("cpu"):  # which narrows what this is given
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    if {query.dtype, key.dtype, value.dtype} != {dtype}:
        return None
    return causal_attention(query, key, value, scale=named.get("scale"))
