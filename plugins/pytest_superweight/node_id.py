"""Node ids of tests of cells: `suites/test_4_perplexity.py::test_perplexity[model/recipe/wiki]`."""

from __future__ import annotations

from typing import NamedTuple

from superweight.ids import CellId


class NodeId(NamedTuple):
    """What pytest's id of a test says.

    Attributes:
        function: file and function, without parameters.
        model: model id; empty if the test is about no cell.
        recipe: recipe id.
        of: corpus or task; empty if the test asks for neither.

    """

    function: str
    model: str
    recipe: str
    of: str

    @classmethod
    def parse(cls, nodeid: str) -> NodeId:
        """The id in pytest's form."""
        function, _, parameters = nodeid.partition("[")
        model, slash, rest = parameters.removesuffix("]").partition("/")
        recipe, _, of = rest.partition("/")
        return cls(function, model if slash else "", recipe, of)

    @property
    def cell(self) -> str:
        """`model/recipe`."""
        return str(CellId(self.model, self.recipe))

    @property
    def name(self) -> str:
        """The function alone."""
        return self.function.rpartition("::")[2]
