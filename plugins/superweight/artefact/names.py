"""Which module of a file is the down projection of a layer: by the names that model families use, without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from superweight.checkpoint.header import TensorInfo

_LAYER = re.compile(r"(?P<stack>(?:.*?\.)?)(?:layers|h|blocks|block|layer)\.(?P<layer>\d+)\.")
_LEAF = r"(?:down_proj|c_proj|fc2|fc_out|dense_4h_to_h|w2|wo|linear_2|out_proj)"
_EXPERT = re.compile(r"\w+\.experts\.(?P<expert>\d+)\.(?:down_proj|w2|linear_2|fc2|dense_4h_to_h)")
_STACKED = re.compile(r"(?:\w+\.experts\.(?:down_proj|w2)|(?:block_sparse_moe|mlp)\.output_linear)")
_DENSE = (
    re.compile(rf"(?:(?:mlp|mlp_block|feed_forward|ffn|ff)\.)?{_LEAF}"),
    re.compile(r"\w+\.shared_(?:experts?|mlp)\.(?:down_proj|w2)|shared_mlp\.output_linear"),
    re.compile(r"(?:mixer|mamba)\.(?:down_proj|out_proj)"),
)
"""In the order in which they are the one: an MLP; else what a mixture's experts share; else the mixer of a layer that
is nothing else."""
_ATTENTION = re.compile(r"attn|attention")
_OTHER_STACKS = re.compile(r"vis(?:ion|ual)|audio|image|(?<!d)encoder|mtp|draft|eagle")


class Module(NamedTuple):
    """What holds a down projection.

    Attributes:
        name: of the module, `model.layers.2.mlp.down_proj`: tensors are this and a dot and what they are.
        stacked: whether the experts of a layer lie in one tensor, along its first dimension.
    """

    name: str
    stacked: bool = False


class _Named(NamedTuple):
    stack: str
    layer: int
    expert: int | None
    rank: int
    module: Module


@dataclass
class DownProjections:
    """The down projections of a file, by layer and expert.

    Attributes:
        modules: `(layer, expert or None)` → module; of experts in one tensor, `(layer, -1)`.
    """

    modules: dict[tuple[int, int | None], Module] = field(default_factory=dict)

    @classmethod
    def among(cls, names: Iterable[str] | Mapping[str, TensorInfo]) -> DownProjections:
        """Those that tensors of these names belong to: of the largest stack of layers, if there are several.

        Args:
            names: of tensors; their headers too, if they are known, for what is largest.
        """
        found: dict[str, list[_Named]] = {}
        sizes: dict[str, int] = {}
        for name in names:
            info = names[name] if isinstance(names, Mapping) else None
            layer = _LAYER.match(name)
            if layer is None:
                continue
            sizes[layer["stack"]] = sizes.get(layer["stack"], 0) + (1 if info is None else info.stop - info.start)
            if (one := _named(name, layer)) is not None:
                found.setdefault(one.stack, []).append(one)
        decoders = [stack for stack in found if not _OTHER_STACKS.search(stack)] or list(found)
        return cls(_first(found[max(decoders, key=lambda stack: sizes[stack])]) if decoders else {})

    def of(self, layer: int, expert: int | None) -> Module | None:
        """The module of one layer, and of one expert of it."""
        if expert is not None and (layer, -1) in self.modules:
            return self.modules[layer, -1]
        return self.modules.get((layer, expert))


def alike(one: str, other: str) -> bool:
    """Whether two modules of a layer are the same one, whatever the model around it is called; experts go by number."""
    layers = [_LAYER.match(name) for name in (one, other)]
    ends = [name[layer.start("layer") :] for name, layer in zip((one, other), layers, strict=True) if layer is not None]
    return len(set(ends)) < 2 or all(".experts." in name for name in ends)


def _named(name: str, layer: re.Match[str]) -> _Named | None:
    """What a tensor belongs to, if that is a down projection."""
    rest = name[layer.end() :]
    stack, number = layer["stack"], int(layer["layer"])
    if (found := _whole(_EXPERT, rest)) is not None:
        return _Named(stack, number, int(found["expert"]), 0, Module(name[: layer.end()] + found[0]))
    if (found := _whole(_STACKED, rest)) is not None:
        return _Named(stack, number, -1, 0, Module(name[: layer.end()] + found[0], stacked=True))
    for rank, pattern in enumerate(_DENSE):
        if (found := _whole(pattern, rest)) is not None and not _ATTENTION.search(found[0]):
            return _Named(stack, number, None, rank, Module(name[: layer.end()] + found[0]))
    return None


def _whole(pattern: re.Pattern[str], rest: str) -> re.Match[str] | None:
    """A match that ends where a name ends: at a dot, at the underscore before what belongs to stacked experts."""
    found = pattern.match(rest)
    return found if found is not None and rest[found.end() : found.end() + 1] in ("", ".", "_") else None


def _first(named: Iterable[_Named]) -> dict[tuple[int, int | None], Module]:
    found: dict[tuple[int, int | None], Module] = {}
    for one in sorted(named, key=lambda one: one.rank):
        found.setdefault((one.layer, one.expert), one.module)
    return found
