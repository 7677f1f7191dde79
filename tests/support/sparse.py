"""Checkpoints of any size whose files are all hole: headers, and the few bytes that somebody planted."""

import json
import struct

SIZES = {"BF16": 2, "I32": 4, "I64": 8, "F32": 4}


class Sparse:
    """A directory of safetensors that takes up almost no disk.

    Tensors are added as name → (dtype, shape), a shard at a time; then bytes can be planted in them.
    """

    def __init__(self, directory, config, shards):
        directory.mkdir(parents=True)
        self.directory, self._where = directory, {}
        weight_map, total = {}, 0
        for number, tensors in enumerate(shards, 1):
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
            total += self._write(directory / name, tensors)
            weight_map |= dict.fromkeys(tensors, name)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        (directory / "config.json").write_text(json.dumps(config))

    @property
    def size(self):
        """Bytes that the files claim to have."""
        return sum(path.stat().st_size for path in self.directory.iterdir())

    @property
    def on_disk(self):
        return sum(path.stat().st_blocks * 512 for path in self.directory.iterdir())

    def plant(self, name, element, content):
        """Write bytes at an element's place, counted flat."""
        file, start, size = self._where[name]
        with file.open("r+b") as stream:
            stream.seek(start + element * size)
            stream.write(content)

    def _write(self, file, tensors):
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for name, (dtype, shape) in tensors.items():
            size = SIZES[dtype]
            for side in shape:
                size *= side
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
            at += size
        raw = json.dumps(header).encode()
        base = 8 + len(raw)
        with file.open("wb") as stream:
            stream.write(struct.pack("<Q", len(raw)) + raw)
            stream.truncate(base + at)
        for name, (dtype, _) in tensors.items():
            self._where[name] = (file, base + header[name]["data_offsets"][0], SIZES[dtype])
        return at


HIDDEN, INNER, LAYERS, HEADS, KEYS, VOCABULARY = 8192, 28672, 80, 64, 8, 128256
MATRICES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN * KEYS // HEADS, HIDDEN),
    "self_attn.v_proj": (HIDDEN * KEYS // HEADS, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INNER, HIDDEN),
    "mlp.up_proj": (INNER, HIDDEN),
    "mlp.down_proj": (HIDDEN, INNER),
}
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEYS,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
}
GROUP = 128


def _dense(rows, columns):
    return {"weight": ("BF16", (rows, columns))}


def _packed(rows, columns):
    return {
        "weight_packed": ("I32", (rows, columns // 8)),
        "weight_scale": ("BF16", (rows, columns // GROUP)),
        "weight_shape": ("I64", (2,)),
    }


def _shards(matrix, count):
    """Eighty layers over so many files, with what lies around them in the first and the last."""
    found = [{} for _ in range(count)]
    found[0]["model.embed_tokens.weight"] = ("BF16", (VOCABULARY, HIDDEN))
    for layer in range(LAYERS):
        shard, prefix = found[layer * count // LAYERS], f"model.layers.{layer}"
        for name, shape in MATRICES.items():
            shard |= {f"{prefix}.{name}.{leaf}": info for leaf, info in matrix(*shape).items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shard[f"{prefix}.{norm}.weight"] = ("BF16", (HIDDEN,))
    found[-1] |= {"model.norm.weight": ("BF16", (HIDDEN,)), "lm_head.weight": ("BF16", (VOCABULARY, HIDDEN))}
    return found


def large_reference(directory):
    """A Llama of 70 thousand million weights in bfloat16, 141 GB, all zero."""
    return Sparse(directory, CONFIG, _shards(_dense, 30))


def large_artefact(directory):
    """The same in 4 bits, groups of 128, as compressed-tensors packs them: 40 GB, all zero but the shapes."""
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": GROUP}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head"],
    }
    made = Sparse(directory, CONFIG | {"quantization_config": settings}, _shards(_packed, 9))
    for layer in range(LAYERS):
        for name, (rows, columns) in MATRICES.items():
            made.plant(f"model.layers.{layer}.{name}.weight_shape", 0, struct.pack("<qq", rows, columns))
    return made
