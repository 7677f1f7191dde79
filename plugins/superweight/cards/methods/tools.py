"""Other people's quantisers: what each is called, what may be set on a card, and what it needs to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from superweight.cards.base import Strict
from superweight.cards.model import DtypeName

Text = Literal["none", "optional", "needed"]
GroupSize = Annotated[int, Field(ge=16, le=4096, description="elements of a row that share a scale")]
ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.\w+)*$", description="`model.layers.2.mlp.down_proj`")]


class ToolSettings(Strict):
    """A base of what a card may set of one tool, and of what is true of what the tool writes."""

    @property
    def text(self) -> Text:
        """Whether it looks at calibration text."""
        return "none"

    @property
    def scale_spans_row(self) -> bool:
        """Whether one activation scale, or one choice, covers everything that stands in a row."""
        return False

    def next_settings(self) -> list[str]:
        """What to set otherwise when text or answers got worse, the likeliest first."""
        return []

    def settings_that_keep_super_weights(self) -> list[str]:
        """What to set otherwise when super weights lost their bits."""
        return []


class LeavesModulesOut(ToolSettings):
    """A base of the settings of tools that can be told which modules to leave as they are."""

    ignore: tuple[ModuleName, ...] = Field(
        default=(), strict=False, description="modules that are left as they are, by their full names"
    )

    def settings_that_keep_super_weights(self) -> list[str]:
        """Leave their modules out."""
        return ["name the modules of these super weights in settings.ignore: they then stay as they are"]


class CompressedTensors(LeavesModulesOut):
    """compressed-tensors' presets, rounded to nearest."""

    dtype: DtypeName = "bfloat16"
    preset: Literal["W3A16", "W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8_DYNAMIC"]
    group_size: GroupSize | Literal["channel"] | None = Field(
        default=None, description="instead of the preset's 128; 'channel' for one scale a row"
    )

    @model_validator(mode="after")
    def _groups_are_of_weights_alone(self) -> Self:
        if self.group_size is not None and not self.preset.startswith(("W3A16", "W4A16", "W8A16")):
            raise ValueError(f"preset '{self.preset}' has one scale a row and takes no group_size")
        return self

    def next_settings(self) -> list[str]:
        """More bits, or none for activations."""
        if self.preset in ("W8A8", "FP8_DYNAMIC"):
            return ["activations are rounded too: try preset = 'W8A16'"]
        return ["try group_size = 32, or preset = 'W8A16'"] if self.preset != "W8A16" else []


class BitsAndBytes(LeavesModulesOut):
    """bitsandbytes through transformers."""

    dtype: DtypeName = "bfloat16"
    format: Literal["nf4", "fp4", "int8"]
    nested: bool = Field(default=False, description="quantise the scales of nf4 and fp4 too")
    run_before_saving: bool = Field(
        default=False, description="let the model run once before it is saved, as scripts that look at it first do"
    )

    @model_validator(mode="after")
    def _only_scales_of_blocks_are_nested(self) -> Self:
        if self.nested and self.format == "int8":
            raise ValueError("format 'int8' does not take nested")
        return self

    @property
    def scale_spans_row(self) -> bool:
        """Of int8: columns in which some token has a large entry are multiplied apart for all of them."""
        return self.format == "int8"

    def next_settings(self) -> list[str]:
        """Save first; nf4 before fp4; more bits."""
        return [
            *(["the model ran before it was saved: set run_before_saving = false"] if self.run_before_saving else []),
            *(["try format = 'nf4'"] if self.format == "fp4" else []),
            *(["try format = 'int8'"] if self.format != "int8" else []),
        ]


class TorchAo(LeavesModulesOut):
    """torchao through transformers."""

    dtype: DtypeName = "bfloat16"
    format: Literal["int8-weight-only", "int8-dynamic", "float8-weight-only", "int4-weight-only"]
    group_size: GroupSize | None = Field(default=None, description="of int4-weight-only; 128 if not given")

    @model_validator(mode="after")
    def _only_four_bits_have_groups(self) -> Self:
        if self.group_size is not None and self.format != "int4-weight-only":
            raise ValueError(f"format '{self.format}' does not take group_size")
        return self

    def next_settings(self) -> list[str]:
        """The format that loses least."""
        return ["try format = 'int8-weight-only'"] if self.format != "int8-weight-only" else []


class Quanto(LeavesModulesOut):
    """quanto, through optimum."""

    dtype: DtypeName = "bfloat16"
    weights: Literal["int8", "int4", "int2", "float8"]

    def next_settings(self) -> list[str]:
        """More bits."""
        return ["try weights = 'int8'"] if self.weights != "int8" else []


class _Gptq(ToolSettings):
    """A base of the settings of tools that run GPTQ."""

    dtype: DtypeName = "bfloat16"
    bits: Literal[2, 3, 4, 8]
    group_size: GroupSize = 128
    sym: bool = True
    desc_act: bool = Field(default=False, description="take columns in the order of their activations")
    damp_percent: float = Field(default=0.05, gt=0, lt=1)

    @property
    def text(self) -> Text:
        """Its Hessians are of activations."""
        return "needed"

    def next_settings(self) -> list[str]:
        """Smaller groups, more text, more bits."""
        found = ["try group_size = 32, more calibration_windows, or bits = 8"]
        return found if self.bits < 8 else []


class GptqModel(LeavesModulesOut, _Gptq):
    """gptqmodel's GPTQ."""


class OptimumGptq(_Gptq):
    """optimum's GPTQ quantiser."""

    def settings_that_keep_super_weights(self) -> list[str]:
        """Another tool."""
        return ["optimum's quantiser leaves no single module out: try tool = 'gptqmodel', whose settings have ignore"]


