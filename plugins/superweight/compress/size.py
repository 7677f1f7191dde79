"""How many bits a compressed model takes, scales and side tables included."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from superweight.checkpoint.architecture import LinearWeight
from superweight.evidence.measured import Size

SCALE_BITS = 16
"""A scale, a minimum and a smoothing factor take 16 bits each, as deployed formats store them. The arithmetic here
keeps them in float32, as the paper's code does."""

INDEX_BITS = 32
"""Where a weight that is stored aside belongs: its flat index in the parameter."""


def side_table_bits(scalars: int, *, width: int) -> int:
    """Bits of scalars stored beside a weight, each with its index; `width` is the checkpoint's dtype in bits."""
    return scalars * (width + INDEX_BITS)


def measure(model: nn.Module, weights: Iterable[LinearWeight], bits: Mapping[str, int], *, width: int) -> Size:
    """Add up the bits of a model.

    Args:
        model: the model.
        weights: the weights that are compressed; all linear weights of the decoder layers if none is.
        bits: what those take in total, by what they are for (`codes`, `scales`, `minima`, …).
        width: the checkpoint's dtype in bits; in memory, parameters may be wider for the sake of the arithmetic.

    Returns:
        both averages and, beside them, what they are made of: `weights` and their `bits`, `parameters`, tied ones
        counted once, and their `model_bits`, whatever is not compressed at its own dtype, and `parts`, the given bits.
    """
    compressed = {id(weight.parameter): weight.parameter.numel() for weight in weights}
    everything = list(model.parameters())
    rest = sum(p.numel() * min(p.element_size() * 8, width) for p in everything if id(p) not in compressed)
    counted, taken = sum(compressed.values()), sum(bits.values())
    parameters = sum(p.numel() for p in everything)
    return Size.model_validate(
        {
            "compressed_bits_per_weight": taken / counted,
            "model_bits_per_weight": (taken + rest) / parameters,
            "weights": counted,
            "bits": taken,
            "parameters": parameters,
            "model_bits": taken + rest,
            "parts": dict(bits),
        }
    )
