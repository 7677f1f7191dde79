"""Rewrites small safetensors directories, without torch: takes tensors away, puts others in, changes what JSON says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np


def read_safetensors(file: Path):
    """Tensors as `name: (dtype, shape, bytes)`, and the metadata."""
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    metadata = header.pop("__metadata__", {})
    return {
        name: (info["dtype"], tuple(info["shape"]), data[slice(*info["data_offsets"])]) for name, info in header.items()
    }, metadata


def write_safetensors(file: Path, tensors, metadata):
    """The inverse of `read_safetensors`."""
    header, parts, at = {"__metadata__": metadata}, [], 0
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(content)]}
        parts.append(content)
        at += len(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def tensor(dtype, values):
    """A tensor for `edited`: safetensors' dtype and a numpy array whose bytes it has."""
    array = np.ascontiguousarray(values)
    return dtype, array.shape, array.tobytes()


def array(entry, kind):
    """The numpy array of an entry, by numpy's dtype."""
    return np.frombuffer(entry[2], kind).reshape(entry[1]).copy()


def edited(source: Path, target: Path, *, drop=(), put=None, metadata=None, config=None, other=None):
    """Copy an artefact with some things changed.

    Args:
        source: a directory with model.safetensors.
        target: the new directory.
        drop: names of tensors to leave out.
        put: name → `tensor(…)`, added or replaced.
        metadata: called with the metadata of the file, to change it.
        config: called with what config.json holds, to change it.
        other: file name → called with the JSON in it.
    """
    shutil.copytree(source, target)
    tensors, said = read_safetensors(source / "model.safetensors")
    for name in drop:
        del tensors[name]
    tensors |= put or {}
    if metadata:
        metadata(said)
    write_safetensors(target / "model.safetensors", tensors, said)
    for name, change in {**(other or {}), **({"config.json": config} if config else {})}.items():
        content = json.loads((target / name).read_text())
        change(content)
        (target / name).write_text(json.dumps(content))
    return target
