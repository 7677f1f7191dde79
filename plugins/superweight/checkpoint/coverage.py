"""Which share of the decoder layers a recipe sees: every parameter is accounted for, or listed as not understood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import nn

from superweight.checkpoint.observe import Use
from superweight.checkpoint.routers import expert_lists
from superweight.errors import InfraError

if TYPE_CHECKING:
    from superweight.checkpoint.architecture import Architecture, LinearWeight

Kind = Literal["attention", "mlp", "expert", "other", "router", "vector", "left alone", "unknown"]
"""The first four are linear weights, which recipes compress."""

_LINEAR = ("attention", "mlp", "expert", "other")
_LISTED = 8  # names in a message


@dataclass(frozen=True)
class Part:
    """One parameter of the decoder layers.

    Attributes:
        name: in the model.
        shape: as stored.
        kind: what it is.
        reason: why it is left alone or not understood; empty for linear weights and vectors.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    reason: str = ""

    @property
    def size(self) -> int:
        """Numbers in it."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Coverage:
    """Every parameter of the decoder layers, one that several modules share counted once.

    Attributes:
        parts: in the model's order; those of every layer.
        broken: why watching the layers at work broke off; empty if it did not.
    """

    parts: tuple[Part, ...]
    broken: str = ""

    @property
    def unknown(self) -> tuple[Part, ...]:
        """What takes part in a matrix product, or may, and is neither a linear weight nor a router."""
        return tuple(part for part in self.parts if part.kind == "unknown")

    @property
    def share(self) -> float:
        """Linear weights' share of all parameters, from 0 to 1."""
        return sum(self.shares.get(kind, 0.0) for kind in _LINEAR)

    @property
    def shares(self) -> dict[str, float]:
        """Share of all parameters by kind, from 0 to 1; only kinds that there are."""
        total = sum(part.size for part in self.parts) or 1
        sizes = {kind: sum(part.size for part in self.parts if part.kind == kind) for kind in get_args(Kind)}
        return {kind: size / total for kind, size in sizes.items() if size}

    def require(self, model: str) -> None:
        """Refuse a recipe that would leave out what it should compress.

        Raises:
            InfraError: a parameter is not understood (`recipe-mismatch`).
        """
        if not self.unknown:
            return
        lines = [f"  {part.name} {part.shape}: {part.reason}" for part in self.unknown[:_LISTED]]
        more = len(self.unknown) - _LISTED
        raise InfraError(
            f"the recipe compresses the linear weights of the decoder layers; expected to know of every parameter of "
            f"{model} whether it is one, and {len(self.unknown)} are not understood. The recipe would see "
            f"{self.share:.1%} of the layers' parameters, and its bits per weight would hold for those alone:\n"
            + "\n".join([*lines, *([f"  … and {more} more"] if more > 0 else [])])
            + (f"\nWatching the layers at work broke off: {self.broken}." if self.broken else "")
            + "\nThis model cannot be compressed by the recipes here; gate a checkpoint that was compressed elsewhere.",
            reason="recipe-mismatch",
        )

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: shares by kind, and what is left alone on purpose, the layers' numbers folded."""
        left: dict[str, str] = {}
        for part in self.parts:
            if part.kind in ("router", "left alone"):
                left.setdefault(_folded(part.name), part.reason)
        unknown = [f"{part.name} {part.shape}" for part in self.unknown]
        return {"share": self.share, "by_kind": self.shares, "left_alone": left, "unknown": unknown}


def account(architecture: Architecture) -> Coverage:
    """Put every parameter of the decoder layers into one class."""
    linear = {id(weight.parameter): weight for weight in architecture.linear_weights}
    seen: set[int] = set()
    parts: list[Part] = []
    for index, layer in enumerate(architecture.layers):
        prefix, uses = f"{architecture.prefix}.{index}", architecture.observed.of(layer)
        kinds = _Kinds(layer, prefix, architecture)
        for name, parameter in layer.named_parameters():
            if id(parameter) not in seen:
                seen.add(id(parameter))
                use = uses.get(name) or Use()
                parts.append(kinds.part(name, parameter, linear.get(id(parameter)), use))
        parts += _buffers(layer, prefix, uses)
    return Coverage(tuple(parts), architecture.observed.failed)


