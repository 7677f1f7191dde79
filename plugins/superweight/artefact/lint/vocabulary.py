"""Whether tokens, embeddings and output layer are of one vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterator

from superweight.artefact.container import Artefact
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.tokenizer_files import TokenizerFiles

_EMBEDDING = re.compile(r"(?:^|\.)(?:embed_tokens|wte|embed_in|word_embeddings|tok_embeddings)\.weight$")
_OUTPUT = re.compile(r"^(?:lm_head|embed_out|output)\.weight$")
_ADVICE = "Take tokenizer, config and weights from one model."


def _differs(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    rows, said = _rows(artefact, _EMBEDDING), artefact.size_of("vocab_size")
    if rows is not None and said is not None and rows < said:
        yield _fault(artefact, f"config.json says {said} tokens, the embedding has {rows} rows")
    out = _rows(artefact, _OUTPUT)
    if rows is not None and out is not None and rows != out:
        yield _fault(artefact, f"the embedding has {rows} rows, the output layer {out}")
    words = TokenizerFiles(artefact.path).size
    known = rows or said
    if words is not None and known is not None and words > known:
        yield _fault(artefact, f"the tokenizer gives ids up to {words - 1}, the model knows {known} tokens")
    yield from _beside_the_reference(artefact, subject.original)


def _beside_the_reference(artefact: Artefact, original: Artefact | None) -> Iterator[Fault]:
    if original is None:
        return
    one, other = original.size_of("vocab_size"), artefact.size_of("vocab_size")
    if one is not None and other is not None and one != other:
        yield _fault(artefact, f"the reference has {one} tokens, the artefact {other}")
    rows, found = _rows(original, _EMBEDDING), _rows(artefact, _EMBEDDING)
    if rows is not None and found is not None and rows != found:
        yield _fault(artefact, f"the reference's embedding has {rows} rows, the artefact's {found}")


def _rows(artefact: Artefact, pattern: re.Pattern[str]) -> int | None:
    """Rows of a plain matrix; None if it is not there, or is packed."""
    found = [info for name, info in artefact.tensors.items() if pattern.search(name) and len(info.shape) == 2]
    return found[0].shape[0] if len(found) == 1 and found[0].dtype in ("F64", "F32", "F16", "BF16", "I8") else None


def _fault(artefact: Artefact, found: str) -> Fault:
    return Fault(artefact.path.name, f"expected one vocabulary; {found}", _ADVICE)


RULES = (
    Rule("vocabulary-differs", "Ids of tokens stand for other rows of the embedding, or for none.", "error", _differs),
)
