"""torchao through transformers: int8 and float8 weights, and int4 where there is a kernel for it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from superweight.compress.third_party.launch import Job


def quantise(job: Job) -> None:
    """Load the model quantised, and save it."""
    import torch
    from transformers import AutoModelForCausalLM, TorchAoConfig

    settings = job.settings
    skipped = ["lm_head", *settings["ignore"]] if settings["ignore"] else None  # a list replaces the default
    job.progress(0, 2, "steps: quantise, save")
    config = _config(job)
    model = AutoModelForCausalLM.from_pretrained(
        job.source,
        dtype=getattr(torch, settings["dtype"]),
        device_map={"": job.device},
        quantization_config=TorchAoConfig(config, modules_to_not_convert=skipped),
    )
    job.progress(1, 2, "steps: quantise, save")
    model.save_pretrained(job.out)
    job.copy_tokenizer()
    job.progress(2, 2, "steps: quantise, save")


def _config(job: Job) -> Any:
    from torchao import quantization

    name, size = job.settings["format"], job.settings["group_size"]
    if name == "int8-weight-only":
        return quantization.Int8WeightOnlyConfig()
    if name == "int8-dynamic":
        return quantization.Int8DynamicActivationInt8WeightConfig()
    if name == "float8-weight-only":
        return quantization.Float8WeightOnlyConfig()
    if importlib.util.find_spec("mslk") is None:
        raise job.unsupported(
            "int4-weight-only needs the package mslk, whose kernels are for GPUs; take int8-weight-only here"
        )
    return quantization.Int4WeightOnlyConfig(group_size=size or 128)
