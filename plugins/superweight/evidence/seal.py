"""A document that tells whether it is as it was written: it holds a digest of everything else in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from superweight.evidence.compact import without_infinities

DIGEST = "digest"  # the key

Seal = Literal["intact", "broken", "none"]


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A document as strict JSON can hold it, with its digest at the end."""
    rest = {key: value for key, value in without_infinities(dict(document)).items() if key != DIGEST}
    return rest | {DIGEST: _digest(rest)}


def seal_of(text: str, *, since: str) -> Seal:
    """Whether a document says the same as when it was sealed; how it is laid out does not matter.

    Args:
        text: JSON, with its `schema_version`.
        since: the first version of such documents that is sealed; one of that version has lost a digest if it has none.

    Returns:
        `none` if it was never sealed: an earlier version wrote it.

    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return "broken"
    if not isinstance(raw, dict) or not raw.get(DIGEST):
        return "none" if isinstance(raw, dict) and _version(raw.get("schema_version")) < _version(since) else "broken"
    return "intact" if raw[DIGEST] == _digest({key: raw[key] for key in raw if key != DIGEST}) else "broken"


def _version(text: object) -> tuple[int, ...]:
    """A version to compare; of what is none, one that no version is before."""
    parts = text.split(".") if isinstance(text, str) else []
    return tuple(map(int, parts)) if parts and all(part.isdecimal() for part in parts) else (10**9,)


def _digest(rest: Mapping[str, Any]) -> str:
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()
