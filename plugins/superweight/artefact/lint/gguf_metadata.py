"""Rules on what GGUF files say of themselves: types, sizes, tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from superweight.artefact.gguf import GgufReader
from superweight.artefact.gguf.reader import DownProjection
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.checkpoint.gguf_header import GgufArray, read_gguf_array
from superweight.checkpoint.shards import read_json

_BLOCK = re.compile(r"blk\.(\d+)\.")
_IN_NAME = re.compile(r"(?:.*[-._])?(?P<label>(?:IQ|Q|TQ)\d_\w+?|MXFP4|NVFP4|B?F16|F32)(?:-\d{5}-of-\d{5})?")
_MIXED = {"IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S", "IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "MXFP4_MOE": "MXFP4"}
"""Mixtures whose main type is not in their name."""
_TOKENS, _MERGES = "tokenizer.ggml.tokens", "tokenizer.ggml.merges"


def _sizes(subject: Subject) -> Iterator[Fault]:
    """Layers and sizes that the metadata promises and the tensors do not have."""
    reader = subject.reader
    if not isinstance(reader, GgufReader):
        return
    sizes, tensors = reader.sizes, reader.model.tensors
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.match(name))}
    promised = reader.size("block_count")
    if promised is not None and blocks != set(range(promised)):
        odd = sorted(blocks ^ set(range(promised)))
        found = f"expected tensors of the layers 0 to {promised - 1}; differs in {', '.join(map(str, odd[:8]))}"
        yield Fault(f"{reader.model.first.name}: block_count", found, _AGAIN)
    if (wrong := _wrong_shape(reader, sizes)) is not None:
        yield wrong
    tokens, rows = reader.model.keys.get(_TOKENS), sizes.get("vocab_size")
    if isinstance(tokens, GgufArray) and rows is not None and tokens.length != rows:
        found = f"expected a token for each of the {rows} rows of token_embd.weight, found {tokens.length}"
        yield Fault(f"{reader.model.first.name}: {_TOKENS}", found, _AGAIN)


def _wrong_shape(reader: GgufReader, sizes: Mapping[str, int]) -> Fault | None:
    """The first down projection that is not of the sizes that the metadata give."""
    for down in reader.down.values():
        expected = sizes.get("hidden_size"), sizes.get("intermediate_size") if down.expert is None else None
        shape = down.tensor.shape[-2:]
        if any(size not in (None, found) for size, found in zip(expected, shape, strict=False)):
            sides = " × ".join("any" if size is None else str(size) for size in expected)
            found = f"expected {sides} by the metadata, found {' × '.join(map(str, shape))}"
            return Fault(f"{down.file.name}: {down.tensor.name}", found, _AGAIN)
    return None


def _file_type(subject: Subject) -> Iterator[Fault]:
    """What general.file_type says, the file's name says, and its tensors are."""
    reader = subject.reader
    if not isinstance(reader, GgufReader):
        return
    path, named, stated = reader.model.first, _named(reader.model.first), _stated(reader)
    kinds = {tensor.kind for tensor in reader.model.tensors.values()}
    if stated is not None and _main_type(stated) not in kinds:
        found = f"expected tensors of {_main_type(stated)}, as {stated} says; found {', '.join(sorted(kinds))}"
        yield Fault(f"{path.name}: general.file_type", found, "Judge it by its tensors, not by its name.")
    if named is not None and stated is not None and _main_type(named) != _main_type(stated):
        found = f"expected {named}, as the file is named; general.file_type says {stated}"
        yield Fault(f"{path.name}: general.file_type", found, "Name the file after what it holds.")


def _other_type(subject: Subject) -> Iterator[Fault]:
    """Down projections that are stored coarser than the file's name says, or in a type that was fallen back to."""
    reader = subject.reader
    if not isinstance(reader, GgufReader):
        return
    label = _stated(reader) or _named(reader.model.first)
    size = _bits(label)
    if label is None or size is None:
        return
    block, bits = size
    for down in _with_super_weights(subject, reader.down.values()):
        tensor, own = down.tensor, 8 * down.tensor.block_bytes / down.tensor.block
        if tensor.kind == _main_type(label):
            continue
        where = f"{down.file.name}: {tensor.name}"
        if tensor.shape[-1] % block:
            found = f"{tensor.kind} instead, as rows of {tensor.shape[-1]} weights are no whole blocks of {block}"
        elif own < bits:
            found = f"{tensor.kind}, which is coarser: {own:g} bits a weight instead of {bits:g}"
        else:
            continue
        yield Fault(where, f"expected {_main_type(label)}, as {label} says; found {found}", _ADVICE)


def _with_super_weights(subject: Subject, downs: Iterable[DownProjection]) -> list[DownProjection]:
    modules = {weight.tensor for weight in subject.super_weights}
    return [down for down in downs if not modules or down.module in modules]


