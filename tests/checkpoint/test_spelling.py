"""Slips of the pen in config.json, which transformers passes over in silence."""

import json

import pytest

from superweight.checkpoint import load_model
from superweight.checkpoint.files import open_directory
from superweight.errors import InfraError
from support.tiny import ARCHITECTURES, tiny_model, tiny_tokenizer


def saved(directory, kind="llama"):
    tiny_model(kind, layers=2).save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def renamed(directory, **names):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for old, new in names.items():
        config[new] = config.pop(old)
    path.write_text(json.dumps(config))
    return directory


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rms_norm_eps", "rms_norm_epz"),
        ("rms_norm_eps", "rms_norm_eps "),
        ("rms_norm_eps", "RMS_norm_eps"),
        ("rms_norm_eps", "rmsnorm_eps"),
        ("rope_parameters", "rope_parameter"),
        ("attention_bias", "attention_bais"),
        ("hidden_act", "hidden-act"),
    ],
)
def test_a_misspelt_setting_is_refused_by_both_names(tmp_path, old, new):
    directory = renamed(saved(tmp_path), **{old: new})
    with pytest.raises(InfraError) as caught:
        load_model(open_directory(directory))
    assert caught.value.reason == "corrupt"
    for said in (str(directory / "config.json"), repr(new), repr(old)):
        assert said in str(caught.value)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_settings_as_transformers_writes_them_are_no_slips(tmp_path, kind):
    assert load_model(open_directory(saved(tmp_path, kind)))


def test_settings_of_others_and_of_old_are_left_alone(tmp_path):
    directory = saved(tmp_path)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {
        "rope_theta": rope["rope_theta"],
        "torch_dtype": config.pop("dtype"),
        "unsloth_version": "1",
        "n_ctx": 512,
    }
    config |= {"_attn_implementation_autoset": True, "auto_map": {}, "rope_scaling": None}
    path.write_text(json.dumps(config))
    assert load_model(open_directory(directory))
