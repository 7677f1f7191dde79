"""A checkpoint's files: what is read from them, and every way in which they can be unfit."""

import hashlib
import json
import shutil
import struct

import pytest
import torch
from safetensors.torch import load_file, save_file

from superweight.cards.source import DirectorySource
from superweight.checkpoint import open_directory, planned_downloads, resolve
from superweight.checkpoint.header import read_header
from superweight.errors import InfraError

DOWN = "model.layers.1.mlp.down_proj.weight"


def refused(reason, action):
    with pytest.raises(InfraError) as caught:
        action()
    assert caught.value.reason == reason
    return str(caught.value)


def safetensors(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


class TestReading:
    def test_header_agrees_with_safetensors(self, tiny):
        reference = load_file(tiny / "model.safetensors")
        tensors = open_directory(tiny).tensors
        assert set(tensors) == set(reference)
        raw = (tiny / "model.safetensors").read_bytes()
        for name, tensor in tensors.items():
            assert tensor.shape == tuple(reference[name].shape)
            assert tensor.dtype == "BF16"
            assert raw[tensor.start : tensor.stop] == reference[name].view(torch.uint8).numpy().tobytes()

    def test_tensor_and_scalar(self, tiny):
        reference = load_file(tiny / "model.safetensors")[DOWN]  # (32, 48)
        checkpoint = open_directory(tiny)
        assert torch.equal(checkpoint.read(DOWN), reference)
        scalar = checkpoint.scalar(DOWN, (31, 47))
        assert scalar.shape == ()
        assert scalar.dtype == torch.bfloat16
        assert torch.equal(scalar, reference[31, 47])

    def test_nan_payload_and_negative_zero_come_through(self, tmp_path):
        bits = torch.tensor([[0x7FC1, -0x8000, 0x3F80]], dtype=torch.int16)
        save_file({"w": bits.view(torch.bfloat16)}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text("{}")
        checkpoint = open_directory(tmp_path)
        assert [checkpoint.scalar("w", (0, i)).view(torch.int16).item() for i in range(3)] == bits[0].tolist()

    def test_shards_are_read_as_one(self, tiny, sharded):
        checkpoint = open_directory(sharded)
        assert len({tensor.file for tensor in checkpoint.tensors.values()}) == 2
        assert checkpoint.read(DOWN).shape == (32, 48)

    @pytest.mark.parametrize("index", [(32, 0), (0, 48), (-1, 0), (0,), (0, 0, 0)])
    def test_index_outside_the_tensor(self, tiny, index):
        assert "(32, 48)" in refused("unsupported", lambda: open_directory(tiny).scalar(DOWN, index))

    def test_unknown_tensor(self, tiny):
        assert "'nonsense'" in refused("missing-tensor", lambda: open_directory(tiny).read("nonsense"))


class TestContentHash:
    def test_same_wherever_it_lies_and_whoever_wrote_it(self, tiny, edit_config, own_cache, tmp_path):
        copy = shutil.copytree(tiny, tmp_path / "elsewhere")
        edit_config(transformers_version="0.0", _name_or_path="other")
        (tiny / "README.md").write_text("notes")
        assert open_directory(tiny).content_hash == open_directory(copy, cache=own_cache).content_hash

    def test_differs_with_one_bit_of_a_weight_and_with_the_config(self, tiny, edit_config):
        before = open_directory(tiny).content_hash
        raw = bytearray((tiny / "model.safetensors").read_bytes())
        raw[-1] ^= 1
        (tiny / "model.safetensors").write_bytes(raw)
        changed = open_directory(tiny).content_hash
        edit_config(rms_norm_eps=0.5)
        assert len({before, changed, open_directory(tiny).content_hash}) == 3

    def test_is_what_it_says(self, tmp_path):
        save_file({"w": torch.zeros(2)}, tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text('{"b": 1, "a": 2, "transformers_version": "5"}')
        file = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
        expected = hashlib.sha256(f'model.safetensors\0{file}\0{{"a": 2, "b": 1}}'.encode()).hexdigest()
        assert open_directory(tmp_path).content_hash == expected


class TestDirectories:
    def test_resolve_and_describe(self, tiny, own_cache):
        source = DirectorySource(kind="directory", path=str(tiny))
        assert resolve(source, own_cache, progress=False).origin == f"directory {tiny}"
        [planned] = planned_downloads(source, own_cache)
        assert planned.present
        assert planned.size == sum(file.stat().st_size for file in tiny.iterdir())

    def test_not_there(self, tmp_path, own_cache):
        refused("not-found", lambda: open_directory(tmp_path / "nowhere"))
        assert [
            p.present for p in planned_downloads(DirectorySource(kind="directory", path="/nowhere"), own_cache)
        ] == [False]

    def test_a_file_is_no_directory(self, tiny):
        refused("unsupported", lambda: open_directory(tiny / "config.json"))

    def test_without_config(self, tiny):
        (tiny / "config.json").unlink()
        assert "config.json" in refused("not-found", lambda: open_directory(tiny))

    @pytest.mark.parametrize("text", ["{", "[]", "\xff", "[" * 100_000])
    def test_config_that_is_no_json_object(self, tiny, text):
        (tiny / "config.json").write_text(text, encoding="latin-1")
        assert "config.json" in refused("corrupt", lambda: open_directory(tiny))

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
    @pytest.mark.parametrize("config", [True, False])
    def test_pickle_is_refused(self, tiny, name, config):
        (tiny / "model.safetensors").rename(tiny / name)
        if not config:
            (tiny / "config.json").unlink()
        message = refused("pickle", lambda: open_directory(tiny))
        assert name in message
        assert "save_pretrained" in message

    def test_pickle_beside_safetensors_is_ignored(self, tiny):
        (tiny / "pytorch_model.bin").write_bytes(b"never opened")
        assert open_directory(tiny).tensors

    def test_without_weights(self, tiny):
        (tiny / "model.safetensors").rename(tiny / "adapter_model.safetensors")
        assert "adapter_model.safetensors" in refused("not-found", lambda: open_directory(tiny))


class TestShards:
    def test_missing_shard_is_named(self, sharded):
        (sharded / "model-00002-of-00002.safetensors").unlink()
        assert "model-00002-of-00002.safetensors" in refused("missing-tensor", lambda: open_directory(sharded))

    def test_truncated_shard_is_named(self, sharded):
        shard = sharded / "model-00002-of-00002.safetensors"
        shard.write_bytes(shard.read_bytes()[:-5])
        message = refused("corrupt", lambda: open_directory(sharded))
        assert shard.name in message
        assert "5 bytes" in message

    def test_tensor_of_the_index_that_its_shard_lacks(self, sharded):
        index = sharded / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        content["weight_map"]["model.extra.weight"] = "model-00001-of-00002.safetensors"
        index.write_text(json.dumps(content))
        assert "model.extra.weight" in refused("missing-tensor", lambda: open_directory(sharded))

    def test_tensor_in_two_shards(self, sharded):
        """Which of both a loader takes is not known, whatever the index says."""
        one, two = (sharded / f"model-0000{number}-of-00002.safetensors" for number in (1, 2))
        first = load_file(one)
        name = next(iter(first))
        save_file(load_file(two) | {name: first[name]}, two)
        message = refused("corrupt", lambda: open_directory(sharded))
        assert all(said in message for said in (name, one.name, two.name))

    @pytest.mark.parametrize("shard", ["../model.safetensors", "/model.safetensors", "model.bin", 7])
    def test_index_that_points_elsewhere(self, sharded, shard):
        (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": shard}}))
        refused("corrupt", lambda: open_directory(sharded))

    @pytest.mark.parametrize("text", ["{", "{}", '{"weight_map": {}}', '{"weight_map": []}'])
    def test_index_without_a_map(self, sharded, text):
        (sharded / "model.safetensors.index.json").write_text(text)
        refused("corrupt", lambda: open_directory(sharded))


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


class TestHeaders:
    @pytest.mark.parametrize(
        ("header", "data", "said"),
        [
            ({"w": entry(offsets=(0, 4))}, b"1234", "needs 8 bytes, but the header gives it 4"),
            ({"w": entry()}, b"1234", "file of 77 bytes, found 73 bytes: it is cut short by 4 bytes"),
            ({"w": entry()}, b"1" * 9, "1 bytes too many"),
            ({"v": entry(), "w": entry(offsets=(4, 12))}, b"1" * 12, "begins at byte"),
            ({"v": entry(), "w": entry(offsets=(12, 20))}, b"1" * 20, "begins at byte"),
            ({"w": entry(shape=(-2,), offsets=(0, 0))}, b"", "not whole numbers"),
            ({"w": entry(shape=(True,), offsets=(0, 4))}, b"1234", "not whole numbers"),
            ({"w": entry(shape=(2.0,))}, b"1" * 8, "not whole numbers"),
            ({"w": entry(offsets=(8, 0))}, b"1" * 8, "gives it -8"),
            ({"w": entry(dtype="F33")}, b"1" * 8, "'F33'"),
            ({"w": entry(offsets=(0, 4, 8))}, b"1" * 8, "two data_offsets"),
            ({"w": {"dtype": "F32", "shape": [2]}}, b"1" * 8, "two data_offsets"),
            ({"w": 5}, b"1" * 8, "two data_offsets"),
            ([], b"", "JSON object"),
            (b"{broken", b"", "not valid JSON"),
            (b"\xff\xfe", b"", "not valid JSON"),
            (b'{"w": 1, "w": 2}', b"", "twice"),
        ],
    )
    def test_header_that_lies(self, tmp_path, header, data, said):
        path = safetensors(tmp_path / "model.safetensors", header, data)
        message = refused("corrupt", lambda: read_header(path))
        assert said in message
        assert str(path) in message

    @pytest.mark.parametrize(
        ("raw", "said"),
        [
            (b"", "found 0 bytes"),
            (b"1234567", "found 7 bytes"),
            (struct.pack("<Q", 3) + b"{}", "3 bytes long, but only 2 bytes follow"),
            (b"\xff" * 100, "only 92 bytes follow"),
            (b"version https://lfs/spec/v1\nsize 99\n", "Git LFS pointer"),
        ],
    )
    def test_file_that_ends_too_soon(self, tmp_path, raw, said):
        path = tmp_path / "model.safetensors"
        path.write_bytes(raw)
        assert said in refused("corrupt", lambda: read_header(path))

    @pytest.mark.parametrize("keep", [0.001, 0.5, 0.999])
    def test_real_file_cut_short_anywhere(self, tiny, keep):
        path = tiny / "model.safetensors"
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * keep)])
        refused("corrupt", lambda: open_directory(tiny))

    def test_metadata_empty_and_packed_tensors_are_fine(self, tmp_path):
        header = {
            "__metadata__": {"format": "pt"},
            "empty": entry(shape=(0, 3), offsets=(0, 0)),
            "scalar": entry(shape=(), offsets=(0, 4)),
            "packed": entry("F4", (3, 2), (4, 7)),
        }
        found = read_header(safetensors(tmp_path / "x.safetensors", header, b"1234567"))
        assert {name: tensor.stop - tensor.start for name, tensor in found.items()} == {
            "empty": 0,
            "scalar": 4,
            "packed": 3,
        }
