"""Which settings of compressed-tensors a module's weights have: by name, by pattern, by class, or ignored."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from superweight.artefact.container import Artefact
from superweight.forward.runner import CannotTell

LEAVES = frozenset(
    {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_global_scale", "weight_g_idx"}
)
"""What compressed-tensors keeps beside or in place of `weight`."""
_NO_LINEAR = ("gpt2", "imagegpt", "openai-gpt", "decision_transformer")  # their layers are Conv1D, which is no Linear
_INFERRED = {None: "tensor", -1: "channel"}


@dataclass(frozen=True)
class Scheme:
    """How the weights of a module are quantised.

    Attributes:
        format: `pack-quantized`, …: of the module's group, else of the file.
        bits: of a code.
        kind: `int` or `float`.
        symmetric: whether there is no zero point.
        strategy: `tensor`, `channel`, `group`, `tensor_group` or `block`: what shares a scale.
        group_size: columns that share one.
        block: rows and columns that share one.
        reordered: whether groups are of columns in the order of `weight_g_idx`.
    """

    format: str
    bits: int
    kind: str
    symmetric: bool
    strategy: str
    group_size: int | None = None
    block: tuple[int, int] | None = None
    reordered: bool = False


def is_compressed_tensors(artefact: Artefact) -> bool:
    """Whether the settings are of compressed-tensors."""
    said = artefact.settings.get("quant_method", "compressed-tensors" if "config_groups" in artefact.settings else "")
    return said in ("compressed-tensors", "compressed_tensors")


def scheme_of(artefact: Artefact, module: str) -> Scheme | CannotTell | None:
    """The settings of a module's weights, as the library's loader finds them; None if they stay as they are."""
    targets = dict(_targets(artefact))
    if any(_names(target, module) or _is_class(artefact, target) for target in _ignored(artefact)):
        return None
    named = [
        target for target in sorted(targets, key=lambda text: (text.startswith("re:"), text)) if _names(target, module)
    ]
    classes = [target for target in sorted(targets) if _is_class(artefact, target)]
    return _scheme(artefact, targets[(named or classes)[0]]) if named or classes else None


def _targets(artefact: Artefact) -> Iterator[tuple[str, Any]]:
    """Every target, and the settings of its group."""
    groups = artefact.settings.get("config_groups")
    for name, group in groups.items() if isinstance(groups, Mapping) else ():
        listed = group.get("targets") if isinstance(group, Mapping) else group
        for target in listed if isinstance(listed, list) else ():
            yield str(target), group if isinstance(group, Mapping) else name


def _ignored(artefact: Artefact) -> list[str]:
    listed = artefact.settings.get("ignore")
    return [str(target) for target in listed] if isinstance(listed, list) else []


def _names(target: str, module: str) -> bool:
    """Whether a target names a module: as it is called, from the first layer on, or by a pattern from its beginning."""
    if not target.startswith("re:"):
        return target == module or ("." in target and module.endswith(f".{target}")) or target.endswith(f".{module}")
    try:
        return re.match(target.removeprefix("re:"), module) is not None
    except re.error:
        return False


def _is_class(artefact: Artefact, target: str) -> bool:
    """Whether a target is the class that down projections have."""
    return target in ("Linear", "LinearBase") and artefact.text_config.get("model_type") not in _NO_LINEAR


def _scheme(artefact: Artefact, group: Any) -> Scheme | CannotTell | None:
    if not isinstance(group, Mapping):
        return CannotTell(f"config.json names the preset {group!r} of compressed-tensors and not what it is")
    weights = group.get("weights")
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        return CannotTell("config.json has a group of compressed-tensors whose weights are no object")
    bits, size, block = weights.get("num_bits", 8), weights.get("group_size"), weights.get("block_structure")
    if type(bits) is not int or not 1 <= bits <= 8:
        return CannotTell(f"config.json says that codes have {bits!r} bits; expected 1 to 8")
    return Scheme(
        format=str(group.get("format") or artefact.settings.get("format") or ""),
        bits=bits,
        kind=str(weights.get("type", "int")),
        symmetric=weights.get("symmetric", True) is True,
        strategy=str(weights.get("strategy") or _INFERRED.get(size, "group")),
        group_size=size if type(size) is int else None,
        block=_block(block),
        reordered=weights.get("actorder") in ("group", "dynamic", True),
    )


def _block(said: Any) -> tuple[int, int] | None:
    """Two whole numbers, as a list or as `128x128`."""
    sides = said.split("x") if isinstance(said, str) else said
    if not isinstance(sides, list) or len(sides) != 2 or not all(str(side).isdecimal() for side in sides):
        return None
    return int(sides[0]), int(sides[1])
