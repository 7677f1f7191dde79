"""GGUF files that are written: every number is the library's and llama.cpp's, and transformers loads it again."""

import json

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from superweight.artefact.check import check
from superweight.artefact.gguf import GgufReader
from superweight.artefact.reading import open_reader
from superweight.artefact.writing.gguf import keeping_super_weights, write_gguf
from superweight.artefact.writing.gguf_source import original_in_cache
from superweight.artefact.writing.gguf_types import WRITABLE, kind_that_fits
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.cards.source import GgufSource
from superweight.checkpoint import Cache, resolve
from superweight.checkpoint.files import open_directory
from superweight.checkpoint.gguf_header import read_gguf_array
from superweight.errors import InfraError
from support.architectures import CONFIGS, TEXT
from support.ggufs import KIND, llama_cpp_blocks, original, write
from support.tiny_gguf import LAYERS, TOKENS
from support.tiny_gguf import write_gguf as write_tiny

WHERE = Coordinate(layer=1, row=5, column=7)
DOWN = "blk.1.ffn_down.weight"


@pytest.fixture(scope="module")
def from_gguf(tmp_path_factory):
    """A checkpoint that was converted from a GGUF file, and that file."""
    directory = tmp_path_factory.mktemp("original")
    path = write_tiny(directory / "tiny.gguf", down="F32", inner=256)
    source = GgufSource(kind="gguf", path=str(path))
    return resolve(source, Cache(directory / "cache"), progress=False), path


@pytest.fixture
def llama(make_loaded, tmp_path):
    """A Llama in Hugging Face layout, with grouped queries and a tokenizer; `llama(head_dim=8)` with other settings."""

    def make(kind="llama", **changes):
        loaded = make_loaded(kind, bos=True, **({"intermediate_size": 64} if kind == "llama" else {}), **changes)
        loaded.model.save_pretrained(tmp_path / "hf")
        loaded.tokenizer.save_pretrained(tmp_path / "hf")
        return open_directory(tmp_path / "hf", progress=False), loaded

    return make


def reload(path):
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()


def refused(reason, action):
    with pytest.raises(InfraError) as caught:
        action()
    assert caught.value.reason == reason
    return str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in WRITABLE if kind in llama_cpp_blocks()])