def _tokenizer(subject: Subject) -> Iterator[Fault]:
    """Tokens and merges that are not the reference's: texts become other numbers than the model learnt."""
    reader, own = subject.reader, _vocabulary(subject)
    if not isinstance(reader, GgufReader) or own is None:
        return
    keys, path = reader.model.keys, reader.model.first
    tokens, merges = keys.get(_TOKENS), keys.get(_MERGES)
    if isinstance(tokens, GgufArray):
        held = read_gguf_array(path, tokens)
        wrong = [at for at, token in own.items() if at >= len(held) or held[at] != token]
        if wrong:
            at = min(wrong)
            there = repr(held[at]) if at < len(held) else "nothing"
            found = f"expected {own[at]!r} as token {at}, as the reference has it; found {there}"
            yield Fault(f"{path.name}: {_TOKENS}", f"{found}, and {len(wrong) - 1} more like it", _CONVERT)
    expected = _merges(subject)
    if expected is not None and keys.get("tokenizer.ggml.model") == "gpt2":
        given = read_gguf_array(path, merges) if isinstance(merges, GgufArray) else []
        if given != expected:
            found = f"expected the {len(expected)} merges of the reference, found {len(given)}"
            yield Fault(f"{path.name}: {_MERGES}", f"{found}{_first_other(given, expected)}", _CONVERT)


def _first_other(given: list[Any], expected: list[str]) -> str:
    pairs = enumerate(zip(given, expected, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), None)
    return "" if at is None else f"; merge {at} is {given[at]!r} instead of {expected[at]!r}"


def _vocabulary(subject: Subject) -> dict[int, str] | None:
    """The reference's tokens by number, but for those that were added to it, which converters rewrite."""
    model, added = _reference_tokenizer(subject)
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not _comparable(subject):
        return None
    return {at: token for token, at in vocabulary.items() if isinstance(at, int) and at not in added}


def _merges(subject: Subject) -> list[str] | None:
    merges = _reference_tokenizer(subject)[0].get("merges")
    if not isinstance(merges, list):
        return None
    return [one if isinstance(one, str) else " ".join(part.replace(" ", "Ġ") for part in one) for one in merges]


def _reference_tokenizer(subject: Subject) -> tuple[Mapping[str, Any], set[int]]:
    """The model in tokenizer.json, and the numbers of added tokens; empty if there is none."""
    path = subject.reference.path / "tokenizer.json" if subject.reference is not None else Path()
    if not path.is_file():
        return {}, set()
    found = read_json(path)
    model, added = found.get("model"), found.get("added_tokens") or ()
    numbers = {one["id"] for one in added if isinstance(one, dict) and isinstance(one.get("id"), int)}
    return model if isinstance(model, dict) else {}, numbers


def _comparable(subject: Subject) -> bool:
    """Whether the file keeps tokens as tokenizer.json does: byte-level and sentence pieces do, word pieces do not."""
    reader = subject.reader
    return isinstance(reader, GgufReader) and reader.model.keys.get("tokenizer.ggml.model") in ("gpt2", "llama")


def _stated(reader: GgufReader) -> str | None:
    """What general.file_type calls the file, `Q4_K_M`; None if it is not known."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(reader.model.keys.get("general.file_type")).name
    except ValueError:
        return None
    return None if name == "GUESSED" else name.removeprefix("MOSTLY_").removeprefix("ALL_")


def _named(path: Path) -> str | None:
    """What the file's name calls it."""
    match = _IN_NAME.fullmatch(path.stem.upper())
    return match["label"] if match is not None and _bits(match["label"]) is not None else None


def _main_type(label: str) -> str:
    """The quantisation type that a mixture is named after: Q4_K of Q4_K_M."""
    from gguf import GGMLQuantizationType

    label = _MIXED.get(label, label)
    known = GGMLQuantizationType.__members__
    return label if label in known else re.sub(r"_(?:XXS|XS|S|M|L|XL|XXL)$", "", label)


def _bits(label: str | None) -> tuple[int, float] | None:
    """Weights in a block of the type that a label names, and bits a weight; None if it is not known."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    known = None if label is None else GGMLQuantizationType.__members__.get(_main_type(label))
    if known is None:
        return None
    block, size = GGML_QUANT_SIZES[known]
    return block, 8 * size / block


_AGAIN = "Convert the model again, or get the file again from its origin."
_CONVERT = "Convert the model again, with the reference's own tokenizer."
_ADVICE = "Judge it by how it is stored; keep the tensor in a finer type (--tensor-type) if that is too coarse."

RULES = (
    Rule("gguf-sizes", "Metadata that disagree with the tensors mean parts of different models.", "error", _sizes),
    Rule("gguf-file-type", "A file that calls itself what it is not is judged by a wrong name.", "warning", _file_type),
    Rule(
        "gguf-other-type",
        "The name of a file does not say how a tensor is stored: some shapes fit no block of its type.",
        "warning",
        _other_type,
    ),
    Rule("gguf-tokenizer", "Other tokens turn every text into other numbers.", "error", _tokenizer),
)
