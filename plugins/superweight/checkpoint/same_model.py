"""Whether a compressed checkpoint is of the model that it is held against: architecture, vocabulary, tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from superweight.errors import InfraError
from superweight.plain_text import briefly

_SHAPES = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
)
"""Settings that make another architecture of a model."""

_ABOUT_THE_FILE = (
    "_name_or_path",
    "_model_name_or_path",
    "architectures",
    "compression_config",
    "dtype",
    "id2label",
    "label2id",
    "quantization_config",
    "torch_dtype",
    "transformers_version",
    "transformers_weights",
    "use_cache",
    "_attn_implementation",
)
"""Settings that change nothing of what a model computes, or that are told elsewhere."""

_PROBE = "Is it a 1st-rate word, or “naïve” 名 💥?\n"


def check_architecture(where: Path, config: Any, reference: Any) -> list[str]:
    """Refuse another architecture than the reference's, and say in which settings it differs otherwise.

    Args:
        where: the artefact, for messages.
        config: its configuration, as transformers reads it.
        reference: the reference's.

    Raises:
        InfraError: another architecture, or another vocabulary (`recipe-mismatch`).
    """
    own, other = _plain(config), _plain(reference)
    told = [name for name in _SHAPES if own.get(name) is not None and other.get(name) is not None]
    differing = [name for name in told if own[name] != other[name]]
    if differing:
        listed = ", ".join(f"{name} {own[name]!r} for {other[name]!r}" for name in differing)
        what = "vocabulary" if differing == ["vocab_size"] else "architecture"
        raise InfraError(
            f"{where} has another {what} than its reference: {listed}. Give the model that it was made from.",
            reason="recipe-mismatch",
        )
    settings = sorted(own.keys() & other.keys() - {*_SHAPES, *_ABOUT_THE_FILE})
    return [
        f"config.json has {name} {own[name]!r}, and the reference {other[name]!r}"
        for name in settings
        if not _equal(own[name], other[name])
    ]


def check_vocabulary(where: Path, found: int, expected: int) -> None:
    """Refuse a model that chooses among other tokens than the reference.

    Raises:
        InfraError: `recipe-mismatch`, with both numbers.
    """
    if found != expected:
        raise InfraError(
            f"{where} chooses among {found} tokens, and its reference among {expected}: another vocabulary. Give the "
            "model that it was made from.",
            reason="recipe-mismatch",
        )


def tokenizer_differences(directory: Path, reference: Any) -> list[str]:
    """How the artefact's tokenizer differs from the reference's, which is the one that texts are measured with.

    Returns:
        sentences; empty if it is the same, or if there is none.
    """
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        return []
    from transformers import AutoTokenizer

    try:
        own = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
        return list(_differences(own, reference))
    except Exception as error:
        return [f"its tokenizer cannot be loaded ({briefly(error)}); the reference's was used"]


def _differences(own: Any, reference: Any) -> Iterator[str]:
    used = "; texts were measured with the reference's"
    here, there = own.get_vocab(), reference.get_vocab()
    if changed := sorted(token for token in here.keys() | there.keys() if here.get(token) != there.get(token)):
        yield f"its tokenizer has {len(changed)} other tokens than the reference's, {changed[0]!r} among them{used}"
    elif own(_PROBE)["input_ids"] != reference(_PROBE)["input_ids"]:
        yield f"its tokenizer splits text otherwise than the reference's{used}"
    if own.special_tokens_map != reference.special_tokens_map:
        yield f"its tokenizer has other special tokens than the reference's{used}"
    if own.chat_template != reference.chat_template:
        yield "its chat template is not the reference's"


def _plain(config: Any) -> dict[str, Any]:
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    found: dict[str, Any] = {**text.to_dict(), "model_type": text.model_type}
    return found


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= 1e-6 * abs(other)  # written down in another number of digits
    return bool(one == other)
