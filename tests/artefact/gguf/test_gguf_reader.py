"""Super weights looked up in GGUF files: every type that can be written, experts, split models, and what cannot be told."""

import shutil

import gguf
import numpy as np
import pytest
import torch

from superweight.artefact.gguf import GgufReader, models_in
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from support.ggufs import KIND, llama_cpp_blocks, quantised, write
from support.tiny_gguf import HIDDEN, LAYERS, write_gguf

WRITABLE = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "TQ1_0", "TQ2_0", "MXFP4"]
INNER = 256
DOWN = "blk.{}.ffn_down.weight"


def every(shape, layer, expert=None):
    return [
        Coordinate(layer=layer, expert=expert, row=row, column=column)
        for row in range(shape[-2])
        for column in range(shape[-1])
    ]


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def told(found):
    assert isinstance(found, CannotTell), found
    return found.reason


def refused(reason, action):
    with pytest.raises(InfraError) as caught:
        action()
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_weight_is_what_transformers_loads(kind, tmp_path):
    """The loaded module is probed with unit vectors, which shows what it computes with, whatever it stores."""
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "tiny.gguf", down=kind, inner=INNER)
    reader = open_reader(path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=path.name, dtype=torch.float32)
    for layer in range(LAYERS):
        module = model.model.layers[layer].mlp.down_proj
        loaded = module(torch.eye(INNER)).T.detach().numpy()  # (out, in)
        held = [reader.scalar(where) for where in every((HIDDEN, INNER), layer)[::61]]
        assert [one.decoded.value for one in held] == loaded.ravel()[::61].tolist()
        assert {one.decoded.dtype for one in held} == {"float32"}
        assert {one.tensor for one in held} == {f"blk.{layer}.ffn_down"}
    assert reader.about == f"GGUF: {kind} × {LAYERS}"
    assert reader.bytes == path.stat().st_size
    assert held[0].stored_as == f"GGUF {kind}" + (
        "" if kind in ("F32", "F16", "BF16") else f", blocks of {block(kind)}"
    )


def block(kind):
    return gguf.GGML_QUANT_SIZES[KIND[kind]][0]


@pytest.mark.parametrize("kind", sorted(set(llama_cpp_blocks()) - {"Q1_0"}))
def test_blocks_of_llama_cpp_are_found_in_a_file(kind, tmp_path):
    raw, values = llama_cpp_blocks()[kind]
    rows = np.stack([np.zeros_like(raw), raw])
    reader = GgufReader(write(tmp_path / "a.gguf", {DOWN.format(3): (rows, kind)}))
    held = [reader.scalar(where) for where in every((1, 256), 3)[::19]]
    assert all(one.decoded.value == 0 or kind.startswith("IQ") for one in held)
    for column in range(0, 256, 9):
        assert reader.scalar(Coordinate(layer=3, row=1, column=column)).decoded.value == float(values[column])
    before = reader.read
    reader.scalar(Coordinate(layer=3, row=1, column=200))
    assert reader.read - before == gguf.GGML_QUANT_SIZES[KIND[kind]][1]  # one block


def test_stacked_experts(tmp_path):
    values = random(3, 4, 64)
    reader = GgufReader(write(tmp_path / "a.gguf", {"blk.0.ffn_down_exps.weight": quantised(values, "Q8_0")}))
    expected = gguf.dequantize(gguf.quantize(values, KIND.Q8_0), KIND.Q8_0)
    for expert in range(3):
        for where in every((4, 64), 0, expert)[::5]:
            assert reader.scalar(where).decoded.value == expected[expert, where.row, where.column]
    assert "[3, 0, 0] lies outside" in told(reader.scalar(Coordinate(layer=0, expert=3, row=0, column=0)))
    assert "no down projection of layer 0" in told(reader.scalar(Coordinate(layer=0, row=0, column=0)))


def test_experts_in_tensors_of_their_own(tmp_path):
    held = {f"blk.1.ffn_down.{expert}.weight": random(4, 8, seed=expert) for expert in range(2)}
    reader = GgufReader(write(tmp_path / "a.gguf", held))
    for expert in range(2):
        found = reader.scalar(Coordinate(layer=1, expert=expert, row=2, column=5)).decoded.value
        assert found == held[f"blk.1.ffn_down.{expert}.weight"][2, 5]
    assert "expert 2" in told(reader.scalar(Coordinate(layer=1, expert=2, row=0, column=0)))


@pytest.mark.parametrize(("row", "column"), [(4, 0), (0, 64), (2**40, 0), (0, 2**62)])
def test_outside_the_matrix(row, column, tmp_path):
    reader = GgufReader(write(tmp_path / "a.gguf", {DOWN.format(0): random(4, 64)}))
    assert "lies outside blk.0.ffn_down.weight" in told(reader.scalar(Coordinate(layer=0, row=row, column=column)))


def test_other_shapes_and_other_names_cannot_be_told(tmp_path):
    tensors = {"blk.0.ffn_down.weight": random(2, 4, 64), "blk.1.ffn_down.weight": random(64)}
    tensors |= {"blk.2.ffn_down_shexp.weight": random(4, 64), "v.blk.3.ffn_down.weight": random(4, 64)}
    reader = GgufReader(write(tmp_path / "a.gguf", tensors))
    assert "should have 2 dimensions" in told(reader.scalar(Coordinate(layer=0, row=0, column=0)))
    for layer in (1, 2, 3):
        assert "holds no down projection" in told(reader.scalar(Coordinate(layer=layer, row=0, column=0)))


