"""GGUF files that hold given tensors, and the blocks that llama.cpp wrote."""

import base64
import json
from pathlib import Path

import gguf
import numpy as np

KIND = gguf.GGMLQuantizationType
BLOCKS = Path(__file__).parents[1] / "data" / "artefacts" / "gguf" / "blocks.json"


def llama_cpp_blocks():
    """Quantisation type → the bytes that llama.cpp wrote for 256 weights, and the numbers that it reads in them."""
    found = json.loads(BLOCKS.read_text())["kinds"]
    return {kind: (_array(one["raw"], np.uint8), _array(one["values"], np.float32)) for kind, one in found.items()}


def original():
    """The 256 weights that `llama_cpp_blocks` are of: row 507, columns 1024 to 1279 of layer 11."""
    return _array(json.loads(BLOCKS.read_text())["original"], np.float32)


def write(path, tensors, *, architecture="llama", split=0, **keys):
    """A file of tensors: name → array, or (bytes as (rows, bytes of a row), quantisation type). Returns the path."""
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=split)
    for key, value in keys.items():
        key = key.replace("__", ".")
        {int: writer.add_uint32, str: writer.add_string, float: writer.add_float32, list: writer.add_array}[
            type(value)
        ](key, value)
    for name, held in tensors.items():
        if isinstance(held, tuple):
            writer.add_tensor(name, held[0], raw_dtype=KIND[held[1]])
        else:
            writer.add_tensor(name, held)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantised(values, kind):
    """Weights as a quantisation type, for `write`."""
    return np.asarray(gguf.quantize(values, KIND[kind])).view(np.uint8), kind


def _array(text, dtype):
    return np.frombuffer(base64.b64decode(text), dtype)
