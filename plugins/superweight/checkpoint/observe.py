"""What each parameter of the decoder layers is for, seen in one short forward pass rather than guessed from names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

TOKENS = 7
"""Of the one sequence that is run: few enough to be cheap, and no usual number of experts."""

_PRODUCTS = {"mm": 0, "bmm": 0, "mv": 0, "_grouped_mm": 0, "addmm": 1, "baddbmm": 1, "addbmm": 1, "addmv": 1}
"""Where the left factor stands among an operator's arguments; the right one follows it."""
_CONVOLUTIONS = frozenset({"convolution", "conv1d", "mkldnn_convolution", "_convolution"})
_SELECTIONS = frozenset({"topk", "sort", "argsort", "argmax", "max", "multinomial", "kthvalue"})
_VIEWS = frozenset(
    {"view", "_unsafe_view", "reshape", "transpose", "t", "permute", "expand", "unsqueeze", "squeeze", "select"}
    | {"slice", "_to_copy", "clone", "alias", "detach", "split", "split_with_sizes", "unbind", "unflatten", "mT"}
)
_SUMS = frozenset({"sum", "mean"})
_TABLES = frozenset({"embedding", "index_select", "index", "gather", "take"})

Signature = tuple[tuple[str, str, tuple[int, ...]], ...]
"""What tells kinds of decoder layers apart: the name, the owner's type and the shape of every parameter."""


@dataclass
class Use:
    """What was seen of one parameter.

    Attributes:
        multiplied: it, or a view or cast of it, was a factor of a matrix product.
        inputs: summed dimension of one such product; 0 if the product did not show it.
        outputs: its other dimension.
        input_major: whether one matrix is stored `(in, out)`.
        last: when it was last multiplied, in products since the pass began.
        chooses: what its product gave was ranked, one number for each of `outputs` experts.
        convolved: it was the kernel of a convolution.
        looked_up: rows of it were taken by index.
        touched: it was used at all.
    """

    multiplied: bool = False
    inputs: int = 0
    outputs: int = 0
    input_major: bool = False
    last: int = 0
    chooses: bool = False
    convolved: bool = False
    looked_up: bool = False
    touched: bool = False


@dataclass
class Observation:
    """What was seen, by the kind of layer and the name within it.

    Attributes:
        uses: of every parameter and buffer of the layers that ran.
        failed: why the pass broke off, if it did; what was seen until then stands.
    """

    uses: dict[Signature, dict[str, Use]] = field(default_factory=dict)
    failed: str = ""

    def of(self, layer: nn.Module) -> Mapping[str, Use]:
        """What was seen of a layer's parameters, in it or in one of the same kind."""
        return self.uses.get(signature(layer), {})


def signature(layer: nn.Module) -> Signature:
    """The kind of a decoder layer."""
    return tuple(
        (f"{name}.{leaf}" if name else leaf, type(module).__name__, tuple(parameter.shape))
        for name, module in layer.named_modules()
        for leaf, parameter in module.named_parameters(recurse=False)
    )


def observe(model: nn.Module, layers: Sequence[nn.Module]) -> Observation:
    """Run seven tokens through one layer of each kind, the others passing on what they are given.

    Costs one layer's forward pass for each kind of layer, whatever the depth; changes nothing.
    """
    found = Observation()
    watched: dict[int, Use] = {}
    kinds: dict[Signature, nn.Module] = {}
    for layer in layers:
        if kinds.setdefault(signature(layer), layer) is layer:
            uses = {name: Use() for name, _ in _tensors(layer)}
            watched.update((id(tensor), uses[name]) for name, tensor in _tensors(layer))
            found.uses[signature(layer)] = uses
    try:
        with torch.no_grad(), _only(layers, kinds), _plain_experts(model), _Watch(watched):
            _run(model)
    except Exception as error:  # whatever a model's own code may raise: what was not seen is treated as not understood
        found.failed = f"{type(error).__name__}: {error}".splitlines()[0]
    return found


