"""Read TOML, and refuse invisible characters and numbers beyond all counting before a card is made."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from superweight.errors import CardError
from superweight.plain_files import read_plain
from superweight.plain_text import unseen

_LARGEST = 2**31 - 1  # of layers, channels, tokens, windows and items there are fewer
_LONG_TEXTS = ("note", "why", "source", "join", "columns")  # keys under which a text may have several lines
_SHOWN = 80  # characters of a value in a message


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read one TOML file, UTF-8.

    Args:
        path: the file.
        what: kind of the card, for messages.

    Raises:
        CardError: the file cannot be read, is no TOML, or holds what nobody means: characters that cannot be seen,
            several lines where one belongs, whole numbers beyond 2³¹ − 1.
    """
    try:
        content = read_plain(path)
    except OSError as error:
        raise CardError(f"{path}: cannot be read ({error.strerror or error}). Expected a {what} in TOML.") from error
    try:
        raw = tomllib.loads(content.decode("utf-8-sig"))
    except ValueError as error:  # of TOML, of UTF-8, or of a number with thousands of digits
        raise CardError(f"{path}: is not valid TOML: {str(error)[:300]}") from error
    except RecursionError as error:
        raise CardError(f"{path}: is not valid TOML: tables or lists inside one another without end") from error
    if problems := list(_problems(raw, ())):
        raise CardError("\n".join([f"{path}: not a valid {what}", *problems]))
    return raw


def _problems(value: Any, keys: tuple[str, ...]) -> Iterator[str]:
    """One line for everything that nobody means."""
    where = ".".join(keys)[:_SHOWN]
    if isinstance(value, dict):
        for key, each in value.items():
            if hidden := unseen(key) or ("a line end" if "\n" in key else ""):
                yield f"  {(*keys, key)!r:.{_SHOWN}}: the key holds {hidden}; write it without"
            yield from _problems(each, (*keys, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _problems(each, (*keys, str(place)))
    elif isinstance(value, str):
        if hidden := unseen(value):
            yield f"  {where}: holds {hidden}, which a reader cannot see (found: {value!r:.{_SHOWN}}); write it without"
        elif "\n" in value and not set(keys[-2:]) & set(_LONG_TEXTS):
            yield f"  {where}: expected one line (found: {value!r:.{_SHOWN}})"
    elif isinstance(value, int) and abs(value) > _LARGEST:
        yield (
            f"  {where}: expected at most {_LARGEST} (found: {value:.3e})"
            if abs(value) < 10**300
            else (f"  {where}: expected at most {_LARGEST}, found far more")
        )
