"""Kinds of recipes that bring weights and activations to INT8."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from superweight.cards.base import Identifier
from superweight.cards.methods.base import Calibration, Method
from superweight.cards.methods.rounding import KEEPS_THEM_ALREADY

_TOKEN = "one massive entry sets the step of every token's activations: try activations = 'token'"
_CHANNEL = "one scale for a whole matrix is coarser than engines use: try weights = 'channel'"


class Int8(Method):
    """A base of kinds with INT8 weights and INT8 activations, symmetric absmax (arXiv:2411.07191, section 4.1)."""

    compresses = True
    changes_nothing = False
    of_super_weights = False


class W8A8(Int8):
    """INT8 weights and INT8 activations, symmetric absmax (arXiv:2411.07191, section 4.1)."""

    kind: Literal["w8a8"]
    implementation = "superweight.compress.w8a8:W8A8Recipe"

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

    @property
    def calibration(self) -> Calibration | None:
        """No text: scales are taken as activations come."""
        return None

    @property
    def scale_spans_row(self) -> bool:
        """Of activations per tensor, and of an attention matmul's operands, whose channels run over all tokens."""
        return self.activations == "tensor" or self.attention_matmuls

    @property
    def simulated(self) -> bool:
        """Unless the card asks for integers."""
        return self.execution == "simulated"

    def next_settings(self) -> list[str]:
        """Whatever is coarser than it need be; else weights alone."""
        found = [
            *([_TOKEN] if self.activations == "tensor" else []),
            *(
                ["massive activations are rounded with the rest: try super_activations = 'handled'"]
                if self.super_activations == "naive"
                else []
            ),
            *([_CHANNEL] if self.weights == "tensor" else []),
            *(
                ["attention is rounded too, which few engines do: try attention_matmuls = false"]
                if self.attention_matmuls
                else []
            ),
        ]
        return found or [
            "scales are per channel and per token and massive entries are handled, so what is left is the rounding of "
            "ordinary activations: try weights alone, kind = 'clip-restore' with bits = 8"
        ]

    def settings_that_keep_super_weights(self) -> list[str]:
        """The side table, unless it has one."""
        if self.keep_super_weights:
            return [KEEPS_THEM_ALREADY]
        return ["set keep_super_weights = true, which stores them exactly beside the INT8 weight"]


class SmoothQuant(Int8):
    """Move activation outliers into the weights, then W8A8 (arXiv:2211.10438)."""

    kind: Literal["smoothquant"]
    implementation = "superweight.compress.smoothquant:SmoothQuantRecipe"

    alpha: float = Field(ge=0, le=1)
    weights: Literal["tensor", "channel"]
    activations: Literal["tensor", "token"]
    calibration_corpus: Identifier
    calibration_windows: int = Field(default=8, ge=1)
    calibration_window: int = Field(default=512, ge=16, description="tokens")

    @property
    def calibration(self) -> Calibration:
        """The text whose activations say how much to move."""
        return Calibration(self.calibration_corpus, self.calibration_windows, self.calibration_window)

    @property
    def scale_spans_row(self) -> bool:
        """Of activations per tensor."""
        return self.activations == "tensor"

    @property
    def simulated(self) -> bool:
        """The card has no choice of arithmetic."""
        return False

    def next_settings(self) -> list[str]:
        """Finer scales, then the kind that handles the down projection's input."""
        return [
            *([_TOKEN] if self.activations == "tensor" else []),
            *([_CHANNEL] if self.weights == "tensor" else []),
            "the input of the down projection is not smoothed, and super weights meet their large inputs there: try "
            "kind = 'w8a8' with super_activations = 'handled'",
        ]

    def settings_that_keep_super_weights(self) -> list[str]:
        """The kind that has a side table."""
        return [
            "smoothquant stores nothing aside: try kind = 'w8a8' with super_activations = 'handled' and "
            "keep_super_weights = true"
        ]
