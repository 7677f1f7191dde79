"""Show text so that nothing in it is invisible: controls, direction marks and lone surrogates are escaped."""

from __future__ import annotations

import unicodedata

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that make what follows read backwards."""

_HARMLESS = "\n\t"
_LONGEST = 500  # characters of another library's error
_INVISIBLE = frozenset("\u061c\u200b\u200e\u200f\u2060\ufeff")  # of category Cf, where a joiner is part of a script


def visible(text: str) -> str:
    r"""A text with every character that cannot be seen escaped, as in `\x1b`; line ends and tabs stay."""
    return "".join(one if one in _HARMLESS or one.isprintable() else _escaped(one) for one in text)


def one_line(text: str) -> str:
    """The same as one line, tabs escaped too: it moves no cursor and turns no text."""
    return visible(" ".join(part.strip() for part in text.splitlines())).replace("\t", "\\t")


def briefly(error: BaseException) -> str:
    """What another library's error is and says, in one line that has an end."""
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"


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
    return character in _INVISIBLE or character in TURNING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
