"""What a kind of recipe says of itself: its parameters on a card, and the facts that the rest of the gate asks for."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, NamedTuple, get_args, get_origin

from superweight.cards.base import Strict


class Calibration(NamedTuple):
    """The text that a recipe calibrates on."""

    corpus: str
    """Id of a corpus card."""
    windows: int
    window: int
    """Tokens a window."""


class WeightBlocks(NamedTuple):
    """Integer codes of weights, with a scale for every so many of them."""

    bits: int
    elements: int
    """That share a scale."""
    rounding: str
    """How codes are chosen, in words: recipes of the same words are one line of a picture."""


KINDS: dict[str, type[Method]] = {}
"""Every kind of recipe that has been imported, by what a card calls it."""


class Method(Strict):
    """The parameters of one kind of recipe, and what is true of it.

    A kind is a subclass whose `kind` is a literal of one name; it is known once its module is imported. It has to state
    every fact below that has no value here. A subclass without such a `kind` is a base of kinds, and may leave facts
    to them.
    """

    kind: str

    implementation: ClassVar[str]
    """`package.module:Class`: the `superweight.compress.recipe.Recipe` that does it, imported when it is applied; empty
    if its runner has nothing applied to the model in memory."""

    runner: ClassVar[str] = "superweight.measure.resident_runner:ResidentRunner"
    """`package.module:Class`: the `superweight.forward.runner.Runner` that runs a model under it, made from the
    reference model and the cell when the cell is measured. Unless a kind says otherwise, it is the model in memory."""

    compresses: ClassVar[bool]
    """Whether the model gets smaller; else it is the baseline or an experiment, and has the checkpoint's size."""

    changes_nothing: ClassVar[bool]
    """Whether every bit of the model stays as it is."""

    of_super_weights: ClassVar[bool]
    """Whether it changes super weights alone, and so nothing in a model that has none."""

    reads_steps: ClassVar[bool] = False
    """Whether its runner reads the steps of the format that holds a super weight. A candidate then promises to stay
    within one, unless its card says otherwise; without steps it promises every bit."""

    everywhere: ClassVar[bool] = True
    """Whether a tier's '*' means its recipes, too; one that needs more than the gate's own packages is asked for by
    name."""

    @classmethod
    def __pydantic_init_subclass__(cls, **options: Any) -> None:
        """Make the kind known to cards.

        Raises:
            TypeError: it leaves a fact out, or its name is another kind's.
        """
        super().__pydantic_init_subclass__(**options)
        name = _literal_kind(cls)
        if name is None:
            return
        constants = {fact for fact in Method.__class_vars__ if not hasattr(cls, fact)}
        if missing := sorted(constants | cls.__abstractmethods__):
            raise TypeError(f"recipe kind '{name}' ({_where(cls)}) does not say {', '.join(missing)}")
        known = KINDS.get(name)
        if known is not None and _where(known) != _where(cls):
            raise TypeError(f"recipe kind '{name}' is declared twice: by {_where(known)} and by {_where(cls)}")
        KINDS[name] = cls

    @property
    @abstractmethod
    def calibration(self) -> Calibration | None:
        """The text that it calibrates on; None if it looks at no text."""

    @property
    @abstractmethod
    def scale_spans_row(self) -> bool:
        """Whether one scale covers everything that stands in a row, so that answers must not share a row."""

    @property
    @abstractmethod
    def simulated(self) -> bool:
        """Whether the card asks for simulated arithmetic where it could ask for an engine's."""

    @abstractmethod
    def next_settings(self) -> list[str]:
        """What to set otherwise when text or answers got worse.

        Returns:
            sentences, the likeliest first; empty for a recipe whose damage is meant.
        """

    @abstractmethod
    def settings_that_keep_super_weights(self) -> list[str]:
        """What to set otherwise when super weights lost their bits; empty for a recipe that means to change them."""

    @classmethod
    def table(cls, key: str, given: Any) -> type[Strict] | None:
        """What may stand in a table inside the card's `method`; None if it is no table, or one of nobody's.

        Args:
            key: the table's.
            given: the whole method, as it stands on the card.
        """
        return None

    @property
    def only_model(self) -> str | None:
        """Id of the one model card that it can be asked of; None for any model."""
        return None

    @property
    def super_weight_factor(self) -> float | None:
        """What every super weight is multiplied by, if that is all that is done to the model."""
        return None

    @property
    def weight_blocks(self) -> WeightBlocks | None:
        """How many weights share a scale, if that is a number of the card's own and activations are left alone."""
        return None


def _literal_kind(cls: type[Method]) -> str | None:
    """The name of a kind; None for a base of kinds."""
    annotation = cls.model_fields["kind"].annotation
    values = get_args(annotation) if get_origin(annotation) is Literal else ()
    return str(values[0]) if len(values) == 1 else None


def _where(cls: type[Method]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


class WeightsAlone(Method):
    """A base of kinds that look at the weights alone: no text decides, and activations are left as they are."""

    @property
    def calibration(self) -> Calibration | None:
        """No text."""
        return None

    @property
    def scale_spans_row(self) -> bool:
        """Activations have no scale."""
        return False

    @property
    def simulated(self) -> bool:
        """Weights are decoded before they are multiplied, as engines do."""
        return False