def _tensors(layer: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from layer.named_parameters()
    yield from layer.named_buffers()


def _run(model: Any) -> None:
    embeddings = model.get_input_embeddings().weight
    ids = torch.arange(1, TOKENS + 1, device=embeddings.device).remainder(len(embeddings))[None]
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        model.base_model(input_ids=ids, use_cache=False)
    finally:
        for module in training:
            module.training = True


@contextmanager
def _only(layers: Sequence[nn.Module], kinds: Mapping[Signature, nn.Module]) -> Iterator[None]:
    """Let layers whose kind ran before pass on their input, in the form in which that kind gives its output."""
    given: dict[Signature, Any] = {}
    with ExitStack() as stack:
        for layer in layers:
            kind = signature(layer)
            if kinds[kind] is layer:
                stack.callback(layer.register_forward_hook(_keeper(given, kind)).remove)
            else:
                stack.callback(_put_back, layer, vars(layer).get("forward"))
                layer.forward = _passer(given, kind)
        yield


def _put_back(layer: nn.Module, forward: Any) -> None:
    vars(layer).pop("forward", None)
    if forward is not None:
        layer.forward = forward


def _keeper(given: dict[Signature, Any], kind: Signature) -> Callable[..., None]:
    def keep(_module: nn.Module, _args: Any, output: Any) -> None:
        given[kind] = output

    return keep


def _passer(given: Mapping[Signature, Any], kind: Signature) -> Callable[..., Any]:
    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        before = given[kind]
        return (hidden, *before[1:]) if isinstance(before, tuple) else hidden

    return forward


@contextmanager
def _plain_experts(model: nn.Module) -> Iterator[None]:
    """Run the plain loop over experts, in which each expert's matrix is multiplied by itself."""
    name = "_experts_implementation_internal"
    every = {id(c): c for c in (getattr(module, "config", None) for module in model.modules()) if hasattr(c, name)}
    before = [(config, getattr(config, name)) for config in every.values()]
    try:
        for config, _ in before:
            setattr(config, name, "eager")
        yield
    finally:
        for config, chosen in before:
            setattr(config, name, chosen)


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows parameters through casts and views into products, and products into rankings."""

    def __init__(self, watched: Mapping[int, Use]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._watched = watched
        self._pure: Any = WeakIdKeyDictionary()  # made of parameters alone -> those parameters' uses
        self._scaled: Any = WeakIdKeyDictionary()  # an activation times such a tensor, not yet summed
        self._product: Any = WeakIdKeyDictionary()  # made of a product -> the uses of its weight, no product between
        self._count = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__.rstrip("_") or func.overloadpacket.__name__
        inputs = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, torch.Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        for use in (one for tensor in inputs for one in self._parameters(tensor)):
            use.touched = True
        if name in _PRODUCTS:
            left = _PRODUCTS[name]
            self._multiply(args[left], args[left + 1], outputs)
        else:
            self._other(name, inputs, outputs)
        return result

    def _parameters(self, tensor: torch.Tensor) -> tuple[Use, ...]:
        own = self._watched.get(id(tensor))
        return (own,) if own is not None else self._pure.get(tensor, ())

    def _multiply(self, left: torch.Tensor, right: torch.Tensor, outputs: list[torch.Tensor]) -> None:
        self._count += 1
        of_left, of_right = self._parameters(left), self._parameters(right)
        for use in (*of_left, *of_right):
            use.multiplied, use.last = True, self._count
        if of_left and of_right:
            self._mark(self._pure, outputs, (*of_left, *of_right))
        elif of_right:
            self._weigh(of_right, right.mT if right.dim() > 1 else right[None], outputs)
        elif of_left:
            self._weigh(of_left, left, outputs)

    def _weigh(self, uses: tuple[Use, ...], matrix: torch.Tensor, outputs: list[torch.Tensor]) -> None:
        """Note the layout of a weight as it was multiplied: `(…, out, in)`."""
        for use in uses:
            use.outputs, use.inputs = matrix.shape[-2:]
            use.input_major = matrix.stride(-1) > matrix.stride(-2)
        self._mark(self._product, outputs, uses)

    def _other(self, name: str, inputs: list[torch.Tensor], outputs: list[torch.Tensor]) -> None:
        numbers = [tensor for tensor in inputs if tensor.is_floating_point()]
        pure = tuple(use for tensor in numbers for use in self._parameters(tensor))
        if name in _CONVOLUTIONS:
            for use in pure:
                use.convolved = True
            return
        if name in _TABLES and len(inputs) > len(numbers):
            for use in pure:
                use.looked_up = True
        if name in _SELECTIONS and numbers:
            self._rank(numbers[0])
        if pure and all(self._parameters(tensor) for tensor in numbers):
            self._mark(self._pure, outputs, pure)
            return
        self._scale(name, numbers, outputs, pure)
        products = [use for tensor in numbers for use in self._product.get(tensor, ())]
        self._mark(self._product, outputs, tuple({id(use): use for use in products}.values()))

    def _scale(
        self, name: str, numbers: list[torch.Tensor], outputs: list[torch.Tensor], pure: tuple[Use, ...]
    ) -> None:
        """A product written as a multiplication and a sum."""
        before = tuple(use for tensor in numbers for use in self._scaled.get(tensor, ()))
        if name == "mul" and pure:
            self._mark(self._scaled, outputs, pure)
        elif name in _VIEWS:
            self._mark(self._scaled, outputs, before)
        elif name in _SUMS:
            for use in before:
                use.multiplied = True

    def _rank(self, scores: torch.Tensor) -> None:
        """Scores for each token: one for each output of a product, or for most of them if others are set apart."""
        many = scores.numel() // TOKENS
        for use in self._product.get(scores, ()):
            most = many != TOKENS and use.outputs // 2 < many < use.outputs  # tokens are ranked by sparse attention
            use.chooses |= many > 1 and (use.outputs == many or most)

    def _mark(self, marks: Any, outputs: list[torch.Tensor], uses: tuple[Use, ...]) -> None:
        if uses:
            for tensor in outputs:
                if tensor.is_floating_point() and id(tensor) not in self._watched:
                    marks[tensor] = uses
