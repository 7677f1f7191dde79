"""A GGUF file of 70 billion weights: a super weight is found in it by reading its header and a few blocks."""

import os

import gguf
import numpy as np
import pytest

from superweight.artefact.check import look
from superweight.artefact.gguf import GgufReader
from superweight.cards.base import Coordinate
from support.ggufs import KIND, llama_cpp_blocks

LAYERS, HIDDEN, INNER, HEADS_KV, VOCABULARY = 80, 8192, 28672, 1024, 128256
SHAPES = {
    "attn_q": (HIDDEN, HIDDEN), "attn_k": (HEADS_KV, HIDDEN), "attn_v": (HEADS_KV, HIDDEN),
    "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN), "ffn_down": (HIDDEN, INNER),
}  # fmt: skip
BLOCK, SIZE = gguf.GGML_QUANT_SIZES[KIND.Q4_K]


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Llama 3 70B in Q4_K, 40 GB of holes but for one block: row 4000, columns 512 to 767 of layer 3."""
    path = tmp_path_factory.mktemp("large") / "large-Q4_K_M.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {number}" for number in range(VOCABULARY)])
    shapes = {f"blk.{layer}.{name}.weight": shape for layer in range(LAYERS) for name, shape in SHAPES.items()}
    for name, (rows, columns) in {"token_embd.weight": (VOCABULARY, HIDDEN), **shapes}.items():
        row = columns // BLOCK * SIZE
        writer.add_tensor_info(name, (rows, row), np.dtype(np.uint8), rows * row, raw_dtype=KIND.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    size = sum(tensor.nbytes for tensor in writer.tensors[0].values())
    writer.close()
    os.truncate(path, (path.stat().st_size + 31) // 32 * 32 + size)  # tensors begin at a multiple of 32
    tensor = GgufReader(path).model.tensors["blk.3.ffn_down.weight"]
    raw, values = llama_cpp_blocks()["Q4_K"]
    with path.open("rb+") as stream:
        stream.seek(tensor.start + (4000 * INNER + 512) // BLOCK * SIZE)
        stream.write(raw.tobytes())
    return path, values


def test_a_super_weight_is_found_in_a_large_file(large):
    path, values = large
    reader = GgufReader(path)
    assert reader.bytes > 39e9
    for column in (0, 205, 255):
        found = reader.scalar(Coordinate(layer=3, row=4000, column=512 + column)).decoded
        assert found.value == float(values[column])
    assert reader.read == 3 * SIZE


def test_the_format_lint_reads_a_little_of_a_large_file(large):
    path, _ = large
    found = look(GgufReader(path))
    assert found.read < 20e6
    assert {one.rule for one in found.findings} == {"gguf-hole"}  # which it has
    assert not found.unchecked
