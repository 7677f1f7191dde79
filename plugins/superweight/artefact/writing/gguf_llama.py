"""A Llama in Hugging Face layout as what a GGUF file is written from: names, sizes, the order of q's and k's rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from superweight.artefact.writing.gguf_source import GgufSource, Held, Key
from superweight.artefact.writing.gguf_tokens import tokenizer_keys
from superweight.checkpoint.files import Checkpoint
from superweight.errors import InfraError

_KINDS = {"F32": "F32", "F16": "F16", "BF16": "BF16", "F64": "F32"}
_CONVERTER = "Convert it with llama.cpp's convert_hf_to_gguf.py, and quantise that."
_SIZES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "vocab_size": "vocab_size",
}


def source_of_llama(checkpoint: Checkpoint) -> GgufSource:
    """All that GGUF has of a checkpoint of the model type `llama`.

    Raises:
        InfraError: another model type, or a Llama with what has not been proved here (`unsupported`); a size that
            config.json does not say (`corrupt`).
    """
    _check_known(checkpoint)
    tensors = list(_tensors(checkpoint))
    tensors.sort(key=lambda held: held.name not in ("token_embd.weight", "output.weight", "output_norm.weight"))
    return GgufSource("llama", [*_model_keys(checkpoint), *tokenizer_keys(checkpoint)], tensors)


def _check_known(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaled = str(rope.get("rope_type") or rope.get("type") or "default") if isinstance(rope, Mapping) else str(rope)
    odd = {
        f"its model type is {config.get('model_type')!r}": config.get("model_type") != "llama",
        f"its activation is {config.get('hidden_act')!r}": config.get("hidden_act", "silu") != "silu",
        "its attention has biases": bool(config.get("attention_bias")),
        "its MLP has biases": bool(config.get("mlp_bias")),
        f"its rotary frequencies are scaled ({scaled})": scaled != "default",
        "it is quantised already": bool(config.get("quantization_config")),
    }
    if reasons := [reason for reason, is_so in odd.items() if is_so]:
        raise _unproved(checkpoint, reasons[0])


def _unproved(checkpoint: Checkpoint, reason: str) -> InfraError:
    return InfraError(
        f"{checkpoint.directory} cannot be written as GGUF here: {reason}. {_CONVERTER}", reason="unsupported"
    )


def _model_keys(checkpoint: Checkpoint) -> Iterator[Key]:
    from gguf import GGUFValueType as Kind

    config = checkpoint.config
    yield Key("general.type", "model", Kind.STRING)
    yield Key("general.name", checkpoint.directory.name, Kind.STRING)
    for key, name in _SIZES.items():
        yield Key(f"llama.{key}", _size(checkpoint, name), Kind.UINT32)
    heads = _size(checkpoint, "num_attention_heads")
    dimensions = int(config.get("head_dim") or _size(checkpoint, "hidden_size") // heads)
    yield Key("llama.attention.head_count_kv", int(config.get("num_key_value_heads") or heads), Kind.UINT32)
    for key in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
        yield Key(f"llama.{key}", dimensions, Kind.UINT32)
    rope = config.get("rope_parameters") or {}
    theta = rope.get("rope_theta", config.get("rope_theta", 10_000.0))
    yield Key("llama.rope.freq_base", float(theta), Kind.FLOAT32)
    yield Key("llama.attention.layer_norm_rms_epsilon", float(config.get("rms_norm_eps", 1e-6)), Kind.FLOAT32)


def _size(checkpoint: Checkpoint, name: str) -> int:
    found = checkpoint.config.get(name)
    if not isinstance(found, int) or found < 1:
        raise InfraError(f"{checkpoint.directory}/config.json should say {name}, found {found!r}", reason="corrupt")
    return found


def _tensors(checkpoint: Checkpoint) -> Iterator[Held]:
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH.LLAMA, _size(checkpoint, "num_hidden_layers"))
    tied = bool(checkpoint.config.get("tie_word_embeddings"))
    for name, info in checkpoint.tensors.items():
        if name.endswith("rotary_emb.inv_freq") or (tied and name == "lm_head.weight"):
            continue
        found = names.get_name(name, try_suffixes=(".weight",))
        if found is None or info.dtype not in _KINDS or ".experts." in name:
            raise _unproved(checkpoint, f"{name} ({info.dtype}) is no tensor of a Llama that is known here")
        yield _held(checkpoint, name, found, info.shape)


def _held(checkpoint: Checkpoint, name: str, found: str, shape: tuple[int, ...]) -> Held:
    """A tensor by the name that GGUF has for it; vectors are float32 there, matrices as they are."""
    config = checkpoint.config
    heads = {"q_proj.weight": config["num_attention_heads"]}
    heads["k_proj.weight"] = config.get("num_key_value_heads") or config["num_attention_heads"]
    of_heads = next((count for ending, count in heads.items() if name.endswith(ending)), None)

    def values() -> np.ndarray[Any, Any]:
        plain = checkpoint.read(name).float().numpy()
        return plain if of_heads is None else interleaved(plain, of_heads)

    def raw() -> np.ndarray[Any, Any]:
        return np.ascontiguousarray(values(), "<f4").view(np.uint8).ravel()

    return Held(found, shape, "F32", raw, values)


def interleaved(rows: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Rows of a query or key projection as llama.cpp rotates them: neighbours in pairs, instead of halves of a head.

    Args:
        rows: (heads × size, in); a head's first half of rows is rotated with its second.
        heads: how many there are.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)
