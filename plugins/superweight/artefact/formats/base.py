"""What a format is: how one scalar of a matrix is read from an artefact's tensors."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from superweight.artefact.container import Artefact
from superweight.forward.runner import CannotTell


class Decoded(NamedTuple):
    """One scalar as the artefact yields it.

    Attributes:
        value: as the format's own arithmetic decodes it, exactly.
        dtype: of that arithmetic, torch's name: `bfloat16`.
        step: distance to the nearest other value that the format can hold there.
        code: what is stored, in words; empty for plain numbers.
    """

    value: float
    dtype: str
    step: float
    code: str = ""


class Place(NamedTuple):
    """Where a scalar is looked for, Hugging Face orientation.

    Attributes:
        module: `model.layers.2.mlp.down_proj`.
        row: output channel.
        column: input channel.
        expert: index along the first dimension, where the experts of a layer lie in one tensor; else None.
    """

    module: str
    row: int
    column: int
    expert: int | None = None


class Format(Protocol):
    """Reads matrices that are stored in one way. One instance serves every artefact; all it knows is given."""

    def holds(self, artefact: Artefact, module: str) -> bool:
        """Whether the module's matrix is stored in this way: by the names and dtypes of its tensors."""

    def describe(self, artefact: Artefact, module: str) -> str:
        """In words: `GPTQ v1, 4 bits, groups of 64`."""

    def scalar(self, artefact: Artefact, place: Place) -> Decoded | CannotTell:
        """What the artefact yields for one scalar; reads only the bytes that it needs.

        Raises:
            InfraError: a tensor of the module is missing, or does not have the shape that the format asks for.
        """
