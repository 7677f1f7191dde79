"""Linear modules by the names under which transformers loads them: what an adapter must aim at."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from superweight.checkpoint.fetching.problems import missing_package
from superweight.checkpoint.quiet import quiet
from superweight.errors import InfraError


class Linear(NamedTuple):
    """A linear module of a loaded model.

    Attributes:
        name: `model.layers.2.mlp.down_proj`.
        rows: output channels.
        columns: input channels.
        input_major: whether its weight is `(in, out)`, as transformers' Conv1D keeps it.
    """

    name: str
    rows: int
    columns: int
    input_major: bool


def linear_modules(directory: Path) -> dict[str, Linear]:
    """Those of the causal language model that transformers makes of a config.json; no weight is loaded.

    Raises:
        InfraError: transformers is not installed (`missing-package`), or knows no such model (`unsupported`).
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError as error:
        raise missing_package("transformers", "Writing an adapter") from error
    try:
        with quiet(), torch.device("meta"):
            config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
            if hasattr(config, "quantization_config"):
                del config.quantization_config
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a model's code raises of settings that it cannot use
        raise InfraError(
            f"{directory}: transformers makes no causal language model of config.json, so it cannot be said how the "
            f"modules are called that an adapter must name ({type(error).__name__}: {str(error)[:200]}).",
            reason="unsupported",
        ) from error
    found = (_linear(name, module) for name, module in model.named_modules())
    return {linear.name: linear for linear in found if linear is not None}


def loaded_as(modules: dict[str, Linear], name: str) -> Linear:
    """The module that a file's name means: that of this name, or the one whose name ends with it.

    Raises:
        InfraError: there is none, or there are several (`unsupported`).
    """
    found = [modules[name]] if name in modules else [one for key, one in modules.items() if key.endswith(f".{name}")]
    if len(found) != 1:
        raise InfraError(
            f"expected one linear module {name} in the loaded model, found {len(found)}. An adapter cannot name it.",
            reason="unsupported",
        )
    return found[0]


def _linear(name: str, module: Any) -> Linear | None:
    if type(module).__name__ == "Linear":
        return Linear(name, module.out_features, module.in_features, False)
    if type(module).__name__ == "Conv1D":
        return Linear(name, module.weight.shape[1], module.weight.shape[0], True)
    return None
