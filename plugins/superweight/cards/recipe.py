"""Recipe cards: one way to compress, with all its parameters."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from superweight.cards.base import Identifier, Strict
from superweight.cards.model import ControlVerdict, Role

Granularity = Literal["tensor", "channel", "group", "block"]


class Baseline(Strict):
    """The uncompressed model."""

    kind: Literal["baseline"]


class NoOp(Strict):
    """Rewrites every weight with itself: a control that must pass."""

    kind: Literal["no-op"]


class RoundToNearest(Strict):
    """Asymmetric round-to-nearest (arXiv:2411.07191, section 4)."""

    kind: Literal["rtn"]
    bits: int = Field(ge=2, le=8)
    granularity: Granularity
    group_size: int | None = Field(default=None, ge=2, description="elements of one row that share a scale")
    block_size: int | None = Field(default=None, ge=2, description="contiguous flattened elements that share a scale")

    @model_validator(mode="after")
    def _size_fits_granularity(self) -> Self:
        for granularity, field in (("group", "group_size"), ("block", "block_size")):
            given = getattr(self, field) is not None
            if given != (self.granularity == granularity):
                verb = "needs" if not given else "does not take"
                raise ValueError(f"granularity '{self.granularity}' {verb} {field}")
        return self


class ClipRestore(RoundToNearest):
    """Clip every block at mean|X| + z·std|X|, round, write the super weights back (arXiv:2411.07191, section 4.2)."""

    kind: Literal["clip-restore"]  # type: ignore[assignment]
    z: (
        Annotated[float, Field(gt=0, allow_inf_nan=True, description="`inf` restores without clipping")]
        | Literal["search"]
    ) = Field(description="clipping threshold in standard deviations, or 'search' on the weights alone")


class W8A8(Strict):
    """INT8 weights and INT8 activations, symmetric absmax (arXiv:2411.07191, section 4.1)."""

    kind: Literal["w8a8"]
    weights: Literal["tensor", "channel"]
    activations: Literal["tensor", "token"]
    super_activations: Literal["naive", "handled"]
    entries: Literal["massive", "largest"] = Field(
        default="massive",
        description="which entries are handled as super activations: all beyond massive_ratio times the mean magnitude "
        "of their sequence, or the one largest entry of each activation scale",
    )
    massive_ratio: float = Field(default=100.0, gt=1, description="see entries = 'massive'")
    replacement: Literal["token", "channel", "tensor"] = Field(
        default="token", description="what the median that stands in for a super activation is taken over"
    )
    attention_matmuls: bool = Field(default=False, description="quantise the inputs of the attention matmuls too")
    execution: Literal["simulated", "integer"] = "simulated"
    keep_super_weights: bool = Field(default=False, description="store super weights exactly, beside the INT8 weight")


class SmoothQuant(Strict):
    """Move activation outliers into the weights, then W8A8 (arXiv:2211.10438)."""

    kind: Literal["smoothquant"]
    alpha: float = Field(ge=0, le=1)
    weights: Literal["tensor", "channel"]
    activations: Literal["tensor", "token"]
    calibration_corpus: Identifier
    calibration_windows: int = Field(default=8, ge=1)
    calibration_window: int = Field(default=512, ge=16, description="tokens")


class PruneSuperWeights(Strict):
    """Zero every super weight."""

    kind: Literal["prune-super-weights"]


class PruneSuperWeightsKeepActivation(Strict):
    """Zero every super weight but put the super activation back by hand (arXiv:2411.07191, table 1)."""

    kind: Literal["prune-super-weights-keep-activation"]


class PruneLargestOthers(Strict):
    """Zero the largest weights that are not super weights."""

    kind: Literal["prune-largest-others"]
    count: int = Field(default=7000, ge=1, description="how many scalars of the decoder layers' linear weights to zero")


class ScaleSuperWeights(Strict):
    """Multiply every super weight by a factor (arXiv:2411.07191, figure 6)."""

    kind: Literal["scale-super-weights"]
    factor: float


class RollChannels(Strict):
    """Move every output channel of every linear weight on by one: no language model survives that."""

    kind: Literal["roll-channels"]


Method = Annotated[
    Baseline
    | NoOp
    | RoundToNearest
    | ClipRestore
    | W8A8
    | SmoothQuant
    | PruneSuperWeights
    | PruneSuperWeightsKeepActivation
    | PruneLargestOthers
    | ScaleSuperWeights
    | RollChannels,
    Field(discriminator="kind"),
]


OF_SUPER_WEIGHTS = ("prune-super-weights", "prune-super-weights-keep-activation", "scale-super-weights")
"""Kinds that change super weights, and so nothing in a model that has none."""


class RecipeCard(Strict):
    """One way to compress."""

    id: Identifier
    title: str = Field(min_length=1)
    note: str = ""
    source: str = Field(default="", description="where the setting comes from")
    role: Role
    method: Method
    promises_super_weights: bool | None = Field(
        default=None, description="every super weight keeps its bits; candidates promise unless they say otherwise"
    )
    expects: ControlVerdict | None = Field(default=None, description="the verdict a control must get")
    beside: Identifier | None = Field(default=None, description="the candidate that a reference is shown beside")
    stand_in: Method | None = Field(
        default=None, description="what a control does to a model in which no super weight is known"
    )

    @model_validator(mode="after")
    def _stand_in_is_for_something(self) -> Self:
        if self.stand_in is not None and (self.role != "control" or self.method.kind not in OF_SUPER_WEIGHTS):
            raise ValueError(f"'stand_in' is for controls whose method.kind is one of {', '.join(OF_SUPER_WEIGHTS)}")
        if self.stand_in is not None and self.stand_in.kind in (*OF_SUPER_WEIGHTS, "baseline"):
            raise ValueError(f"'{self.stand_in.kind}' changes nothing in a model without super weights")
        return self

    @model_validator(mode="after")
    def _role_is_complete(self) -> Self:
        if (self.expects is not None) != (self.role == "control"):
            raise ValueError("a control, and only a control, declares the verdict it must get in 'expects'")
        if self.beside is not None and self.role != "reference":
            raise ValueError("only a reference is shown 'beside' a candidate")
        if (self.role == "baseline") != (self.method.kind == "baseline"):
            raise ValueError("role 'baseline' and method.kind 'baseline' go together")
        return self
