"""Compressed-tensors artefacts for benchmarks and tests: rounded to nearest by row or group, clipped if asked."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

TOKENIZER = ("tokenizer*", "special_tokens_map.json", "generation_config.json", "chat_template*", "vocab*", "merges*")


def write_packed(
    source: Path,
    target: Path,
    *,
    dtype: str = "bfloat16",
    bits: int = 8,
    group: int | None = None,
    clip: float | None = None,
    chosen: Callable[[str], bool] = lambda name: name.endswith("down_proj"),
    ignore: tuple[str, ...] = (),
) -> Path:
    """Write the model of a directory with the matrices of the chosen modules as packed integers.

    Args:
        source: a dense checkpoint.
        target: the artefact's directory.
        dtype: of scales, and of all that is not packed.
        bits: of a code.
        group: input channels that share a scale; a scale a row if not given.
        clip: quantile of a row's magnitudes that the largest code stands for; the largest if not given.
        chosen: which linear modules are packed, by their names.
        ignore: which of those are left as they are.
    """
    from compressed_tensors.compressors import pack_to_int32
    from safetensors.torch import load_file, save_file

    kept = getattr(torch, dtype)
    tensors: dict[str, torch.Tensor] = {}
    packed = []
    for file in sorted(source.glob("*.safetensors")):
        for name, value in load_file(file).items():
            module = name.removesuffix(".weight")
            if value.dim() != 2 or not chosen(module) or module in ignore:
                tensors[name] = value.to(kept)
                continue
            codes, scales = rounded(value.float(), bits, group, clip, kept)
            packed.append(module)
            tensors[f"{module}.weight_packed"] = pack_to_int32(codes, bits)
            tensors[f"{module}.weight_scale"] = scales
            tensors[f"{module}.weight_shape"] = torch.tensor(value.shape)
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config = {**config, "dtype": dtype, "quantization_config": _settings(packed, list(ignore), bits, group)}
    config.pop("torch_dtype", None)
    (target / "config.json").write_text(json.dumps(config, indent=1))
    for pattern in TOKENIZER:
        for file in source.glob(pattern):
            shutil.copy(file, target)
    return target


def rounded(
    weight_rc: torch.Tensor, bits: int, group: int | None, clip: float | None, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Symmetric codes `(rows, columns)`, int8, and scales `(rows, groups)`."""
    rows, columns = weight_rc.shape
    blocks = weight_rc.view(rows, -1, group or columns)
    limit = blocks.abs().amax(-1) if clip is None else torch.quantile(blocks.abs(), clip, dim=-1)
    most = 2 ** (bits - 1) - 1
    scales = (limit / most).to(dtype)
    codes = (blocks / scales.float()[..., None]).round().clamp(-most, most)
    return codes.view(rows, columns).to(torch.int8), scales


def _settings(packed: list[str], ignore: list[str], bits: int, group: int | None) -> dict:
    weights = {
        "num_bits": bits, "type": "int", "symmetric": True, "dynamic": False, "observer": "minmax",
        "strategy": "channel" if group is None else "group", "group_size": group,
    }  # fmt: skip
    one = {"targets": packed, "weights": weights, "format": "pack-quantized"}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": [*ignore, "lm_head"],
        "config_groups": {"group_0": one},
    }
