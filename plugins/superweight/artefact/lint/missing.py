"""Tensors that are not there, or hold nothing: some loaders fill in zeros or random numbers, and run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from typing import Any

from superweight.artefact.container import Artefact
from superweight.artefact.formats.compressed_tensors import is_compressed_tensors, scheme_of
from superweight.artefact.formats.packing_settings import settings_of
from superweight.artefact.lint.packed import PACKED_METHODS, missing_parts
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.artefact.numbers import NUMPY

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+\..*)")
_PLAIN = frozenset({"weight", "bias"})
_OPTIONAL = frozenset(
    {"bias", "g_idx", "weight_g_idx", "weight_zero_point", "input_scale", "input_zero_point", "input_global_scale"}
    | {"output_scale", "k_scale", "v_scale"}
)
"""What modules of one kind may have or not."""
_EXCEPTIONS = re.compile(r"ignore|not_convert|skip|exclude|dynamic|override", re.IGNORECASE)
_BUFFERS = ("inv_freq", "masked_bias", "rotary_emb.cos_cached", "rotary_emb.sin_cached")
_TIED = ("lm_head", "embed_out", "embed_tokens", "wte")
_CODES = ("weight_packed", "qweight", "weight", "weight_qdata", "_weight_qdata", "_data")
_LOOKED_INTO = 1024  # bytes of a tensor
_ADVICE = "Write the artefact again; a loader may fill the gap with zeros or random numbers, and run."
_OTHER_NAMES = 0.3  # of the reference's tensors that are missing: then they are called otherwise, and none is


def family(module: str) -> str:
    """A module's name without the numbers of its layer and expert: what it shares with its like."""
    return _NUMBER.sub("*", module)


def families(artefact: Artefact) -> dict[str, list[str]]:
    """Modules that are alike but for the numbers of their layer and expert."""
    found: dict[str, list[str]] = {}
    for module in artefact.leaves:
        if _NUMBER.search(module):
            found.setdefault(family(module), []).append(module)
    return found


def _missing(subject: Subject) -> Iterator[Fault]:
    artefact = subject.artefact
    if artefact is None:
        return
    packed = dict(missing_parts(artefact))
    for module, found in packed.items():
        yield _fault(artefact, module, found) if module else Fault(artefact.path.name, found, _ADVICE)
    yield from _incomplete(artefact, packed)
    yield from subject.format_faults("packed-tensor-missing", _ADVICE)
    yield from _left_plain(artefact)
    yield from _absent(subject, artefact)
    yield from _empty(subject, artefact)


def _incomplete(artefact: Artefact, known: Container[str]) -> Iterator[Fault]:
    """Modules that lack a tensor which most of their like have, but for those of which it is known."""
    for like in families(artefact).values():
        counts = Counter(frozenset(artefact.leaves[module]) - _OPTIONAL for module in like)
        usual = max(counts, key=lambda leaves: (counts[leaves], len(leaves)))
        for module in like:
            here = frozenset(artefact.leaves[module]) - _OPTIONAL
            if here < usual and not here <= _PLAIN and module not in known:
                lack = ", ".join(sorted(usual - here))
                yield _fault(artefact, module, f"expected {lack}, as {counts[usual]} modules like it have; found none")


def _left_plain(artefact: Artefact) -> Iterator[Fault]:
    """Modules that are plain where their like are quantised, and no setting says so."""
    if not artefact.settings:
        return
    exceptions = list(_exceptions(artefact.settings))
    for like in families(artefact).values():
        plain = [module for module in like if _is_plain(artefact, module)]
        for module in plain if len(plain) < len(like) else ():
            if not _may_be_plain(artefact, module, exceptions):
                others = len(like) - len(plain)
                yield _fault(artefact, module, f"expected codes, as {others} modules like it have; found plain numbers")


def _is_plain(artefact: Artefact, module: str) -> bool:
    return set(artefact.leaves[module]) <= _PLAIN and not artefact.nests(module)


