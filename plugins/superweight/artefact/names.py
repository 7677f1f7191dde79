"""Which module of a file is the down projection of a layer: by the names that model families use, without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

_LAYER = r"(?:layers|h|blocks|block|layer)\.(?P<layer>\d+)\."
_DENSE = r"(?:(?:mlp|feed_forward|ffn|ff)\.)?(?:down_proj|c_proj|fc2|fc_out|dense_4h_to_h|w2|wo|linear_2|out_proj)"
_EXPERT = r"\w+\.experts\.(?P<expert>\d+)\.(?:down_proj|w2|linear_2|fc2)"
_STACKED = r"\w+\.experts\.(?P<stacked>down_proj|w2)"
_MODULE = re.compile(rf"(?:.*\.)?{_LAYER}(?:{_EXPERT}|{_STACKED}|{_DENSE})")
_NOT_MLP = re.compile(r"attn|attention|mixer|mamba|router|shared")


class Module(NamedTuple):
    """What holds a down projection.

    Attributes:
        name: of the module, `model.layers.2.mlp.down_proj`: tensors are this and a dot and what they are.
        stacked: whether the experts of a layer lie in one tensor, along its first dimension.
    """

    name: str
    stacked: bool = False


@dataclass
class DownProjections:
    """The down projections of a file, by layer and expert.

    Attributes:
        modules: `(layer, expert or None)` → module; of experts in one tensor, `(layer, -1)`.
    """

    modules: dict[tuple[int, int | None], Module] = field(default_factory=dict)

    @classmethod
    def among(cls, names: Iterable[str]) -> DownProjections:
        """Those that tensors of these names belong to."""
        found: dict[tuple[int, int | None], Module] = {}
        for name in names:
            match = _MODULE.match(name)
            if match is None or _NOT_MLP.search(name[match.start("layer") : match.end()]):
                continue
            if name[match.end() : match.end() + 1] not in ("", ".", "_"):
                continue
            stacked = match["stacked"] is not None
            expert = -1 if stacked else None if match["expert"] is None else int(match["expert"])
            found.setdefault((int(match["layer"]), expert), Module(match[0], stacked))
        return cls(found)

    def of(self, layer: int, expert: int | None) -> Module | None:
        """The module of one layer, and of one expert of it."""
        if expert is not None and (layer, -1) in self.modules:
            return self.modules[layer, -1]
        return self.modules.get((layer, expert))
