"""Types that the gguf package writes, which tensors get them, and what takes the place of one that does not fit."""

from __future__ import annotations

import re

from superweight.checkpoint.fetching.problems import missing_package
from superweight.errors import InfraError

WRITABLE = ("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4")
"""Types that can be written."""

EMBEDDINGS = ("token_embd.weight", "output.weight")
"""The embedding and the head."""

_INSTEAD = {"TQ1_0": "Q4_0", "TQ2_0": "Q4_0"}
_LAST = "F16"
_MATRIX = re.compile(
    r"blk\.\d+\.(?:attn_(?:q|k|v|qkv|output|q_a|q_b|kv_a_mqa|kv_b|gate)|ffn_(?:gate|up|down|gate_up)(?:_exps|_shexp|\.\d+)?)"
    r"\.weight"
)


def known_kind(name: str) -> str:
    """A type's name as the gguf package spells it.

    Raises:
        InfraError: it cannot be written (`unsupported`).
    """
    kind = name.upper()
    if kind not in WRITABLE:
        raise InfraError(
            f"{name} cannot be written here; {', '.join(WRITABLE)} can. For K and IQ types, write F32 and quantise "
            "that with llama.cpp: llama-quantize NAME.gguf OUT.gguf TYPE.",
            reason="unsupported",
        )
    return kind


def is_layer_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a matrix of attention or of an MLP: no norm, no router, nothing that has to be plain."""
    return len(shape) > 1 and _MATRIX.fullmatch(name) is not None


def kind_that_fits(kind: str, shape: tuple[int, ...]) -> str:
    """The type, or one of smaller blocks that the rows of a shape can be divided into; F16 if there is none."""
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError as error:
        raise missing_package("gguf", "Writing a GGUF file") from error
    for one in (kind, _INSTEAD.get(kind, kind)):
        if shape and shape[-1] % GGML_QUANT_SIZES[GGMLQuantizationType[one]][0] == 0:
            return one
    return _LAST
