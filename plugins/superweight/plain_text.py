"""What people can see of a text, and what only a machine does: controls, marks that turn a line, lone surrogates."""

from __future__ import annotations

import unicodedata

_HARMLESS = "\n\t"
_TURNING = frozenset("\u061c\u200b\u200e\u200f\u2060\ufeff")  # of category Cf, where a joiner is part of a script


def visible(text: str) -> str:
    r"""A text with every character that cannot be seen escaped, as in `\x1b`; line ends and tabs stay."""
    return "".join(one if one in _HARMLESS or one.isprintable() else _escaped(one) for one in text)


def unseen(text: str) -> str:
    """The first character of a text that no person writes on purpose, described; empty if there is none.

    These are control characters other than line end and tab, marks that change the direction of a line, separators
    of lines that are no line ends, spaces without width, and halves of surrogate pairs.
    """
    if text.isprintable():
        return ""
    found = next((one for one in text if one not in _HARMLESS and _is_unseen(one)), None)
    return "" if found is None else f"U+{ord(found):04X} {unicodedata.name(found, 'a control character')}"


def _is_unseen(character: str) -> bool:
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return True
    return character in _TURNING or "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
