"""Small compressed artefacts, rounded to nearest and packed by compressed-tensors' own function."""

import json
import re
import shutil

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file

LINEAR = re.compile(r".*\.layers\.\d+\..*proj\.weight")
BESIDE = ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja")


def packed(reference, directory, *, bits=4, group=32, ignore=(), shards=1, change=None):
    """A compressed-tensors artefact of a directory of float32 safetensors.

    Args:
        reference: the directory.
        directory: where the artefact goes.
        bits: of a code.
        group: columns that share a scale.
        ignore: patterns of modules that stay as they are.
        shards: how many files the tensors are spread over, by the layers' order.
        change: is given the tensors and the config, and changes them before they are written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, matrix in load_file(reference / "model.safetensors").items():
        left = not LINEAR.fullmatch(name) or any(re.search(pattern, name) for pattern in ignore)
        tensors |= {name: matrix} if left else _codes(name.removesuffix(".weight"), matrix, bits, group)
    config = json.loads((reference / "config.json").read_text())
    config["quantization_config"] = _settings(bits, group, [f"re:.*{pattern}.*" for pattern in ignore])
    if change is not None:
        change(tensors, config)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
    _save(directory, tensors, shards)
    for name in BESIDE:
        if (reference / name).is_file():
            shutil.copy(reference / name, directory / name)
    return directory


def dense(reference, directory, change, dtype=None):
    """A copy of a directory whose tensors were changed, perhaps in another dtype."""
    shutil.copytree(reference, directory)
    tensors = {
        name: value if dtype is None else value.to(dtype)
        for name, value in load_file(reference / "model.safetensors").items()
    }
    change(tensors)
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def _codes(module, matrix, bits, group):
    rows, columns = matrix.shape
    parts = matrix.float().reshape(rows, columns // group, group)
    scale = (parts.abs().amax(-1) * 2 / (2**bits - 1)).to(torch.bfloat16)
    half = 2 ** (bits - 1)
    codes = (parts / scale.float()[..., None]).round().clamp(-half, half - 1).reshape(rows, columns)
    return {
        f"{module}.weight_packed": pack_to_int32(codes.to(torch.int8), bits),
        f"{module}.weight_scale": scale,
        f"{module}.weight_shape": torch.tensor([rows, columns]),
    }


def _settings(bits, group, ignore):
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        "ignore": ["lm_head", *ignore],
    }


def _save(directory, tensors, shards):
    tensors = {name: value.contiguous() for name, value in sorted(tensors.items(), key=lambda item: _order(item[0]))}
    if shards == 1:
        save_file(tensors, directory / "model.safetensors", {"format": "pt"})
        return
    names, weight_map = list(tensors), {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[len(names) * number // shards : len(names) * (number + 1) // shards]
        save_file({name: tensors[name] for name in part}, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    size = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def _order(name):
    layer = re.search(r"\.layers\.(\d+)\.", name)
    return int(layer[1]) if layer else -1, name
