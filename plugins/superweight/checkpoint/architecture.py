"""Where a decoder keeps its linear weights, found by structure rather than by a list of model names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd as _Convolution

from superweight.cards.base import Coordinate
from superweight.checkpoint.coverage import Coverage, account
from superweight.checkpoint.observe import Observation, Use, observe
from superweight.checkpoint.routers import routers
from superweight.errors import InfraError

# Tie-breakers only: shapes decide first.
_DOWN_NAMES = ("down_proj", "w2", "fc2", "c_proj", "dense_4h_to_h", "fc_out", "wo")


@dataclass(frozen=True)
class LinearWeight:
    """One linear map of a decoder layer, dense or all experts of a mixture at once.

    Attributes:
        name: parameter name in the model, `model.layers.11.mlp.down_proj.weight`.
        layer: index of the decoder layer.
        parameter: `(out, in)`; `(in, out)` if transposed; `(experts, …, …)` or, fused, `(experts · …, …)` if it
            belongs to a mixture.
        module: the module that owns the parameter.
        transposed: whether the parameter is stored input-major (GPT-2's `Conv1D`, some experts).
        down: whether this is the MLP's down projection, the only kind that holds super weights.
        attention: whether it belongs to the attention block.
        fused: how many experts lie one below the other in a 2-D parameter; None if they do not.
    """

    name: str
    layer: int
    parameter: nn.Parameter
    module: nn.Module
    transposed: bool = False
    down: bool = False
    attention: bool = False
    fused: int | None = None

    @property
    def experts(self) -> int | None:
        """How many experts share the parameter; None if it is dense."""
        return self.parameter.shape[0] if self.parameter.dim() == 3 else self.fused

    @property
    def stacked(self) -> torch.Tensor:
        """The weight as stored, a mixture's as `(experts, …, …)`: a view, so writing to it writes to the model."""
        data = self.parameter.data
        return data if self.fused is None else data.view(self.fused, -1, data.shape[-1])

    def stored(self, expert: int | None = None) -> torch.Tensor:
        """One matrix as stored, `(out, in)`, or `(in, out)` if transposed: a view."""
        return self.stacked if expert is None else self.stacked[expert]

    def matrix(self, expert: int | None = None) -> torch.Tensor:
        """The weight as `(out, in)`, Hugging Face orientation: a view, so writing to it writes to the model."""
        weight = self.stored(expert)
        return weight.transpose(-1, -2) if self.transposed else weight

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)` of one expert or of the dense weight."""
        *_, a, b = self.stacked.shape
        return (b, a) if self.transposed else (a, b)


class Architecture:
    """The decoder layers of a model and their linear weights."""

    def __init__(self, model: nn.Module) -> None:
        self.hidden_size = _hidden_size(model)
        self.prefix, self.layers = decoder_layers(model)
        self.observed: Observation = observe(model, list(self.layers))
        self.routers: dict[str, str] = {}  # names of what is left alone because it chooses experts or gates them; why
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

    @cached_property
    def coverage(self) -> Coverage:
        """Which parameters of the decoder layers the linear weights are, and what the others are for."""
        return account(self)

    def _find(self) -> Iterator[LinearWeight]:
        for index, layer in enumerate(self.layers):
            prefix, uses = f"{self.prefix}.{index}", self.observed.of(layer)
            found = list(_linear_weights(layer, prefix, index, self.hidden_size, uses))
            choosing = routers(layer, _mixtures(found, prefix), uses, self.hidden_size)
            left = {f"{prefix}.{name}": why for name, why in choosing.items()}
            self.routers |= left
            found = [weight for weight in found if weight.name not in left]
            down = {id(weight.parameter) for weight in _down_projections(found, prefix, self.hidden_size, uses)}
            for weight in found:
                yield replace(weight, down=id(weight.parameter) in down)


def _mixtures(found: list[LinearWeight], prefix: str) -> dict[str, int]:
    """The mixtures' parameters by their name in the layer, and how many experts each has."""
    return {weight.name.removeprefix(f"{prefix}."): weight.experts for weight in found if weight.experts}


def _hidden_size(model: nn.Module) -> int:
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    return int(text.hidden_size)


def decoder_layers(model: nn.Module) -> tuple[str, nn.ModuleList]:
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


def _linear_weights(
    layer: nn.Module, prefix: str, index: int, hidden_size: int, uses: Mapping[str, Use]
) -> Iterator[LinearWeight]:
    attention = [
        f"{name}." for name, module in layer.named_modules() if name and _is_attention(name.split(".")[-1], module)
    ]
    for name, module in layer.named_modules():
        in_attention = any(f"{name}.".startswith(start) for start in attention)
        for leaf, parameter in module.named_parameters(recurse=False):
            inner = f"{name}.{leaf}" if name else leaf
            weight = LinearWeight(f"{prefix}.{inner}", index, parameter, module, attention=in_attention)
            understood = _understand(weight, leaf, uses.get(inner) or Use(), hidden_size)
            if understood is not None:
                yield understood


def _understand(weight: LinearWeight, leaf: str, use: Use, hidden_size: int) -> LinearWeight | None:
    """How a parameter is laid out, if it is a linear weight: as its module says, as it was seen, or by its shape."""
    parameter, module = weight.parameter, weight.module
    if parameter.numel() == max(parameter.shape, default=1) and not isinstance(module, nn.Linear):
        return None
    if parameter.dim() == 2:
        return _understand_flat(weight, leaf, use)
    if parameter.dim() != 3 or use.convolved or isinstance(module, _Convolution):
        return None
    if use.multiplied and use.inputs * use.outputs == parameter[0].numel():
        return replace(weight, transposed=use.input_major)
    if hidden_size in parameter.shape[1:] and not weight.attention and (use.multiplied or not use.touched):
        return replace(weight, transposed=_experts_transposed(module, leaf, hidden_size))
    return None


def _understand_flat(weight: LinearWeight, leaf: str, use: Use) -> LinearWeight | None:
    module, (rows, columns) = weight.module, weight.parameter.shape
    alone = leaf == "weight" and sum(p.dim() > 1 for p in module.parameters()) == 1
    if alone and isinstance(module, nn.Linear):
        return weight
    if alone and type(module).__name__ == "Conv1D":
        return replace(weight, transposed=True)
    if isinstance(module, nn.Embedding) or not use.multiplied or not use.outputs:
        return None
    if alone and use.inputs * use.outputs == weight.parameter.numel():
        return replace(weight, transposed=use.input_major)
    height = use.inputs if use.input_major else use.outputs
    if columns == (use.outputs if use.input_major else use.inputs) and height < rows and rows % height == 0:
        return replace(weight, transposed=use.input_major, fused=rows // height)
    return None


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


def _down_projections(
    found: list[LinearWeight], prefix: str, hidden_size: int, uses: Mapping[str, Use]
) -> list[LinearWeight]:
    """Among one layer's weights, those that lead from the MLP's inner width back into the residual stream."""
    dense = [w for w in found if not w.attention and not w.experts and w.shape[0] == hidden_size]
    narrowing = [w for w in dense if w.shape[1] != hidden_size]
    named = [w for w in dense if any(name in w.name.split(".") for name in _DOWN_NAMES)]
    chosen = narrowing if len(narrowing) == 1 else (named or narrowing or dense[-1:])
    return [*_experts_down(found, prefix, hidden_size, uses), *chosen]


def _experts_down(
    found: list[LinearWeight], prefix: str, hidden_size: int, uses: Mapping[str, Use]
) -> list[LinearWeight]:
    into = [w for w in found if w.experts and not w.attention and w.shape[0] == hidden_size]
    narrowing = [w for w in into if w.shape[1] != hidden_size]
    if narrowing or not into:
        return narrowing
    when = {id(w): (uses.get(w.name.removeprefix(f"{prefix}.")) or Use()).last for w in into}
    if any(when.values()):  # all are square: the down projection is the last to be multiplied
        return [max(into, key=lambda weight: when[id(weight)])]
    return [w for w in into if w.name.rsplit(".", 1)[-1] in _experts_down_names(w.module)]
