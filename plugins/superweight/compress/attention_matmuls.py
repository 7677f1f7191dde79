"""Quantise the inputs of the attention matmuls: q·kᵀ and softmax·v (arXiv:2411.07191, section 4.1)."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from superweight.errors import InfraError
from superweight.kernels.activations import Q_MAX

_MATMUL = (torch.matmul, torch.bmm, torch.Tensor.matmul, torch.Tensor.bmm, torch.Tensor.__matmul__)
_EAGER = "eager_attention_forward"


def quantise_attention(model: Any, granularity: Literal["tensor", "token"], stack: ExitStack) -> None:
    """Run the model's own eager attention with both operands of each matmul rounded to INT8, until `stack` is closed.

    `tensor`: one scale per operand and sequence. `token`: one scale per row of the left operand (a query, a row of
    probabilities) and per column of the right one (a key, a channel of the values): what an integer product can
    factor out.

    Raises:
        InfraError: the model does not let its attention be replaced (`recipe-mismatch`).
    """
    own = sys.modules[type(model).__module__]
    if not (hasattr(own, _EAGER) and model._can_set_attn_implementation()):
        raise InfraError(
            f"attention_matmuls = true needs a model whose attention goes through transformers' AttentionInterface; "
            f"{type(model).__name__} has its own. Set attention_matmuls = false in the recipe card.",
            reason="recipe-mismatch",
        )
    name = f"superweight_int8_{granularity}"
    AttentionInterface.register(name, partial(_attend, granularity))
    AttentionMaskInterface.register(name, eager_mask)
    stack.callback(model.set_attn_implementation, model.config._attn_implementation)
    model.set_attn_implementation(name)


def _attend(granularity: Literal["tensor", "token"], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    eager = getattr(sys.modules[type(module).__module__], _EAGER)
    with _Int8Matmuls(granularity):
        return eager(module, *args, **kwargs)


class _Int8Matmuls(TorchFunctionMode):
    """Rounds both operands of every matmul."""

    def __init__(self, granularity: Literal["tensor", "token"]) -> None:
        super().__init__()
        self._granularity = granularity

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _MATMUL and len(args) == 2:
            left, right = args
            args = (self._round(left, axis=-1), self._round(right, axis=-2))
        return func(*args, **(kwargs or {}))

    def _round(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        return fake_quantise(x, tuple(range(1, x.dim())) if self._granularity == "tensor" else (axis,))


def fake_quantise(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    """Symmetric absmax INT8 and back, one scale over `axes`; float32 inside, the input's dtype outside."""
    wide = x.float()
    scale = wide.abs().amax(axes, keepdim=True) / Q_MAX
    return (wide / torch.where(scale == 0, 1.0, scale)).round_().mul_(scale).to(x.dtype)
