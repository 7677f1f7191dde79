"""Make gguf/blocks.json: blocks that llama.cpp wrote, and the numbers that llama.cpp reads in them.

    python make_gguf.py REFERENCE LIBGGML

REFERENCE is the embedded model as float32 safetensors (`superweight fetch` converts it). LIBGGML is llama.cpp's
libggml-base; the npm package node-llama-cpp has it built: npm i --ignore-scripts node-llama-cpp@3.21.1
@node-llama-cpp/linux-x64@3.21.1, then node_modules/@node-llama-cpp/linux-x64/bins/linux-x64/libggml-base.so.

The 256 weights of row 507 in layer 11 that lie around the super weight of column 1229 are quantised by
`ggml_quantize_chunk` and read back by `dequantize_row_…`; those types that need an importance matrix get one of ones.
"""

import base64
import ctypes
import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open

ROW, FIRST, COLUMNS = 507, 1024, 256
TENSOR = "model.layers.11.mlp.down_proj.weight"
KINDS = [
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "IQ1_M",
    "TQ1_0",
    "TQ2_0",
    "MXFP4",
    "NVFP4",
    "Q1_0",
]


def weights(reference):
    with safe_open(next(Path(reference).glob("*.safetensors")), framework="np") as file:
        return np.ascontiguousarray(file.get_slice(TENSOR)[ROW : ROW + 1, FIRST : FIRST + COLUMNS][0])


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


def quantised(lib, kind, values):
    number = gguf.GGMLQuantizationType[kind]
    block, size = gguf.GGML_QUANT_SIZES[number]
    raw, ones = np.zeros(COLUMNS // block * size, np.uint8), np.ones(COLUMNS, np.float32)
    lib.ggml_quantize_requires_imatrix.restype = ctypes.c_bool
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    importance = pointer(ones) if lib.ggml_quantize_requires_imatrix(int(number)) else None
    written = lib.ggml_quantize_chunk(int(number), pointer(values), pointer(raw), 0, 1, COLUMNS, importance)
    assert written == raw.size
    return raw


def read(lib, kind, raw):
    values = np.empty(COLUMNS, np.float32)
    name = kind[:-1].lower() + "K" if kind.endswith("_K") else kind.lower()
    function = getattr(lib, f"dequantize_row_{name}")
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function(pointer(raw), pointer(values), COLUMNS)
    return values


def main(reference, library):
    lib, original = ctypes.CDLL(library), weights(reference)
    found = {"row": ROW, "first": FIRST, "original": text(original), "kinds": {}}
    for kind in KINDS:
        raw = quantised(lib, kind, original)
        found["kinds"][kind] = {"raw": text(raw), "values": text(read(lib, kind, raw))}
    out = Path(__file__).parent / "gguf" / "blocks.json"
    out.write_text(json.dumps(found, indent=1) + "\n")


def text(array):
    return base64.b64encode(array.tobytes()).decode()


if __name__ == "__main__":
    main(*sys.argv[1:])
