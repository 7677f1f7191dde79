"""Artefacts of tiny models: what is in the files, by formulas of their own; what is refused; what is carried along."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open

from superweight.artefact.check import check
from superweight.artefact.reading import open_reader
from superweight.artefact.writing import compressed_tensors, verify
from superweight.artefact.writing.compressed_tensors import plan
from superweight.artefact.writing.shards import size_of
from superweight.cards.base import Coordinate
from superweight.cards.promise import Promise
from superweight.checkpoint import open_directory
from superweight.checkpoint.header import read_header
from superweight.errors import InfraError
from support.writing import DOWN, SUPER, W4, W8A8


def tensors(directory):
    found = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return found


def unpacked(packed, bits, rows, columns):
    """Code c of a row is at bit c·bits of its words, least significant first; less 2^(bits−1)."""
    words = packed.numpy().view(np.uint32)
    stream = np.unpackbits(words.view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    fields = stream[:, : columns * bits].reshape(rows, columns, bits)
    return (fields * (1 << np.arange(bits))).sum(-1).astype(np.int64) - 2 ** (bits - 1)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_codes_decode_by_hand_to_the_nearest_weights(checkpoint, written, bits, symmetric, dtype):
    source = checkpoint("llama", dtype)
    made = written(source, {**W4, "bits": bits, "symmetric": symmetric})
    found, original = tensors(made.directory), source.read(f"{DOWN}.weight").double().numpy()
    rows, columns = original.shape
    assert found[f"{DOWN}.weight_shape"].tolist() == [rows, columns]
    codes = unpacked(found[f"{DOWN}.weight_packed"], bits, rows, columns).reshape(rows, -1, 8)
    scale = found[f"{DOWN}.weight_scale"]
    assert (scale.dtype, scale.shape) == (dtype, (rows, columns // 8))
    zero = np.zeros(scale.shape)
    if not symmetric:
        packed = found[f"{DOWN}.weight_zero_point"]
        zero = unpacked(packed.T.contiguous(), bits, columns // 8, rows).T
    decoded = (codes - zero[..., None]) * scale.double().numpy()[..., None]
    error = np.abs(decoded.reshape(rows, columns) - original).reshape(rows, -1, 8)
    # half a step, and where the scale was rounded down, what the extreme code lacks
    slack = 0.01 * np.abs(original).max() if dtype == torch.bfloat16 else 1e-6
    assert (error <= scale.double().numpy()[..., None] / 2 + slack).all()


def test_what_has_no_codes_is_the_checkpoints_bytes(checkpoint, written):
    source = checkpoint("llama", torch.bfloat16)
    made = written(source, {**W4, "exclude": ["super-weight-modules", "re:.*[.]q_proj"]}, [SUPER])
    found = tensors(made.directory)
    for name in source.tensors:
        plain = "proj" not in name or name.startswith(DOWN) or "q_proj" in name
        assert (name in found) is plain
        if plain:
            assert torch.equal(found[name].view(torch.int16), source.read(name).view(torch.int16))
    assert set(made.excluded) == {f"{DOWN}.weight", *(f"model.layers.{n}.self_attn.q_proj.weight" for n in (0, 1))}
    config = json.loads((made.directory / "config.json").read_text())["quantization_config"]
    assert set(config["ignore"]) == {name.removesuffix(".weight") for name in made.excluded} | {"lm_head"}


def test_the_settings_are_the_librarys_own(checkpoint, written):
    from compressed_tensors.quantization import QuantizationConfig

    made = written(checkpoint("llama"), W8A8)
    config = json.loads((made.directory / "config.json").read_text())
    read = QuantizationConfig.model_validate(config["quantization_config"])
    group = read.config_groups["group_0"]
    assert (read.format, group.weights.num_bits, group.weights.strategy) == ("int-quantized", 8, "channel")
    assert (group.input_activations.dynamic, group.input_activations.strategy) == (True, "token")
    assert config["model_type"] == "llama"


def test_shards_index_and_sidecars(checkpoint, written):
    source = checkpoint("llama")
    made = written(source, W4, shard_size=12_000)
    files = sorted(path.name for path in made.directory.glob("*.safetensors"))
    assert len(files) > 2
    assert files[-1] == f"model-{len(files):05}-of-{len(files):05}.safetensors"
    index = json.loads((made.directory / "model.safetensors.index.json").read_text())
    held = {name: path for path in files for name in read_header(made.directory / path)}
    assert index["weight_map"] == held
    assert set(tensors(written(source, W4, name="single").directory)) == set(held)
    beside = {path.name for path in made.directory.iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "generation_config.json"} <= beside
    assert not [path for path in made.directory.iterdir() if path.name.startswith(".")]
    assert not [path for path in made.directory.parent.iterdir() if path.name.startswith(".")]


def test_what_the_artefact_says_of_itself(checkpoint, written):
    source = checkpoint("llama")
    made = written(source, {**W4, "super_weights": "restored", "z": 3.0}, [SUPER])
    told = json.loads((made.directory / "superweight.json").read_text())
    assert told["source"]["content_hash"] == source.content_hash
    assert told["source"]["origin"] == "directory source"  # and no path of this machine
    assert told["recipe"]["method"]["z"] == 3.0
    assert told["restored_by_adapter"] == ["layer 1 [3, 5]"]
    held = told["super_weights"][0]
    assert held["original"] == float(source.read(f"{DOWN}.weight")[3, 5])
    assert held["tensor"] == DOWN
    with safe_open(made.directory / "model.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["superweight"])
    assert header["identity"] == told["identity"]
    assert told["tools"]["compressed-tensors"]
    assert made.bytes == sum(path.stat().st_size for path in made.directory.rglob("*"))
    assert str(source.directory) not in (made.directory / "superweight.json").read_text()


def test_super_weights_survive_by_the_static_check(checkpoint, written):
    source = checkpoint("llama")
    for method, outcome in (
        ({**W4, "exclude": ["super-weight-modules"]}, "exact"),
        ({**W4, "bits": 8}, "within-step"),
        ({**W8A8}, "within-step"),
        ({"kind": "float8", "granularity": "tensor"}, "within-step"),
    ):
        made = written(source, method, [SUPER], name=f"{method['kind']}-{outcome}-{len(str(method))}")
        artefact, reference = open_reader(made.directory), open_reader(source.directory)
        found = check(artefact, reference, {SUPER: "causal"}, Promise("within-step"))
        assert found.super_weights[0].outcome in (outcome, "exact")
        assert not found.broken


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_mixtures_matrix_by_matrix(checkpoint, written, kind):
    source = checkpoint(kind)
    found = tensors(written(source, W4).directory)
    experts = [name for name in source.tensors if ".experts." in name]
    assert experts
    for name in experts:
        assert f"{name.removesuffix('.weight')}.weight_packed" in found
    routers = [name for name in source.tensors if name.endswith(".gate.weight")]
    assert all(torch.equal(found[name], source.read(name)) for name in routers)
    config = json.loads((next(iter(written(source, W4, name="b").directory.glob("config.json")))).read_text())
    assert {name.removesuffix(".weight") for name in routers} <= set(config["quantization_config"]["ignore"])


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ({**W4, "symmetric": False}, "does not load experts as"),
        (W8A8, "does not load experts as"),
        ({**W4, "exclude": ["super-weight-modules"]}, "does not load plain experts"),
        ({"kind": "float8", "granularity": "channel", "exclude": ["super-weight-modules"]}, "Name them all in exclude"),
    ],
)
def test_mixtures_that_could_not_be_proved_are_refused(checkpoint, recipe, method, told):
    where = Coordinate(layer=1, expert=2, row=3, column=5)
    with pytest.raises(InfraError, match=told) as caught:
        plan(checkpoint("mixtral"), recipe(**method), [where])
    assert caught.value.reason == "recipe-mismatch"


def test_experts_that_are_named_together_stay_as_they_are(checkpoint, written):
    exclude = ["re:model[.]layers[.]1[.]mlp[.]experts[.].*"]
    made = written(checkpoint("mixtral"), {"kind": "float8", "granularity": "channel", "exclude": exclude})
    ignored = json.loads((made.directory / "config.json").read_text())["quantization_config"]["ignore"]
    assert r"re:model\.layers\.1\.block_sparse_moe\.experts\..*" in ignored


def test_what_has_no_place_can_be_excluded(checkpoint, written):
    with pytest.raises(InfraError, match="Conv1D"):
        written(checkpoint("gpt2"), W4)
    with pytest.raises(InfraError, match="excludes every module"):
        written(checkpoint("gpt2"), {**W4, "exclude": ["re:.*"]})
    made = written(checkpoint("gpt_oss"), {**W4, "exclude": ["re:.*[.]experts[.].*"]})
    assert made.modules == 8  # four of attention a layer


def test_wrong_inputs(checkpoint, recipe, written, tmp_path):
    source = checkpoint("llama")
    with pytest.raises(InfraError, match="groups of 10 do not divide"):
        written(source, {**W4, "group_size": 10})
    with pytest.raises(InfraError, match=r"exclude names 'lm-head'"):
        written(source, {**W4, "exclude": ["lm-head"]})
    again = open_directory(written(source, W4, name="first").directory)
    with pytest.raises(InfraError, match="is already quantised"):
        written(again, W4, name="second")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "a").touch()
    with pytest.raises(InfraError, match="is there already"):
        written(source, W4, name="taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "taken"]
    (tmp_path / "empty").mkdir()
    assert written(source, W4, name="empty").modules == 14


def test_weights_that_are_not_finite_leave_nothing_behind(checkpoint, written, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint("llama").directory, tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    state[f"{DOWN}.weight"][2, 3] = float("nan")
    save_file(state, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    with pytest.raises(InfraError, match="holds NaN") as caught:
        written(open_directory(tmp_path / "m"), W4, shard_size=12_000)
    assert caught.value.reason == "non-finite"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("leaf", ["weight_packed", "weight_scale", "weight_zero_point", "weight_shape"])
def test_what_is_read_back_and_differs_is_not_published(checkpoint, written, tmp_path, monkeypatch, leaf):
    """One bit of one tensor of one module, on its way to the disk."""
    produce = compressed_tensors.coded_tensors

    def slipping(source, codes, scheme):
        found = produce(source, codes, scheme)
        if source.parameter == f"{DOWN}.weight":
            name = f"{DOWN}.{leaf}"
            found[name] = found[name].clone()
            found[name].view(torch.uint8).view(-1)[0] ^= 1
        return found

    monkeypatch.setattr(compressed_tensors, "coded_tensors", slipping)
    with pytest.raises(InfraError, match=f"{DOWN} was written and read back, and") as caught:
        written(checkpoint("llama"), {**W4, "symmetric": False})
    assert caught.value.reason == "corrupt"
    assert not list(tmp_path.iterdir())


def test_a_library_that_decodes_otherwise_is_noticed(checkpoint, written, monkeypatch):
    decode = verify.decode
    monkeypatch.setattr(verify, "decode", lambda state, scheme: decode(state, scheme) * 1.0001)
    with pytest.raises(InfraError, match="weights decode to other numbers than the recipe leaves in memory"):
        written(checkpoint("llama"), W4)


def test_bytes_that_are_copied_are_compared_too(checkpoint, written, monkeypatch):
    copied = verify.copied_bytes
    monkeypatch.setattr(verify, "copied_bytes", lambda checkpoint, unit: copied(checkpoint, unit)[::-1])
    with pytest.raises(InfraError, match="its bytes are not the checkpoint's"):
        written(checkpoint("llama"), W4)


def test_a_checkpoint_can_be_rounded_first(checkpoint, written):
    source = checkpoint("llama")
    made = written(source, W4, dtype="bfloat16")
    found = tensors(made.directory)
    name = "model.embed_tokens.weight"
    assert torch.equal(found[name], source.read(name).to(torch.bfloat16))
    assert found[f"{DOWN}.weight_scale"].dtype == torch.bfloat16
    assert json.loads((made.directory / "config.json").read_text())["dtype"] == "bfloat16"


def test_the_config_names_the_dtype_in_which_codes_decode(checkpoint, written, tmp_path):
    """Whatever the checkpoint's own says: transformers loads in that dtype."""
    source = checkpoint("llama")
    shutil.copytree(source.directory, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config.pop("dtype", None)
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    made = json.loads((written(open_directory(tmp_path / "m"), W4).directory / "config.json").read_text())
    assert made["dtype"] == "float32"
    assert "torch_dtype" not in made


def test_matrices_in_several_dtypes_are_refused(checkpoint, written, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint("llama").directory, tmp_path / "m")
    state = load_file(tmp_path / "m" / "model.safetensors")
    for dtype in (torch.bfloat16, torch.float64, torch.float8_e4m3fn):
        save_file({**state, f"{DOWN}.weight": state[f"{DOWN}.weight"].to(dtype)}, tmp_path / "m" / "model.safetensors")
        with pytest.raises(InfraError, match="stores the matrices to be compressed as") as caught:
            written(open_directory(tmp_path / "m"), W4)
        assert caught.value.reason == "unsupported"


def test_scales_of_another_dtype_are_told_of(checkpoint, recipe):
    source = checkpoint("llama", torch.bfloat16)
    assert not plan(source, recipe(**W4)).notes
    assert "scales are F32 beside weights that were BF16" in plan(source, recipe(**W4, scale_dtype="float32")).notes[0]
    asymmetric = plan(source, recipe(**{**W4, "symmetric": False})).notes
    assert "dequantize=True" in asymmetric[0]


@pytest.mark.parametrize(("text", "size"), [("5GB", 5 * 10**9), ("512 MiB", 512 * 2**20), ("1.5kb", 1500), ("77", 77)])
def test_sizes(text, size):
    assert size_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1GB", "five", "5 parsecs", "nan", "inf GB", "GB"])
def test_what_is_no_size(text):
    with pytest.raises(InfraError, match="is no size"):
        size_of(text)
