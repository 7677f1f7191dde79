"""Where a decoder keeps its linear weights, found by structure rather than by a list of model names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from superweight.cards.base import Coordinate
from superweight.errors import InfraError

# Tie-breakers only: shapes decide first.
_DOWN_NAMES = ("down_proj", "w2", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "wo")


@dataclass(frozen=True)
class LinearWeight:
    """One linear map of a decoder layer, dense or all experts of a mixture at once.

    Attributes:
        name: parameter name in the model, `model.layers.11.mlp.down_proj.weight`.
        layer: index of the decoder layer.
        parameter: `(out, in)`; `(in, out)` if transposed; `(experts, …, …)` if it belongs to a mixture.
        module: the module that owns the parameter.
        transposed: whether the parameter is stored input-major (GPT-2's `Conv1D`, some experts).
        down: whether this is the MLP's down projection, the only kind that holds super weights.
        attention: whether it belongs to the attention block.
    """

    name: str
    layer: int
    parameter: nn.Parameter
    module: nn.Module
    transposed: bool = False
    down: bool = False
    attention: bool = False

    @property
    def experts(self) -> int | None:
        """How many experts share the parameter; None if it is dense."""
        return self.parameter.shape[0] if self.parameter.dim() == 3 else None

    def matrix(self, expert: int | None = None) -> torch.Tensor:
        """The weight as `(out, in)`, Hugging Face orientation: a view, so writing to it writes to the model."""
        weight = self.parameter.data if expert is None else self.parameter.data[expert]
        return weight.transpose(-1, -2) if self.transposed else weight

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)` of one expert or of the dense weight."""
        *_, a, b = self.parameter.shape
        return (b, a) if self.transposed else (a, b)


class Architecture:
    """The decoder layers of a model and their linear weights."""

    def __init__(self, model: nn.Module) -> None:
        self.hidden_size = _hidden_size(model)
        self.prefix, self.layers = _decoder_layers(model)
        self.linear_weights: tuple[LinearWeight, ...] = tuple(self._find())
        self._down: dict[tuple[int, bool], list[LinearWeight]] = {}
        for weight in self.linear_weights:
            if weight.down:
                self._down.setdefault((weight.layer, weight.experts is not None), []).append(weight)

    @property
    def down_projections(self) -> tuple[LinearWeight, ...]:
        """The down projections in layer order."""
        return tuple(weight for weight in self.linear_weights if weight.down)

    def down_projection(self, coordinate: Coordinate) -> LinearWeight:
        """The down projection that holds a coordinate.

        Raises:
            InfraError: the layer, expert, row or column does not exist in this model.
        """
        found = self._down.get((coordinate.layer, coordinate.expert is not None))
        if not found:
            kind = "a dense down projection" if coordinate.expert is None else "experts"
            raise InfraError(
                f"{coordinate} names layer {coordinate.layer}, which has no such weight: this model has "
                f"{len(self.layers)} decoder layers and that one has not {kind}. Correct the coordinate in the card.",
                reason="unsupported",
            )
        weight = found[0]
        rows, columns = weight.shape
        outside = coordinate.row >= rows or coordinate.column >= columns
        if outside or (coordinate.expert is not None and coordinate.expert >= (weight.experts or 0)):
            size = f"{rows} rows × {columns} columns" + (f", {weight.experts} experts" if weight.experts else "")
            raise InfraError(
                f"{coordinate} lies outside {weight.name} ({size}). Correct the coordinate in the card; "
                "row is the output channel, column the input channel.",
                reason="unsupported",
            )
        return weight

    def scalar(self, coordinate: Coordinate) -> torch.Tensor:
        """The 0-dimensional view of one weight; writing to it writes to the model."""
        return self.down_projection(coordinate).matrix(coordinate.expert)[coordinate.row, coordinate.column]

    def _find(self) -> Iterator[LinearWeight]:
        for index, layer in enumerate(self.layers):
            found = list(_linear_weights(layer, f"{self.prefix}.{index}", index, self.hidden_size))
            down = {id(weight.parameter) for weight in _down_projections(found, self.hidden_size)}
            for weight in found:
                yield _with_down(weight, id(weight.parameter) in down)


def _hidden_size(model: nn.Module) -> int:
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.hidden_size)


