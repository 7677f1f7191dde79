"""What detection found, as plain frozen data without tensors."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from superweight.cards.base import Coordinate
from superweight.evidence.measured import LayerPeaks

Standing = Literal["causal", "spoke", "inert"]
Origin = Literal["detection", "card"]
GroupKind = Literal["column", "row", "all"]


@dataclass(frozen=True)
class SuperActivation:
    """A massive entry of the residual stream and the layer at whose end it appears.

    Attributes:
        layer: index of the decoder layer that writes it.
        module: name of the parameter that writes it.
        token: position in the prompt, counted from 0 with BOS included.
        token_id: the token there.
        token_text: the same as text.
        bos: whether the prompt began with BOS.
        channel: the residual channel, which is the row of the super weights that write it.
        value: the entry after the layer.
        first_layer: first of the consecutive layers, `layer` among them, that leave at least half of `value`.
        last_layer: the last of them.
        peak: the entry's largest magnitude after any layer, with its sign.
        peak_layer: the layer after which it has that magnitude.

    """

    layer: int
    module: str
    token: int
    token_id: int
    token_text: str
    bos: bool
    channel: int
    value: float
    first_layer: int
    last_layer: int
    peak: float
    peak_layer: int


@dataclass(frozen=True)
class SuperWeight:
    """One examined weight of a down projection, with its measured standing.

    Attributes:
        coordinate: where it is.
        value: the stored scalar.
        bits: the stored scalar's bits in `dtype`, as hexadecimal.
        dtype: the dtype it is stored in.
        status: `causal` if zeroing it alone does harm, `spoke` if only zeroing it with its group does, else `inert`.
        effect: perplexity when it alone is zeroed over perplexity of the untouched model.
        interval: two-sided 98 % interval of `effect`, from paired differences.
        group: the group whose joint zeroing made it a spoke, else its input column's if that has other candidates.
        group_effect: perplexity ratio when that group is zeroed jointly; None if it has no group.
        null_effect: the largest ratio when as many equally large other weights were zeroed; None if its own effect is
            below the floor, where no null is needed to call it inert.
        activation: index into `Detection.super_activations`.
        contribution: share of the down projection's output entry that this weight's term makes up; None if only the
            card names it.
        input_value: the input it multiplies there, times the router's weight in a mixture; None likewise.
        suppression: share of the super activation's peak that disappears when this weight alone is zeroed.
        origin: `card` if detection did not propose it.

    """

    coordinate: Coordinate
    value: float
    bits: str
    dtype: str
    status: Standing
    effect: float
    interval: tuple[float, float]
    group: GroupKind | None
    group_effect: float | None
    null_effect: float | None
    activation: int
    contribution: float | None
    input_value: float | None
    suppression: float
    origin: Origin

    def as_dict(self) -> dict[str, Any]:
        """Flat, for JSON."""
        rest = {key: value for key, value in asdict(self).items() if key != "coordinate"}
        where = self.coordinate
        return {"layer": where.layer, "expert": where.expert, "row": where.row, "column": where.column, **rest}


@dataclass(frozen=True)
class Group:
    """Weights that were zeroed together.

    Attributes:
        kind: `column`: they share an input column; `row`: an output row of one layer; `all`: every candidate.
        members: the weights.
        effect: perplexity ratio when all members are zeroed.
        without_causal: ratio when only the members that are not causal are zeroed; None if all or none are causal.
        null_effect: largest ratio of as many equally large other weights; None where no null was needed.

    """

    kind: GroupKind
    members: tuple[Coordinate, ...]
    effect: float
    without_causal: float | None
    null_effect: float | None


@dataclass(frozen=True)
class Detection:
    """The answer of a detector.

    Attributes:
        super_weights: examined weights: causal first, then spokes, then inert ones, each by falling effect.
        super_activations: the massive entries they write.
        groups: what was zeroed jointly.
        peaks: by layer.
        perplexity: of the untouched model on the confirmation text.
        tokens: predicted tokens of that text.
        prompt: the prompt that was traced.
        rounds: forward passes of the prompt until no new candidate appeared.
        settings: thresholds used.

    """

    super_weights: tuple[SuperWeight, ...]
    super_activations: tuple[SuperActivation, ...]
    groups: tuple[Group, ...]
    peaks: tuple[LayerPeaks, ...]
    perplexity: float
    tokens: int
    prompt: str
    rounds: int
    settings: dict[str, float] = field(default_factory=dict)

    @property
    def found(self) -> tuple[SuperWeight, ...]:
        """The causal ones and the spokes: what a compressed model must keep. Empty means that the model has none."""
        return tuple(weight for weight in self.super_weights if weight.status != "inert")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        groups = [{**asdict(group), "members": [m.model_dump() for m in group.members]} for group in self.groups]
        return {
            "super_weights": [weight.as_dict() for weight in self.super_weights],
            "super_activations": [asdict(activation) for activation in self.super_activations],
            "groups": groups,
            "peaks": [peaks.model_dump() for peaks in self.peaks],
            "perplexity": self.perplexity,
            "tokens": self.tokens,
            "prompt": self.prompt,
            "rounds": self.rounds,
            "settings": dict(self.settings),
        }