class AutoRound(LeavesModulesOut):
    """auto-round, and the formats that it exports."""

    dtype: DtypeName = "bfloat16"
    format: Literal[
        "auto_round",
        "auto_gptq",
        "auto_awq",
        "llm_compressor",
        "gguf:q4_0",
        "gguf:q4_1",
        "gguf:q4_k_s",
        "gguf:q4_k_m",
        "gguf:q5_k_m",
        "gguf:q6_k",
        "gguf:q8_0",
    ] = "auto_round"
    bits: Literal[2, 3, 4, 8] | None = Field(default=None, description="a GGUF format says that itself")
    group_size: GroupSize | None = Field(default=None, description="a GGUF format says that itself")
    sym: bool = True
    iters: int = Field(default=0, ge=0, le=10_000, description="steps of tuning a block; 0 rounds to nearest")

    @model_validator(mode="after")
    def _format_has_a_size(self) -> Self:
        for key, given in (("bits", self.bits is not None), ("group_size", self.group_size is not None)):
            if given == self.is_gguf:
                raise ValueError(f"format '{self.format}' {'does not take' if given else 'needs'} {key}")
        if self.is_gguf and not self.sym:
            raise ValueError(f"format '{self.format}' does not take sym")
        return self

    @property
    def is_gguf(self) -> bool:
        """Whether one of GGUF's types is asked for."""
        return self.format.startswith("gguf:")

    @property
    def text(self) -> Text:
        """To tune; to round to nearest, text weighs errors if there is any."""
        return "needed" if self.iters else "optional"

    def next_settings(self) -> list[str]:
        """Tuning, smaller groups, more bits."""
        return [
            *(["nothing is tuned: try iters = 200 with a calibration_corpus"] if not self.iters else []),
            *(["try group_size = 32, or bits = 8"] if self.bits is not None and self.bits < 8 else []),
        ]

    def settings_that_keep_super_weights(self) -> list[str]:
        """No tuning, or their modules left out."""
        tuned = ["tuning moves weights off their nearest codes: try iters = 0"] if self.iters else []
        return [*tuned, *super().settings_that_keep_super_weights()]


class OpenVino(LeavesModulesOut):
    """OpenVINO, its weights compressed by NNCF."""

    mode: Literal["int8_sym", "int8_asym", "int4_sym", "int4_asym", "nf4"]
    group_size: GroupSize | None = Field(default=None, description="of 4 bits; NNCF's 128 if not given")
    ratio: float | None = Field(default=None, gt=0, le=1, description="share of the weights that get 4 bits, not 8")

    @model_validator(mode="after")
    def _only_four_bits_have_groups(self) -> Self:
        for key, given in (("group_size", self.group_size is not None), ("ratio", self.ratio is not None)):
            if given and self.mode.startswith("int8"):
                raise ValueError(f"mode '{self.mode}' does not take {key}")
        return self

    def next_settings(self) -> list[str]:
        """Smaller groups, some of the weights at 8 bits, all of them."""
        if self.mode.startswith("int8"):
            return []
        return ["try group_size = 32, ratio = 0.8, or mode = 'int8_asym'"]


class Onnx(LeavesModulesOut):
    """ONNX through optimum, its matrices in 8 bits, its activations rounded as they come."""

    per_channel: bool = False

    @property
    def scale_spans_row(self) -> bool:
        """ONNX Runtime takes one activation scale over everything that it multiplies at once."""
        return True

    def next_settings(self) -> list[str]:
        """Scales of rows."""
        return [] if self.per_channel else ["one scale for a whole matrix is coarse: try per_channel = true"]


@dataclass(frozen=True)
class Tool:
    """A quantiser of somebody else's.

    Attributes:
        settings: what a card may set.
        script: `package:file`, what runs it, in whatever Python has it.
        packages: names of the distributions that its result depends on, the tool's own first.
        environment: the environment of its own that it runs in, if it does not run beside the gate's own versions.
        extra: the extra that installs it beside them, if it does.
    """

    settings: type[ToolSettings]
    script: str
    packages: tuple[str, ...]
    environment: str = ""
    extra: str = "quantisers"


def _shipped(file: str) -> str:
    return f"superweight.compress.third_party:{file}.py"


_TORCH = ("transformers", "torch")

TOOLS: dict[str, Tool] = {
    "auto-round": Tool(AutoRound, _shipped("auto_round"), ("auto-round", *_TORCH)),
    "bitsandbytes": Tool(BitsAndBytes, _shipped("bitsandbytes"), ("bitsandbytes", *_TORCH)),
    "compressed-tensors": Tool(
        CompressedTensors, _shipped("compressed_tensors"), ("compressed-tensors", *_TORCH), extra="artefacts"
    ),
    "gptqmodel": Tool(GptqModel, _shipped("gptqmodel"), ("gptqmodel", *_TORCH), environment="gptq"),
    "onnx": Tool(
        Onnx, _shipped("onnx"), ("optimum-onnx", "optimum", "onnx", "onnxruntime", *_TORCH), environment="onnx"
    ),
    "openvino": Tool(OpenVino, _shipped("openvino"), ("nncf", "openvino", *_TORCH)),
    "optimum-gptq": Tool(OptimumGptq, _shipped("optimum_gptq"), ("optimum", "gptqmodel", *_TORCH), environment="gptq"),
    "quanto": Tool(Quanto, _shipped("quanto"), ("optimum-quanto", "optimum", *_TORCH)),
    "torchao": Tool(TorchAo, _shipped("torchao"), ("torchao", *_TORCH)),
}
"""Every tool that a card may name. A package of your own adds to it in the module of its kinds."""
