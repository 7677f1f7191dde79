"""Which recipes a deployed format can hold, as compressed-tensors says it; of the others, why not and what is near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from superweight.cards.methods import (
    SUPER_WEIGHT_MODULES,
    W8A8,
    ClipRestore,
    Deployable,
    Float8,
    Integer,
    Method,
    Rounding,
    SmoothQuant,
)
from superweight.errors import InfraError

Strategy = Literal["tensor", "channel", "group"]

_OWN_ARITHMETIC = (
    "activations are quantised by whoever runs the file, in arithmetic of its own: weights are the recipe's to the "
    "bit, and logits are near"
)


@dataclass(frozen=True)
class Scheme:
    """How codes are stored.

    Attributes:
        layout: compressed-tensors' name: `pack-quantized`, `int-quantized`, `float-quantized`, `naive-quantized`.
        kind: of codes.
        bits: of a code.
        symmetric: whether there is no zero point.
        strategy: what shares a scale.
        group_size: elements of one row that do, of groups alone.
        activations: whether inputs are quantised, by token, as the model runs.
        note: what a reader of the artefact must know; mostly nothing.
    """

    layout: str
    kind: Literal["int", "float"]
    bits: int
    symmetric: bool
    strategy: Strategy
    group_size: int | None = None
    activations: bool = False
    note: str = ""

    @property
    def packed(self) -> bool:
        """Whether codes lie densely in 32-bit words."""
        return self.layout == "pack-quantized"

    def __str__(self) -> str:
        grid = f"groups of {self.group_size}" if self.group_size else f"a scale a {self.strategy}"
        kind = "8-bit floats" if self.kind == "float" else f"{self.bits} bits"
        sides = "symmetric" if self.symmetric else "with zero points"
        inputs = ", inputs quantised by token" if self.activations else ""
        return f"compressed-tensors {self.layout}, {kind}, {sides}, {grid}{inputs}"


def scheme_of(method: Method) -> Scheme:
    """How a recipe's codes are stored.

    Raises:
        InfraError: no deployed format holds what the recipe makes (`recipe-mismatch`); says why, and what is near.
    """
    match method:
        case Integer():
            return _integer(method)
        case Float8():
            layout = "float-quantized" if method.activations == "token" else "naive-quantized"
            return Scheme(layout, "float", 8, True, method.granularity, activations=method.activations == "token")
        case W8A8():
            return _w8a8(method)
        case Rounding():
            raise _no_form(method, *_of_rounding(method))
        case SmoothQuant():
            raise _no_form(
                method,
                "it divides the inputs of each matrix by factors that no file has a place for, as they are not folded "
                "into the norm before it",
                "kind = 'integer', bits = 8, symmetric = true, granularity = 'channel', activations = 'token'",
            )
    if not method.compresses:
        raise _no_form(method, "it compresses nothing", "the checkpoint itself")
    raise _no_form(method, "nothing here knows its codes", "kind = 'integer' or kind = 'float8'")


def _integer(method: Integer) -> Scheme:
    inputs = method.activations == "token"
    layout = "int-quantized" if inputs else "pack-quantized"
    return Scheme(
        layout, "int", method.bits, method.symmetric, method.granularity, method.group_size, activations=inputs
    )


def _w8a8(method: W8A8) -> Scheme:
    """Simulated W8A8 stores plain codes; what handles activations has no place in a file."""
    near = f"kind = 'integer', bits = 8, symmetric = true, granularity = '{method.weights}', activations = 'token'"
    faults = {
        "super_activations = 'handled' replaces massive inputs, which no engine does": method.super_activations
        == "handled",
        "activations = 'tensor' is one scale a sequence, and files know scales by token": method.activations
        == "tensor",
        "attention_matmuls = true rounds inside attention, for which there is no setting": method.attention_matmuls,
        "keep_super_weights = true stores scalars aside, for which there is no place": method.keep_super_weights,
    }
    if found := [fault for fault, true in faults.items() if true]:
        raise _no_form(method, "; ".join(found), near)
    return Scheme("int-quantized", "int", 8, True, method.weights, activations=True, note=_OWN_ARITHMETIC)


def _of_rounding(method: Rounding) -> tuple[str, str]:
    """Why an asymmetric grid from a block's least element is none that deployed formats have."""
    restored = ", super_weights = 'restored'" if isinstance(method, ClipRestore) else ""
    if method.granularity == "block":
        why = (
            f"its blocks of {method.size} elements are runs of the flattened matrix, across rows, and formats have "
            "scales by row or by groups in a row"
        )
        near = f"kind = 'integer', bits = {method.bits}, symmetric = false, granularity = 'group', group_size = 128"
        return why, near + restored
    grid = f"granularity = '{method.granularity}'" + (f", group_size = {method.size}" if method.size else "")
    why = (
        "its grid begins at each block's least weight, a float, and formats have whole zero points: "
        "(code − zero point) · scale"
    )
    gguf = "; or --format gguf, whose Q4_1 and Q5_1 keep a float minimum for 32 weights" if method.bits < 6 else ""
    return why, f"kind = 'integer', bits = {method.bits}, symmetric = false, {grid}{restored}{gguf}"


def _no_form(method: Method, why: str, near: str) -> InfraError:
    return InfraError(
        f"recipe kind '{method.kind}' has no deployable form: {why}. Near is {near}.", reason="recipe-mismatch"
    )


def needs_super_weights(method: Method) -> bool:
    """Whether what is written depends on which super weights are known."""
    return restores(method) or (isinstance(method, Deployable) and SUPER_WEIGHT_MODULES in method.exclude)


def restores(method: Method) -> bool:
    """Whether super weights are brought back by what is shipped beside the codes."""
    return isinstance(method, Deployable) and method.super_weights == "restored"
