"""Quantisers whose checkpoints transformers loads: the packages that they need, and what they do to activations."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, NamedTuple

from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError

Activations = Literal["as they are", "rounded", "not rounded though the file asks for it", "not known"]
"""What becomes of activations while an artefact runs."""

QUANTO_MAP = "quanto_qmap.json"

_PACKAGES: dict[str, tuple[str, ...]] = {
    "compressed-tensors": ("compressed-tensors",),
    "bitsandbytes": ("bitsandbytes",),
    "torchao": ("torchao",),
    "auto-round": ("auto-round",),
    "intel/auto-round": ("auto-round",),
    "quanto": ("optimum-quanto",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
}
"""What a checkpoint of each needs installed."""

_ELSEWHERE = {"gptqmodel": "gptq"}
"""Packages that cannot live beside the gate's own versions, and the environment that has them."""

DECODED = {"compressed-tensors": "CompressedTensorsConfig", "fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config"}
"""Quantisers whose weights transformers decodes while it loads, if its configuration of this name says so."""


_WAY = ("num_bits", "type", "symmetric", "strategy", "group_size", "block_structure")


class Settings(NamedTuple):
    """What a directory says of its quantiser.

    Attributes:
        method: `compressed-tensors`, `gptq`, …; empty if it names none.
        values: its settings.
    """

    method: str
    values: Mapping[str, Any]


def settings_of(directory: Path) -> Settings:
    """The quantiser that config.json names, or quanto's map of modules.

    Raises:
        InfraError: config.json is missing (`not-found`) or no JSON, or the settings are no object (`corrupt`).
    """
    path = directory / "config.json"
    if not path.is_file():
        raise InfraError(
            f"{directory} holds no config.json, without which its weights cannot be understood. Copy the model's "
            "config.json there, with the quantiser's settings in it.",
            reason="not-found",
        )
    if (directory / QUANTO_MAP).is_file():
        return Settings("quanto", read_json(directory / QUANTO_MAP))
    config = read_json(path)
    inner = (one for name, one in config.items() if name.endswith("_config") and isinstance(one, dict))
    for place in (config, *inner):
        for key in ("quantization_config", "compression_config"):
            if (found := place.get(key)) is not None:
                return _settings(path, key, found)
    return Settings("", {})


def _settings(path: Path, key: str, found: object) -> Settings:
    if not isinstance(found, dict) or not found:
        raise InfraError(f"{path}: {key} should be an object with a quant_method, found {found!r}", reason="corrupt")
    method = found.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in found else "")
    if not method:
        raise InfraError(f"{path}: {key} names no quant_method, so nobody can tell how to read it", reason="corrupt")
    return Settings(str(method), found)


def check_packages(method: str) -> None:
    """Refuse what needs a package that is not installed.

    Raises:
        InfraError: `missing-package`, with how to get it.
    """
    for package in _PACKAGES.get(method, ()):
        if _version(package):
            continue
        elsewhere = _ELSEWHERE.get(package)
        way = (
            f"It cannot live beside the versions that the gate needs: `superweight env make {elsewhere}` makes an "
            "environment that has both; run the gate there."
            if elsewhere
            else "Install the quantisers: pip install 'pytest-superweight[quantisers]'."
        )
        raise InfraError(
            f"a {method} checkpoint needs the Python package {package}, which is not installed. {way}",
            reason="missing-package",
        )


def library_versions(method: str, more: Iterable[str] = ()) -> dict[str, str]:
    """Versions of the packages that run a quantiser's checkpoints, those that are installed."""
    named = [*_PACKAGES.get(method, ()), *more]
    return {name: found for name in named if (found := _version(name))}


def rounds_activations(settings: Settings) -> bool | None:
    """Whether a checkpoint asks for activations to be rounded; None if that is not known of its quantiser."""
    values = settings.values
    match settings.method:
        case "":
            return False
        case "compressed-tensors":
            groups = values.get("config_groups") or {}
            schemes = [group for group in groups.values() if isinstance(group, dict)]
            if len(schemes) != len(groups):
                return None
            return any(scheme.get("input_activations") or scheme.get("output_activations") for scheme in schemes)
        case "bitsandbytes":
            return bool(values.get("load_in_8bit"))
        case "torchao":
            return "activation" in json.dumps(values.get("quant_type")).lower()
        case "quanto":
            return any(one.get("activations", "none") != "none" for one in values.values() if isinstance(one, dict))
        case "gptq" | "awq":
            return False
        case "auto-round" | "intel/auto-round":
            bits = values.get("act_bits", 16)
            return None if not isinstance(bits, int) else bits < 16
        case "fp8" | "fbgemm_fp8" | "bitnet":
            return True
    return None


def weights_differ(values: Mapping[str, Any]) -> bool:
    """Whether settings of compressed-tensors have groups whose weights are stored in different ways.

    Where weights are decoded while they are loaded, transformers reads every dense module by the first group's way, and
    says nothing: codes of 8 bits are read as such of 4.

    Args:
        values: the settings.
    """
    groups = values.get("config_groups")
    listed = list(groups.values()) if isinstance(groups, Mapping) else []
    weights = [group.get("weights") for group in listed if isinstance(group, Mapping)]
    formats = [group.get("format") or values.get("format") for group in listed if isinstance(group, Mapping)]
    ways = [[one.get(key) for key in _WAY] for one in weights if isinstance(one, Mapping)]
    return any(way != ways[0] for way in ways) or (bool(ways) and any(one != formats[0] for one in formats))


def scale_spans_tokens(settings: Settings) -> bool:
    """Whether tokens that are computed together may share a scale of their activations, so that they change each other.

    Only what is known to give each token a scale of its own, or one that was fixed before, is told apart.
    """
    values = settings.values
    match settings.method:
        case "compressed-tensors":
            schemes = [one for one in (values.get("config_groups") or {}).values() if isinstance(one, dict)]
            inputs = [scheme.get("input_activations") for scheme in schemes]
            return any(one and one.get("dynamic") and one.get("strategy") != "token" for one in inputs)
        case "torchao":
            return "PerTensor" in json.dumps(values.get("quant_type"))
        case "quanto":
            return False  # calibrated, and kept in the file
    return rounds_activations(settings) is not False


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
