"""Rules on matrices of packed codes with zero points and scales: GPTQ, AWQ, and auto-round's of both layouts."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from superweight.artefact.container import Artefact
from superweight.artefact.formats.awq import KNOWN, asked_awq_layout, awq_label, awq_misfits, named_awq
from superweight.artefact.formats.gptq import asked_layout, gptq_version, misfits
from superweight.artefact.formats.packed_words import WORD, words_for
from superweight.artefact.formats.packing_settings import settings_of
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.forward.runner import CannotTell

_PARTS = ("qweight", "qzeros", "scales")
PACKED_METHODS = ("gptq", "awq", "auto-round")
"""`quant_method` of settings that these formats have."""

_NAMES = {"gptq": "GPTQ", "gemm": "AWQ GEMM", "gemv": "AWQ GEMV"}
_AGAIN = "Write the file again: it is not what its settings say."


def packed_modules(artefact: Artefact) -> list[str]:
    """Modules of which the file holds codes, zero points or scales of these formats, or some of them."""
    found = {name.rpartition(".")[0] for name in artefact.tensors if name.rpartition(".")[2] in _PARTS}
    return sorted(found) if artefact.method in PACKED_METHODS else []


def whole_modules(subject: Subject) -> Iterator[tuple[Artefact, str]]:
    """Those of which the file holds all three, with the artefact."""
    artefact = subject.artefact
    for module in packed_modules(artefact) if artefact else ():
        if artefact and not _missing(artefact, module):
            yield artefact, module


def _missing(artefact: Artefact, module: str) -> list[str]:
    return [leaf for leaf in _PARTS if f"{module}.{leaf}" not in artefact.tensors]


def missing_parts(artefact: Artefact) -> Iterator[tuple[str, str]]:
    """Modules that lack codes, zero points, scales or the groups that the settings speak of, and what they lack."""
    modules = packed_modules(artefact) if _packs(artefact) else []
    if _packs(artefact) and not modules:
        yield "", f"expected packed codes, as the settings say {artefact.method}; found none"
    for module in modules:
        if lack := _missing(artefact, module):
            yield module, f"expected {', '.join(_PARTS)}; found no {', '.join(lack)}"
        elif settings_of(artefact, module).ordered and f"{module}.g_idx" not in artefact.tensors:
            yield module, "expected g_idx, as desc_act says that columns were grouped in another order; found none"


def _packs(artefact: Artefact) -> bool:
    """Whether the settings say that matrices are in one of these formats; auto-round has others too."""
    known = named_awq(artefact.settings) or not isinstance(gptq_version(artefact.settings), CannotTell)
    return artefact.method in ("gptq", "awq") or (artefact.method == "auto-round" and known)


def _packing(subject: Subject) -> Iterator[Fault]:
    for artefact, module in whole_modules(subject):
        said, shown = _said(artefact), shown_packing(artefact, module)
        if shown and said in _NAMES and said != shown:
            yield Fault(
                _where(artefact, module),
                f"expected {_NAMES[said]}, as the settings say; found shapes of {_NAMES[shown]}",
                "Correct quant_method, version or packing_format in the settings, or write the file again.",
            )


def shown_packing(artefact: Artefact, module: str) -> str:
    """The packing that the shapes of codes and scales show: `gptq`, `gemm`, `gemv`; empty if they show none."""
    codes, scales = artefact.tensors[f"{module}.qweight"].shape, artefact.tensors[f"{module}.scales"].shape
    if len(codes) != 2 or len(scales) != 2:
        return ""
    if codes[1] == scales[1]:
        return "gptq"
    if codes[0] == scales[0]:
        return "gemv"
    return "gemm" if codes[1] < scales[1] else ""


def _said(artefact: Artefact) -> str:
    return awq_label(artefact.settings) if named_awq(artefact.settings) else "gptq"


def _bits(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _as_named(subject):
        said, shown = settings_of(artefact, module), _shown_bits(artefact, module)
        if said.bits is not None and shown and not said.excluded and not _fits(artefact, module, said.bits):
            yield Fault(
                _where(artefact, module),
                f"expected codes of {said.bits} bits, as the settings say; zero points and scales show {shown}",
                "Correct bits in the settings, or write the file again.",
            )


def _shown_bits(artefact: Artefact, module: str) -> Fraction | None:
    """Bits of a code by the shapes of zero points and scales; None where those cannot show it."""
    zeros, scales = artefact.tensors[f"{module}.qzeros"].shape, artefact.tensors[f"{module}.scales"].shape
    if len(zeros) != 2 or len(scales) != 2 or not scales[1]:
        return None
    return Fraction(zeros[1] * WORD, scales[1])


def _fits(artefact: Artefact, module: str, bits: int) -> bool:
    """Whether the zero points of a row fill their words, the last perhaps in part."""
    words, codes = artefact.tensors[f"{module}.qzeros"].shape[1], artefact.tensors[f"{module}.scales"].shape[1]
    return words == words_for(codes, bits)


def _as_named(subject: Subject) -> Iterator[tuple[Artefact, str]]:
    """Modules that have not the shapes of another packing than the settings name."""
    for artefact, module in whole_modules(subject):
        if shown_packing(artefact, module) in ("", _said(artefact)):
            yield artefact, module


def _shapes(subject: Subject) -> Iterator[Fault]:
    for artefact, module in _as_named(subject):
        for found in _misfits(artefact, module):
            yield Fault(_where(artefact, module), found, _AGAIN)


def _misfits(artefact: Artefact, module: str) -> Iterator[str]:
    settings, packing = settings_of(artefact, module), KNOWN.get(awq_label(artefact.settings))
    version = gptq_version(artefact.settings)
    if settings.excluded:
        yield f"expected {module} as plain numbers, as the settings except it; found packed codes"
    elif settings.bits is None:
        yield "expected bits in the settings, found none"
    elif not _fits(artefact, module, settings.bits):
        return  # another rule says so
    elif not named_awq(artefact.settings):
        if not isinstance(version, CannotTell):
            yield from misfits(artefact, module, asked_layout(artefact, module, settings, version))
    elif packing is not None:
        yield from awq_misfits(artefact, module, asked_awq_layout(artefact, module, settings, packing))


def some(subject: Subject, leaf: str) -> Iterator[tuple[Artefact, str]]:
    """Tensors of packed modules whose content a rule may read, with the artefact."""
    found = {f"{module}.{leaf}": artefact for artefact, module in whole_modules(subject)}
    for name in subject.some(name for name, artefact in found.items() if name in artefact.tensors):
        yield found[name], name


def _where(artefact: Artefact, module: str) -> str:
    return f"{artefact.tensors[f'{module}.qweight'].file.name}: {module}"


RULES = (
    Rule(
        "packing-disagrees",
        "Codes in another packing than the settings name are read in the wrong order.",
        "error",
        _packing,
    ),
    Rule("packed-bits", "Codes of another width than the settings say are read at the wrong places.", "error", _bits),
    Rule(
        "packed-shapes",
        "Zero points or scales of another shape belong to another layer, or to other groups.",
        "error",
        _shapes,
    ),
)
