"""Forward passes that begin where a recipe begins: the states that enter its first layer are computed once.

Recipes that leave the first layers alone (all that only touch a super weight) share what those layers compute. The
states that enter a layer are kept when a first recipe computes them and handed to the next one; both come from the same
operations on the same numbers, so figures are the same bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_KEPT_BYTES = 2 * 2**30  # of states kept in host memory; what would exceed it is computed again


class LayerInputCache:
    """What enters the first layer that a recipe changes, by pass.

    Args:
        layers: the decoder layers, in order.
        kept_bytes: bound on what is kept.

    Attributes:
        first: the first layer that the recipe in force changes; 0 to compute everything and keep nothing.
        reused: passes that began in the middle.
    """

    def __init__(self, layers: Sequence[nn.Module], *, kept_bytes: int = _KEPT_BYTES) -> None:
        self.first = 0
        self.reused = 0
        self._layers = layers
        self._room = kept_bytes
        self._kept: dict[Any, tuple[int, torch.Tensor]] = {}  # by pass: the layer, and `(rows, length, hidden)`
        self._tuples: dict[int, int] = {}  # layers that answer with a tuple, and how long it is

    @contextmanager
    def run(self, key: Any) -> Iterator[None]:
        """Run one pass of the body in here.

        Args:
            key: tells passes of the same tokens in the same layout by the same kernels.
        """
        layer, states = self._kept.get(key, (0, None))
        with ExitStack() as stack:
            if states is not None and layer <= self.first:
                self.reused += 1
                self._skip(layer, states, stack)
            elif self.first:
                self._watch(key, stack)
            yield

    def forget(self) -> None:
        """Drop what is kept."""
        self._room += sum(states.nbytes for _, states in self._kept.values())
        self._kept.clear()

    def _watch(self, key: Any, stack: ExitStack) -> None:
        first = self.first

        def keep(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = args[0] if args else kwargs["hidden_states"]
            if key not in self._kept and states.nbytes <= self._room:
                self._room -= states.nbytes
                self._kept[key] = (first, states.to("cpu", copy=True))

        def shape(number: int, output: Any) -> None:
            if isinstance(output, tuple):
                self._tuples[number] = len(output)

        for number, layer in enumerate(self._layers[:first]):
            hook = layer.register_forward_hook(lambda _m, _a, output, number=number: shape(number, output))
            stack.callback(hook.remove)
        stack.callback(self._layers[first].register_forward_pre_hook(keep, with_kwargs=True).remove)

    def _skip(self, first: int, states: torch.Tensor, stack: ExitStack) -> None:
        for number, layer in enumerate(self._layers[:first]):
            _answer_with_input(layer, self._tuples.get(number), stack)

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            here = states.to((args[0] if args else kwargs["hidden_states"]).device)
            return ((here, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": here})

        stack.callback(self._layers[first].register_forward_pre_hook(enter, with_kwargs=True, prepend=True).remove)


def is_exact(
    layers: Sequence[nn.Module], body: Callable[[torch.Tensor], torch.Tensor], input_ids: torch.Tensor
) -> bool:
    """Whether passes of this model that begin in its last layer give the states that whole passes give, bit for bit.

    Args:
        layers: its decoder layers.
        body: gives the states of tokens.
        input_ids: a few tokens `(1, length)`.
    """
    tried = LayerInputCache(layers)
    tried.first = len(layers) - 1
    try:
        found = []
        for _ in range(2):
            with torch.inference_mode(), tried.run("tried"):
                found.append(body(input_ids))
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False
    return tried.reused == 1 and torch.equal(*found)


def _answer_with_input(layer: nn.Module, length: int | None, stack: ExitStack) -> None:
    """Let a layer hand on the states it is given, in the form in which it answers."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        return states if length is None else (states, *[None] * (length - 1))

    before = vars(layer).get("forward")
    layer.forward = forward

    def restore() -> None:
        del layer.forward
        if before is not None:
            layer.forward = before

    stack.callback(restore)
