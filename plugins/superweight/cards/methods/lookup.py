"""Find the kind of a method: among the built-in kinds, those of installed packages, and those imported by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import PlainValidator, SerializeAsAny, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from superweight.cards.foreign_kinds import load_foreign_kinds
from superweight.cards.methods import (  # noqa: F401 - their kinds are known once imported
    artefact,
    deployable,
    experiments,
    int8,
    quantiser,
    rounding,
)
from superweight.cards.methods.base import KINDS, Method
from superweight.errors import CardError

_INFINITIES = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}  # as JSON has them


def kind_named(name: object) -> type[Method] | None:
    """The kind that a card calls by this name; None if no package at hand declares it.

    Raises:
        CardError: as `load_foreign_kinds`.
    """
    if not isinstance(name, str):
        return None
    if name not in KINDS:
        load_foreign_kinds()
    return KINDS.get(name)


def method_of(parameters: Mapping[str, Any]) -> Method | None:
    """The method that these parameters were written from; None if no package at hand has a kind that reads them.

    Args:
        parameters: as `Method.model_dump`, in Python or read back from JSON.
    """
    try:
        kind = kind_named(parameters.get("kind"))
        return kind.model_validate(dict(_with_infinities(parameters))) if kind else None
    except (CardError, ValidationError):
        return None


def _with_infinities(parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in parameters.items():
        yield name, _INFINITIES.get(value, value) if isinstance(value, str) else value


def _validated(given: Any) -> Method:
    """Validate the table of a card by the kind that it names.

    Raises:
        ValidationError: it is no table, or does not name a kind that is known.
    """
    if isinstance(given, Method):
        return given
    if not isinstance(given, dict):
        raise PydanticCustomError("method", "Input should be a table with a 'kind' and its parameters")
    kind = kind_named(given.get("kind"))
    return kind.model_validate(given) if kind else _without_kind(given)


def _without_kind(given: dict[Any, Any]) -> Method:
    known = ", ".join(f"'{name}'" for name in KINDS)
    what = PydanticCustomError("kind", f"Input should be {known}") if "kind" in given else "missing"
    problem = InitErrorDetails(type=what, loc=("kind",), input=given.get("kind", given))
    raise ValidationError.from_exception_data("Method", [problem])


AnyMethod = Annotated[SerializeAsAny[Method], PlainValidator(_validated)]
"""A method of any kind that is known, as the field of a card."""
