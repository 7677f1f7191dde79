"""Files of two runs in one directory are found."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from support.artefacts import dense, packed

INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(reference, tmp_path):
    return packed(reference, tmp_path / "w4", shards=3)


def index_of(path):
    return json.loads((path / INDEX).read_text())


def shard(path, number, of=3):
    return path / f"model-{number:05}-of-{of:05}.safetensors"


def test_a_whole_model_beside_shards(reference, look, sharded, tmp_path):
    """Loaders differ in which of both they read."""
    shutil.copy(packed(reference, tmp_path / "older", bits=8) / "model.safetensors", sharded)
    assert any("index of shards" in one for one in look(sharded, alone=True)["stale-shard"])


def test_a_shard_of_an_older_run_that_no_index_names(reference, look, sharded, tmp_path):
    older = packed(reference, tmp_path / "older", shards=2)
    shutil.copy(shard(older, 1, 2), sharded)
    os.utime(shard(sharded, 1, 2), (0, 0))
    (found,) = look(sharded, alone=True)["stale-shard"]
    assert found.startswith("model-00001-of-00002.safetensors: ")
    assert "hours before" in found


def test_files_of_other_kinds_may_lie_beside(look, sharded):
    shutil.copy(shard(sharded, 1), sharded / "consolidated.00.safetensors")
    save_file({"x": torch.zeros(1)}, sharded / "extra.safetensors")
    assert look(sharded, alone=True) == {}


def test_what_is_no_whole_file_beside_the_shards(look, sharded):
    (sharded / "model-00004-of-00004.safetensors").write_bytes(b"\x10" * 5)
    assert "no whole file" in look(sharded, alone=True)["stale-shard"][0]


def test_numbers_of_two_sets(look, sharded):
    index = index_of(sharded)
    renamed = "model-00003-of-00004.safetensors"
    shard(sharded, 3).rename(sharded / renamed)
    index["weight_map"] = {
        name: renamed if "model-00003" in file else file for name, file in index["weight_map"].items()
    }
    (sharded / INDEX).write_text(json.dumps(index))
    assert "of 3 and of 4" in look(sharded, alone=True)["stale-shard"][0]


@pytest.mark.parametrize("taken", [1, 2])
def test_a_tensor_in_two_shards(taken, look, sharded):
    """Whichever of both the index names: a loader that reads every file takes the last."""
    name = next(
        name
        for name, file in index_of(sharded)["weight_map"].items()
        if "model-00001" in file and name.endswith("_packed")
    )
    tensors = load_file(shard(sharded, 2))
    save_file(tensors | {name: load_file(shard(sharded, 1))[name]}, shard(sharded, 2), {"format": "pt"})
    index = index_of(sharded)
    index["weight_map"][name] = shard(sharded, taken).name
    (sharded / INDEX).write_text(json.dumps(index))
    assert any(f"expected {name} once, found it 2 times" in one for one in look(sharded, alone=True)["stale-shard"])


def test_a_tensor_that_the_index_names_twice(look, sharded):
    text = (sharded / INDEX).read_text()
    name = next(iter(index_of(sharded)["weight_map"]))
    first = f'"{name}": "{shard(sharded, 1).name}"'
    (sharded / INDEX).write_text(text.replace(first, f'{first}, "{name}": "{shard(sharded, 1).name}"'))
    assert "once, found it 2 times" in look(sharded, alone=True)["stale-shard"][0]


def test_a_tensor_that_the_index_does_not_name(look, sharded):
    index = index_of(sharded)
    name = next(name for name in index["weight_map"] if name.endswith("q_proj.weight_scale"))
    del index["weight_map"][name]
    (sharded / INDEX).write_text(json.dumps(index))
    assert any(name in one for one in look(sharded, alone=True)["stale-shard"])


@pytest.mark.parametrize("key", ["superweight", "recipe_sha256", "version"])
def test_files_that_say_they_are_of_other_runs(key, look, sharded):
    for number in (1, 2, 3):
        save_file(
            load_file(shard(sharded, number)),
            shard(sharded, number),
            {"format": "pt", key: "a", f"layer.{number}": "x"},
        )
    assert look(sharded, alone=True) == {}
    save_file(load_file(shard(sharded, 2)), shard(sharded, 2), {"format": "pt", key: "b"})
    assert look(sharded, alone=True)["stale-shard"][0].startswith(shard(sharded, 2).name)


def test_an_older_runs_shard_in_place_of_the_new_one(reference, look, sharded, tmp_path):
    """Other bits: settings and words disagree, and files differ."""
    older = packed(reference, tmp_path / "older", bits=8, shards=3)
    shutil.copy(shard(older, 3), sharded)
    found = look(sharded, alone=True)
    assert "scale-shape" in found
    assert "index-size" in found
    assert "shards-differ" in found or len(found["scale-shape"]) > 1


def test_a_shard_of_another_model_of_the_same_shape(reference, look, sharded, tmp_path):
    """Nothing in headers tells; what the layers hold does."""

    def other(tensors):
        generator = torch.Generator().manual_seed(0)
        for name, value in tensors.items():
            if value.dim() > 1:
                tensors[name] = torch.randn(value.shape, generator=generator) * value.std()

    stranger = packed(dense(reference, tmp_path / "dense", other), tmp_path / "stranger", shards=3)
    shutil.copy(shard(stranger, 2), sharded)
    assert look(sharded, alone=True) == {}
    assert all("correlate" in one for one in look(sharded)["weights-unlike"])


def test_files_that_differ_in_dtype_are_a_hint(look, reference, tmp_path):
    path = dense(reference, tmp_path / "copy", lambda tensors: None)
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    halves = [
        {n: t for n, t in tensors.items() if f"layers.{a}." in n or f"layers.{b}." in n or f"layers.{c}." in n}
        for a, b, c in ((0, 1, 2), (3, 4, 5))
    ]
    rest = {name: tensor for name, tensor in tensors.items() if ".layers." not in name}
    save_file(halves[0] | rest, shard(path, 1, 2))
    save_file({name: tensor.half() for name, tensor in halves[1].items()}, shard(path, 2, 2))
    weight_map = {
        **dict.fromkeys([*halves[0], *rest], shard(path, 1, 2).name),
        **dict.fromkeys(halves[1], shard(path, 2, 2).name),
    }
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    found = look(path, alone=True)
    assert set(found) == {"shards-differ"}
    assert any("F32" in one and "F16" in one for one in found["shards-differ"])


def test_an_index_that_counts_other_bytes_is_a_hint(look, sharded):
    index = index_of(sharded)
    index["metadata"]["total_size"] += 1
    (sharded / INDEX).write_text(json.dumps(index))
    assert set(look(sharded, alone=True)) == {"index-size"}
