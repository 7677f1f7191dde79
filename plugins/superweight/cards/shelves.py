"""Which files of a directory are cards, so that none is passed over because of its name or place."""

from __future__ import annotations

import os
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from superweight.errors import CardError
from superweight.plain_text import unseen

_SUFFIX = ".toml"
_ALMOST = 0.75  # how alike two folder names are that are taken for each other, of 1


def check_directory(directory: Path, shelves: Collection[str]) -> None:
    """Refuse a directory of cards in which cards lie where nobody looks for them.

    Raises:
        CardError: there is no such directory, it holds none of the folders, or one whose name is almost that of one.
    """
    if not directory.is_dir():
        raise CardError(f"{directory}: no such directory of cards (superweight_cards)")
    names = _listed(directory)
    for name in names:
        meant = get_close_matches(name.lower(), shelves, n=1, cutoff=_ALMOST)
        if name not in shelves and meant and any(map(_is_card, _inside(directory / name))):
            raise CardError(
                f"{directory / name}: cards in it are not read; expected a folder called '{meant[0]}'. Rename it, or "
                "move them there."
            )
    if not set(names) & set(shelves):
        raise CardError(
            f"{directory}: holds no cards (superweight_cards). Expected one of the folders {', '.join(shelves)}"
        )


def cards_in(folder: Path) -> list[Path]:
    """The cards of one kind, by name; none if there is no such folder.

    Raises:
        CardError: the folder cannot be read, or holds a card that would be passed over.
    """
    if not os.path.lexists(folder):
        return []
    paths = [folder / name for name in _listed(folder)]
    for path in paths:
        if hidden := unseen(path.name):
            raise CardError(f"{path}: its name holds {hidden}, which a reader cannot see. Rename it.")
        if path.name.lower().endswith(f"{_SUFFIX}.txt"):
            raise CardError(f"{path}: is not read as a card; expected a name that ends in '{_SUFFIX}'. Rename it.")
        if not _is_card(path.name) and any(map(_is_card, _inside(path))):
            raise CardError(f"{path}: cards in it are not read; move them into {folder}.")
    return [path for path in paths if _is_card(path.name)]


def _is_card(name: str) -> bool:
    return name.lower().endswith(_SUFFIX)


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise CardError(f"{folder}: cannot be read ({error.strerror or error}). Expected a folder of cards.") from error


def _inside(path: Path) -> list[str]:
    """Names in a directory; none in a file."""
    return _listed(path) if path.is_dir() else []
