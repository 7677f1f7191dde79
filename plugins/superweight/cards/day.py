"""A calendar day on a card: `2026-11-23`, quoted or as TOML's own date."""

from __future__ import annotations

import re
from datetime import date, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator


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
