"""Loading into transformers: exact, quiet, and never with invented weights."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from superweight.checkpoint import load_model, open_directory
from superweight.checkpoint.fetching.cache import file_sha256
from superweight.errors import InfraError

DOWN = "model.layers.1.mlp.down_proj.weight"


def refused(reason, directory, **kwargs):
    with pytest.raises(InfraError) as caught:
        load_model(open_directory(directory), **kwargs)
    assert caught.value.reason == reason
    return str(caught.value)


def rewrite(directory, change):
    tensors = load_file(directory / "model.safetensors")
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def test_weights_are_the_stored_ones(tiny, capfd):
    loaded = load_model(open_directory(tiny))
    assert loaded.dtype == loaded.compute_dtype == torch.bfloat16
    assert loaded.device == torch.device("cpu")
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    for name, tensor in load_file(tiny / "model.safetensors").items():
        assert torch.equal(loaded.model.get_parameter(name), tensor), name
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight
    assert loaded.tokenizer("super weight")["input_ids"] == [7, 6]  # places in the vocabulary of the test
    assert capfd.readouterr() == ("", "")


def test_shards(sharded):
    loaded = load_model(open_directory(sharded))
    assert torch.equal(loaded.model.get_parameter(DOWN), loaded.checkpoint.read(DOWN))


def test_changing_the_model_does_not_change_the_files(tiny):
    before = file_sha256(tiny / "model.safetensors")
    loaded = load_model(open_directory(tiny))
    for parameter in loaded.model.parameters():
        parameter.data.zero_()
    assert file_sha256(tiny / "model.safetensors") == before
    assert load_model(open_directory(tiny)).model.get_parameter(DOWN).any()


def test_stored_dtype_wins_over_the_configs_claim(tiny, edit_config):
    edit_config(dtype="float16")
    assert load_model(open_directory(tiny)).model.get_parameter(DOWN).dtype == torch.bfloat16


def test_wider_arithmetic_upcasts_exactly(tiny):
    loaded = load_model(open_directory(tiny), compute_dtype="float32")
    assert (loaded.dtype, loaded.compute_dtype) == (torch.bfloat16, torch.float32)
    weight = loaded.model.get_parameter(DOWN)
    assert weight.dtype == torch.float32
    assert torch.equal(weight.to(torch.bfloat16).float(), weight)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_narrower_arithmetic_leaves_the_parameters(tiny, narrow):
    rewrite(tiny, lambda tensors: tensors.update({name: tensor.float() for name, tensor in tensors.items()}))
    loaded = load_model(open_directory(tiny), compute_dtype=narrow)
    assert loaded.dtype == torch.float32
    assert loaded.model.get_parameter(DOWN).dtype == torch.float32
    seen = []
    loaded.model.get_submodule("model.layers.1.mlp.down_proj").register_forward_hook(
        lambda m, i, y: seen.append(y.dtype)
    )
    with loaded.arithmetic():
        loaded.model(torch.tensor([[1, 5, 6]]))
    assert seen == [getattr(torch, narrow)]


def test_same_width_arithmetic_is_honoured(tiny):
    loaded = load_model(open_directory(tiny), compute_dtype="float16")
    seen = []
    loaded.model.get_submodule("model.layers.1.mlp.down_proj").register_forward_hook(
        lambda m, i, y: seen.append(y.dtype)
    )
    with loaded.arithmetic():
        loaded.model(torch.tensor([[1, 5, 6]]))
    assert seen == [torch.float16]


def test_missing_tensors_are_listed(tiny):
    rewrite(tiny, lambda tensors: (tensors.pop(DOWN), tensors.pop("model.norm.weight")))
    message = refused("missing-tensor", tiny)
    assert DOWN in message
    assert "model.norm.weight" in message
    assert "2 tensors" in message


def test_missing_output_layer_is_missing_unless_tied(tiny, edit_config):
    load_model(open_directory(tiny))
    edit_config(tie_word_embeddings=False)
    assert "lm_head.weight" in refused("missing-tensor", tiny)


def test_shapes_that_do_not_fit_the_config(tiny, edit_config):
    edit_config(intermediate_size=40)
    message = refused("corrupt", tiny)
    assert "(32, 48)" in message
    assert "(32, 40)" in message


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_weights_are_named_with_their_place(tiny, bad):
    def spoil(tensors):
        tensors[DOWN][3, 7] = bad
        tensors["model.norm.weight"][5] = bad

    rewrite(tiny, spoil)
    message = refused("non-finite", tiny)
    assert f"{DOWN} (1, first [3, 7]" in message
    assert "model.norm.weight (1, first [5]" in message


def test_huge_but_finite_weights_are_fine(tiny):
    rewrite(tiny, lambda tensors: tensors[DOWN].fill_(torch.finfo(torch.bfloat16).max))
    assert load_model(open_directory(tiny))


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "no-such-architecture"},
        {"auto_map": {"AutoModelForCausalLM": "modeling.Mine"}, "model_type": "mine"},
        {"num_attention_heads": "four"},
        {"model_type": "vit"},
    ],
)
def test_configs_that_cannot_be_loaded(tiny, edit_config, changes):
    (tiny / "modeling.py").write_text("raise SystemExit('remote code was run')")
    edit_config(**changes)
    assert str(tiny) in refused("unsupported", tiny)


def test_quantised_checkpoint_is_no_baseline(tiny, edit_config):
    edit_config(quantization_config={"quant_method": "gptq", "bits": 4})
    assert "gptq" in refused("unsupported", tiny)


def test_integer_weights_are_no_baseline(tiny):
    rewrite(tiny, lambda tensors: tensors.update({name: tensor.to(torch.int8) for name, tensor in tensors.items()}))
    assert "I8" in refused("unsupported", tiny)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_that_is_not_there(tiny, device):
    assert "0 CUDA devices" in refused("unsupported", tiny, device=device)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda(tiny):
    loaded = load_model(open_directory(tiny), device="cuda")
    assert loaded.model.get_parameter(DOWN).is_cuda
    assert torch.equal(loaded.model.get_parameter(DOWN).cpu(), loaded.checkpoint.read(DOWN))


def test_device_and_dtype_that_do_not_exist(tiny):
    assert "'warp'" in refused("unsupported", tiny, device="warp")
    assert "'int3'" in refused("unsupported", tiny, compute_dtype="int3")


def test_without_tokenizer(tiny):
    for file in tiny.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer.json" in refused("not-found", tiny)


def test_broken_tokenizer(tiny):
    (tiny / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    assert "tokenizer" in refused("unsupported", tiny)


@pytest.mark.real
def test_embedded_model(embedded):
    loaded = load_model(embedded, compute_dtype="bfloat16")
    assert loaded.dtype == torch.float32
    assert len(loaded.architecture.layers) == 30
    weight = loaded.model.get_parameter("model.layers.11.mlp.down_proj.weight")
    stored = embedded.scalar("model.layers.11.mlp.down_proj.weight", (507, 1229))
    assert torch.equal(weight[507, 1229], stored)
    assert round(stored.item(), 4) == 5.8757  # the known super weight
    assert loaded.tokenizer.decode(loaded.tokenizer("Hello, world")["input_ids"]) == "Hello, world"


@pytest.mark.parametrize("length", [[512], "512", {}])
def test_a_tokenizer_that_loads_and_does_not_work_is_refused(tmp_path, length):
    from support.tiny import tiny_model, tiny_tokenizer

    tiny_model("llama", layers=1).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": length}))
    with pytest.raises(InfraError, match=r"tokenizer in .* cannot be loaded") as caught:
        load_model(open_directory(tmp_path))
    assert str(tmp_path) in str(caught.value)
