"""How many bits a compressed model takes, scales and side tables included."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from superweight.checkpoint.architecture import LinearWeight

SCALE_BITS = 16
"""A scale, a minimum and a smoothing factor take 16 bits each, as deployed formats store them. The arithmetic here
keeps them in float32, as the paper's code does."""

INDEX_BITS = 32
"""Where a weight that is stored aside belongs: its flat index in the parameter."""


@dataclass(frozen=True)
class Size:
    """Bits of the compressed weights and of the whole model.

    Attributes:
        weights: how many weights the recipe compresses; all linear weights of the decoder layers if it compresses none.
        bits: what those take in total.
        parameters: how many parameters the model has, tied ones counted once.
        model_bits: what those take; whatever is not compressed is counted at its own dtype.
        parts: the bits of the compressed weights by what they are for (`codes`, `scales`, `minima`, …).
    """

    weights: int
    bits: int
    parameters: int
    model_bits: int
    parts: Mapping[str, int] = field(default_factory=dict)

    @property
    def compressed_bits_per_weight(self) -> float:
        """Over the weights the recipe compresses."""
        return self.bits / self.weights

    @property
    def model_bits_per_weight(self) -> float:
        """Over every parameter of the model."""
        return self.model_bits / self.parameters

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "compressed_bits_per_weight": self.compressed_bits_per_weight,
            "model_bits_per_weight": self.model_bits_per_weight,
            "weights": self.weights,
            "bits": self.bits,
            "parameters": self.parameters,
            "model_bits": self.model_bits,
            "parts": dict(self.parts),
        }


def side_table_bits(scalars: int, *, width: int) -> int:
    """Bits of scalars stored beside a weight, each with its index; `width` is the checkpoint's dtype in bits."""
    return scalars * (width + INDEX_BITS)


def measure(
    model: nn.Module, weights: Iterable[LinearWeight], parts: Iterable[Mapping[str, int]] | None = None, *, width: int
) -> Size:
    """Add up the bits of a model.

    Args:
        model: the model.
        weights: the weights that are compressed.
        parts: for each of `weights`, its bits by what they are for; at `width` if not given.
        width: the checkpoint's dtype in bits; in memory, parameters may be wider for the sake of the arithmetic.
    """
    weights = list(weights)
    total: Counter[str] = Counter()
    own = [{"codes": weight.parameter.numel() * width} for weight in weights]
    for part in own if parts is None else parts:
        total.update(part)
    compressed = {id(weight.parameter) for weight in weights}
    everything = list(model.parameters())
    rest = sum(p.numel() * min(p.element_size() * 8, width) for p in everything if id(p) not in compressed)
    return Size(
        weights=sum(weight.parameter.numel() for weight in weights),
        bits=total.total(),
        parameters=sum(p.numel() for p in everything),
        model_bits=total.total() + rest,
        parts=dict(total),
    )
