"""Every tensor of a checkpoint is in the model bit for bit, or listed with a reason, or the checkpoint is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from superweight.checkpoint import load_model, open_directory
from superweight.checkpoint.account import account
from superweight.errors import InfraError
from support.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer

NORM = "model.norm.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"


def rewrite(directory, change, file="model.safetensors"):
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / file).items()}
    change(tensors)
    save_file(tensors, directory / file, metadata={"format": "pt"})


def refused(directory):
    with pytest.raises(InfraError) as caught:
        load_model(open_directory(directory))
    assert str(directory) in str(caught.value)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_tensor_of_every_architecture_is_there_bit_for_bit(kind, tmp_path):
    model = tiny_model(kind, layers=2)
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    found = load_model(open_directory(tmp_path)).account
    assert found.exact == found.tensors == len(load_file(tmp_path / "model.safetensors"))
    assert found.lines == []


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_bit_that_loading_would_change_is_seen(kind, tmp_path):
    """Whichever parameter of the loaded model is touched before it is held against the file."""
    tiny_model(kind, layers=2).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    checkpoint = open_directory(tmp_path)
    loaded = load_model(checkpoint).model
    for parameter in loaded.parameters():
        before = parameter.data.clone()
        flat = parameter.data.view(-1)
        flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1)
        with pytest.raises(InfraError, match="other values"):
            account(loaded, checkpoint, {})
        parameter.data.copy_(before)
    assert account(loaded, checkpoint, {}).exact == len(checkpoint.tensors)


def test_names_without_the_models_prefix(tmp_path):
    """GPT-2's own checkpoint names its tensors so, and holds the causal masks that it once computed with."""
    tiny_model("gpt2", layers=2).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)

    def as_published(tensors):
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        for layer in range(2):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(1, 1, 8, 8, dtype=torch.uint8).tril()
            tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)

    rewrite(tmp_path, as_published)
    found = load_model(open_directory(tmp_path)).account
    assert found.exact == found.tensors - 4
    assert set(found.unused) == {f"h.{layer}.attn.{leaf}" for layer in range(2) for leaf in ("bias", "masked_bias")}
    assert found.lines == ["not used: h.0.attn.bias and 3 more: a causal mask, which the model makes itself"]


def test_rotary_frequencies_are_accepted_only_if_they_are_the_models_own(tiny):
    own = load_model(open_directory(tiny)).model.model.rotary_emb.inv_freq.clone()
    rewrite(tiny, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": own.half()}))
    assert list(load_model(open_directory(tiny)).account.unused) == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
    rewrite(tiny, lambda tensors: tensors.update({"model.layers.0.self_attn.rotary_emb.inv_freq": own / 4}))
    reason, message = refused(tiny)
    assert reason == "unused-tensor"
    assert "inv_freq" in message


def test_a_head_that_config_calls_tied_and_is_not_is_used_as_stored(tiny):
    rewrite(tiny, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    assert load_model(open_directory(tiny)).account.exact == 21
    rewrite(tiny, lambda tensors: tensors["lm_head.weight"].mul_(2))
    loaded = load_model(open_directory(tiny))
    assert loaded.account.exact == 21
    assert torch.equal(loaded.model.lm_head.weight, 2 * loaded.model.model.embed_tokens.weight)


@pytest.mark.parametrize(
    ("name", "tensor", "hint"),
    [
        ("model.layers.0.self_attn.q_proj.weight_scale", torch.ones(1), "quantiser"),
        ("model.layers.0.self_attn.q_proj.weight_scale_inv", torch.ones(1, 1), "quantiser"),
        ("model.layers.0.mlp.down_proj.weight.absmax", torch.ones(3), "quantiser"),
        ("model.layers.0.mlp.down_proj.qweight", torch.ones(3, 3, dtype=torch.int32), "quantiser"),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", torch.ones(2, 32), "adapter"),
        ("model.layers.0.self_attn.q_proj.bias", torch.zeros(32), ""),
        ("model.layers.0.self_attn.q_norm.weight", torch.ones(8), ""),
        ("model.layers.2.mlp.down_proj.weight", torch.ones(32, 48), "config.json says 2 layers"),
        ("mtp.fc.weight", torch.ones(4, 4), "several tokens ahead"),
        ("vision_tower.patch.weight", torch.ones(4, 4), ""),
    ],
)
def test_a_tensor_without_use_is_refused_with_what_it_looks_like(tiny, name, tensor, hint):
    rewrite(tiny, lambda tensors: tensors.update({name: tensor}))
    reason, message = refused(tiny)
    assert reason == "unused-tensor"
    assert name in message
    assert "1 of 21 tensors" in message
    assert hint in message


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8, torch.uint8, torch.int32])
def test_codes_are_not_weights(tiny, dtype):
    rewrite(tiny, lambda tensors: tensors.update({QUERY: tensors[QUERY].to(dtype)}))
    reason, message = refused(tiny)
    assert reason == "unsupported"
    assert QUERY in message
    assert "codes of a quantiser" in message