class _Kinds:
    """Tells the parameters of one layer apart."""

    def __init__(self, layer: nn.Module, prefix: str, architecture: Architecture) -> None:
        here = [weight for weight in architecture.linear_weights if weight.name.startswith(f"{prefix}.")]
        self._layer, self._prefix, self._routers = layer, prefix, architecture.routers
        self._lists = [f"{prefix}.{name}." for name in expert_lists(layer)]
        self._mlps = {_parent(weight.name) for weight in here if weight.down}
        self._routed = any(name.startswith(f"{prefix}.") for name in architecture.routers)
        self._broken = bool(architecture.observed.failed)

    def part(self, name: str, parameter: nn.Parameter, weight: LinearWeight | None, use: Use) -> Part:
        """What one parameter is."""
        path = f"{self._prefix}.{name}"
        kind, reason = self._kind(path, name, parameter, weight, use)
        return Part(path, tuple(parameter.shape), kind, reason)

    def _kind(
        self, path: str, name: str, parameter: nn.Parameter, weight: LinearWeight | None, use: Use
    ) -> tuple[Kind, str]:
        if path in self._routers:
            return "router", self._routers[path]
        if weight is not None:
            return self._linear(weight)
        if parameter.numel() == max(parameter.shape, default=1):
            return "vector", ""
        if _per_expert_vector(parameter, name, use):
            return "vector", ""
        return self._rest(self._layer.get_submodule(name.rpartition(".")[0]), parameter, use)

    def _linear(self, weight: LinearWeight) -> tuple[Kind, str]:
        of_experts = weight.experts is not None or any(weight.name.startswith(one) for one in self._lists)
        if of_experts and self._broken and not self._routed:
            return "unknown", "it belongs to experts, and nothing was found that chooses between them"
        if weight.attention:
            return "attention", ""
        if of_experts and self._routed:  # else blocks of one matrix, all of which are always used
            return "expert", ""
        return ("mlp" if _parent(weight.name) in self._mlps else "other"), ""

    @staticmethod
    def _rest(owner: nn.Module, parameter: nn.Parameter, use: Use) -> tuple[Kind, str]:
        if use.multiplied:
            return "unknown", "it is multiplied as a matrix, in a way that was not understood"
        if use.convolved or isinstance(owner, nn.Conv1d | nn.Conv2d):
            return "left alone", "the kernel of a convolution"
        if use.looked_up or isinstance(owner, nn.Embedding):
            return "left alone", "a table whose rows are looked up"
        if use.touched:
            return "left alone", "used element by element"
        return "unknown", "it was not seen at work, and may be multiplied as a matrix"


def _per_expert_vector(parameter: nn.Parameter, name: str, use: Use) -> bool:
    """A bias or a scale of each expert: `(experts, channels)`, added or multiplied element by element."""
    return parameter.dim() == 2 and "bias" in name.rpartition(".")[2] and not use.multiplied


def _buffers(layer: nn.Module, prefix: str, uses: Any) -> Iterator[Part]:
    """Matrices that no parameter holds: no recipe can compress them."""
    for name, buffer in layer.named_buffers():
        if name in uses and uses[name].multiplied and buffer.dim() > 1 and min(buffer.shape[-2:]) > 1:
            yield Part(f"{prefix}.{name}", tuple(buffer.shape), "unknown", "a buffer that is multiplied as a matrix")


def _parent(name: str) -> str:
    """The module around the module that owns a parameter."""
    return name.rpartition(".")[0].rpartition(".")[0]


def _folded(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))