def _may_be_plain(artefact: Artefact, module: str, exceptions: list[str]) -> bool:
    """Whether the settings name a module among those that stay as they are."""
    if is_compressed_tensors(artefact):
        return scheme_of(artefact, module) is None
    if artefact.method in PACKED_METHODS:
        return settings_of(artefact, module).excluded
    return any(_tells(text, module) for text in exceptions)


def _exceptions(said: Any, *, inside: bool = False) -> Iterator[str]:
    """Every text under a key of the settings that speaks of exceptions."""
    if isinstance(said, str) and inside:
        yield said
    elif isinstance(said, Mapping):
        for key, value in said.items():
            below = inside or _EXCEPTIONS.search(str(key)) is not None
            if inside:
                yield str(key)
            yield from _exceptions(value, inside=below)
    elif isinstance(said, list):
        for one in said:
            yield from _exceptions(one, inside=inside)


def _tells(text: str, module: str) -> bool:
    """Whether a text names a module, a part of its name, or a pattern of it."""
    pattern = re.sub(r"^(re:|[+-]:)", "", text)
    try:
        return pattern != "" and (pattern in module or re.search(pattern, module) is not None)
    except re.error:
        return False


def _absent(subject: Subject, artefact: Artefact) -> Iterator[Fault]:
    """What the reference has and the artefact has not at all: a module for every matrix, a tensor for all else."""
    original = subject.original
    if original is None:
        return
    held = {short_name(name) for name in (*artefact.tensors, *artefact.leaves)}
    held |= {name.rpartition(".")[0] for name in held}  # a packed weight has parts
    wanted = {_asked(name): name for name in original.tensors if _needed(name, original)}
    gone = [name for asked, name in wanted.items() if asked not in held and not _tied(artefact, name)]
    if len(gone) <= _OTHER_NAMES * len(wanted):
        for name in gone:
            yield Fault(f"{artefact.path.name}: {name}", "expected it, as the reference has it; found nothing", _ADVICE)


def _needed(name: str, original: Artefact) -> bool:
    """Whether a tensor is no buffer that is computed anew, and lies in no mixture, whose files call it otherwise."""
    module, _, leaf = name.rpartition(".")
    alone = leaf == "bias" and "weight" not in original.leaves[module]  # GPT-2's causal mask
    return not (name.endswith(_BUFFERS) or ".experts" in name or alone)


def _asked(name: str) -> str:
    return short_name(name.removesuffix(".weight"))


def short_name(name: str) -> str:
    """A name from the layer on; of what is in no layer, without the model around it."""
    found = _LAYER.search(name)
    parts = 2 if name.endswith((".weight", ".bias")) else 1
    return found[1] if found else ".".join(name.split(".")[-parts:])


def _tied(artefact: Artefact, name: str) -> bool:
    """Whether the output layer is the embedding, which is stored once."""
    said = artefact.text_config.get("tie_word_embeddings", artefact.config.get("tie_word_embeddings"))
    return said is not False and name.removesuffix(".weight").rpartition(".")[2] in _TIED


def _empty(subject: Subject, artefact: Artefact) -> Iterator[Fault]:
    """Codes that are zero wherever they were looked at, as in a file that was not written to its end."""
    names = [f"{module}.{leaf}" for module, leaves in artefact.leaves.items() for leaf in leaves if leaf in _CODES]
    infos = {name: artefact.tensors[name] for name in names}
    matrices = [name for name, info in infos.items() if len(info.shape) > 1 and info.dtype in NUMPY]
    for name, some in subject.content(matrices, _LOOKED_INTO * len(matrices)):
        if some.size and not some.any():
            file = infos[name].file.name
            yield Fault(f"{file}: {name}", f"expected codes; all {some.size} that were read are 0", _ADVICE)


def _fault(artefact: Artefact, module: str, found: str) -> Fault:
    file = next(iter(artefact.leaves[module].values())).file.name
    return Fault(f"{file}: {module}", found, _ADVICE)


RULES = (
    Rule(
        "packed-tensor-missing",
        "Loaders fill a missing or empty tensor with zeros or random numbers, and the model runs.",
        "error",
        _missing,
    ),
)
