"""What cards share: frozen models that refuse unknown keys, ids, days, and the coordinate of a super weight."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

Identifier = Annotated[
    str,
    Field(pattern=r"^[a-z0-9][a-z0-9.\-_]*$", max_length=80, description="lower-case letters, digits, '.', '-', '_'"),
]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 lower-case hexadecimal digits")]
Status = Literal["causal", "spoke", "inert", "listed", "corrected"]


class Strict(BaseModel):
    """A frozen model that refuses keys it does not know, does not coerce types, and takes finite numbers only."""

    # Built when first used: parts of a card are built into the card's own validator, and most never alone.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class Coordinate(Strict):
    """A scalar of a down projection, Hugging Face orientation: row = output channel, column = input channel."""

    layer: int = Field(ge=0, description="index of the decoder layer")
    expert: int | None = Field(default=None, ge=0, description="index of the expert in a mixture-of-experts layer")
    row: int = Field(ge=0, description="output channel")
    column: int = Field(ge=0, description="input channel")

    @property
    def key(self) -> tuple[int, int, int, int]:
        """`(layer, expert or -1, row, column)`: sortable, equal exactly for the same scalar."""
        return (self.layer, -1 if self.expert is None else self.expert, self.row, self.column)

    @property
    def coordinate(self) -> Coordinate:
        """The bare coordinate, of what is more than one."""
        return Coordinate(layer=self.layer, expert=self.expert, row=self.row, column=self.column)

    def __str__(self) -> str:
        where = f"layer {self.layer}" if self.expert is None else f"layer {self.layer} expert {self.expert}"
        return f"{where} [{self.row}, {self.column}]"


class KnownSuperWeight(Coordinate):
    """A super weight as published or measured, with its standing."""

    value: float | None = Field(default=None, description="the published value, to the digits it was printed with")
    status: Status
    source: str = Field(min_length=1, description="who says so: paper, code, replication or measurement")


def slug(text: str) -> str:
    """Turn a hub id or a path into a card identifier: `mistralai/Mistral-7B` → `mistralai-mistral-7b`."""
    return re.sub(r"[^a-z0-9._]+", "-", text.lower()).strip("-._")[:80] or "model"


def _from_toml(value: Any) -> Any:
    """TOML has dates of its own; a time of day is left as it is, and refused as no string."""
    return value.isoformat() if isinstance(value, date) and not isinstance(value, datetime) else value


def _on_the_calendar(text: str) -> str:
    """The text itself, if it names a day.

    Raises:
        ValueError: it has another form than YYYY-MM-DD, or the calendar has no such day.

    """
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):  # fromisoformat takes week dates and missing dashes too
        raise ValueError("expected a day as YYYY-MM-DD")
    try:
        date.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"there is no such day: {error}") from error
    return text


Day = Annotated[str, BeforeValidator(_from_toml), AfterValidator(_on_the_calendar)]
"""`YYYY-MM-DD`, a day that exists; kept as text, which sorts as days do."""
