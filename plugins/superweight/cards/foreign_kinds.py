"""Kinds that other packages add: an entry point of the group `superweight.kinds` names a module that registers them."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from superweight.errors import CardError

GROUP = "superweight.kinds"


@cache
def load_foreign_kinds() -> None:
    """Import what the entry points name, once a process.

    Raises:
        CardError: a module cannot be imported, or registers what it may not; names the entry point and its package.

    """
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # whatever a module of another package raises
            package = f" of {entry.dist.name} {entry.dist.version}" if entry.dist else ""
            raise CardError(
                f"entry point '{entry.name} = {entry.value}' in group '{GROUP}'{package}: cannot be imported "
                f"({type(error).__name__}: {error}). Mend the package, or uninstall it."
            ) from error
