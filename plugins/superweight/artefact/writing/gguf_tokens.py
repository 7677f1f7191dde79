"""A tokenizer in Hugging Face layout as GGUF's metadata: byte-level BPE whose splitting llama.cpp has a name for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from superweight.artefact.writing.gguf_source import Key
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.shards import read_json
from superweight.errors import InfraError

_LLAMA_3 = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""What Llama 3 splits texts by."""

_CONVERTER = "Convert it with llama.cpp's convert_hf_to_gguf.py, and quantise that."


def tokenizer_keys(checkpoint: Checkpoint) -> list[Key]:
    """The tokenizer of a checkpoint.

    Raises:
        InfraError: there is no tokenizer.json (`not-found`), it is no byte-level BPE, or it splits texts in a way that
            llama.cpp is not known to have (`unsupported`).
    """
    path = checkpoint.directory / "tokenizer.json"
    if not path.is_file():
        raise InfraError(f"{path} is not there; a GGUF file needs the tokenizer. {_CONVERTER}", reason="not-found")
    tokenizer = read_json(path)
    splitting = _splitting(tokenizer)
    if splitting is None:
        raise InfraError(
            f"{path} is no byte-level BPE that splits texts as gpt-2, smollm or llama-bpe do: llama.cpp would make "
            f"other tokens of them. {_CONVERTER}",
            reason="unsupported",
        )
    return list(_keys(checkpoint, tokenizer, splitting))


def _splitting(tokenizer: Mapping[str, Any]) -> str | None:
    """What llama.cpp calls the way in which texts are split before merges apply; None if it is another one."""
    model = tokenizer.get("model") or {}
    steps = _steps(tokenizer.get("pre_tokenizer"))
    if model.get("type") != "BPE" or tokenizer.get("normalizer") or model.get("byte_fallback") or not steps:
        return None
    kinds = [step.get("type") for step in steps]
    if kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    by_words, whole = bool(steps[-1].get("use_regex", True)), bool(model.get("ignore_merges"))
    if kinds == ["ByteLevel"] and by_words and not whole:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and by_words and not whole:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and _is_llama_3(steps[0]) and not by_words and whole:
        return "llama-bpe"
    return None


def _is_llama_3(step: Mapping[str, Any]) -> bool:
    pattern = step.get("pattern") or {}
    return pattern.get("Regex") == _LLAMA_3 and step.get("behavior") == "Isolated" and not step.get("invert")


def _steps(found: Any) -> list[Mapping[str, Any]]:
    if not isinstance(found, Mapping):
        return []
    return [step for one in found.get("pretokenizers", []) for step in _steps(one)] or [found]


def _keys(checkpoint: Checkpoint, tokenizer: Mapping[str, Any], splitting: str) -> Iterator[Key]:
    from gguf import GGUFValueType as Kind
    from gguf import SpecialVocab

    tokens, types = _tokens(tokenizer, int(checkpoint.config["vocab_size"]))
    special = SpecialVocab(checkpoint.directory, load_merges=True, n_vocab=len(tokens))
    yield Key("tokenizer.ggml.model", "gpt2", Kind.STRING)
    yield Key("tokenizer.ggml.pre", splitting, Kind.STRING)
    yield Key("tokenizer.ggml.tokens", tokens, Kind.ARRAY, Kind.STRING)
    yield Key("tokenizer.ggml.token_type", types, Kind.ARRAY, Kind.INT32)
    yield Key("tokenizer.ggml.merges", special.merges, Kind.ARRAY, Kind.STRING)
    for name, number in special.special_token_ids.items():
        yield Key(f"tokenizer.ggml.{_SPECIAL.get(name, name)}_token_id", number, Kind.UINT32)
    for name, is_added in {"bos": False, **special.add_special_token}.items():
        yield Key(f"tokenizer.ggml.add_{name}_token", is_added, Kind.BOOL)
    if isinstance(special.chat_template, str):
        yield Key("tokenizer.chat_template", special.chat_template, Kind.STRING)


def _tokens(tokenizer: Mapping[str, Any], size: int) -> tuple[list[str], list[int]]:
    """Every token by its number, and what kind each is; numbers without a token get one that no text has."""
    from gguf import TokenType

    added = {one["id"]: one for one in tokenizer.get("added_tokens") or ()}
    known = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    tokens, types = [], []
    for number in range(size):
        if number in added:
            tokens.append(added[number]["content"])
            types.append(int(TokenType.CONTROL if added[number].get("special") else TokenType.USER_DEFINED))
        else:
            tokens.append(known.get(number, f"[PAD{number}]"))
            types.append(int(TokenType.NORMAL if number in known else TokenType.UNUSED))
    return tokens, types


_SPECIAL = {"unk": "unknown", "sep": "seperator", "pad": "padding"}
"""What GGUF calls special tokens, where that is another word."""
