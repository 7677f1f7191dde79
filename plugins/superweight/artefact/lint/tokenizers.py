"""Whether an artefact's tokenizer is the reference's, by what it says and not by its bytes."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterator
from pathlib import Path

from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.tokenizer_files import SPECIAL, TokenizerFiles

_ADVICE = "Copy the reference's tokenizer files, or measure the artefact with its own and say so."
_STEPS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_LIMITS = ("truncation", "padding")
_SWITCHES = ("add_bos_token", "add_eos_token", "add_prefix_space", "legacy")
_Compare = Callable[[TokenizerFiles, TokenizerFiles], Iterator[tuple[str, str]]]
_BINARY = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt")


def _differs(subject: Subject) -> Iterator[Fault]:
    for name, found in _compared(subject, _differences):
        yield Fault(name, found, _ADVICE)


def _chat_differs(subject: Subject) -> Iterator[Fault]:
    for name, found in _compared(subject, _talk):
        yield Fault(name, found, _ADVICE)


def _compared(subject: Subject, compare: _Compare) -> Iterator[tuple[str, str]]:
    if subject.artefact is None or subject.original is None:
        return
    here, there = TokenizerFiles(subject.artefact.path), TokenizerFiles(subject.original.path)
    if here.there and there.there:
        yield from compare(there, here)


def _differences(reference: TokenizerFiles, artefact: TokenizerFiles) -> Iterator[tuple[str, str]]:
    """What makes another tokenizer of it."""
    if reference.whole and artefact.whole:
        yield from _words(reference, artefact)
        for step in (*_STEPS, *_LIMITS):
            if reference.part(step) != artefact.part(step):
                yield "tokenizer.json", f"expected the {step} {_said(reference, step)}, found {_said(artefact, step)}"
    else:
        yield from _files(reference.directory, artefact.directory)
    for name in SPECIAL[:-1]:
        if reference.special(name) != artefact.special(name):
            found = f"expected {reference.special(name)!r}, found {artefact.special(name)!r}"
            yield f"tokenizer_config.json: {name}", found
    for name in _SWITCHES:
        one, other = reference.settings.get(name), artefact.settings.get(name)
        if one is not None and other is not None and one != other:
            yield f"tokenizer_config.json: {name}", f"expected {one!r}, found {other!r}"


def _words(reference: TokenizerFiles, artefact: TokenizerFiles) -> Iterator[tuple[str, str]]:
    one, other = reference.vocabulary, artefact.vocabulary
    differ = [word for word in {**one, **other} if one.get(word) != other.get(word)]
    if differ:
        word = differ[0]
        found = f"{len(differ)} tokens have other ids, {word!r} {other.get(word)} and not {one.get(word)}"
        yield "tokenizer.json", f"expected the reference's vocabulary; {found}"
    if reference.merges != artefact.merges:
        yield "tokenizer.json", f"expected the reference's {len(reference.merges)} merges, found others"
    special = [[(one["content"], bool(one.get("special"))) for one in files.added] for files in (reference, artefact)]
    if not differ and special[0] != special[1]:
        yield "tokenizer.json: added_tokens", "expected the same special tokens, found others"


def _files(reference: Path, artefact: Path) -> Iterator[tuple[str, str]]:
    """Files that tokenizer.json would be made of."""
    for name in _BINARY:
        one, other = reference / name, artefact / name
        if one.is_file() and other.is_file() and not filecmp.cmp(one, other, shallow=False):
            yield name, "expected the reference's file, found another"


def _said(files: TokenizerFiles, step: str) -> str:
    return files.part(step)[:80] or "to be none"


def _talk(reference: TokenizerFiles, artefact: TokenizerFiles) -> Iterator[tuple[str, str]]:
    """What changes a conversation, and may be meant."""
    if reference.chat_template != artefact.chat_template:
        names = {**reference.chat_template, **artefact.chat_template}
        differ = [one for one in sorted(names) if reference.chat_template.get(one) != artefact.chat_template.get(one)]
        found = "another" if all(one in artefact.chat_template for one in differ) else "none"
        yield "chat template", f"expected the reference's ({', '.join(differ)}), found {found}"
    if reference.special("pad_token") != artefact.special("pad_token"):
        found = f"expected {reference.special('pad_token')!r}, found {artefact.special('pad_token')!r}"
        yield "tokenizer_config.json: pad_token", found


RULES = (
    Rule("tokenizer-differs", "The model is given other tokens than it was trained with.", "error", _differs),
    Rule("chat-template-differs", "A conversation is put to the model in another form.", "warning", _chat_differs),
)