def _decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The stack with the most parameters: experts' lists lie inside it, vision towers are smaller."""
    stacks = [
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and len(module)
    ]
    if not stacks:
        raise InfraError(
            f"{type(model).__name__} has no stack of decoder layers (an nn.ModuleList), so its super weights cannot be "
            "located. Only decoder language models can be gated.",
            reason="unsupported",
        )
    return max(stacks, key=lambda item: sum(p.numel() for p in item[1].parameters()))


def _is_attention(name: str, module: nn.Module) -> bool:
    return "attn" in name.lower() or "attention" in name.lower() or "attention" in type(module).__name__.lower()


def _linear_weights(layer: nn.Module, prefix: str, index: int, hidden_size: int) -> Iterator[LinearWeight]:
    attention = [
        f"{name}." for name, module in layer.named_modules() if name and _is_attention(name.split(".")[-1], module)
    ]
    for name, module in layer.named_modules():
        in_attention = any(f"{name}.".startswith(start) for start in attention)
        for leaf, parameter in module.named_parameters(recurse=False):
            path = ".".join(part for part in (prefix, name, leaf) if part)
            if parameter.dim() == 2 and leaf == "weight" and not _is_router(name, module, parameter):
                if isinstance(module, nn.Embedding):
                    continue
                transposed = not isinstance(module, nn.Linear) and type(module).__name__ == "Conv1D"
                yield LinearWeight(path, index, parameter, module, transposed=transposed, attention=in_attention)
            elif parameter.dim() == 3 and hidden_size in parameter.shape[1:] and not in_attention:
                yield LinearWeight(
                    path, index, parameter, module, transposed=_experts_transposed(module, leaf, hidden_size)
                )


def _is_router(name: str, module: nn.Module, parameter: nn.Parameter) -> bool:
    leaf = name.split(".")[-1].lower()
    named = leaf in ("gate", "router", "shared_expert_gate") or "router" in type(module).__name__.lower()
    return named and parameter.shape[0] < parameter.shape[1]


def _experts_transposed(module: nn.Module, leaf: str, hidden_size: int) -> bool:
    """Whether a mixture's 3-D parameter is stored `(experts, in, out)`."""
    declared = getattr(module, "is_transposed", None)
    if isinstance(declared, bool):
        return declared
    parameter = module.get_parameter(leaf)
    into_residual = leaf in _experts_down_names(module)
    return (parameter.shape[1] == hidden_size) != into_residual


def _experts_down_names(module: nn.Module) -> list[str]:
    """Names of the down projections among a mixture's 3-D parameters: known name, else the one unlike the others."""
    stacked = {leaf: p for leaf, p in module.named_parameters(recurse=False) if p.dim() == 3}
    by_name = [leaf for leaf in stacked if leaf in _DOWN_NAMES]
    if by_name:
        return by_name
    smallest = min(p.numel() for p in stacked.values())
    odd = [leaf for leaf, p in stacked.items() if p.numel() == smallest]
    shapes = [p.shape for p in stacked.values()]
    return [leaf for leaf in odd if shapes.count(stacked[leaf].shape) == 1] or odd[-1:]


def _down_projections(found: list[LinearWeight], hidden_size: int) -> list[LinearWeight]:
    """Among one layer's weights, those that lead from the MLP's inner width back into the residual stream."""
    mixture = [w for w in found if w.experts and w.name.rsplit(".", 1)[-1] in _experts_down_names(w.module)]
    dense = [w for w in found if not w.attention and not w.experts and w.shape[0] == hidden_size]
    narrowing = [w for w in dense if w.shape[1] != hidden_size]
    named = [w for w in dense if any(name in w.name.split(".") for name in _DOWN_NAMES)]
    chosen = narrowing if len(narrowing) == 1 else (named or narrowing or dense[-1:])
    return [*mixture, *chosen]


def _with_down(weight: LinearWeight, down: bool) -> LinearWeight:
    return LinearWeight(
        weight.name, weight.layer, weight.parameter, weight.module, weight.transposed, down, weight.attention
    )
