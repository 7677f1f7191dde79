"""What a rule of the format lint is: an id, a reason, and a look at an artefact that finds faults."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from superweight.artefact.container import Artefact
from superweight.artefact.formats.compressed_tensors import FormatFault, faults_of, is_compressed_tensors
from superweight.artefact.reading import Reader
from superweight.evidence.artefact import CheckedWeight, Severity


class Fault(NamedTuple):
    """One thing that is wrong.

    Attributes:
        where: the file, and the tensor or key in it.
        found: what was expected, and what was found.
        advice: what to do.
    """

    where: str
    found: str
    advice: str


_BUDGET = 16_000_000
_RUNS, _READS = 16, 8192


@dataclass
class Subject:
    """What rules look at.

    Attributes:
        reader: the artefact, opened.
        reference: the uncompressed model; None if none was given.
        super_weights: what became of each, where there is a reference.
        thorough: whether rules may read every scale of the file; else those of a few modules, so that a large file
            takes seconds.
    """

    reader: Reader
    reference: Reader | None = None
    super_weights: Sequence[CheckedWeight] = field(default_factory=list)
    thorough: bool = False

    @property
    def artefact(self) -> Artefact | None:
        """The directory of safetensors, if it is one."""
        found = getattr(self.reader, "artefact", None)
        return found if isinstance(found, Artefact) else None

    @property
    def original(self) -> Artefact | None:
        """The uncompressed model, if it is a directory of safetensors."""
        found = getattr(self.reference, "artefact", None)
        return found if isinstance(found, Artefact) else None

    @cached_property
    def _format_faults(self) -> list[tuple[str, FormatFault]]:
        artefact = self.artefact
        if artefact is None or not is_compressed_tensors(artefact):
            return []
        return [(module, fault) for module in artefact.leaves for fault in faults_of(artefact, module)]

    def format_faults(self, rule: str, advice: str) -> Iterator[Fault]:
        """What a format's own settings do not bear out and is of one rule, module by module."""
        for module, fault in self._format_faults:
            if fault.rule == rule:
                assert self.artefact is not None
                file = next(iter(self.artefact.leaves[module].values())).file.name
                yield Fault(f"{file}: {module}", fault.found, advice)

    def content(self, names: Sequence[str], budget: int = _BUDGET) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """What tensors hold, in float64: whole if all of them together are small or if thorough; else runs of each.

        Args:
            names: the tensors.
            budget: bytes that are read of all together, unless thorough.
        """
        artefact = self.artefact
        if artefact is None or not names:
            return
        infos = [artefact.tensors[name] for name in names]
        whole = self.thorough or sum(info.stop - info.start for info in infos) <= budget
        runs = min(_RUNS, max(1, _READS // len(names)))
        for name, info in zip(names, infos, strict=True):
            width = max(1, (info.stop - info.start) // max(1, math.prod(info.shape)))
            yield name, artefact.numbers(name, None if whole else max(runs, budget // len(names) // width), runs)

    def some(self, names: Iterable[str]) -> list[str]:
        """Those of tensors' names whose content a rule may read: all if thorough; else the first and last eight, and
        those of modules with super weights.
        """
        ordered = sorted(names)
        if self.thorough or len(ordered) <= 2 * _ENDS:
            return ordered
        modules = tuple(f"{weight.tensor}." for weight in self.super_weights if weight.tensor)
        ends = {*ordered[:_ENDS], *ordered[-_ENDS:]}
        return [name for name in ordered if name in ends or name.startswith(modules or ("\0",))]


_ENDS = 8


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        id: `bnb-absmax-shape`.
        reason: why a file that breaks it is ruined, in a sentence.
        severity: `error` if the model is ruined, `warning` if it may be.
        look: finds every fault; gives none for an artefact that the rule is not about.
    """

    id: str
    reason: str
    severity: Severity
    look: Callable[[Subject], Iterable[Fault]]
