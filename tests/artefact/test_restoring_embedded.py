"""An adapter for a clipped artefact of the embedded model: super weights back exactly, and quality with them."""

import json

import pytest
import torch

from packing import write_packed
from superweight.artefact.reading import open_reader
from superweight.artefact.super_weight_list import of_card
from superweight.artefact.writing.adapter import write_adapter
from superweight.cards import load_library
from superweight.cli import main

pytestmark = pytest.mark.real
CARD = "smollm2-135m-instruct"
TEXT = (
    "The history of natural science is the story of how people came to test what they believed. Astronomers in many "
    "countries kept careful records of the sky for centuries before anyone could explain why the planets move as they "
    "do. In the seventeenth century, instruments such as the telescope made it possible to see the moons of Jupiter, "
    "and mathematics made it possible to predict where they would be on the following night."
)


@pytest.fixture(scope="module")
def clipped(embedded, tmp_path_factory):
    """8 bits a row, down projections clipped at the 0.999 quantile of each row, in bfloat16."""
    directory = tmp_path_factory.mktemp("clipped") / "w8"
    return write_packed(embedded.directory, directory, clip=0.999)


@pytest.fixture(scope="module")
def written(embedded, clipped, tmp_path_factory):
    """The adapter's directory, and what it says of itself."""
    directory = tmp_path_factory.mktemp("adapter") / "adapter"
    listed = of_card(load_library().models[CARD])
    return directory, write_adapter(open_reader(clipped), open_reader(embedded.directory), listed, directory)


def loaded(clipped, dtype, adapter=None):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, CompressedTensorsConfig

    how = CompressedTensorsConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(clipped, dtype=getattr(torch, dtype), quantization_config=how)
    return model if adapter is None else PeftModel.from_pretrained(model, adapter)


def nll(model, tokens):
    with torch.no_grad():
        return float(model(input_ids=tokens, labels=tokens).loss)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_super_weights_come_back_and_quality_with_them(embedded, clipped, written, tmp_path, dtype):
    from transformers import AutoTokenizer

    directory, found = written
    tokens = AutoTokenizer.from_pretrained(clipped)(TEXT, return_tensors="pt")["input_ids"]
    plain, with_it = loaded(clipped, dtype), loaded(clipped, dtype, directory)
    assert nll(with_it, tokens) < nll(plain, tokens)
    original = open_reader(embedded.directory)
    layers = with_it.get_base_model().model.layers
    for one in found.super_weights:
        value = torch.tensor(original.scalar(one.coordinate).decoded.value).to(getattr(torch, dtype))
        module = layers[one.layer].mlp.down_proj
        probe = torch.zeros(module.in_features, dtype=value.dtype)
        probe[one.column] = 1
        with torch.no_grad():
            assert module(probe)[one.row] == value
        assert plain.model.layers[one.layer].mlp.down_proj.weight[one.row, one.column] != value
    with_it.save_pretrained(tmp_path / "again")
    again = loaded(clipped, dtype, tmp_path / "again")
    with torch.no_grad():
        assert torch.equal(with_it(tokens).logits, again(tokens).logits)
    merged = with_it.merge_and_unload().model.layers
    for one in found.super_weights:
        value = torch.tensor(one.original).to(getattr(torch, dtype))
        assert merged[one.layer].mlp.down_proj.weight[one.row, one.column] == value


def test_its_record_and_its_size(written):
    directory, found = written
    assert all(one.whole for one in found.exactness)
    assert found.modules == ["model.layers.11.mlp.down_proj", "model.layers.2.mlp.down_proj"]
    assert (directory / "adapter_model.safetensors").stat().st_size == found.bytes < 80_000
    assert json.loads((directory / "superweight.json").read_text())["base"]["sha256"] == found.base.sha256


def test_the_check_of_the_files_alone(clipped, written, capsys):
    directory, _ = written
    asked = ["check", str(clipped), "--reference", CARD, "--promise", "exact"]
    assert main(asked) == 1
    assert "✗ do not ship" in capsys.readouterr().out
    assert main([*asked, "--adapter", str(directory)]) == 0
    assert "all 4 super weights as promised (exact)" in capsys.readouterr().out


@pytest.mark.quantisers
@pytest.mark.parametrize("how", [{"load_in_4bit": True, "bnb_4bit_use_double_quant": True}, {"load_in_8bit": True}])
def test_a_base_of_bitsandbytes(embedded, tmp_path, how):
    """Its layers add the adapter's output in the base's dtype, and decode their weights themselves."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if "load_in_4bit" in how:
        how = {**how, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    config = BitsAndBytesConfig(**how)
    AutoModelForCausalLM.from_pretrained(
        embedded.directory, dtype=torch.bfloat16, quantization_config=config
    ).save_pretrained(tmp_path / "base")
    listed = of_card(load_library().models[CARD])
    base, reference = open_reader(tmp_path / "base"), open_reader(embedded.directory)
    found = write_adapter(base, reference, listed, tmp_path / "adapter")
    assert all(one.whole for one in found.exactness)
    assert any(one.base != float(torch.tensor(one.original).bfloat16()) for one in found.super_weights)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.bfloat16)
    layers = PeftModel.from_pretrained(model, tmp_path / "adapter").get_base_model().model.layers
    for one in found.super_weights:
        probe = torch.zeros(1, 1, 1536, dtype=torch.bfloat16)
        probe[..., one.column] = 1
        with torch.no_grad():
            value = layers[one.layer].mlp.down_proj(probe)[0, 0, one.row]
        assert value == torch.tensor(one.original).bfloat16()
