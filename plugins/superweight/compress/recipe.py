"""What a recipe does: rewrite one matrix at a time, with what it prepared before and what it installs afterwards."""

from __future__ import annotations

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar, Generic, TypeVar

import torch

from superweight.cards.base import Coordinate
from superweight.cards.methods import Method
from superweight.compress.context import Context
from superweight.compress.matrix import Matrix
from superweight.errors import InfraError

M = TypeVar("M", bound=Method)


class Recipe(ABC, Generic[M]):
    """A recipe, made from its card for one application to one model.

    Somebody else owns the loop over matrices, and undoes what is written: `superweight.compress.apply` for a model in
    memory. Matrices may come one at a time from anywhere, so `compress` knows nothing but the matrix and what
    `prepare` has left. Everything runs without gradients.

    Args:
        method: the card's parameters.
    """

    whole: ClassVar[bool] = True
    """Whether matrices are rewritten whole, and are kept whole for undo; else only scalars are, through `Matrix.put`,
    and they alone are kept."""

    def __init__(self, method: M) -> None:
        self.method = method

    def prepare(self, context: Context) -> None:
        """Look at the model before its first matrix is rewritten: calibrate, or choose among all weights.

        Raises:
            InfraError: the recipe does not fit the model (`recipe-mismatch`, `not-applicable`).
        """

    @abstractmethod
    def compress(self, matrix: Matrix) -> Mapping[str, int]:
        """Rewrite one matrix in place, through its `write`, `rewrite` and `put`, which note what they change.

        Returns:
            the bits that the matrix takes from now on, by what they are for: `codes`, `scales`, …
        """

    def install(self, context: Context, stack: ExitStack) -> Sequence[str]:
        """Change how the model multiplies, from the last matrix on until `stack` is closed.

        Returns:
            names of the modules whose activations are changed.
        """
        return ()

    def figures(self, context: Context) -> dict[str, Any]:
        """What was chosen or counted on the way, JSON-ready."""
        return {}

    def stored(self, matrix: Matrix, coordinate: Coordinate) -> torch.Tensor:
        """What the compressed artefact holds for one scalar of a matrix that was rewritten, 0-dim."""
        return matrix.values[coordinate.row, coordinate.column]


def uncompressed(matrix: Matrix) -> dict[str, int]:
    """The bits of a matrix at the checkpoint's dtype."""
    return {"codes": matrix.stored.numel() * matrix.width}


def recipe_of(method: M) -> Recipe[M]:
    """The recipe that a method's kind names.

    Raises:
        InfraError: its implementation cannot be imported, or is no recipe (`recipe-mismatch`).
    """
    found = _implementation(method)
    if not (isinstance(found, type) and issubclass(found, Recipe)):
        raise InfraError(
            f"recipe kind '{method.kind}' is done by {method.implementation}, which is no subclass of "
            "superweight.compress.Recipe. Mend the package that it comes from.",
            reason="recipe-mismatch",
        )
    return found(method)


def foreign_source(method: Method) -> str:
    """sha256 over the Python source of the package that does a kind of recipe; empty of the built-in kinds.

    Raises:
        InfraError: the package cannot be imported (`recipe-mismatch`).
    """
    package = method.implementation.partition(".")[0].partition(":")[0]
    if package == __name__.partition(".")[0]:
        return ""
    _implementation(method)
    return _source_digest(package)


def _implementation(method: Method) -> Any:
    try:
        return resolve_name(method.implementation)
    except (ImportError, AttributeError, ValueError) as error:
        raise InfraError(
            f"recipe kind '{method.kind}' is done by {method.implementation}, which cannot be imported: {error}. "
            "Install or mend the package that it comes from.",
            reason="recipe-mismatch",
        ) from error


@cache
def _source_digest(package: str) -> str:
    spec = sys.modules[package].__spec__
    places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    files = [path for place in places for path in sorted(place.rglob("*.py"))]
    digest = hashlib.sha256()
    for path in files or [Path(str(sys.modules[package].__file__))]:
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()
