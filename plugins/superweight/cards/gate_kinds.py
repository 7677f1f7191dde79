"""Kinds of gates: a row of the table holds what is particular to a kind, and everything else looks it up there.

Another package adds a kind by registering a row of its own when it is imported (docs/cards.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from superweight.cards.foreign_kinds import load_foreign_kinds
from superweight.errors import CardError

Stage = Literal["perplexity", "zero-shot"]
"""What is measured: the likelihood of a corpus' windows, or the answers to a task's items."""

INTEGRITY_KINDS = ("detection", "sanity", "super-weights", "measurement")
"""Gates that no card sets a margin for."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.\-_]{0,79}")


@dataclass(frozen=True)
class GateKind:
    """What is particular to one kind of gate.

    Attributes:
        name: as cards, gates and waivers write it.
        of: what it is asked of, and so what its figure is measured from.
        scale: of its figures: `ratio` to the uncompressed model's, judged by its logarithm and written in per cent;
            `points` of a score or a share; `nats` a token.
        margin: what a card's margin is the largest accepted of, in words and with its unit.
        judge: where the function is that judges it, `module:function`; it takes a gate card, the corpus or task, the
            candidate's and the baseline's figure, and an `ErrorBudget`, and returns a `GateResult`.
        share: whether a margin must be below 1.
        required: whether every run judges by it, so that there is a card of it that holds everywhere.
        bound: whether a card may bound the figure itself, beside its margin.
        another_model: of a kind that asks whether the candidate is the same model rather than as good a one: what a
            candidate does that fails it.

    """

    name: str
    of: Literal["corpus", "task"]
    scale: Literal["ratio", "points", "nats"]
    margin: str
    judge: str
    share: bool = False
    required: bool = False
    bound: bool = False
    another_model: str = ""

    @property
    def stage(self) -> Stage:
        """Which measurement its figure comes from."""
        return "perplexity" if self.of == "corpus" else "zero-shot"

    @property
    def items(self) -> Literal["windows", "items"]:
        """What its figure is a mean over."""
        return "windows" if self.of == "corpus" else "items"


_ROWS: dict[str, GateKind] = {}

GATE_KINDS: Mapping[str, GateKind] = MappingProxyType(_ROWS)
"""Every kind by name, in the order in which a cell's gates are judged; kinds that are registered later show in it."""


def register(kind: GateKind) -> GateKind:
    """Add a kind of gate; to add the same one again changes nothing.

    Raises:
        CardError: the name is no identifier, or another kind has it.

    """
    if not _NAME.fullmatch(kind.name):
        raise CardError(f"gate kind '{kind.name}': name: expected lower-case letters, digits, '.', '-' and '_'")
    if kind.name in INTEGRITY_KINDS or _ROWS.get(kind.name, kind) != kind:
        raise CardError(f"gate kind '{kind.name}': name: is taken by another kind. Taken: {', '.join(_taken())}")
    return _ROWS.setdefault(kind.name, kind)


def gate_kind(name: str) -> GateKind:
    """The kind of this name.

    Raises:
        CardError: there is none.

    """
    if name not in _ROWS:
        raise CardError(f"gate kind '{name}' is not known. Known: {', '.join(_ROWS)}")
    return _ROWS[name]


def kinds_of(of: Literal["corpus", "task"]) -> tuple[GateKind, ...]:
    """Kinds that are asked of a corpus, or of a task."""
    return tuple(kind for kind in _ROWS.values() if kind.of == of)


def kinds_from(stage: str) -> tuple[GateKind, ...]:
    """Kinds whose figures come from one measurement, `perplexity` or `zero-shot`; none for anything else."""
    return tuple(kind for kind in _ROWS.values() if kind.stage == stage)


def required_kinds() -> tuple[str, ...]:
    """Names of the kinds that every run judges by."""
    return tuple(name for name, kind in _ROWS.items() if kind.required)


def _taken() -> list[str]:
    return [*INTEGRITY_KINDS, *_ROWS]


def _known(name: str) -> str:
    """The name itself, if it is a kind's, other packages' included."""
    if name not in _ROWS:
        load_foreign_kinds()
    if name in _ROWS:
        return name
    *most, last = (f"'{kind}'" for kind in _ROWS)
    raise PydanticCustomError("gate_kind", "Input should be {known}", {"known": f"{', '.join(most)} or {last}"})


KindName = Annotated[str, AfterValidator(_known)]
"""The name of a kind, as on a card."""


PERPLEXITY = register(
    GateKind(
        name="perplexity",
        of="corpus",
        scale="ratio",
        margin="ratio to the baseline, minus one",
        judge="superweight.verdict.quality:judge_perplexity",
        required=True,
        bound=True,
    )
)
ZERO_SHOT = register(
    GateKind(
        name="zero-shot",
        of="task",
        scale="points",
        margin="drop of the metric (0.02 = two points)",
        judge="superweight.verdict.quality:judge_answers",
        required=True,
        bound=True,
    )
)
DIVERGENCE = register(
    GateKind(
        name="divergence",
        of="corpus",
        scale="nats",
        margin="mean Kullback-Leibler divergence from the baseline's next-token distribution, nats a token",
        judge="superweight.verdict.quality:judge_divergence",
        another_model="its next-token distributions are not the baseline's",
    )
)
AGREEMENT = register(
    GateKind(
        name="agreement",
        of="corpus",
        scale="points",
        margin="share of tokens that the two models rank first differently",
        judge="superweight.verdict.quality:judge_agreement",
        share=True,
        another_model="it ranks other tokens first",
    )
)
FLIPS = register(
    GateKind(
        name="flips",
        of="task",
        scale="points",
        margin="share of items whose chosen answer changed",
        judge="superweight.verdict.quality:judge_flips",
        share=True,
        another_model="it answers other questions right",
    )
)
