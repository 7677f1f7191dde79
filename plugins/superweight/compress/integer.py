"""Recipes `integer` and `float8`: codes, scales and zero points that are in memory what they are in a file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from superweight.cards.methods import Deployable, Float8, Integer
from superweight.compress.context import Context
from superweight.compress.intercept import Call, Handler, intercept
from superweight.compress.matrix import Matrix
from superweight.compress.recipe import Recipe, uncompressed
from superweight.compress.size import side_table_bits
from superweight.errors import InfraError
from superweight.kernels import affine
from superweight.kernels.dynamic import float8_by_token, int8_by_token
from superweight.kernels.rounding import Range, clipped, extremes, moments, piece_elements

M = TypeVar("M", bound=Deployable)


@dataclass(frozen=True)
class Codes:
    """One matrix as a file holds it.

    Attributes:
        codes: int8 or float8_e4m3fn `(out, in)`.
        scale: `(1, 1)`, `(out, 1)` or `(out, groups)`, in the dtype in which it is stored.
        zero_point: int8, in the scale's shape; None where the codes are symmetric about zero.
        bits: of a code.
    """

    codes: torch.Tensor
    scale: torch.Tensor
    zero_point: torch.Tensor | None
    bits: int

    def decoded(self) -> torch.Tensor:
        """`(out, in)` in the scale's dtype, as whoever loads the file computes it."""
        rows, columns = self.codes.shape
        groups = self.scale.shape[1]
        blocks = self.codes.reshape(rows, groups, columns // groups)
        zero = None if self.zero_point is None else self.zero_point[..., None]
        return affine.decoded(blocks, self.scale[..., None], zero).reshape(rows, columns)

    @property
    def taken(self) -> dict[str, int]:
        """Bits by what they are for."""
        zeros = {} if self.zero_point is None else {"zero_points": self.zero_point.numel() * self.bits}
        scales = self.scale.numel() * 8 * self.scale.dtype.itemsize
        return {"codes": self.codes.numel() * self.bits, "scales": scales, **zeros}


class CodedRecipe(Recipe[M]):
    """A base of recipes whose codes can be written to a file as they are.

    Attributes:
        holding: names of the parameters that hold super weights, in any of their experts.
    """

    def __init__(self, method: M) -> None:
        super().__init__(method)
        self.holding: frozenset[str] = frozenset()

    def prepare(self, context: Context) -> None:
        """Note where super weights are; refuse names that exclude nothing.

        Raises:
            InfraError: a pattern of `exclude` matches no module (`recipe-mismatch`).
        """
        self.holding = frozenset(context.known)
        modules = [name for name, _ in context.loaded.model.named_modules()]
        check_excluded(self.method, [*modules, *(module_of(weight.name) for weight in context.known_weights)])

    def compress(self, matrix: Matrix) -> dict[str, int]:
        """Write what the codes decode to, and super weights back if they are restored."""
        found = self.codes(matrix)
        if found is None:
            return uncompressed(matrix)
        original = [matrix.values[one.row, one.column].clone() for one in matrix.super_weights]
        matrix.write(matrix.values, found.decoded())
        if self.method.super_weights == "rounded":
            return found.taken
        for one, value in zip(matrix.super_weights, original, strict=True):
            matrix.values[one.row, one.column] = value
        return {**found.taken, "super_weights": side_table_bits(len(original), width=matrix.width)}

    def codes(self, matrix: Matrix) -> Codes | None:
        """The codes of a matrix that has not been rewritten; None if it is excluded.

        Raises:
            InfraError: groups do not divide its rows (`recipe-mismatch`), or it or its scales are not finite
                (`non-finite`).
        """
        if self.left_alone(matrix.name):
            return None
        found = self.encode(matrix, scale_dtype(self.method, matrix.dtype))
        if not bool(torch.isfinite(found.scale).all()):
            raise InfraError(
                f"{matrix.label} holds NaN, infinity, or weights whose scales {found.scale.dtype} cannot hold. Get the "
                "checkpoint again, or set scale_dtype = 'float32'.",
                reason="non-finite",
            )
        return found

    @abstractmethod
    def encode(self, matrix: Matrix, dtype: torch.dtype) -> Codes:
        """The codes of a matrix, its scales in `dtype`."""

    def install(self, context: Context, stack: ExitStack) -> Sequence[str]:
        """Quantise the inputs of the weights that have codes, if the card says so."""
        if self.method.activations == "none":
            return ()
        coded = [weight for weight in context.known_weights if not self.left_alone(weight.name)]
        return intercept(coded, lambda _: _quantising(self.quantise_input), stack)

    quantise_input: Callable[[torch.Tensor], torch.Tensor]
    """`(…, channels)` as an engine that quantises it sees it."""

    def figures(self, context: Context) -> dict[str, Any]:
        """Which modules were left as they are, and how many super weights were written back."""
        left = [weight.name for weight in context.known_weights if self.left_alone(weight.name)]
        restored = len(set(context.super_weights)) if self.method.super_weights == "restored" else 0
        return {"excluded": left, "restored": restored}

    def left_alone(self, parameter: str) -> bool:
        """Whether the card excludes a parameter, with all its experts."""
        return self.method.excludes(module_of(parameter), holds_super_weights=parameter in self.holding)


def _quantising(quantise: Callable[[torch.Tensor], torch.Tensor]) -> Handler:
    def handle(call: Call) -> torch.Tensor:
        return call.linear(quantise(call.x) if call.x.numel() else call.x)

    return handle


class IntegerRecipe(CodedRecipe[Integer]):
    """Integers of two to eight bits."""

    quantise_input = staticmethod(int8_by_token)

    def encode(self, matrix: Matrix, dtype: torch.dtype) -> Codes:
        """Scales from the least and largest of each block, clipped if the card says so; then the nearest codes."""
        method = self.method
        blocks = _blocks(matrix, method.group_size if method.granularity == "group" else None)
        ends = _ends(blocks, method.z, whole=method.granularity == "tensor")
        if method.symmetric:
            scale, zero = affine.symmetric_scale(ends, method.bits, dtype, full_range=method.full_range), None
        else:
            scale, zero = affine.asymmetric_scale(ends, method.bits, dtype)
        limits = affine.code_range(method.bits, symmetric=method.symmetric, full_range=method.full_range)

        def encode(x: torch.Tensor, rows: slice) -> torch.Tensor:
            here = slice(None) if method.granularity == "tensor" else rows
            return affine.integer_codes(x, scale[here], None if zero is None else zero[here], limits)

        shape = (1, 1) if method.granularity == "tensor" else (matrix.values.shape[0], -1)
        codes = _in_pieces(blocks, encode, torch.int8).view(matrix.values.shape)
        return Codes(codes, scale.view(shape), None if zero is None else zero.view(shape), method.bits)


class Float8Recipe(CodedRecipe[Float8]):
    """8-bit floats."""

    quantise_input = staticmethod(float8_by_token)

    def encode(self, matrix: Matrix, dtype: torch.dtype) -> Codes:
        """A scale from the largest magnitude, then the nearest codes."""
        whole = self.method.granularity == "tensor"
        blocks = _blocks(matrix, None)
        scale = affine.float8_scale(_ends(blocks, float("inf"), whole=whole), dtype)
        codes = _in_pieces(
            blocks, lambda x, rows: affine.float8_codes(x, scale if whole else scale[rows]), affine.FLOAT8
        )
        return Codes(codes.view(matrix.values.shape), scale, None, 8)


def module_of(parameter: str) -> str:
    """The module that a parameter belongs to; of experts in one parameter, the parameter itself."""
    return parameter.removesuffix(".weight")


def check_excluded(method: Deployable, modules: Sequence[str]) -> None:
    """Refuse names that exclude nothing.

    Raises:
        InfraError: a pattern matches no module (`recipe-mismatch`).
    """
    if idle := method.idle(modules):
        raise InfraError(
            f"exclude names {', '.join(map(repr, idle))}, and no module of this model is called so; there are "
            f"{', '.join(name for name in modules if name.count('.') > 3)[:200]}, … . Correct the recipe card.",
            reason="recipe-mismatch",
        )


def scale_dtype(method: Deployable, stored: torch.dtype) -> torch.dtype:
    """In which dtype scales are stored, beside weights of another."""
    return stored if method.scale_dtype == "checkpoint" else getattr(torch, method.scale_dtype)


def _blocks(matrix: Matrix, group: int | None) -> torch.Tensor:
    """`(blocks, n)`, row by row; a view where the matrix lies so in memory."""
    rows, columns = matrix.values.shape
    check_groups(matrix.label, columns, group)
    size = group or columns
    return matrix.values.reshape(rows * (columns // size), size)


def check_groups(label: str, columns: int, size: int | None) -> None:
    """Refuse groups that do not divide a row.

    Raises:
        InfraError: `recipe-mismatch`.
    """
    if size and columns % size:
        divisors = [one for one in (32, 64, 128, 256) if columns % one == 0]
        near = f"group_size = {divisors[-1]} does" if divisors else "granularity = 'channel' needs none"
        raise InfraError(
            f"{label} has rows of {columns} weights, which groups of {size} do not divide, and deployed formats have "
            f"no shorter last group; {near}. Set that, or name the module in exclude.",
            reason="recipe-mismatch",
        )


def _ends(blocks: torch.Tensor, z: float, *, whole: bool) -> Range:
    """Least and largest of each block, or of all of them, clipped at z deviations."""
    if whole:
        blocks = blocks.reshape(1, -1)
    ends = extremes(blocks)
    if z == float("inf"):
        return ends
    return clipped(ends, moments(blocks, ends), torch.full((1, 1), z, device=blocks.device))


def _in_pieces(
    blocks: torch.Tensor, encode: Callable[[torch.Tensor, slice], torch.Tensor], dtype: torch.dtype
) -> torch.Tensor:
    """Encode a few blocks at a time, so that float32 copies stay small."""
    codes = torch.empty(blocks.shape, dtype=dtype, device=blocks.device)
    step = max(1, piece_elements(blocks.device) // max(1, blocks.shape[1]))
    for start in range(0, blocks.shape[0], step):
        rows = slice(start, start + step)
        codes[rows] = encode(blocks[rows], rows)
    return codes
