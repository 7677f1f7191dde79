"""Open what runs a cell: the runner that the recipe's kind names."""

from __future__ import annotations

from collections.abc import Callable
from pkgutil import resolve_name

from superweight.cards import Cell
from superweight.errors import InfraError
from superweight.forward.runner import Runner
from superweight.measure.reference import Reference

OpenRunner = Callable[[Reference, Cell], Runner]
"""Makes what runs a cell of a model."""


def open_runner(reference: Reference, cell: Cell) -> Runner:
    """What runs the cell.

    Raises:
        InfraError: the runner that the kind names cannot be imported (`recipe-mismatch`), or cannot be opened.
    """
    method = reference.recipe(cell).method if cell.recipe.stand_in is not None else cell.recipe.method
    try:
        make: OpenRunner = resolve_name(method.runner)
    except (ImportError, AttributeError, ValueError) as error:
        raise InfraError(
            f"recipe kind '{method.kind}' is run by {method.runner}, which cannot be imported: {error}. "
            "Install or mend the package that it comes from.",
            reason="recipe-mismatch",
        ) from error
    return make(reference, cell)
