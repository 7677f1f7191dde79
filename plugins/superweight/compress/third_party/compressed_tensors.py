"""compressed-tensors' presets, rounded to nearest by the library itself: W4A16, W8A16, W8A8, FP8 and their kin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Give every linear layer the scales of its extremes, and let the library compress and save."""
    import torch
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config
    from transformers import AutoModelForCausalLM

    settings = job.settings
    scheme = _scheme(settings)
    model = AutoModelForCausalLM.from_pretrained(job.source, dtype=getattr(torch, settings["dtype"])).to(job.device)
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head", *settings["ignore"]])
    apply_quantization_config(model, config)
    modules = [module for module in model.modules() if getattr(module, "quantization_scheme", None)]
    if not modules:
        raise job.unsupported("no linear layer of this model is left to quantise: see 'ignore'")
    _check_sizes(job, modules, scheme.weights.group_size)
    for module in job.counted(modules, "layers"):
        _give_scales(module, scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(job.out)
    compressor.update_config(str(job.out))
    job.copy_tokenizer()


def _scheme(settings: dict[str, Any]) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, preset_name_to_scheme

    scheme = preset_name_to_scheme(settings["preset"], ["Linear"])
    if settings["group_size"] is None:
        return scheme
    grouped = settings["group_size"] != "channel"
    size = {"group_size": settings["group_size"] if grouped else None, "strategy": "group" if grouped else "channel"}
    return scheme.model_copy(update={"weights": QuantizationArgs(**{**scheme.weights.model_dump(), **size})})


def _check_sizes(job: Job, modules: list[Any], size: int | None) -> None:
    columns = sorted({module.weight.shape[1] for module in modules if size and module.weight.shape[1] % size})
    if columns:
        raise job.unsupported(
            f"groups of {size} do not divide rows of {', '.join(map(str, columns))} weights: set group_size to 64 or "
            "32, or to 'channel'"
        )


def _give_scales(module: Any, arguments: Any) -> None:
    """Scales and zero points of a layer's weight `(out, in)`, by its rows' or groups' extremes."""
    from compressed_tensors.quantization.utils import calculate_qparams

    weight = module.weight.detach()
    groups = weight.unflatten(-1, (-1, arguments.group_size or weight.shape[1]))
    scale, zero_point = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
    module.weight_scale.data.copy_(scale)
    if getattr(module, "weight_zero_point", None) is not None:
        module.weight_zero_point.data.copy_(zero_point)
