"""Settings in config.json that are spelt so that transformers passes over them and takes its default instead."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from superweight.checkpoint.files import Checkpoint
from superweight.errors import InfraError

_ALIKE = 0.89  # difflib's ratio: another letter in a word of ten is 0.9
_OF_OLD = ("rope_theta", "rope_scaling", "rope_type", "torch_dtype", "dtype", "partial_rotary_factor")
"""Read by transformers, though no configuration lists them any more."""


def check_spelling(config: Any, checkpoint: Checkpoint) -> None:
    """Refuse a setting that differs by a slip of the pen from one that the configuration knows and the file lacks.

    Args:
        config: transformers' configuration, as it was loaded.
        checkpoint: its files.

    Raises:
        InfraError: `corrupt`; names the setting and the one that was meant.
    """
    for given, meant in _slips(config, checkpoint.config):
        raise InfraError(
            f"{checkpoint.directory / 'config.json'} has the setting {given!r}, which {type(config).__name__} does not "
            f"know, and lacks {meant!r}, whose default would be used. Correct its name, or remove it.",
            reason="corrupt",
        )


def _slips(config: Any, raw: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    known = _known(config)
    lacking = {_plain(name): name for name in known if name not in raw}
    for given in raw:
        if given in known:
            continue
        for alike in difflib.get_close_matches(_plain(given), lacking, n=1, cutoff=_ALIKE):
            yield given, lacking[alike]
    for name, inner in raw.items():
        part = getattr(config, name, None)
        if isinstance(inner, Mapping) and hasattr(part, "to_dict"):
            yield from _slips(part, inner)


def _known(config: Any) -> set[str]:
    try:
        named = set(type(config)().to_dict())
    except Exception:  # a configuration that needs arguments
        return set()
    return {*named, *getattr(type(config), "attribute_map", {}), *_OF_OLD, "architectures", "model_type"}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
