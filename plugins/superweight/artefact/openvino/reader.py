"""Looks super weights up in an OpenVINO IR: the constants behind the MatMul of a down projection, for one element."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from superweight.artefact.container import Artefact
from superweight.artefact.formats import Decoded
from superweight.artefact.formats.base import on_grid
from superweight.artefact.held import Held
from superweight.artefact.names import DownProjections
from superweight.artefact.numbers import gaps
from superweight.artefact.openvino.elements import PLAIN, possible
from superweight.artefact.openvino.expression import Expression, Leaf, Sum, follow, leaves, main_leaf, value_of
from superweight.artefact.openvino.graph import BITS, Graph, Operation, read_graph
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell

_NAME = "openvino_model.xml"
_ALTERING = {
    "awq": "NNCF moved scales between this matrix and the one before (AWQ), so no weight is as it was",
    "lora_correction": "NNCF put adapters beside this matrix, which are not read here",
}
"""Options of NNCF after which a matrix is not all that its module does."""

_MODULE = re.compile(r"(?:__module\.|self\.|/)*(?P<module>[\w./]+?)(?:\.weight\b.*|/aten::.*|/MatMul.*)?")


class _Product(NamedTuple):
    """A MatMul with a matrix of constants.

    Attributes:
        operation: the MatMul.
        weights: id of what gives the matrix.
        by_rows: whether it is stored (out, in).
        module: that it belongs to, `model.layers.2.mlp.down_proj`; empty if that is no down projection.
    """

    operation: Operation
    weights: str
    by_rows: bool
    module: str = ""


class IrReader:
    """Reads an IR: the XML, or the directory that holds it.

    Args:
        path: `openvino_model.xml`, or its directory.

    Raises:
        InfraError: as `read_graph`; the directory holds several IRs (`unsupported`) or none (`not-found`).
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.graph: Graph = read_graph(ir_file(path))
        self._read = 0

    @property
    def about(self) -> str:
        """The element types of the down projections, and what compressed them."""
        kinds = Counter(self._kind(product) for product in self._down.values())
        listed = ", ".join(f"{kind} × {count}" for kind, count in kinds.most_common())
        mode = self.graph.about.get("nncf/weight_compression/mode", "")
        return f"OpenVINO IR{f', NNCF {mode}' if mode else ''}: {listed or 'no down projections'}"

    @property
    def bytes(self) -> int:
        """Size on disk of the XML and of the weights."""
        return self.graph.path.stat().st_size + self.graph.weights.stat().st_size

    @property
    def read(self) -> int:
        """Bytes of constants that were looked at so far."""
        return self._read

    @property
    def sizes(self) -> Mapping[str, int]:
        """How large the model is, as its config.json and its matrices say."""
        shapes = [self._matrix(product) for product in self._down.values()]
        known = Artefact(self.graph.path.parent).size_of("vocab_size")
        found = {} if known is None else {"vocab_size": known}
        if shapes and all(shape == shapes[0] for shape in shapes) and -1 not in shapes[0]:
            found |= {"hidden_size": shapes[0][0], "num_hidden_layers": len(shapes)}
        return found

    def scalar(self, where: Coordinate) -> Held | CannotTell:
        """As `Reader.scalar`."""
        product = self._down.get((where.layer, where.expert))
        if product is None:
            expert = "" if where.expert is None else f", expert {where.expert}"
            return CannotTell(f"{self.path.name} holds no down projection of layer {where.layer}{expert}")
        for option, reason in _ALTERING.items():
            if self.graph.about.get(f"nncf/weight_compression/{option}") == "True":
                return CannotTell(reason)
        rows, columns = self._matrix(product)
        if where.row >= rows or where.column >= columns:
            return CannotTell(f"[{where.row}, {where.column}] lies outside {product.module} of {rows} × {columns}")
        index = (where.row, where.column) if product.by_rows else (where.column, where.row)
        found = follow(self.graph, product.weights, index)
        if isinstance(found, CannotTell):
            return found
        smoothed = self._smoothed(product.operation, found, where.column)
        if isinstance(smoothed, CannotTell):
            return smoothed
        self._read += sum(-(-BITS[leaf.constant.dtype] // 8) for leaf in leaves(smoothed))
        return Held(product.module, f"OpenVINO {self._kind(product)}", _decoded(smoothed))

    def constants(self) -> dict[str, list[Operation]]:
        """The constants of every down projection, by its module's name."""
        return {one.module: self._constants(one.weights) for one in self._down.values()}

    def _constants(self, number: str, depth: int = 16) -> list[Operation]:
        operation = self.graph.operations.get(number)
        if operation is None or not depth:
            return []
        if operation.kind == "Const":
            return [operation]
        inputs = operation.inputs[1:2] if operation.kind == "Gather" else operation.inputs  # a codebook is no weight
        return [found for one in inputs for found in self._constants(one, depth - 1)]

    def _kind(self, product: _Product) -> str:
        found = self._constants(product.weights)
        main = max(found, key=lambda one: math.prod(one.shape), default=None)
        if main is None:
            return "no constant"
        dtype = main.settings.get("element_type", "")
        grouped = len(main.shape) == 3 and main.shape[2] != self._matrix(product)[1]
        return f"{dtype}, groups of {main.shape[2]}" if grouped else dtype

    def _matrix(self, product: _Product) -> tuple[int, int]:
        shape = self.graph.operations[product.weights].shape
        return (shape[0], shape[1]) if product.by_rows else (shape[1], shape[0])

    @cached_property
    def _down(self) -> dict[tuple[int, int | None], _Product]:
        """The MatMuls of down projections with a matrix of constants, by layer and expert."""
        products: dict[str, _Product] = {}
        for operation in self.graph.operations.values():
            if (product := _product(self.graph, operation)) is not None:
                named = product._replace(module=self._name(product))
                products.setdefault(f"{named.module}.weight", named)
        found = DownProjections.among(list(products)).modules
        names = {at: f"{module.name}.weight" for at, module in found.items()}
        return {at: products[name] for at, name in names.items() if name in products}

    def _name(self, product: _Product) -> str:
        """The module that a MatMul belongs to: by its own name, else by its constants'."""
        names = [product.operation.name, *(one.name for one in self._constants(product.weights))]
        matches = [_MODULE.fullmatch(name) for name in names]
        modules = [match["module"].replace("/", ".").removesuffix(".MatMul") for match in matches if match is not None]
        return next((name for name in modules if DownProjections.among([f"{name}.weight"]).modules), "")

    def _smoothed(self, operation: Operation, found: Expression, column: int) -> Expression | CannotTell:
        """A weight, times what NNCF multiplies its input by to make it smooth."""
        feeding = self.graph.operations.get(operation.inputs[0])
        while feeding is not None and feeding.kind == "FakeQuantize" and feeding.inputs:
            feeding = self.graph.operations.get(feeding.inputs[0])
        if feeding is None or feeding.kind not in ("Multiply", "Divide"):
            return found
        constants = [one for one in feeding.inputs if self._is_constant(one)]
        if not constants:
            return found
        if feeding.kind != "Multiply" or "nncf_smooth_quant" not in feeding.name:
            return CannotTell(f"{feeding.name} scales its input, which is not read here")
        shape = self.graph.operations[constants[0]].shape
        index = tuple(0 if size == 1 else column for size in shape[:-1]) + (() if not shape else (column,))
        scale = follow(
            self.graph, constants[0], tuple(0 if size == 1 else at for at, size in zip(index, shape, strict=True))
        )
        return scale if isinstance(scale, CannotTell) else Sum("Multiply", found, scale)

    def _is_constant(self, number: str) -> bool:
        operation = self.graph.operations.get(number)
        while operation is not None and operation.kind == "Convert" and operation.inputs:
            operation = self.graph.operations.get(operation.inputs[0])
        return operation is not None and operation.kind == "Const"


def ir_file(path: Path) -> Path:
    """The XML of the IR that lies at a path; errors as `IrReader`."""
    if not path.is_dir():
        return path
    if (path / _NAME).is_file():
        return path / _NAME
    found = sorted(one for one in path.glob("*.xml") if one.with_suffix(".bin").is_file())
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise InfraError(
            f"{path} should hold {_NAME}, or one other IR; found {names}. Give the path of one.",
            reason="unsupported" if found else "not-found",
        )
    return found[0]


def _product(graph: Graph, operation: Operation) -> _Product | None:
    """A MatMul whose second input is a matrix of fixed sizes."""
    if operation.kind != "MatMul" or len(operation.inputs) != 2:
        return None
    weights = graph.operations.get(operation.inputs[1])
    if weights is None or len(weights.shape) != 2 or operation.settings.get("transpose_a") == "true":
        return None
    return _Product(operation, weights.number, operation.settings.get("transpose_b") == "true")


def _decoded(expression: Expression) -> Decoded:
    """The number, and the nearest others that a different code would give."""
    main, value = main_leaf(expression), float(value_of(expression))
    if not math.isfinite(value):
        return Decoded(value, "float32", 0.0, "no number", math.inf, math.inf)
    if isinstance(expression, Leaf) and main.constant.dtype in PLAIN:
        dtype = PLAIN[main.constant.dtype]
        lower, upper = gaps(value, dtype)
        return Decoded(value, "float64" if dtype == "float64" else "float32", min(lower, upper), "", lower, upper)
    values = main.codebook or possible(main.constant.dtype)
    at, last = values.index(main.value), len(values) - 1
    words = f"{main.value:g} of {values[0]:g} to {values[-1]:g} as {main.constant.dtype}"
    return on_grid(lambda code: float(value_of(expression, main, values[code])), at, 0, last, "float32", words)
