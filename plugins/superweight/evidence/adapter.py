"""What an adapter that brings super weights back says of itself, in the file superweight.json beside it."""

from __future__ import annotations

from pydantic import Field

from superweight.cards.base import Coordinate
from superweight.evidence.measured import Record


class AdapterBase(Record):
    """The artefact that an adapter was made for."""

    sha256: str = Field(description="of its weights and settings, as a checkpoint's content_hash; of a file, its own")
    path_name: str = Field(description="last part of its path")
    path: str = Field(default="", description="where it lay; not written, as it says nothing elsewhere")
    format: str = Field(default="", description="what holds its weights, in words")
    dtype: str = Field(default="", description="in which its config.json asks to be loaded")


class RestoredWeight(Coordinate):
    """A super weight of the uncompressed model, and what brings it back."""

    status: str = Field(default="", description="causal, spoke, listed, …, where the list says so")
    module: str = Field(description="as the loaded model names it")
    original: float
    original_bits: str = Field(description="hexadecimal, in `original_dtype`")
    original_dtype: str
    base: float = Field(description="what the artefact yields without the adapter")
    base_dtype: str = Field(description="in which the artefact's format decodes it")
    correction: float = Field(description="what is added to it, a float32 number; 0 if nothing need be")
    parts: list[float] = Field(description="the same as bfloat16 numbers, one for each of the terms that share it")


class Exactness(Record):
    """Whether the super weights come back exactly, one way of loading and adding."""

    base: str = Field(description="dtype in which the base is loaded")
    adapter: str = Field(description="dtype in which the adapter is kept")
    required: bool = Field(description="whether the adapter would not have been written otherwise")
    exact: int = Field(description="super weights that are the original's, rounded to the base's dtype")
    of: int = Field(description="super weights")
    worst: float = Field(description="largest relative difference from that")

    @property
    def whole(self) -> bool:
        """Whether all of them are."""
        return self.exact == self.of


class RestoringAdapter(Record):
    """One adapter."""

    made_by: str = Field(description="program and version")
    base: AdapterBase
    reference: str = Field(description="last part of the uncompressed model's path")
    named_by: str = Field(default="", description="who named the super weights: card, detection, a file")
    rank: int = Field(description="of every module's A and B; alpha is the same, so that nothing is scaled")
    modules: list[str] = Field(description="that have terms")
    super_weights: list[RestoredWeight]
    exactness: list[Exactness]
    bytes: int = Field(default=0, description="of its weights' file")
