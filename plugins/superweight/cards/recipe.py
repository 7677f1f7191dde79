"""Recipe cards: one way to compress, with all its parameters."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from superweight.cards.base import Identifier, Strict
from superweight.cards.methods import KINDS, AnyMethod, Baseline
from superweight.cards.model import ControlVerdict, Role
from superweight.cards.promise import EXACT, WITHIN_STEP, Promise, PromiseText


class RecipeCard(Strict):
    """One way to compress."""

    id: Identifier
    title: str = Field(min_length=1)
    note: str = ""
    source: str = Field(default="", description="where the setting comes from")
    role: Role
    method: AnyMethod
    promises_super_weights: bool | None = Field(
        default=None,
        description="every super weight is kept as `promise` says; candidates promise unless they say otherwise",
    )
    promise: PromiseText | None = Field(
        default=None,
        description="how far a super weight may be off: 'exact', 'within-step' of the format that holds it, or a bound "
        "such as '2 %'; a card that gives one promises it",
    )
    expects: ControlVerdict | None = Field(default=None, description="the verdict a control must get")
    beside: Identifier | None = Field(default=None, description="the candidate that a reference is shown beside")
    stand_in: AnyMethod | None = Field(
        default=None, description="what a control does to a model in which no super weight is known"
    )

    @property
    def kept_means(self) -> Promise:
        """When a super weight counts as kept: as the card says; else within a step where steps are read, else exact."""
        return Promise.of(self.promise or (WITHIN_STEP if self.method.reads_steps else EXACT))

    @model_validator(mode="after")
    def _promise_can_be_judged(self) -> Self:
        if self.promise is not None and self.promises_super_weights is False:
            raise ValueError("'promise' says what is promised and promises_super_weights = false that nothing is")
        if self.promise == WITHIN_STEP and not self.method.reads_steps:
            raise ValueError(
                f"kind '{self.method.kind}' shows no steps of a format: promise '{EXACT}', or a bound such as '2 %'"
            )
        return self

    @model_validator(mode="after")
    def _stand_in_is_for_something(self) -> Self:
        if self.stand_in is None:
            return self
        if self.role != "control" or not self.method.of_super_weights:
            kinds = ", ".join(name for name, kind in KINDS.items() if kind.of_super_weights)
            raise ValueError(f"'stand_in' is for controls whose method.kind is one of {kinds}")
        if self.stand_in.of_super_weights or isinstance(self.stand_in, Baseline):
            raise ValueError(f"'{self.stand_in.kind}' changes nothing in a model without super weights")
        return self

    @model_validator(mode="after")
    def _role_is_complete(self) -> Self:
        if (self.expects is not None) != (self.role == "control"):
            raise ValueError("a control, and only a control, declares the verdict it must get in 'expects'")
        if self.beside is not None and self.role != "reference":
            raise ValueError("only a reference is shown 'beside' a candidate")
        if (self.role == "baseline") != isinstance(self.method, Baseline):
            raise ValueError("role 'baseline' and method.kind 'baseline' go together")
        return self
