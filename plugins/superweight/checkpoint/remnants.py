"""What lies in a checkpoint's directory besides the model: adapters, quantisers' leavings, weights no index names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from superweight.checkpoint.files import Checkpoint
from superweight.errors import InfraError

_QUANTISERS = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "quantization_config.json": "a quantiser",
    "hf_quant_config.json": "ModelOpt",
    "quanto_qmap.json": "quanto",
    "qmodel.pt": "HQQ",
    "openvino_config.json": "OpenVINO",
    "ort_config.json": "ONNX Runtime",
}
_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
_NOT_READ = {
    "consolidated*.safetensors": "the publisher's own layout of the same weights, which transformers does not read",
    "*.bin": "a pickle, which is never read",
    "*.pt": "a pickle, which is never read",
    "*.pth": "a pickle, which is never read",
    "*.ckpt": "a pickle, which is never read",
    "*.gguf": "another format of its own; name the file to gate it",
    "*.h5": "TensorFlow's format, which is never read",
    "*.msgpack": "Flax's format, which is never read",
    "*.onnx": "an export, which is never read",
}
_HINTS = (
    (
        re.compile(
            r"(_scale(_inv)?|_scales|\.scales|_zero_point|qweight|qzeros|g_idx|absmax|quant_map|_qdata|_packed)$"
        ),
        "They look like what a quantiser keeps beside its codes: the weights may be codes, and config.json names no "
        "quantiser. ",
    ),
    (re.compile(r"lora_|\.adapter|modules_to_save"), "They look like an adapter's: merge it, or keep it elsewhere. "),
    (re.compile(r"(^|\.)mtp|nextn|eagle|medusa"), "They look like a head that predicts several tokens ahead. "),
)
_LAYER = re.compile(r"(?:layers|h|blocks|layer)\.(\d+)\.")


def check_directory(checkpoint: Checkpoint) -> dict[str, str]:
    """Refuse what would make it unclear which model is meant, and list what is not read.

    Returns:
        other files with weights, name → why they are not read.

    Raises:
        InfraError: `unsupported`: a quantised checkpoint, an adapter, or weights that no index names.
    """
    directory = checkpoint.directory
    _check_config(checkpoint)
    names = sorted(path.name for path in directory.iterdir() if path.is_file()) if directory.is_dir() else []
    if found := [name for name in names if name in _QUANTISERS]:
        raise InfraError(
            f"{directory} holds {found[0]}, the settings of {_QUANTISERS[found[0]]}, and config.json mentions no "
            "quantiser: either the weights are codes, or the file is a leftover. Use the uncompressed checkpoint, or "
            "remove the file.",
            reason="unsupported",
        )
    if found := [name for name in names if name in _ADAPTERS]:
        raise InfraError(
            f"{directory} holds an adapter ({', '.join(found)}) beside whole weights, and whether it is to be applied "
            "is not said. Merge it (peft's merge_and_unload, then save_pretrained), or move it elsewhere.",
            reason="unsupported",
        )
    read = {info.file.name for info in checkpoint.tensors.values()}
    others = {name: _why_not_read(name) for name in names if name not in read and _holds_weights(name)}
    if unnamed := [name for name, why in others.items() if not why]:
        raise InfraError(
            f"{directory} holds {', '.join(unnamed[:5])}, which belong to no index and are no part of what is loaded "
            f"({', '.join(sorted(read)[:3])}). Remove them, or correct the index.",
            reason="unsupported",
        )
    return others


def hints(names: Iterable[str], checkpoint: Checkpoint) -> str:
    """What tensors without use look like, in sentences that end with a space; empty if they look like nothing."""
    names = list(names)
    found = [sentence for pattern, sentence in _HINTS if any(pattern.search(name) for name in names)]
    layers = {int(match[1]) for name in names if (match := _LAYER.search(name))}
    declared = _layers(checkpoint.config)
    if declared is not None and layers and min(layers) >= declared:
        found.append(f"config.json says {declared} layers, and they are of layers up to {max(layers) + 1}. ")
    return "".join(found)


def _check_config(checkpoint: Checkpoint) -> None:
    for where, config in _configs(checkpoint.config):
        for key in ("quantization_config", "compression_config"):
            if settings := config.get(key):
                method = settings.get("quant_method", "an unnamed method") if isinstance(settings, dict) else settings
                raise InfraError(
                    f"{checkpoint.directory} is already quantised ({method}, says {where}{key} in config.json). The "
                    "gate compares recipes with uncompressed weights: use the original checkpoint.",
                    reason="unsupported",
                )


def _configs(config: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """config.json and the configurations inside it, of a text model among others."""
    yield "", config
    for name, inner in config.items():
        if name.endswith("_config") and isinstance(inner, Mapping) and name != "quantization_config":
            yield f"{name}.", inner


def _layers(config: Mapping[str, Any]) -> int | None:
    for _, inner in _configs(config):
        for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
            if isinstance(inner.get(key), int):
                return int(inner[key])
    return None


def _holds_weights(name: str) -> bool:
    return Path(name).suffix in (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx")


def _why_not_read(name: str) -> str:
    return next((why for pattern, why in _NOT_READ.items() if fnmatch(name, pattern)), "")
