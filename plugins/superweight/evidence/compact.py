"""JSON for files that are committed and read as diffs: a key a line, short lines, many numbers on one."""

from __future__ import annotations

import json
import math
from typing import Any

_WIDTH = 118  # characters a line, where the values are short enough


def compact_json(value: Any) -> str:
    """Strict JSON with keys in the order given; whatever fits on a line is on one, a list's scalars fill their lines.

    Infinities and NaN become the strings "inf", "-inf" and "nan".
    """
    return "\n".join(_lines(value, "", "")) + "\n"


def _lines(value: Any, indent: str, label: str, comma: str = "") -> list[str]:
    """The lines of one value, `label` before it and `comma` after it; the outermost dictionary is always opened."""
    flat = f"{indent}{label}{_one_line(value)}{comma}"
    nested = isinstance(value, dict | list | tuple) and len(value) > 0
    if not nested or (len(flat) <= _WIDTH and indent):
        return [flat]
    inner = indent + " "
    if isinstance(value, dict):
        last = len(value) - 1
        body = [
            line
            for place, (key, item) in enumerate(value.items())
            for line in _lines(item, inner, f"{_one_line(str(key))}: ", "," if place < last else "")
        ]
        return [f"{indent}{label}{{", *body, f"{indent}}}{comma}"]
    return [f"{indent}{label}[", *_filled(value, inner), f"{indent}]{comma}"]


def _filled(items: Any, indent: str) -> list[str]:
    if any(isinstance(item, dict | list | tuple) for item in items):
        last = len(items) - 1
        return [
            line for place, item in enumerate(items) for line in _lines(item, indent, "", "," if place < last else "")
        ]
    lines, current = [], indent
    for place, item in enumerate(items):
        word = _one_line(item) + ("," if place < len(items) - 1 else "")
        if current != indent and len(current) + 1 + len(word) > _WIDTH:
            lines.append(current)
            current = indent
        current += word if current == indent else f" {word}"
    return [*lines, current]


def _one_line(value: Any) -> str:
    return json.dumps(without_infinities(value), ensure_ascii=False, allow_nan=False)


def without_infinities(value: Any) -> Any:
    """A document that strict JSON can hold: infinities and NaN become the strings "inf", "-inf" and "nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(key): without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(item) for item in value]
    return value
