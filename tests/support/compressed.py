"""Compressed checkpoints for tests, written by compressed-tensors itself, and ways to spoil them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def write_compressed(
    source: Path,
    out: Path,
    *,
    bits: int = 8,
    group_size: int | None = None,
    symmetric: bool = True,
    activations: bool = False,
    ignore: tuple[str, ...] = ("lm_head",),
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Round every linear layer but those ignored, min-max, and let the library write codes and scales."""
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )
    from compressed_tensors.quantization.utils import calculate_qparams
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from superweight.checkpoint.quiet import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
        strategy = "group" if group_size else "channel"
        weights = QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy=strategy, group_size=group_size)
        inputs = QuantizationArgs(num_bits=8, symmetric=True, strategy="token", dynamic=True) if activations else None
        scheme = QuantizationScheme(targets=["Linear"], weights=weights, input_activations=inputs)
        packing = "int-quantized" if bits == 8 else "pack-quantized"
        config = QuantizationConfig(
            config_groups={"all": scheme},
            ignore=list(ignore),
            format=packing,
            quantization_status="compressed",
            quant_method="compressed-tensors",
        )
        apply_quantization_config(model, config)
        for module in model.modules():
            if hasattr(module, "weight_scale"):
                blocks = module.weight.data.unflatten(1, (-1, group_size or module.weight.shape[1]))
                scale, zero = calculate_qparams(blocks.amin(-1), blocks.amax(-1), weights)
                module.weight_scale.data.copy_(scale)
                if getattr(module, "weight_zero_point", None) is not None:
                    module.weight_zero_point.data.copy_(zero)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(out)
        compressor.update_config(out)
        AutoTokenizer.from_pretrained(source).save_pretrained(out)
    return out


def spoiled(source: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of an artefact with other tensors."""
    shutil.copytree(source, out)
    tensors = load_file(out / "model.safetensors")
    change(tensors)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    return out


def configured(source: Path, out: Path, **changes: object) -> Path:
    """A copy of an artefact with other settings in its config.json; None takes one out."""
    shutil.copytree(source, out)
    config = {**json.loads((out / "config.json").read_text()), **changes}
    (out / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return out
