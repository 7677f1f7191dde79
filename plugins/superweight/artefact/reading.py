"""Open an artefact of any format and ask it for single scalars, by coordinate."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from superweight.artefact.container import Artefact
from superweight.artefact.formats import Decoded, Place, format_of
from superweight.artefact.names import DownProjections
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
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


class SafetensorsReader:
    """Reads a directory of safetensors: dense, or in any format of `artefact.formats`, module by module."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.artefact = Artefact(path)

    @property
    def about(self) -> str:
        """The formats of its down projections."""
        found: dict[str, int] = {}
        for module in self._down.modules.values():
            storing = format_of(self.artefact, module.name)
            name = "an unknown format" if storing is None else storing.describe(self.artefact, module.name)
            found[name] = found.get(name, 0) + 1
        return "; ".join(sorted(found, key=lambda name: -found[name])) or "no down projections"

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return self.artefact.bytes

    @property
    def read(self) -> int:
        """Bytes of tensors."""
        return self.artefact.read

    def scalar(self, where: Coordinate) -> Held | CannotTell:
        """As `Reader.scalar`."""
        module = self._down.of(where.layer, where.expert)
        if module is None:
            return CannotTell(
                f"no tensor of {self.path.name} is named like the down projection of layer {where.layer}"
                + ("" if where.expert is None else f", expert {where.expert}")
            )
        storing = format_of(self.artefact, module.name)
        if storing is None:
            return CannotTell(f"{module.name} is stored in no format that is known here: {self._leaves(module.name)}")
        place = Place(module.name, where.row, where.column, where.expert if module.stacked else None)
        found = storing.scalar(self.artefact, place)
        if isinstance(found, CannotTell):
            return found
        return Held(module.name, storing.describe(self.artefact, module.name), found)

    @cached_property
    def _down(self) -> DownProjections:
        return DownProjections.among(self.artefact.tensors)

    def _leaves(self, module: str) -> str:
        tensors = self.artefact.tensors
        names = [name for name in tensors if name.startswith(f"{module}.")]
        return ", ".join(f"{name.removeprefix(f'{module}.')} {tensors[name].dtype}" for name in names)


def open_reader(path: str | Path) -> Reader:
    """Open what lies at a path, by what it is.

    Raises:
        InfraError: there is nothing (`not-found`), or nothing that is known here (`unsupported`); as
            `checkpoint.shards.read_tensors` of a directory of safetensors.
    """
    place = Path(path).expanduser()
    if not place.exists():
        raise InfraError(f"{place} does not exist. Correct the path.", reason="not-found")
    if place.is_dir():
        reader = SafetensorsReader(place)
        _ = reader.artefact.tensors
        return reader
    raise InfraError(
        f"{place} is a file of a kind that is not known here; expected a directory with safetensors.",
        reason="unsupported",
    )
