"""Makes the files under tests/data/artefacts: a tiny model as a tool saved it, cut to its down projection.

Beside each lies `expected.json`: what the tool's own decoder makes of the whole matrix, as a hash of its bytes, and
some elements to look at. The scripts that use this are `tests/data/artefacts/make_*.py`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

MODULE = "model.layers.0.mlp.down_proj"
ROWS, COLUMNS = 32, 192
OTHERS = ["lm_head", "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"]
"""Linear modules that tools leave as they are: the model is narrower than their blocks."""
SUPER_WEIGHTS = {(5, 7): 3.1337, (30, 150): -2.7182}
"""Row and column → value, planted in float32."""


def dense(seed=11):
    """The uncompressed model, float32, with two super weights."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": ROWS, "intermediate_size": COLUMNS, "vocab_size": 64, "num_hidden_layers": 1}
    config = LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False)
    model = LlamaForCausalLM(config).eval()
    for (row, column), value in SUPER_WEIGHTS.items():
        model.get_submodule(MODULE).weight.data[row, column] = value
    return model


def cut(saved: Path, target: Path, matrix=None):
    """Keep of a saved model what belongs to the down projection.

    Args:
        saved: directory that a tool wrote.
        target: directory under tests/data/artefacts.
        matrix: what the tool's decoder makes of the module's weight; None for a file that no decoder reads.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("config.json", "quanto_qmap.json"):
        if (saved / name).is_file():
            _write(target / name, json.loads((saved / name).read_text()))
    file = saved / "model.safetensors"
    tensors = {name: tensor for name, tensor in load_file(file).items() if name.startswith(f"{MODULE}.")}
    with safe_open(file, "pt") as opened:
        metadata = {
            name: text for name, text in opened.metadata().items() if "." not in name or name.startswith(MODULE)
        }
    if "tensor_names" in metadata:
        metadata["tensor_names"] = json.dumps([f"{MODULE}.weight"])
    save_file(tensors, target / "model.safetensors", metadata=metadata)
    qmap = target / "quanto_qmap.json"
    if qmap.is_file():
        _write(qmap, {MODULE: json.loads(qmap.read_text())[MODULE]})
    if matrix is not None:
        _write(target / "expected.json", expected(matrix))


def _write(path: Path, content):
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n")


def expected(matrix: torch.Tensor) -> dict:
    """What a test needs of a decoded matrix `(rows, columns)`, as float32: every dtype here is exact in it."""
    values = matrix.detach().float().contiguous()
    some = [(0, 0), (5, 7), (30, 150), (17, 95), (ROWS - 1, COLUMNS - 1)]
    return {
        "dtype": str(matrix.dtype).removeprefix("torch."),
        "shape": list(values.shape),
        "float32_sha256": hashlib.sha256(values.numpy().astype("<f4").tobytes()).hexdigest(),
        "some": [[row, column, float(values[row, column])] for row, column in some],
    }
