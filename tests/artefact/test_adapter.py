"""LoRA adapters read from their files, beside what PEFT makes of them."""

import json

import pytest
import torch

from superweight.artefact.adapter import AdaptedReader, Adapter
from superweight.artefact.numbers import rounded
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.errors import InfraError
from superweight.forward.runner import CannotTell
from support.tiny import HIDDEN, INNER, tiny_model

PLACES = [Coordinate(layer=layer, row=row, column=column) for layer in (0, 1) for row, column in ((3, 5), (60, 95))]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny Llama of two layers."""
    directory = tmp_path_factory.mktemp("base") / "dense"
    tiny_model("llama", layers=2).save_pretrained(directory)
    return directory


def adapted(base, directory, **settings):
    """A directory that PEFT wrote of an adapter with random numbers, and the model with it, merged."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = {"r": 3, "lora_alpha": 5, "target_modules": ["down_proj"], **settings}
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**settings))
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_()
    model.save_pretrained(directory)
    return AdaptedReader(open_reader(base), Adapter(directory)), model.merge_and_unload()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lora_alpha": 3},
        {"use_rslora": True},
        {"target_modules": r".*layers\.1\.mlp\.down_proj"},
        {"target_modules": ["model.layers.0.mlp.down_proj", "q_proj"]},
        {"rank_pattern": {"layers.1.mlp.down_proj": 1}, "alpha_pattern": {r"layers\.0\..*": 7}},
        {"target_modules": "all-linear", "r": 1},
    ],
    ids=str,
)
def test_scalars_are_what_peft_merges(base, tmp_path, settings):
    reader, merged = adapted(base, tmp_path / "adapter", **settings)
    for where in PLACES:
        held = reader.scalar(where)
        expected = float(merged.model.layers[where.layer].mlp.down_proj.weight[where.row, where.column])
        assert held.decoded.value == pytest.approx(expected, rel=3e-7)  # a dot product of three, in another order
        assert held.decoded.dtype == "float32"
    assert reader.bytes > open_reader(base).bytes
    assert "adapter" in reader.about


def test_what_the_adapter_does_not_name_is_the_base(base, tmp_path):
    reader, _ = adapted(base, tmp_path / "adapter", target_modules=["model.layers.1.mlp.down_proj"])
    assert reader.scalar(PLACES[0]) == open_reader(base).scalar(PLACES[0])
    assert reader.scalar(PLACES[2]) != open_reader(base).scalar(PLACES[2])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"exclude_modules": ["layers.1.mlp.down_proj"]}, "exclude_modules"),
    ],
)
def test_adapters_that_are_more_than_a_and_b_cannot_be_told(base, tmp_path, settings, why):
    reader, _ = adapted(base, tmp_path / "adapter", **settings)
    found = reader.scalar(PLACES[0])
    assert isinstance(found, CannotTell)
    assert why in found.reason


def changed(directory, **settings):
    path = directory / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_another_kind_of_adapter_cannot_be_told(base, tmp_path):
    from peft import IA3Config, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        IA3Config(target_modules=["down_proj"], feedforward_modules=["down_proj"]),
    )
    model.save_pretrained(tmp_path)
    found = AdaptedReader(open_reader(base), Adapter(tmp_path)).scalar(PLACES[0])
    assert isinstance(found, CannotTell)
    assert "IA3" in found.reason


def test_terms_that_peft_would_not_load_cannot_be_told(base, tmp_path):
    adapted(base, tmp_path / "adapter")
    changed(tmp_path / "adapter", target_modules=["q_proj"])
    found = AdaptedReader(open_reader(base), Adapter(tmp_path / "adapter")).scalar(PLACES[0])
    assert isinstance(found, CannotTell)
    assert "target_modules" in found.reason


def test_a_tensor_beside_a_and_b_cannot_be_told(base, tmp_path):
    from safetensors.torch import load_file, save_file

    adapted(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    more = "base_model.model.model.layers.0.mlp.down_proj.weight"
    save_file({**load_file(file), more: torch.zeros(HIDDEN, INNER)}, file)
    found = AdaptedReader(open_reader(base), Adapter(tmp_path / "adapter")).scalar(PLACES[0])
    assert isinstance(found, CannotTell)
    assert more in found.reason


@pytest.mark.parametrize(
    "settings",
    [{"r": 2}, {"r": None}, {"r": 0}, {"lora_alpha": "5"}, {"target_modules": "(["}, {"rank_pattern": {"(": 3}}],
    ids=str,
)
def test_settings_that_do_not_fit_the_tensors_are_refused(base, tmp_path, settings):
    adapted(base, tmp_path / "adapter")
    changed(tmp_path / "adapter", **settings)
    with pytest.raises(InfraError) as error:
        AdaptedReader(open_reader(base), Adapter(tmp_path / "adapter")).scalar(PLACES[0])
    assert error.value.reason == "corrupt"


def test_a_cut_file_is_refused(base, tmp_path):
    adapted(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(InfraError) as error:
        AdaptedReader(open_reader(base), Adapter(tmp_path / "adapter")).scalar(PLACES[0])
    assert error.value.reason == "corrupt"


def test_half_of_a_pair_is_refused(base, tmp_path):
    from safetensors.torch import load_file, save_file

    adapted(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(file).items() if "lora_A" in name}, file)
    with pytest.raises(InfraError, match=r"lora_B\.weight"):
        AdaptedReader(open_reader(base), Adapter(tmp_path / "adapter")).scalar(PLACES[0])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ([], "not-found"),
        (["adapter_config.json"], "not-found"),
        (["adapter_model.safetensors"], "not-found"),
        (["adapter_config.json", "adapter_model.bin"], "pickle"),
    ],
)
def test_what_is_no_adapter_is_refused(tmp_path, files, reason):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InfraError) as error:
        Adapter(tmp_path)
    assert error.value.reason == reason


def test_numbers_that_are_none_lose_the_weight(base, tmp_path):
    from safetensors.torch import load_file, save_file

    adapted(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(file)
    tensors["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"][3, 0] = float("nan")
    save_file(tensors, file)
    value = AdaptedReader(open_reader(base), Adapter(tmp_path / "adapter")).scalar(PLACES[0]).decoded.value
    assert value != value
    assert rounded(value, "bfloat16") != value
