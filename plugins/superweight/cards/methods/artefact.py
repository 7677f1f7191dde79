"""The kind of a recipe that somebody else carried out: a compressed checkpoint, gated as it lies there."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from superweight.cards.base import Identifier
from superweight.cards.methods.base import Calibration, Method
from superweight.cards.model import DtypeName
from superweight.cards.source import Source


class Artefact(Method):
    """A compressed checkpoint, read from its files and run as its format's own runtime runs it."""

    kind: Literal["artefact"]
    implementation = ""
    runner = "superweight.measure.artefact_runner:open_artefact"
    compresses = True
    changes_nothing = False
    of_super_weights = False
    reads_steps = True

    source: Source = Field(description="where the compressed checkpoint is: a directory, a .gguf file, a hub id")
    model: Identifier | None = Field(
        default=None, description="id of the card of the model that it was made from: no other meets it"
    )
    load: Literal["as-shipped", "dequantised"] = Field(
        default="as-shipped",
        description="as its runtime loads it unless told otherwise; or with weights decoded first, which leaves out "
        "the rounding of activations",
    )
    dtype: DtypeName | None = Field(default=None, description="arithmetic of its forward pass; its own if not given")
    also_changes: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="parameters that are stored as plain numbers and are meant to differ from the model's, as "
        "patterns: `*.input_layernorm.weight` where scales were folded into norms",
    )

    @property
    def only_model(self) -> str | None:
        """The card's."""
        return self.model

    @property
    def calibration(self) -> Calibration | None:
        """No text is looked at any more."""
        return None

    @property
    def scale_spans_row(self) -> bool:
        """The runner finds that out of the file."""
        return False

    @property
    def simulated(self) -> bool:
        """It runs as it is."""
        return False

    def next_settings(self) -> list[str]:
        """The tool's, whichever that was."""
        return [
            "let its tool quantise again with smaller groups, more bits, or the most sensitive modules left out "
            "(ignore, modules_to_not_convert, IgnoredScope, a tensor type of its own)"
        ]

    def settings_that_keep_super_weights(self) -> list[str]:
        """Modules left out, or an adapter."""
        return [
            "leave the modules of these super weights unquantised when it is made (ignore, modules_to_not_convert, "
            "IgnoredScope, a tensor type of its own), or ship what is missing as an adapter"
        ]
