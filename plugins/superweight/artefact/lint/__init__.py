"""Format lint: rules that find what silently ruins a file, without a model and mostly without a reference."""

from __future__ import annotations

from superweight.artefact.lint import (
    adapters,
    bitsandbytes,
    bitsandbytes_int8,
    clipped,
    content,
    gguf_data,
    gguf_metadata,
    gptq,
    metadata,
    missing,
    openvino,
    packed,
    quanto,
    scales,
    shapes,
    shards,
    tokenizers,
    torchao,
    vocabulary,
)
from superweight.artefact.lint.rule import Fault, Rule, Subject
from superweight.errors import InfraError
from superweight.evidence.artefact import Finding

_GENERAL = (missing, shapes, scales, metadata, shards, content, clipped, vocabulary, tokenizers, adapters)
_OF_FORMATS = (bitsandbytes, bitsandbytes_int8, torchao, quanto, packed, gptq, gguf_data, gguf_metadata, openvino)
RULES: tuple[Rule, ...] = tuple(rule for subject in (*_GENERAL, *_OF_FORMATS) for rule in subject.RULES)
"""Every rule."""

_MOST = 8  # faults of one rule that are listed


def lint(subject: Subject) -> tuple[list[Finding], dict[str, str]]:
    """Apply every rule.

    Returns:
        what was found, errors first; and the rules that could not be applied, with the reason.
    """
    findings: list[Finding] = []
    unchecked: dict[str, str] = {}
    for rule in RULES:
        try:
            faults = list(rule.look(subject))
        except InfraError as error:
            unchecked[rule.id] = str(error)
            continue
        except Exception as error:  # a file that nobody thought of: the other rules go on, and the answer is not "kept"
            unchecked[rule.id] = f"{type(error).__name__}: {error}"
            continue
        findings += [_finding(rule, fault) for fault in faults[:_MOST]]
        if len(faults) > _MOST:
            rest = Fault(str(subject.reader.path), f"the same in {len(faults) - _MOST} more places", faults[0].advice)
            findings.append(_finding(rule, rest))
    return sorted(findings, key=lambda finding: finding.severity != "error"), unchecked


def _finding(rule: Rule, fault: Fault) -> Finding:
    return Finding(rule=rule.id, severity=rule.severity, where=fault.where, found=fault.found, advice=fault.advice)


__all__ = ["RULES", "Fault", "Rule", "Subject", "lint"]