def test_codes_are_those_that_llama_cpp_writes(kind, tmp_path):
    held = {DOWN: original()[None], "blk.0.ffn_down.weight": original()[None]}
    source = write(tmp_path / "original.gguf", held, llama__block_count=2)
    write_gguf(from_file(source), kind, tmp_path / "out.gguf", original=source)
    reader = GgufReader(tmp_path / "out.gguf")
    raw, values = llama_cpp_blocks()[kind]
    assert (
        reader.raw(reader.down[1, None], 0, len(raw) // reader.down[1, None].tensor.block_bytes).tobytes()
        == raw.tobytes()
    )
    found = [reader.scalar(Coordinate(layer=1, row=0, column=at)).decoded.value for at in range(0, 256, 17)]
    assert found == values[::17].tolist()


class Converted:
    """A checkpoint that says which GGUF file it was converted from."""

    content_hash, origin = "0" * 64, "gguf"

    def __init__(self, path):
        self.provenance = {"format": "gguf", "file": path.name, "sha256": Cache().sha256(path)}


from_file = Converted


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_type_is_loaded_by_transformers_and_checked(kind, from_gguf, tmp_path):
    checkpoint, path = from_gguf
    written = write_gguf(checkpoint, kind, tmp_path / "out.gguf", original=path, super_weights={WHERE: "listed"})
    expected = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    model = reload(written.path)
    for layer in range(LAYERS):
        for theirs, ours in {"ffn_down": "mlp.down_proj", "attn_v": "self_attn.v_proj"}.items():
            name = f"blk.{layer}.{theirs}.weight"
            plain = gguf.dequantize(expected[name].data, expected[name].tensor_type)
            if written.kinds[name] != expected[name].tensor_type.name:
                code = KIND[written.kinds[name]]
                plain = gguf.dequantize(gguf.quantize(plain, code), code)
            loaded = model.get_submodule(f"model.layers.{layer}.{ours}").weight.detach().numpy()
            assert loaded.tobytes() == np.asarray(plain, np.float32).tobytes()
    largest = np.unravel_index(np.abs(expected[DOWN].data).argmax(), expected[DOWN].data.shape)
    listed = {Coordinate(layer=1, row=int(largest[0]), column=int(largest[1])): "listed"}
    found = check(open_reader(written.path), open_reader(checkpoint.directory), listed, Promise.of("within-step"))
    assert not found.findings
    assert [one.kept for one in found.super_weights] == [True]
    if kind == "F32":
        assert found.super_weights[0].outcome == "exact"


def test_metadata_and_tokens_are_taken_over_and_say_how_it_was_made(from_gguf, tmp_path):
    checkpoint, path = from_gguf
    recipe = {"id": "a-recipe"}
    write_gguf(
        checkpoint, "q8_0", tmp_path / "out.gguf", original=path, super_weights={WHERE: "causal"}, recipe=recipe,
        keep={DOWN: "F32"},
    )  # fmt: skip
    before, after = GgufReader(path).model.keys, GgufReader(tmp_path / "out.gguf").model.keys
    assert read_gguf_array(tmp_path / "out.gguf", after["tokenizer.ggml.tokens"]) == TOKENS
    same = {key for key, value in before.items() if isinstance(value, int | str | float)}
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["general.file_type"] == gguf.LlamaFileType.MOSTLY_Q8_0
    assert after["superweight.type"] == "Q8_0"
    assert after["superweight.source_sha256"] == checkpoint.provenance["sha256"]
    assert json.loads(after["superweight.keep"]) == {DOWN: "F32"}
    assert json.loads(after["superweight.recipe"]) == recipe
    listed = {"layer": 1, "expert": None, "row": 5, "column": 7, "status": "causal", "stored_as": "F32"}
    assert json.loads(after["superweight.super_weights"]) == [listed]
    assert json.loads(after["superweight.tools"])["gguf"]


def test_super_weights_are_kept_bit_for_bit(from_gguf, tmp_path):
    checkpoint, path = from_gguf
    keep = keeping_super_weights([WHERE])
    assert keep == {DOWN: "F32"}
    assert keeping_super_weights([Coordinate(layer=3, expert=2, row=1, column=1)], "F16") == {
        "blk.3.ffn_down_exps.weight": "F16"
    }
    written = write_gguf(checkpoint, "Q4_0", tmp_path / "out.gguf", original=path, keep=keep)
    assert {name: kind for name, kind in written.kinds.items() if "ffn_down" in name} == {
        "blk.0.ffn_down.weight": "Q4_0", DOWN: "F32"
    }  # fmt: skip
    found = check(open_reader(written.path), open_reader(checkpoint.directory), {WHERE: "listed"}, Promise.of("exact"))
    assert found.super_weights[0].outcome == "exact"


def test_what_fits_no_block_is_stored_in_another_type_and_told(from_gguf, tmp_path):
    checkpoint, path = from_gguf
    told = []
    written = write_gguf(checkpoint, "TQ2_0", tmp_path / "out.gguf", original=path, progress=told.append)
    assert written.kinds[DOWN] == "TQ2_0"
    assert written.kinds["blk.0.attn_q.weight"] == "Q4_0"
    assert written.kinds["token_embd.weight"] == "Q8_0"
    assert written.kinds["blk.0.attn_norm.weight"] == "F32"
    (note,) = written.notes
    assert "rows of 64 weights are no whole blocks of TQ2_0" in note
    assert note in told
    fallbacks = json.loads(GgufReader(written.path).model.keys["superweight.fallbacks"])
    assert fallbacks["blk.0.attn_q.weight"] == "Q4_0"


def test_types_for_shapes():
    assert kind_that_fits("TQ1_0", (4, 512)) == "TQ1_0"
    assert kind_that_fits("TQ1_0", (4, 96)) == "Q4_0"
    assert kind_that_fits("Q8_0", (4, 33)) == "F16"
    assert kind_that_fits("F32", (4, 33)) == "F32"


@pytest.mark.parametrize("kind", ["Q4_K_M", "IQ4_NL", "nonsense"])
def test_types_that_cannot_be_written(kind, from_gguf, tmp_path):
    checkpoint, path = from_gguf
    message = refused("unsupported", lambda: write_gguf(checkpoint, kind, tmp_path / "out.gguf", original=path))
    assert "llama-quantize" in message
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_to_keep_that_is_not_there(from_gguf, tmp_path):
    checkpoint, path = from_gguf
    keep = {"blk.9.ffn_down.weight": "F32"}
    refused("unsupported", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf", original=path, keep=keep))


def test_nothing_is_overwritten_and_nothing_left_half_written(from_gguf, tmp_path):
    checkpoint, path = from_gguf
    target = tmp_path / "out.gguf"

    def stop(line):
        if line.startswith("blk.1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_gguf(checkpoint, "Q8_0", target, original=path, progress=stop)
    assert list(tmp_path.iterdir()) == []
    target.write_text("mine")
    refused("unsupported", lambda: write_gguf(checkpoint, "Q8_0", target, original=path))
    assert target.read_text() == "mine"
    refused("unsupported", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.bin", original=path))


def test_no_disk_space(from_gguf, tmp_path, monkeypatch):
    checkpoint, path = from_gguf
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("superweight.artefact.writing.gguf.shutil.disk_usage", lambda _: usage)
    refused("disk-full", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf", original=path))


def test_weights_that_a_type_cannot_hold(tmp_path):
    source = write(tmp_path / "original.gguf", {DOWN: np.full((2, 64), 1e6, np.float32)})
    message = refused("non-finite", lambda: write_gguf(from_file(source), "F16", tmp_path / "o.gguf", original=source))
    assert "the largest is 1e+06" in message
    assert write_gguf(from_file(source), "BF16", tmp_path / "out.gguf", original=source).kinds[DOWN] == "BF16"


def test_another_original_is_refused(from_gguf, tmp_path):
    checkpoint, _ = from_gguf
    other = write_tiny(tmp_path / "tiny.gguf", inner=256)
    refused("hash-mismatch", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf", original=other))


def test_the_original_is_found_where_it_came_from(from_gguf, monkeypatch, tmp_path):
    checkpoint, path = from_gguf
    assert original_in_cache(checkpoint) == path
    monkeypatch.setenv("SUPERWEIGHT_CACHE", str(tmp_path))
    refused("not-found", lambda: original_in_cache(from_file(path)))


@pytest.mark.parametrize("changes", [{}, {"head_dim": 16}, {"num_key_value_heads": 4}, {"tie_word_embeddings": True}])
def test_a_llama_in_hugging_face_layout_gives_the_same_logits(changes, llama, tmp_path):
    checkpoint, loaded = llama(**changes)
    written = write_gguf(checkpoint, "F32", tmp_path / "out.gguf")
    ids = torch.tensor([loaded.tokenizer(TEXT)["input_ids"]])
    again = reload(written.path)
    assert torch.equal(again(ids).logits, loaded.model(ids).logits)
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    tokenizer = AutoTokenizer.from_pretrained(written.path.parent, gguf_file=written.path.name)
    assert (
        tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        == loaded.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    )
    assert GgufReader(written.path).model.keys["tokenizer.ggml.add_bos_token"] == 1


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16"])
def test_a_llama_that_is_rounded_gives_the_logits_of_the_rounded_weights(kind, llama, tmp_path):
    checkpoint, loaded = llama()
    written = write_gguf(checkpoint, kind, tmp_path / "out.gguf")
    again = reload(written.path)
    for name, module in loaded.model.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            coarser = kind == "Q4_0" and ("embed" in name or "lm_head" in name)
            code = KIND["Q8_0" if coarser else kind]
            rows = module.weight.numpy()
            module.weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(rows, code), code).astype(np.float32)))
    ids = torch.tensor([loaded.tokenizer(TEXT)["input_ids"]])
    assert torch.equal(again(ids).logits, loaded.model(ids).logits)


@pytest.mark.parametrize("kind", sorted(set(CONFIGS) - {"llama"}))
def test_other_architectures_are_refused_by_name(kind, llama, tmp_path):
    checkpoint, _ = llama(kind)
    message = refused("unsupported", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf"))
    assert "convert_hf_to_gguf.py" in message
    assert kind.split("_")[0] in message
    assert not (tmp_path / "out.gguf").exists()


SCALED = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}


@pytest.mark.parametrize("changes", [{"attention_bias": True}, {"mlp_bias": True}, {"rope_parameters": SCALED}])
def test_llamas_with_what_was_not_proved_are_refused(changes, llama, tmp_path):
    checkpoint, _ = llama(**changes)
    refused("unsupported", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf"))


def test_tokenizers_that_split_in_other_ways_are_refused(llama, tmp_path):
    checkpoint, _ = llama()
    path = checkpoint.directory / "tokenizer.json"
    whole = json.loads(path.read_text())
    for change in (
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, whole["pre_tokenizer"]]}},
        {"pre_tokenizer": whole["pre_tokenizer"] | {"add_prefix_space": True}},
        {"model": whole["model"] | {"type": "Unigram"}},
        {"model": whole["model"] | {"byte_fallback": True}},
        {"model": whole["model"] | {"ignore_merges": True}},
    ):
        path.write_text(json.dumps(whole | change))
        refused("unsupported", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf"))
    path.unlink()
    refused("not-found", lambda: write_gguf(checkpoint, "Q8_0", tmp_path / "out.gguf"))


@pytest.mark.real
def test_the_embedded_model_is_written_with_its_super_weights_kept(embedded, tmp_path):
    where = [Coordinate(layer=11, row=507, column=1229), Coordinate(layer=2, row=507, column=430)]
    written = write_gguf(embedded, "Q8_0", tmp_path / "a.gguf", keep=keeping_super_weights(where))
    found = check(
        open_reader(written.path), open_reader(embedded.directory), dict.fromkeys(where, "causal"), Promise.of("exact")
    )
    assert [one.outcome for one in found.super_weights] == ["exact", "exact"]
    assert not found.findings
    assert sorted(kind for kind in written.kinds.values()) == ["F32"] * 63 + ["Q8_0"] * 209
