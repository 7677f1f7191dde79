"""Intercept the input of a linear weight, in dense modules and inside mixtures of experts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from superweight.checkpoint.architecture import LinearWeight
from superweight.errors import InfraError

_MULTIPLY = (functional.linear, torch.matmul, torch.mm, torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.__matmul__)


@dataclass(frozen=True)
class Call:
    """One multiplication with a linear weight.

    Attributes:
        expert: which matrix of a mixture; None for a dense weight.
        x: the input, `(…, in)`; inside a mixture `(tokens of this expert, in)`.
        bias: what the multiplication adds, if anything.
        linear: the multiplication itself, bias included, for any input of that shape.
    """

    expert: int | None
    x: torch.Tensor
    bias: torch.Tensor | None
    linear: Callable[[torch.Tensor], torch.Tensor]


Handler = Callable[[Call], torch.Tensor]


def intercept(
    weights: Iterable[LinearWeight], handler: Callable[[LinearWeight], Handler], stack: ExitStack
) -> list[str]:
    """Let `handler(weight)` answer every multiplication with these weights until `stack` is closed.

    A dense module's `forward` is replaced on the instance. A mixture runs transformers' plain loop over experts, and
    the multiplications in it are recognised by the memory their weight lies in.

    Returns:
        The names of the modules.

    Raises:
        InfraError: later, in a forward pass, if a mixture does not multiply expert by expert (`unsupported`).
    """
    names = []
    mixtures: dict[nn.Module, dict[str, tuple[LinearWeight, Handler]]] = {}
    for weight in weights:
        names.append(weight.name.rpartition(".")[0])
        if weight.experts is None:
            _intercept_dense(weight, handler(weight), stack)
        else:
            mixtures.setdefault(weight.module, {})[weight.name] = (weight, handler(weight))
    for module, handlers in mixtures.items():
        _intercept_mixture(module, handlers, stack)
    return list(dict.fromkeys(names))


def _replace_forward(module: nn.Module, forward: Callable[..., Any], stack: ExitStack) -> None:
    before = vars(module).get("forward")
    module.forward = forward

    def restore() -> None:
        vars(module).pop("forward", None)
        if before is not None:
            module.forward = before

    stack.callback(restore)


def _intercept_dense(weight: LinearWeight, handler: Handler, stack: ExitStack) -> None:
    original = weight.module.forward
    bias = getattr(weight.module, "bias", None)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return handler(Call(None, x, bias, original))

    _replace_forward(weight.module, forward, stack)


def _intercept_mixture(
    module: nn.Module, handlers: Mapping[str, tuple[LinearWeight, Handler]], stack: ExitStack
) -> None:
    original = module.forward
    _run_expert_by_expert(module, stack)

    def forward(*args: Any, **kwargs: Any) -> Any:
        with _ExpertCalls(handlers) as calls:
            result = original(*args, **kwargs)
        if unseen := set(handlers) - calls.seen:
            raise InfraError(
                f"{type(module).__name__} does not multiply its experts one by one, so the activations of "
                f"{', '.join(sorted(unseen))} cannot be reached. Use a recipe that leaves activations alone.",
                reason="unsupported",
            )
        return result

    _replace_forward(module, forward, stack)


def _run_expert_by_expert(module: nn.Module, stack: ExitStack) -> None:
    """Choose transformers' plain loop over experts, where the module lets one choose."""
    config = getattr(module, "config", None)
    before = getattr(config, "_experts_implementation", None)
    if config is None or before in (None, "eager"):
        return
    config._experts_implementation = "eager"
    stack.callback(setattr, config, "_experts_implementation", before)


class _ExpertCalls(TorchFunctionMode):
    """Hands multiplications with one expert's matrix to a handler."""

    def __init__(self, handlers: Mapping[str, tuple[LinearWeight, Handler]]) -> None:
        super().__init__()
        self._handlers = handlers
        self.seen: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _MULTIPLY and len(args) > 1:
            for name, (weight, handler) in self._handlers.items():
                expert = _expert_of(weight, args[1])
                if expert is not None:
                    self.seen.add(name)
                    bias = args[2] if len(args) > 2 else kwargs.get("bias")
                    return handler(Call(expert, args[0], bias, lambda x: func(x, *args[1:], **kwargs)))
        return func(*args, **kwargs)


def _expert_of(weight: LinearWeight, matrix: torch.Tensor) -> int | None:
    """Which expert's matrix lies at this address; None if it is not one of this weight's."""
    stacked = weight.stacked
    if matrix.dim() != 2:
        return None
    size = stacked.stride(0) * stacked.element_size()
    expert, rest = divmod(matrix.data_ptr() - stacked.data_ptr(), size)
    return expert if rest == 0 and 0 <= expert < stacked.shape[0] else None
