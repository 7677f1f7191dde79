"""How one weight comes of constants: the operations between them and a MatMul, followed for a single element.

Arithmetic is float32, as OpenVINO's CPU runtime computes it: the graph says float16 for the numbers that scales are
multiplied with, and the runtime multiplies those in float32 without rounding in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from superweight.artefact.openvino.elements import element, elements, readable
from superweight.artefact.openvino.graph import Constant, Graph, Operation
from superweight.forward.runner import CannotTell

_ARITHMETIC: dict[str, Callable[[np.float32, np.float32], np.float32]] = {
    "Multiply": np.multiply,
    "Subtract": np.subtract,
    "Add": np.add,
    "Divide": np.divide,
}
_RESHAPING = ("Reshape", "Squeeze", "Unsqueeze")
_WIDER = {"f64": 3, "f32": 2, "bf16": 1, "f16": 1}
_SHORT = {"FP64": "f64", "FP32": "f32", "FP16": "f16", "BF16": "bf16"}


class Unknown(Exception):  # noqa: N818 - it becomes a CannotTell, and is no error
    """An operation that is not known to be followed here."""


class Leaf(NamedTuple):
    """An element of a constant.

    Attributes:
        name: of the constant.
        constant: where it lies.
        value: the element.
        codebook: values of which it is one, ascending; empty if its type says what it can be.
    """

    name: str
    constant: Constant
    value: float
    codebook: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sum:
    """An operation on two expressions."""

    kind: str
    left: Expression
    right: Expression


@dataclass(frozen=True)
class Halved:
    """What is rounded to float16: a scale that is itself a product."""

    of: Expression


Expression = Leaf | Sum | Halved


def value_of(expression: Expression, main: Leaf | None = None, instead: float = 0.0) -> np.float32:
    """What an expression gives in float32.

    Args:
        expression: leaves and operations.
        main: a leaf whose value is replaced.
        instead: by which.
    """
    if isinstance(expression, Leaf):
        return np.float32(instead if expression is main else expression.value)
    with np.errstate(all="ignore"):
        if isinstance(expression, Halved):
            return np.float32(np.float16(value_of(expression.of, main, instead)))
        left, right = (value_of(one, main, instead) for one in (expression.left, expression.right))
        return np.float32(_ARITHMETIC[expression.kind](left, right))


def leaves(expression: Expression) -> list[Leaf]:
    """All leaves, in order."""
    if isinstance(expression, Leaf):
        return [expression]
    if isinstance(expression, Halved):
        return leaves(expression.of)
    return leaves(expression.left) + leaves(expression.right)


def main_leaf(expression: Expression) -> Leaf:
    """The element of the weights themselves: of the largest constant."""
    return max(leaves(expression), key=lambda leaf: math.prod(leaf.constant.shape))


def follow(graph: Graph, number: str, index: tuple[int, ...]) -> Expression | CannotTell:
    """The expression of one element.

    Args:
        graph: the model.
        number: id of the operation that gives it.
        index: of the element in its output.

    Raises:
        InfraError: a constant does not lie where the graph says (`corrupt`).
    """
    try:
        return _follow(graph, number, index)
    except Unknown as unknown:
        return CannotTell(str(unknown))
    except RecursionError:
        return CannotTell("its operations lead back to themselves")


def _follow(graph: Graph, number: str, index: tuple[int, ...]) -> Expression:
    operation = graph.operations.get(number)
    if operation is None:
        raise Unknown("an operation that feeds it is not there")
    if operation.kind == "Const":
        return _leaf(graph, operation, index)
    if operation.kind in _RESHAPING and operation.inputs:
        return _follow(graph, operation.inputs[0], _reshaped(graph, operation, index))
    if operation.kind == "Convert" and len(operation.inputs) == 1:
        return _converted(graph, operation, index)
    if operation.kind in _ARITHMETIC and len(operation.inputs) == 2:
        sides = [_follow(graph, one, _broadcast(graph, one, index)) for one in operation.inputs]
        return Sum(operation.kind, *sides)
    if operation.kind == "Transpose" and len(operation.inputs) == 2:
        return _follow(graph, operation.inputs[0], _transposed(graph, operation, index))
    if operation.kind == "Gather" and len(operation.inputs) == 3:
        return _looked_up(graph, operation, index)
    raise Unknown(f"{operation.name} is a {operation.kind}, which is not followed here")


def _leaf(graph: Graph, operation: Operation, index: tuple[int, ...]) -> Leaf:
    constant = graph.constant(operation)
    if not readable(constant.dtype):
        raise Unknown(f"{operation.name} is {constant.dtype}, which is not decoded here")
    if len(index) != len(constant.shape) or any(at >= size for at, size in zip(index, constant.shape, strict=True)):
        raise Unknown(f"{list(index)} lies outside {operation.name} of shape {list(constant.shape)}")
    at = int(np.ravel_multi_index(index, constant.shape)) if index else 0
    return Leaf(operation.name, constant, element(graph, constant, at))


def _shape(graph: Graph, number: str) -> tuple[int, ...]:
    operation = graph.operations.get(number)
    if operation is None or any(size < 0 for size in operation.shape):
        raise Unknown("an operation that feeds it has no fixed shape")
    return operation.shape


def _reshaped(graph: Graph, operation: Operation, index: tuple[int, ...]) -> tuple[int, ...]:
    before, after = _shape(graph, operation.inputs[0]), _shape(graph, operation.number)
    if math.prod(before) != math.prod(after) or len(index) != len(after):
        raise Unknown(f"{operation.name} gives another number of elements than it gets")
    at = int(np.ravel_multi_index(index, after)) if after else 0
    return tuple(int(one) for one in np.unravel_index(at, before)) if before else ()


def _broadcast(graph: Graph, number: str, index: tuple[int, ...]) -> tuple[int, ...]:
    shape = _shape(graph, number)
    if len(shape) > len(index):
        raise Unknown(f"{graph.operations[number].name} has more dimensions than what it is combined with")
    return tuple(0 if size == 1 else at for at, size in zip(index[len(index) - len(shape) :], shape, strict=True))


def _transposed(graph: Graph, operation: Operation, index: tuple[int, ...]) -> tuple[int, ...]:
    order = [int(one) for one in _all(graph, operation.inputs[1])]
    if sorted(order) != list(range(len(index))):
        raise Unknown(f"{operation.name} has no known order")
    found = dict(zip(order, index, strict=True))
    return tuple(found[axis] for axis in range(len(index)))


def _converted(graph: Graph, operation: Operation, index: tuple[int, ...]) -> Expression:
    """A conversion that changes no number: of codes to floats, of floats to wider ones, of what the runtime widens."""
    found = _follow(graph, operation.inputs[0], index)
    to = operation.settings.get("destination_type", "")
    if to not in _WIDER and to not in ("u8", "i32", "i64"):
        raise Unknown(f"{operation.name} makes {to or 'an unknown type'} of it")
    before = graph.operations[operation.inputs[0]].dtype
    if _WIDER.get(_SHORT.get(before, before), 0) <= _WIDER.get(to, 9):
        return found
    if isinstance(found, Sum) and (before, to) == ("FP32", "f16"):
        return Halved(found)
    raise Unknown(f"{operation.name} rounds {before} to {to}")


def _looked_up(graph: Graph, operation: Operation, index: tuple[int, ...]) -> Leaf:
    """An entry of a codebook."""
    book, axis = _all(graph, operation.inputs[0]), _all(graph, operation.inputs[2])
    entry = _follow(graph, operation.inputs[1], index)
    if book.ndim != 1 or axis.ravel().tolist() != [0] or not isinstance(entry, Leaf) or entry.value >= len(book):
        raise Unknown(f"{operation.name} looks up in another way than by one number")
    values = tuple(sorted({float(one) for one in book.tolist() if math.isfinite(one)}))
    return Leaf(entry.name, entry.constant, float(book[int(entry.value)]), values)


def _all(graph: Graph, number: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """All elements of a small constant, by way of conversions."""
    operation = graph.operations.get(number)
    while operation is not None and operation.kind == "Convert" and operation.inputs:
        operation = graph.operations.get(operation.inputs[0])
    if operation is None or operation.kind != "Const" or not readable(graph.constant(operation).dtype):
        raise Unknown("a table or an order that it needs is no constant")
    return elements(graph, graph.constant(operation))
