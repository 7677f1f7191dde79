"""What a GPTQ, AWQ or auto-round artefact's settings say of one module: bits, groups, symmetry, and exceptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from superweight.artefact.container import Artefact

_BITS, _GROUP = ("bits", "w_bit", "wbits"), ("group_size", "q_group_size")
_DENSE = 16  # bits from which a module is not quantised


@dataclass(frozen=True)
class PackingSettings:
    """Settings of one module.

    Attributes:
        bits: of a code; None if nothing says.
        group_size: columns that share a scale; -1 for all; None if nothing says.
        symmetric: whether zero is in the middle of the codes; None if nothing says.
        ordered: whether columns were quantised, and perhaps grouped, in another order than they are stored in
            (`desc_act`).
        excluded: whether the settings say that the module is not quantised.
    """

    bits: int | None
    group_size: int | None
    symmetric: bool | None
    ordered: bool
    excluded: bool

    @property
    def middle(self) -> int:
        """The zero point of symmetric codes."""
        return 1 << ((self.bits or 1) - 1)


def settings_of(artefact: Artefact, module: str) -> PackingSettings:
    """What the settings say of a module, exceptions of that module included."""
    own = artefact.settings
    exception = _exception(own, module)
    both = {**own, **(exception or {})}
    bits = _whole(both, _BITS)
    return PackingSettings(
        bits=bits,
        group_size=_whole(both, _GROUP),
        symmetric=_symmetric(both),
        ordered=both.get("desc_act") is True,
        excluded=exception is None or (bits or 0) >= _DENSE or _named_dense(own, module),
    )


def stated(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What every loader needs to know, by one name each, whatever a file calls it; None where it says nothing."""
    version = settings.get("version")
    return {
        "quant_method": settings.get("quant_method"),
        "bits": _whole(settings, _BITS),
        "group_size": _whole(settings, _GROUP),
        "sym": _symmetric(settings),
        "desc_act": settings.get("desc_act"),
        "version": version.lower() if isinstance(version, str) else None,
        "packing_format": settings.get("packing_format"),
    }


def _exception(own: Mapping[str, Any], module: str) -> Mapping[str, Any] | None:
    """Settings of the module that differ; None if it is excepted from quantisation.

    auto-round's `extra_config` names modules or searches for a pattern; gptqmodel's `dynamic` has patterns that match
    from the start, `-:` before those of modules that are not quantised. The first that fits counts.
    """
    named = _mapping(own.get("extra_config"))
    if module in named:
        return _mapping(named[module])
    for pattern, changes in named.items():
        if _finds(str(pattern), module):
            return _mapping(changes)
    for pattern, changes in _mapping(own.get("dynamic")).items():
        if _finds(rf"\A(?:{pattern.removeprefix('+:').removeprefix('-:')})", module):
            return None if pattern.startswith("-:") else _mapping(changes)
    return {}


def _named_dense(own: Mapping[str, Any], module: str) -> bool:
    """Whether AWQ's `modules_to_not_convert` names it, or GPTQ's `modules_in_block_to_quantize` leaves it out."""
    kept = [str(name) for name in _sequence(own.get("modules_to_not_convert"))]
    if any(_finds(rf"\A(?:{name})(?:(?<=\.)|(?=\.|$))", module) or module.endswith(name) for name in kept):
        return True
    listed = _sequence(own.get("modules_in_block_to_quantize"))
    inside = [name for part in listed for name in (part if isinstance(part, list) else [part])]
    return bool(inside) and not any(module.endswith(str(name)) for name in inside)


def _finds(pattern: str, module: str) -> bool:
    try:
        return re.search(pattern, module) is not None
    except re.error:
        return False


def _sequence(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list) else ()


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _whole(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    found = next((settings[name] for name in names if settings.get(name) is not None), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _symmetric(settings: Mapping[str, Any]) -> bool | None:
    """GPTQ says `sym`; AWQ says `zero_point`, which is the opposite."""
    said, zero_point = settings.get("sym"), settings.get("zero_point")
    if isinstance(said, bool):
        return said
    return not zero_point if isinstance(zero_point, bool) else None
