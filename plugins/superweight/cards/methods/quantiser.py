"""The kind of recipe that somebody else's quantiser carries out: what it wrote is what is gated."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from superweight.cards.base import Identifier
from superweight.cards.methods.base import Calibration, Method
from superweight.cards.methods.tools import TOOLS, Tool, ToolSettings


class Quantiser(Method):
    """A tool and its settings; the harness runs it, keeps what it wrote, and gates that."""

    kind: Literal["quantiser"]
    implementation = ""
    runner = "superweight.measure.artefact_runner:open_quantised"
    compresses = True
    changes_nothing = False
    of_super_weights = False
    everywhere = False
    reads_steps: ClassVar[bool] = True

    tool: str
    settings: SerializeAsAny[ToolSettings] = Field(
        default={}, validate_default=True, description="the tool's own; `superweight.cards.methods.tools`"
    )
    environment: Literal["here", "gptq", "onnx"] | None = Field(
        default=None,
        description="where it runs: this Python, or one of its own (superweight env); the tool's if absent",
    )
    load: Literal["as-shipped", "dequantised"] = Field(
        default="as-shipped",
        description="as its runtime loads it unless told otherwise; or with weights decoded first, which leaves out "
        "the rounding of activations",
    )
    calibration_corpus: Identifier | None = None
    calibration_windows: int = Field(default=8, ge=1, le=4096)
    calibration_window: int = Field(default=512, ge=16, le=131_072, description="tokens")

    @field_validator("tool")
    @classmethod
    def _tool_is_known(cls, name: str) -> str:
        if name not in TOOLS:
            raise PydanticCustomError("tool", f"Input should be {', '.join(map(repr, TOOLS))}")
        return name

    @field_validator("settings", mode="plain")
    @classmethod
    def _settings_are_the_tools(cls, given: Any, info: ValidationInfo) -> ToolSettings:
        tool = TOOLS.get(info.data.get("tool", ""))
        if tool is None:  # told of already
            return ToolSettings()
        return given if isinstance(given, tool.settings) else tool.settings.model_validate(given)

    @model_validator(mode="after")
    def _text_is_what_the_tool_takes(self) -> Self:
        given, asked = self.calibration_corpus is not None, self.settings.text
        if asked == "needed" and not given:
            raise ValueError(f"tool '{self.tool}' with these settings needs calibration_corpus")
        if asked == "none" and given:
            raise ValueError(f"tool '{self.tool}' looks at no text and does not take calibration_corpus")
        return self

    @classmethod
    def table(cls, key: str, given: Any) -> type[ToolSettings] | None:
        """The settings of the tool that a card names."""
        tool = TOOLS.get(given.get("tool", "")) if key == "settings" else None
        return tool.settings if tool else None

    @property
    def facts(self) -> Tool:
        """What the tool needs to run."""
        return TOOLS[self.tool]

    @property
    def place(self) -> str:
        """The environment that it runs in; empty for this Python."""
        return (self.environment or self.facts.environment).replace("here", "")

    @property
    def calibration(self) -> Calibration | None:
        """The card's text, if it names one."""
        if self.calibration_corpus is None:
            return None
        return Calibration(self.calibration_corpus, self.calibration_windows, self.calibration_window)

    @property
    def scale_spans_row(self) -> bool:
        """As the tool's settings say."""
        return self.settings.scale_spans_row

    @property
    def simulated(self) -> bool:
        """It runs as its runtime runs it."""
        return False

    def next_settings(self) -> list[str]:
        """The tool's own, then modules left out."""
        found = self.settings.next_settings()
        if hasattr(self.settings, "ignore"):
            found.append("leave the most sensitive modules as they are, in settings.ignore")
        return found

    def settings_that_keep_super_weights(self) -> list[str]:
        """The tool's own."""
        return self.settings.settings_that_keep_super_weights()
