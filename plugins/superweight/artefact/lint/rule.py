"""What a rule of the format lint is: an id, a reason, and a look at an artefact that finds faults."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from superweight.artefact.container import Artefact
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
