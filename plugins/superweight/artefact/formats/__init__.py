"""Formats of matrices: each a module, and the table in which the one that holds a module is looked up."""

from __future__ import annotations

from superweight.artefact.container import Artefact
from superweight.artefact.formats.awq import Awq
from superweight.artefact.formats.base import Decoded, Format, Place
from superweight.artefact.formats.bitsandbytes import BitsAndBytes4bit, BitsAndBytesInt8
from superweight.artefact.formats.compressed_tensors import CompressedTensors
from superweight.artefact.formats.dense import Dense
from superweight.artefact.formats.float8_blocks import Float8Blocks
from superweight.artefact.formats.gptq import Gptq
from superweight.artefact.formats.mxfp4_experts import Mxfp4Experts
from superweight.artefact.formats.quanto import Quanto
from superweight.artefact.formats.torchao import TorchAO

FORMATS: tuple[Format, ...] = (
    BitsAndBytes4bit(),
    BitsAndBytesInt8(),
    TorchAO(),
    Quanto(),
    CompressedTensors(),
    Awq(),
    Gptq(),
    Float8Blocks(),
    Mxfp4Experts(),
    Dense(),
)
"""In the order in which they are asked."""


def format_of(artefact: Artefact, module: str) -> Format | None:
    """What stores the matrix of a module; None if nobody here knows."""
    return next((one for one in FORMATS if one.holds(artefact, module)), None)


__all__ = ["FORMATS", "Decoded", "Format", "Place", "format_of"]
