"""The key of a measurement: a hash of everything that its figures depend on."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def content_key(**parts: Any) -> str:
    """A sha256 over canonical JSON: the same parts give the same key, in any order of keys.

    Args:
        parts: JSON-able values: checkpoint content hash, recipe, corpus and task content, protocol, versions of the
            libraries that change numbers, dtype, device class.

    """
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
