"""Seeing what each expert of a mixture feeds its down projection, where the experts share one 3-D parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from superweight.checkpoint.architecture import LinearWeight
from superweight.errors import InfraError

_MATMULS = (functional.linear, torch.matmul, torch.mm, torch.bmm, torch.Tensor.matmul, torch.Tensor.__matmul__)
_SCATTERS = (torch.Tensor.index_add_, torch.Tensor.index_add, torch.index_add)


@dataclass(frozen=True)
class ExpertCall:
    """One expert's down projection applied to the tokens routed to it.

    Attributes:
        weight: the experts' shared parameter.
        expert: which of them.
        inputs: X, `(tokens of this expert, columns)`.
        outputs: Y, `(tokens of this expert, rows)`.
        tokens: `(tokens of this expert,)` indices into the flattened batch.
        scales: `(tokens of this expert,)` what the router multiplies Y by.

    """

    weight: LinearWeight
    expert: int
    inputs: torch.Tensor
    outputs: torch.Tensor
    tokens: torch.Tensor
    scales: torch.Tensor


class ExpertWatch(TorchFunctionMode):
    """Reports every expert's down projection while the model runs with its eager experts.

    transformers' eager experts multiply by a view `down_proj[expert]` of the 3-D parameter and then `index_add_` the
    product, times the router's weight, to the tokens it came from. The view is recognised by the memory it lies in.

    Args:
        weights: the mixtures' down projections.
        report: called with each `ExpertCall`.

    """

    def __init__(self, weights: Sequence[LinearWeight], report: Callable[[ExpertCall], None]) -> None:
        super().__init__()
        self._weights = weights
        self._report = report
        self._pending: tuple[LinearWeight, int, torch.Tensor, torch.Tensor] | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """See each call, and pass it on unchanged."""
        result = func(*args, **(kwargs or {}))
        if func in _MATMULS:
            self._matmul(args, result)
        elif func in _SCATTERS and self._pending is not None:
            self._scatter(args, kwargs or {})
        return result

    def finish(self) -> None:
        """Check that no product was left unattributed.

        Raises:
            InfraError: an expert's output did not return to its tokens by `index_add_`.

        """
        if self._pending is not None:
            raise _untraceable(self._pending[0])

    def _matmul(self, args: tuple[Any, ...], result: torch.Tensor) -> None:
        if len(args) < 2 or not isinstance(args[1], torch.Tensor) or args[1].dim() < 2:
            return
        owner = self._owner(args[1])
        if owner is None:
            return
        weight, expert = owner
        if self._pending is not None:
            raise _untraceable(weight)
        if args[1].dim() == 3:  # every expert sees every token: (experts, tokens, columns)
            self._all_experts(weight, args[0], result)
        else:
            self._pending = (weight, expert, args[0], result)

    def _owner(self, tensor: torch.Tensor) -> tuple[LinearWeight, int] | None:
        start = tensor.data_ptr()
        for weight in self._weights:
            stacked = weight.stacked
            size = stacked.stride(0) * stacked.element_size()  # bytes an expert takes
            offset = start - stacked.data_ptr()
            if 0 <= offset < size * stacked.shape[0]:
                return weight, offset // size
        return None

    def _all_experts(self, weight: LinearWeight, inputs: torch.Tensor, outputs: torch.Tensor) -> None:
        tokens = torch.arange(inputs.shape[1], device=inputs.device)
        for expert, (x, y) in enumerate(zip(inputs, outputs, strict=True)):
            self._report(ExpertCall(weight, expert, x, y, tokens, torch.ones(len(tokens), device=inputs.device)))

    def _scatter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert self._pending is not None  # the caller looked
        weight, expert, inputs, outputs = self._pending
        tokens = args[2] if len(args) > 2 else kwargs["index"]
        source = args[3] if len(args) > 3 else kwargs["source"]
        if source.shape != outputs.shape:
            return
        y = outputs.float()
        scales = (source.float() * y).sum(-1) / y.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)
        self._pending = None
        self._report(ExpertCall(weight, expert, inputs, outputs, tokens, scales))


@contextmanager
def eager_experts(weights: Sequence[LinearWeight]) -> Iterator[None]:
    """Run mixtures by their plain loop over experts, and restore what was chosen before.

    Args:
        weights: the mixtures' down projections, whose modules read the choice from their config.

    """
    name = "_experts_implementation_internal"
    configs = {id(c): c for c in (getattr(w.module, "config", None) for w in weights) if hasattr(c, name)}
    before = [(config, getattr(config, name)) for config in configs.values()]
    try:
        for config, _ in before:
            setattr(config, name, "eager")
        yield
    finally:
        for config, chosen in before:
            setattr(config, name, chosen)


def _untraceable(weight: LinearWeight) -> InfraError:
    return InfraError(
        f"expected the experts of {weight.name} to add their output to the residual stream with index_add_, as "
        "transformers' eager experts do, and found another way. This mixture cannot be traced; give its super weights "
        "in a model card.",
        reason="unsupported",
    )
