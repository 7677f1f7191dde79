"""Which parameters choose a mixture's experts, by what was seen of them, else by their shape."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from superweight.checkpoint.observe import Use


def routers(layer: nn.Module, mixtures: Mapping[str, int], uses: Mapping[str, Use], hidden_size: int) -> dict[str, str]:
    """Parameters of a decoder layer that decide how much of which expert is used, and why each is taken for one.

    Args:
        layer: the layer.
        mixtures: its experts' stacked parameters by name within the layer, with the number of experts.
        uses: what was seen of its parameters; where its routers were not seen at work, those with one output for each
            expert are taken.
        hidden_size: width of the residual stream, to which no part of a router leads back.

    Returns:
        Name within the layer → reason. Vectors are not listed.
    """
    lists = expert_lists(layer)
    counts = {*mixtures.values(), *lists.values()}
    experts = [*mixtures, *lists]
    matrices = {name: p for name, p in layer.named_parameters() if p.dim() == 2 and name not in mixtures}
    found = {name: "its outputs are ranked to choose experts" for name in matrices if _chooses(uses.get(name))}
    if not found:
        found = {
            name: "it has one output for each expert"
            for name, p in matrices.items()
            if p.shape[0] in counts and name.endswith("weight") and not _inside(name, experts)
        }
    for name in list(found):
        part = _part(name, experts)
        inside = {other: p for other, p in matrices.items() if other.startswith(f"{part}.")}
        if not any(p.shape[0] == hidden_size for p in inside.values()):
            found |= {other: f"it is part of the router {part}" for other in inside if other not in found}
    gates = {name: "it gates with a single output" for name, p in matrices.items() if _is_gate(layer, name, p)}
    return gates | found


def expert_lists(layer: nn.Module) -> dict[str, int]:
    """Lists of experts, each a module of its own: name within the layer → how many."""
    return {
        name: len(module)
        for name, module in layer.named_modules()
        if isinstance(module, nn.ModuleList | nn.ModuleDict) and len(module) > 1 and _are_alike(list(module.children()))
    }


def _are_alike(modules: list[nn.Module]) -> bool:
    """Whether they are blocks of one type that each hold several matrices."""
    matrices = [sum(p.dim() > 1 for p in module.parameters()) for module in modules]
    return len({type(module) for module in modules}) == 1 and min(matrices) > 1


def _chooses(use: Use | None) -> bool:
    return use is not None and use.chooses


def _inside(name: str, parts: list[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _part(name: str, experts: list[str]) -> str:
    """The largest module around a router that lies beside its experts, not around them."""
    path = name.split(".")[:-1]
    shared = max((_shared(path, expert.split(".")) for expert in experts), default=len(path))
    return ".".join(path[: min(shared + 1, len(path))])


def _shared(one: list[str], other: list[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _is_gate(layer: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    owner = layer.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, nn.Linear) and parameter.shape[0] == 1 < parameter.shape[1]
