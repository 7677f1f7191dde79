"""What a recipe's own parameters leave to try: the next finer setting of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Parameters = Mapping[str, Any]

_DEPLOYED_GROUP = 128  # elements; the usual group of GPTQ and AWQ checkpoints
_SMALLEST_GROUP = 32  # elements; below that scales and minima cost a bit a weight
_TOKEN = "one massive entry sets the step of every token's activations: try activations = 'token'"
_CHANNEL = "one scale for a whole matrix is coarser than engines use: try weights = 'channel'"


def finer_settings(parameters: Parameters) -> list[str]:
    """What to set otherwise when text or answers got worse.

    Args:
        parameters: the method of a recipe card, as in `cards/recipe.py`.

    Returns:
        sentences, the likeliest first; empty for recipes whose damage is meant.

    """
    of_kind: dict[str, Callable[[Parameters], list[str]]] = {
        "rtn": _rounding,
        "clip-restore": lambda given: _rounding(given) + _clipping(given),
        "w8a8": _int8,
        "smoothquant": _smoothquant,
        "no-op": _no_op,
    }
    suggest = of_kind.get(str(parameters.get("kind")))
    return suggest(parameters) if suggest else []


def settings_that_keep_super_weights(parameters: Parameters) -> list[str]:
    """What to set otherwise when super weights lost their bits; empty for recipes that mean to change them."""
    kind = parameters.get("kind")
    if kind == "rtn":
        return ["try kind = 'clip-restore' at the same bits and granularity: it writes super weights back bit for bit"]
    if kind == "w8a8" and not parameters.get("keep_super_weights"):
        return ["set keep_super_weights = true, which stores them exactly beside the INT8 weight"]
    if kind == "smoothquant":
        return [
            "smoothquant stores nothing aside: try kind = 'w8a8' with super_activations = 'handled' and "
            "keep_super_weights = true"
        ]
    if kind in ("clip-restore", "w8a8"):
        return [
            "this recipe stores super weights exactly, so one that is lost was not known to it or was changed "
            "afterwards: compare the list with the model card and with detection"
        ]
    return []


def _rounding(given: Parameters) -> list[str]:
    bits = given.get("bits")
    few = isinstance(bits, int) and bits < 8
    found = _blocks(given, few=few) + ([f"{bits} bits may be too few for this model: try bits = 8"] if few else [])
    return found or [
        "8 bits a weight at this granularity seldom cost so much: look at what the sanity gate says and at what the "
        "baseline is"
    ]


def _blocks(given: Parameters, *, few: bool) -> list[str]:
    """What shares a scale, made smaller; of 8 bits in a row or less of one, nothing is gained by that."""
    granularity, size = given.get("granularity"), given.get("group_size") or given.get("block_size")
    group = f"try granularity = 'group' with group_size = {_DEPLOYED_GROUP}"
    if granularity == "tensor":
        return ["one scale for a whole matrix is the coarsest there is: " + group]
    if isinstance(size, int) and size > _DEPLOYED_GROUP:
        return [f"{size} elements to a scale are more than in deployed formats: {group}"]
    if not few:
        return []
    if granularity == "channel":
        return [f"one scale a row is coarse for {given['bits']} bits: {group}"]
    if isinstance(size, int) and size > _SMALLEST_GROUP:
        return [
            f"try fewer elements to a scale than {size}, such as {granularity}_size = {max(size // 2, _SMALLEST_GROUP)}"
        ]
    return []


def _clipping(given: Parameters) -> list[str]:
    z, coarse = given.get("z"), given.get("granularity") in ("tensor", "block")
    if z == "search":
        advised = "z = 'search' weighs squared error, and in large blocks it cuts outliers that the model needs: "
        return [advised + "give z, 9 or more"] if coarse else []
    if not isinstance(z, int | float) or math.isinf(z):
        return []
    return [f"z = {z:g} may clip too much: try a larger one" + ("" if coarse else ", or z = 'search'")]


def _int8(given: Parameters) -> list[str]:
    found = []
    if given.get("activations") == "tensor":
        found.append(_TOKEN)
    if given.get("super_activations") == "naive":
        found.append("massive activations are rounded with the rest: try super_activations = 'handled'")
    if given.get("weights") == "tensor":
        found.append(_CHANNEL)
    if given.get("attention_matmuls"):
        found.append("attention is rounded too, which few engines do: try attention_matmuls = false")
    return found or [
        "scales are per channel and per token and massive entries are handled, so what is left is the rounding of "
        "ordinary activations: try weights alone, kind = 'clip-restore' with bits = 8"
    ]


def _smoothquant(given: Parameters) -> list[str]:
    return [
        *([_TOKEN] if given.get("activations") == "tensor" else []),
        *([_CHANNEL] if given.get("weights") == "tensor" else []),
        "the input of the down projection is not smoothed, and super weights meet their large inputs there: try "
        "kind = 'w8a8' with super_activations = 'handled'",
    ]


def _no_op(_: Parameters) -> list[str]:
    return ["nothing was compressed, so this is the harness or the machine and not the model: run it again"]
