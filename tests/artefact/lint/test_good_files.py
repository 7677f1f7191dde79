"""Files that nothing is wrong with are left alone by every rule."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from superweight.artefact.lint import RULES, Subject, lint
from superweight.artefact.reading import open_reader
from support.architectures import make_model, make_tokenizer
from support.artefacts import dense, packed

GOOD = {
    "w4": {"bits": 4},
    "w8": {"bits": 8},
    "w2": {"bits": 2},
    "sharded": {"bits": 4, "shards": 3},
    "two left alone": {"bits": 4, "ignore": ["layers.1.mlp.down_proj", "layers.0.self_attn.q_proj"]},
    "a layer left alone": {"bits": 4, "ignore": ["layers.2."]},
}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside the reference"])
@pytest.mark.parametrize("case", GOOD)
def test_packed(case, alone, reference, look, tmp_path):
    assert look(packed(reference, tmp_path / "artefact", **GOOD[case]), alone=alone) == {}
    assert look(tmp_path / "artefact", alone=alone, thorough=True) == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_dense(dtype, reference, look, tmp_path):
    assert look(dense(reference, tmp_path / "copy", lambda tensors: None, dtype)) == {}


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gpt_neox", "falcon", "bloom", "qwen3_moe", "mamba", "phi"])
def test_dense_models_of_other_families(kind, tmp_path):
    """As transformers saves them, in one file and in several."""
    model, tokenizer = make_model(kind), make_tokenizer()
    for name, size in (("one", "5GB"), ("many", "20KB")):
        model.save_pretrained(tmp_path / name, max_shard_size=size)
        tokenizer.save_pretrained(tmp_path / name)
    AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=torch.bfloat16).save_pretrained(tmp_path / "small")
    tokenizer.save_pretrained(tmp_path / "small")
    for name in ("many", "small"):
        for reference in (None, open_reader(tmp_path / "one")):
            assert lint(Subject(open_reader(tmp_path / name), reference)) == ([], {})


def test_every_rule_has_an_id_of_its_own_and_a_reason():
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    assert all(rule.id == rule.id.lower().replace("_", "-") and rule.reason.endswith(".") for rule in RULES)