def test_types_that_the_library_cannot_decode_cannot_be_told(tmp_path):
    raw, _ = llama_cpp_blocks()["Q1_0"]
    tensors = {DOWN.format(0): (raw[None], "Q1_0"), DOWN.format(1): random(4, 64).astype(np.float64)}
    tensors |= {DOWN.format(2): np.ones((4, 64), np.int8)}
    reader = GgufReader(write(tmp_path / "a.gguf", tensors))
    for layer, kind in enumerate(("Q1_0", "F64", "I8")):
        assert f"is {kind}, which the installed gguf package cannot" in told(
            reader.scalar(Coordinate(layer=layer, row=0, column=0))
        )


@pytest.mark.parametrize("beside", ["blk.0.ffn_down.scale", "blk.0.ffn_act.scales"])
def test_a_tensor_that_scales_the_module_cannot_be_told(beside, tmp_path):
    reader = GgufReader(write(tmp_path / "a.gguf", {DOWN.format(0): random(4, 64), beside: random(1)}))
    assert beside in told(reader.scalar(Coordinate(layer=0, row=0, column=0)))


@pytest.fixture
def split(tmp_path):
    tensors = {DOWN.format(layer): random(4, 64, seed=layer) for layer in range(4)}
    write(tmp_path / "m.gguf", tensors, split=2, general__name="m")
    return sorted(tmp_path.glob("*.gguf")), tensors


def test_a_split_model_is_read_whole_from_any_part(split, tmp_path):
    parts, tensors = split
    assert [path.name for path in parts] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    for path in (*parts, tmp_path):
        reader = open_reader(path)
        for layer in range(4):
            found = reader.scalar(Coordinate(layer=layer, row=3, column=63)).decoded.value
            assert found == tensors[DOWN.format(layer)][3, 63]
        assert reader.bytes == sum(part.stat().st_size for part in parts)
    assert models_in(tmp_path) == [parts[0]]


def test_a_missing_part_is_named(split):
    parts, _ = split
    parts[1].unlink()
    assert parts[1].name in refused("missing-tensor", lambda: open_reader(parts[0]))


def test_a_part_alone_under_another_name_is_no_model(split, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(split[0][0], alone / "model.gguf")
    assert "part 1 of 2" in refused("missing-tensor", lambda: open_reader(alone))


def test_parts_of_two_models_are_refused(split, tmp_path):
    parts, _ = split
    other = tmp_path / "other"
    other.mkdir()
    write(other / "m.gguf", {DOWN.format(layer): random(4, 64) for layer in range(3)}, split=2)
    shutil.copy(other / parts[1].name, parts[1])
    refused("missing-tensor", lambda: open_reader(parts[0]))
    shutil.copy(parts[0], parts[1])
    refused("corrupt", lambda: open_reader(parts[0]))


def test_a_directory_with_one_model_beside_other_files(tmp_path):
    write(tmp_path / "model.gguf", {DOWN.format(0): random(4, 64)})
    write(tmp_path / "mmproj.gguf", {"v.blk.0.ffn_down.weight": random(4, 64)}, architecture="clip")
    write(tmp_path / "lora.gguf", {"blk.0.ffn_down.weight.lora_a": random(4, 64)}, general__type="adapter")
    (tmp_path / "config.json").write_text("{}")
    assert open_reader(tmp_path).about == "GGUF: F32 × 1"
    write(tmp_path / "other.gguf", {DOWN.format(0): random(4, 64)})
    assert "model.gguf, other.gguf" in refused("unsupported", lambda: open_reader(tmp_path))


def test_safetensors_come_before_a_gguf_file_that_lies_beside_them(tmp_path, tiny_checkpoint):
    directory, _ = tiny_checkpoint
    shutil.copytree(directory, tmp_path / "both")
    write(tmp_path / "both" / "model.gguf", {DOWN.format(0): random(4, 64)})
    assert open_reader(tmp_path / "both").about == "float32"


def test_files_that_are_none(tmp_path):
    refused("not-found", lambda: open_reader(tmp_path / "none.gguf"))
    (tmp_path / "empty.gguf").touch()
    refused("corrupt", lambda: open_reader(tmp_path / "empty.gguf"))
    (tmp_path / "text.gguf").write_text("hello " * 20)
    refused("corrupt", lambda: open_reader(tmp_path / "text.gguf"))


def test_a_damaged_file_is_read_as_it_is_or_refused(tmp_path):
    path = write_gguf(tmp_path / "tiny.gguf", down="Q8_0", inner=INNER)
    whole = path.read_bytes()
    chance = np.random.default_rng(3)
    header = GgufReader(path).model.files[path].ends[0]
    for _ in range(300):
        damaged = bytearray(whole[: chance.choice([len(whole), len(whole), int(chance.integers(len(whole)))])])
        for at in chance.integers(0, min(len(damaged), header) or 1, 3):
            damaged[at : at + 1] = bytes([int(chance.integers(256))])
        path.write_bytes(damaged)
        try:
            found = GgufReader(path).scalar(Coordinate(layer=1, row=5, column=7))
        except InfraError:
            continue
        assert isinstance(found, CannotTell) or isinstance(found.decoded.value, float)


@pytest.mark.real
def test_the_embedded_model_as_q8_0_holds_every_weight_that_gguf_gives(embedded, tmp_path):
    with_super_weight = embedded.read("model.layers.11.mlp.down_proj.weight").numpy()
    path = write(tmp_path / "a.gguf", {DOWN.format(11): quantised(with_super_weight, "Q8_0")})
    expected = gguf.dequantize(gguf.quantize(with_super_weight, KIND.Q8_0), KIND.Q8_0)
    reader = GgufReader(path)
    for where in [*every(expected.shape, 11)[::4003], Coordinate(layer=11, row=507, column=1229)]:
        held = reader.scalar(where).decoded
        assert held.value == expected[where.row, where.column]
        assert abs(held.value - with_super_weight[where.row, where.column]) < held.step
