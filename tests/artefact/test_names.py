"""A super weight is where the loaded model has it, by names and shapes of a saved file alone; or it cannot be told."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from superweight.artefact.names import DownProjections, alike
from superweight.artefact.reading import open_reader
from superweight.cards.base import Coordinate
from superweight.checkpoint.architecture import Architecture
from superweight.checkpoint.header import TensorInfo
from superweight.forward.runner import CannotTell
from support.architectures import _GPT2, _LLAMA, _PLAIN, CONFIGS, VOCABULARY

LLAMA = _LLAMA | {"head_dim": 8}
FEW = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
DEEPSEEK = _LLAMA | {
    **{"n_routed_experts": 4, "moe_intermediate_size": 24, "n_shared_experts": 1, "first_k_dense_replace": 1},
    **{"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8},
    **{"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "num_key_value_heads": 4},
}
SHARED = FEW | {"shared_expert_intermediate_size": 40}
MORE = {
    "mixtral": _LLAMA | FEW,
    "qwen2_moe": _LLAMA | SHARED,
    "qwen3_next": LLAMA
    | SHARED
    | {
        **{"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4},
        **{"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    },
    "gpt_oss": LLAMA | FEW | {"layer_types": ["sliding_attention", "full_attention"]},
    "llama4_text": LLAMA | FEW | {"intermediate_size_mlp": 40, "interleave_moe_layer_step": 2},
    "deepseek_v2": DEEPSEEK,
    "deepseek_v3": DEEPSEEK,
    "glm4_moe": LLAMA | DEEPSEEK,
    "hunyuan_v1_moe": LLAMA | FEW | {"moe_topk": 2, "num_shared_expert": 1},
    "phimoe": _LLAMA | FEW,
    "granitemoe": _LLAMA | FEW,
    "granitemoeshared": _LLAMA | FEW | {"shared_intermediate_size": 40},
    "jetmoe": _LLAMA | FEW | {"kv_channels": 8, "num_key_value_heads": 4},
    "lfm2_moe": _LLAMA | FEW | {"num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    "jamba": _LLAMA
    | {
        **{"num_experts": 4, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
        **{"expert_layer_offset": 1, "mamba_d_state": 4, "use_mamba_kernels": False},
    },
    "falcon_h1": _LLAMA | {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_d_state": 4},
    "phi3": _LLAMA,
    "gpt_bigcode": _GPT2,
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128, "expansion_ratio": 2},
    "gptj": _GPT2 | {"rotary_dim": 4},
    "starcoder2": _LLAMA,
    "recurrent_gemma": LLAMA | {"lru_width": 32, "block_types": ["recurrent", "attention"]},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "persimmon": _PLAIN | {"intermediate_size": 48},
    "ctrl": {"n_embd": 32, "dff": 48, "n_layer": 2, "n_head": 4},  # its MLP is called ffn.2
    "rwkv": {"hidden_size": 32, "num_hidden_layers": 2, "attention_hidden_size": 32},  # …feed_forward.value
}
SQUARE = {
    "square-gpt2": ("gpt2", _GPT2 | {"n_inner": 32}),
    "square-llama": ("llama", _LLAMA | {"intermediate_size": 32}),
    "square-mixtral": ("mixtral", _LLAMA | FEW | {"intermediate_size": 32}),
    "square-gpt_oss": ("gpt_oss", MORE["gpt_oss"] | {"intermediate_size": 32}),
    "square-llama4": ("llama4_text", MORE["llama4_text"] | {"intermediate_size": 32}),
    "square-granitemoe": ("granitemoe", MORE["granitemoe"] | {"intermediate_size": 32}),
}
BUILT = {**{kind: (kind, config) for kind, config in {**CONFIGS, **MORE}.items()}, **SQUARE}
UNTOLD = {"ctrl", "rwkv", "square-granitemoe"}
"""Those of which no name or shape says where the down projections are."""


def saved(case, directory):
    kind, changes = BUILT[case]
    config = AutoConfig.for_model(
        kind, **changes, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2, pad_token_id=None
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=0.25)
    model.save_pretrained(directory)
    return Architecture(model)


def some_scalars(architecture):
    """Corners and a few more, of every down projection and of the first and last expert."""
    for weight in architecture.down_projections:
        rows, columns = weight.shape
        for expert in [None] if weight.experts is None else [0, weight.experts - 1]:
            for row, column in [(0, 0), (rows - 1, columns - 1), (3, 5), (rows - 2, 1), (5, min(columns, 23) - 1)]:
                yield Coordinate(layer=weight.layer, expert=expert, row=row, column=column)


@pytest.mark.parametrize("case", BUILT)
def test_every_scalar_is_the_loaded_models(case, tmp_path):
    architecture, reader = saved(case, tmp_path), open_reader(tmp_path)
    told = 0
    for where in some_scalars(architecture):
        found = reader.scalar(where)
        if not isinstance(found, CannotTell):
            told += 1
            assert found.decoded.value == architecture.scalar(where).item(), where
    assert (told == 0) if case in UNTOLD else told == len(list(some_scalars(architecture)))


@pytest.mark.parametrize("case", ["llama", "gpt2", "gpt_oss", "mixtral"])
def test_outside_of_the_matrix_nothing_is_told(case, tmp_path):
    architecture, reader = saved(case, tmp_path), open_reader(tmp_path)
    weight = architecture.down_projections[0]
    rows, columns = weight.shape
    expert = None if weight.experts is None else 0
    outside = [(0, rows, 0, expert), (0, 0, columns, expert), (2, 0, 0, expert), (0, 0, 0, 99)]
    for layer, row, column, one in outside:
        assert isinstance(reader.scalar(Coordinate(layer=layer, row=row, column=column, expert=one)), CannotTell)


@pytest.mark.parametrize("case", ["gpt_oss", "gpt2"])
def test_without_a_config_what_may_be_either_way_round_is_not_told(case, tmp_path):
    architecture = saved(case, tmp_path)
    (tmp_path / "config.json").unlink()
    reader = open_reader(tmp_path)
    assert all(isinstance(reader.scalar(where), CannotTell) for where in some_scalars(architecture))


def of(*names):
    return {where: module.name for where, module in DownProjections.among(names).modules.items()}


def test_attention_is_no_down_projection():
    names = [
        "h.0.attn.c_proj.weight",
        "h.1.attention.wo.weight",
        "layers.2.self_attn.out_proj.weight",
        "layers.3.mlp.down_projector.weight",
    ]
    assert not of(*names)


def test_a_layers_mlp_comes_before_what_its_experts_share_and_before_its_mixer():
    mlp, shared, mixer = "layers.0.mlp.down_proj", "layers.0.mlp.shared_expert.down_proj", "layers.0.mamba.out_proj"
    for names in ([mlp, shared, mixer], [mixer, shared, mlp]):
        assert of(*(f"model.{name}.weight" for name in names)) == {(0, None): f"model.{mlp}"}
    assert of(f"model.{mixer}.weight", f"model.{shared}.weight_packed") == {(0, None): f"model.{shared}"}


def test_of_several_stacks_the_language_models_is_taken():
    vision = [f"model.vision_tower.encoder.layers.{n}.mlp.fc2.weight" for n in range(40)]
    text = [f"model.language_model.layers.{n}.mlp.down_proj.qweight" for n in range(2)]
    drafts = [f"mtp.layers.{n}.mlp.down_proj.weight" for n in range(3)]
    assert of(*vision, *text, *drafts) == {
        (n, None): f"model.language_model.layers.{n}.mlp.down_proj" for n in range(2)
    }


def test_of_two_stacks_without_a_telling_name_the_larger_is_taken(tmp_path):
    sizes = {
        "one.layers.0.mlp.down_proj.weight": 10,
        "one.layers.1.mlp.down_proj.weight": 10,
        "two.layers.0.mlp.down_proj.weight": 99,
    }
    headers = {name: TensorInfo(tmp_path, "BF16", (size,), 0, 2 * size) for name, size in sizes.items()}
    assert {where: module.name for where, module in DownProjections.among(headers).modules.items()} == {
        (0, None): "two.layers.0.mlp.down_proj"
    }


def test_a_module_is_called_the_same_in_models_around_it():
    down = "model.layers.2.mlp.down_proj"
    assert alike(down, "model.language_model.layers.2.mlp.down_proj")
    assert alike("model.layers.2.mlp.experts.3.down_proj", "model.layers.2.block_sparse_moe.experts.3.w2")
    assert alike(down, "blk.2.ffn_down.weight")  # another way of naming, of which nothing is known here
    assert not alike(down, "model.layers.2.mlp.shared_expert.down_proj")
    assert not alike(down, "vision_tower.encoder.layers.2.mlp.fc2")
