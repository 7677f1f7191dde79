"""What a reader is: it looks single scalars up in what lies on disk, and says what holds them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

from superweight.artefact.formats import Decoded
from superweight.cards.base import Coordinate
from superweight.forward.runner import CannotTell


class Held(NamedTuple):
    """A scalar, what holds it, and in which format."""

    tensor: str
    stored_as: str
    decoded: Decoded


class Reader(Protocol):
    """Looks single scalars up in a file or directory of one container format."""

    path: Path

    @property
    def about(self) -> str:
        """What holds the weights, in words."""

    @property
    def bytes(self) -> int:
        """Size on disk of all files."""

    @property
    def read(self) -> int:
        """Bytes of tensors that were looked at so far."""

    def scalar(self, where: Coordinate) -> Held | CannotTell:
        """One scalar of a down projection; says why, where that cannot be told.

        Raises:
            InfraError: the file does not hold what its header or its settings say.
        """
