"""Have PEFT itself add an adapter to the scalars that it is for, merged and not, and look at what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from superweight.artefact.adapter import PREFIX, WEIGHTS
from superweight.artefact.adding import Way
from superweight.artefact.numbers import rounded
from superweight.checkpoint.fetching.problems import missing_package
from superweight.checkpoint.quiet import quiet
from superweight.errors import InfraError
from superweight.evidence.adapter import RestoredWeight

if TYPE_CHECKING:
    import torch


def prove(directory: Path, weights: Sequence[RestoredWeight], rank: int, way: Way) -> None:
    """Compare what PEFT makes of an adapter's files with what `Way` says of them, scalar by scalar.

    Of each module only the rows and columns of super weights are built; what lies elsewhere gets no term.

    Args:
        directory: the adapter.
        weights: the super weights that it is for.
        rank: of every module.
        way: how base and adapter are kept.

    Raises:
        InfraError: PEFT is not installed (`missing-package`), or gives another number (`crash`).
    """
    for module in dict.fromkeys(weight.module for weight in weights):
        mine = [weight for weight in weights if weight.module == module]
        rows, columns = (sorted({getattr(weight, side) for weight in mine}) for side in ("row", "column"))
        expected = {(one.row, one.column): way.restored(one.base, one.parts) for one in mine}
        for how, made_tt in _by_peft(directory, module, mine, (rows, columns), rank, way).items():
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    found, right = float(made_tt[i, j]), expected.get((row, column), 0.0)
                    if found != right:
                        raise InfraError(
                            f"{module} [{row}, {column}] should be {right!r} with the adapter ({way}, {how}); PEFT "
                            f"gives {found!r}. Nothing was written; this version of PEFT adds in another way.",
                            reason="crash",
                        )


def _by_peft(
    directory: Path,
    module: str,
    weights: Sequence[RestoredWeight],
    places: tuple[list[int], list[int]],
    rank: int,
    way: Way,
) -> dict[str, torch.Tensor]:
    """The part of a module's matrix that has super weights, `(rows, columns)`, in two ways of adding."""
    try:
        import torch
        from peft import LoraConfig, get_peft_model
        from safetensors import safe_open
    except ImportError as error:
        raise missing_package("peft", "Writing an adapter") from error
    rows, columns = places
    holder = torch.nn.Sequential(torch.nn.Linear(len(columns), len(rows), bias=False))
    holder.to(getattr(torch, way.base)).requires_grad_(False)
    weight_rc: Any = holder[0].weight
    weight_rc.zero_()
    for one in weights:
        weight_rc[rows.index(one.row), columns.index(one.column)] = rounded(one.base, way.base)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"])
    with quiet():
        layer: Any = get_peft_model(holder, config, autocast_adapter_dtype=way.adapter == "float32").base_model.model[0]
    with safe_open(directory / WEIGHTS, framework="pt") as file, torch.no_grad():
        layer.lora_A["default"].weight.copy_(file.get_tensor(f"{PREFIX}{module}.lora_A.weight")[:, columns])
        layer.lora_B["default"].weight.copy_(file.get_tensor(f"{PREFIX}{module}.lora_B.weight")[rows])
        kept = layer.lora_A["default"].weight.dtype
        if kept != getattr(torch, way.adapter):
            raise InfraError(f"PEFT keeps the adapter in {kept}; expected {way.adapter}", reason="crash")
        unmerged = layer(torch.eye(len(columns), dtype=getattr(torch, way.base))).T
        layer.merge()
        return {"unmerged": unmerged, "merged": layer.get_base_layer().weight.clone()}
