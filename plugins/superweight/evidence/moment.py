"""Times as documents hold them: ISO 8601."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator


def moment(text: str) -> datetime:
    """A time in ISO 8601, in UTC; one without a zone is taken to be in UTC.

    Raises:
        ValueError: it is none.

    """
    found = datetime.fromisoformat(text)
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"Invalid isoformat string: {text!r}") from error


def _checked(text: str) -> str:
    moment(text)
    return text


Moment = Annotated[str, AfterValidator(_checked)]
"""A field that holds a time, and is refused where it holds anything else."""