def test_parts_in_another_dtype_are_listed(tiny):
    def change(tensors):
        tensors[NORM] = tensors[NORM].float() * 1.003
        tensors["model.layers.0.input_layernorm.weight"] = tensors["model.layers.0.input_layernorm.weight"].float()

    rewrite(tiny, change)
    loaded = load_model(open_directory(tiny))
    found = loaded.account
    # 1.003 between the bfloat16 numbers 1 and 1 + 2^-7: down to 1, which is 0.003 / 1.003 of it
    assert found.rounded == {NORM: "float32 to bfloat16, a value by up to 0.003 of itself"}
    assert found.widened == {"model.layers.0.input_layernorm.weight": "float32 to bfloat16"}
    assert found.exact == found.tensors - 2
    assert any(NORM in line and "rounded" in line for line in found.lines)


def test_linear_weights_in_another_dtype_are_refused(tiny):
    rewrite(tiny, lambda tensors: tensors.update({QUERY: tensors[QUERY].float() * 1.001}))
    reason, message = refused(tiny)
    assert reason == "unsupported"
    assert QUERY in message


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"])
def test_an_adapter_beside_whole_weights_is_refused(tiny, file):
    (tiny / file).write_text("{}")
    reason, message = refused(tiny)
    assert reason == "unsupported"
    assert file in message
    assert "merge_and_unload" in message


@pytest.mark.parametrize(
    "file", ["quantize_config.json", "quant_config.json", "hf_quant_config.json", "quanto_qmap.json"]
)
def test_another_quantisers_settings_are_refused(tiny, file):
    (tiny / file).write_text("{}")
    reason, message = refused(tiny)
    assert reason == "unsupported"
    assert file in message


@pytest.mark.parametrize("file", ["model-00002-of-00002.safetensors", "extra.safetensors"])
def test_weights_that_no_index_names_are_refused(tiny, file):
    save_file({"a": torch.ones(1)}, tiny / file)
    reason, message = refused(tiny)
    assert reason == "unsupported"
    assert file in message


def test_what_is_not_read_is_listed(tiny):
    (tiny / "pytorch_model.bin").write_bytes(b"never read")
    (tiny / "consolidated.safetensors").write_bytes(b"never read")
    found = load_model(open_directory(tiny)).account
    assert set(found.not_read) == {"pytorch_model.bin", "consolidated.safetensors"}
    assert len(found.lines) == 2


def test_settings_of_a_quantiser_wherever_config_keeps_them(tiny, edit_config):
    edit_config(quantization_config=None)
    assert load_model(open_directory(tiny))
    edit_config(text_config={"quantization_config": {"quant_method": "awq"}})
    assert "awq" in refused(tiny)[1]
    edit_config(text_config=None, compression_config={"quant_method": "compressed-tensors"})
    assert "compressed-tensors" in refused(tiny)[1]


def test_the_account_is_plain_data(tiny):
    found = load_model(open_directory(tiny)).account
    assert json.loads(json.dumps(found.as_dict())) == {
        "tensors": 20, "exact": 20, "widened": {}, "rounded": {}, "unused": {}, "not_read": {},
    }  # fmt: skip
