"""Every parameter of the decoder layers is a linear weight, left alone for a reason, or the recipe is refused."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, JambaConfig, LlamaConfig, MambaConfig, RecurrentGemmaConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from superweight.cards.recipe import RecipeCard
from superweight.checkpoint.architecture import Architecture
from superweight.compress import Context, apply
from superweight.errors import InfraError
from support.tiny import DENSE, load, tiny_model, tiny_tokenizer

COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts", "ffn_config")
EXPERTS = 8

SMALL = {
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), EXPERTS),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts"), 2),
    **dict.fromkeys(("n_group", "topk_group", "num_expert_group", "first_k_dense_replace"), 1),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size"), 48),
    **dict.fromkeys(("intermediate_size", "ffn_hidden_size"), 96),
    **dict.fromkeys(("head_dim", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "kv_lora_rank"), 16),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "num_attention_heads", "zero_expert_num"), 4),
    "vocab_size": 96,
    "hidden_size": 64,
    "q_lora_rank": 24,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "num_nextn_predict_layers": 0,
    "enable_moe_block": True,
    "is_moe": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Sizes by the name of the configuration's field, for those fields that a class has."""

QSA = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 4,
    "indexer_compress_ratio": 2,
}

OWN = {
    "dbrx": {
        "d_model": 64,
        "n_heads": 4,
        "n_layers": 4,
        "max_seq_len": 512,
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": EXPERTS, "moe_top_k": 2, "hidden_size": 64},
    },
    "hunyuan_v1_moe": {"moe_topk": [2] * 4},
    "dots1": {"n_shared_experts": 1},
    "zaya": {"num_experts_per_tok": 1},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "gemma4": {"vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 16, "global_head_dim": 16},
    "gemma4_text": {"vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 16, "global_head_dim": 16},
    "dots3_note": {"num_key_value_heads": 4, "use_sliding_window": False},
    "dots3_note_text": {"num_key_value_heads": 4, "use_sliding_window": False},
    "qwen4_exp": QSA,
    "qwen4_exp_text": QSA,
}
"""What a class needs besides."""

REFUSED = {
    "deepseek_v4": {"attn_hc.fn", "ffn_hc.fn"},
    "hy_v4": {"attn_hc.fn", "ffn_hc.fn"},
    "inkling_text": {"self_attn.rel_logits_proj.proj"},
    "inkling2_text": {"self_attn.rel_logits_proj.proj"},
    "doge": {"mlp.down_embed.weight", "mlp.up_embed.weight"},
}
"""Classes whose layers multiply parameters that no recipe compresses: raw ones, and experts that are looked up."""


RTN = {"kind": "rtn", "bits": 4, "granularity": "channel"}


def card(**method) -> RecipeCard:
    role = "baseline" if method["kind"] == "baseline" else "reference"
    return RecipeCard(id="one", title="One", role=role, method=method)


def text_config(kind: str):
    try:
        return CONFIG_MAPPING[kind]().get_text_config()
    except Exception:  # several text models in one, or no defaults: no class of mixtures is among them
        return None


def has(config, name: str) -> bool:
    try:
        return hasattr(config, name)
    except Exception:  # differs by layer
        return True


def find_mixtures() -> list[str]:
    configs = {kind: text_config(kind) for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    return [kind for kind, config in configs.items() if config and any(has(config, name) for name in COUNTS)]


MIXTURES = find_mixtures()


def small(kind: str):
    """A random model of a class, every dimension small."""
    config = text_config(kind)
    sizes = {name: value for name, value in SMALL.items() if has(config, name)}
    if "qk_rope_head_dim" in sizes:
        sizes["num_key_value_heads"] = 4
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(type(config)(**(sizes | OWN.get(kind, {})))).eval()


def within_layer(name: str, architecture: Architecture) -> str:
    return name.removeprefix(architecture.prefix + ".").partition(".")[2]


@pytest.mark.parametrize("kind", MIXTURES)
def test_mixtures(kind):
    architecture = Architecture(small(kind))
    coverage = architecture.coverage
    assert not coverage.broken
    assert {within_layer(part.name, architecture) for part in coverage.unknown} == REFUSED.get(kind, set())
    expert_parts = [part for part in coverage.parts if ".experts." in part.name and len(part.shape) > 1]
    assert {part.kind for part in expert_parts if "bias" not in part.name} <= {"expert", "attention", "router"}
    # By hand: what has one output for each expert, and for those that stand beside them, is in no recipe's reach.
    wide = {4} if kind == "doge" else {EXPERTS, EXPERTS + 1, EXPERTS + 2, EXPERTS + 4}
    shapes = {name: architecture_parameter(architecture, name).shape for name in architecture.routers}
    assert {shape[0] for shape in shapes.values()} & wide
    dense = [w for w in architecture.linear_weights if not w.experts and not w.attention]
    assert not [weight.name for weight in dense if weight.shape[0] in wide]


def architecture_parameter(architecture: Architecture, name: str) -> torch.Tensor:
    return architecture.layers.get_parameter(name.removeprefix(f"{architecture.prefix}."))


def test_the_classes_of_mixtures_are_found():
    assert {"mixtral", "dbrx", "jetmoe", "gpt_oss", "hunyuan_v1_moe", "qwen3_moe", "llama4", "zaya"} <= set(MIXTURES)
    assert len(MIXTURES) > 50
    assert set(REFUSED) <= set(MIXTURES)


@pytest.mark.parametrize("kind", DENSE)
def test_dense_models_are_seen_whole(kind):
    model = tiny_model(kind, layers=2)
    coverage = Architecture(model).coverage
    layers = [p for n, p in model.named_parameters() if any(f".{place}." in n for place in "01") and p.dim() > 1]
    total = sum(part.size for part in coverage.parts)
    assert coverage.share == pytest.approx(sum(p.numel() for p in layers) / total)
    assert set(coverage.shares) <= {"attention", "mlp", "other", "vector"}


HYBRIDS = {
    "mamba": (MambaConfig(vocab_size=96, hidden_size=64, num_hidden_layers=2, state_size=8), {"A_log", "conv1d"}),
    "jamba": (
        JambaConfig(
            vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, num_experts=4, attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False,
        ),
        {"A_log", "conv1d", "router"},
    ),
    "recurrent_gemma": (
        RecurrentGemmaConfig(vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                             num_attention_heads=4, num_key_value_heads=1, head_dim=16, lru_width=64),
        {"conv_1d"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HYBRIDS)
def test_hybrids_leave_tables_and_convolutions_alone(kind):
    config, left = HYBRIDS[kind]
    coverage = Architecture(AutoModelForCausalLM.from_config(config)).coverage
    assert not coverage.unknown
    assert left == {name.removesuffix(".weight").rpartition(".")[2] for name in coverage.as_dict()["left_alone"]}


class OddMLP(nn.Module):
    """An MLP whose second matrix is a bare parameter."""

    def __init__(self):
        super().__init__()
        self.into = nn.Linear(64, 80, bias=False)
        self.odd = nn.Parameter(torch.randn(80, 64))

    def forward(self, x):
        return self.into(x).relu() @ self.odd


class SummedMLP(OddMLP):
    """The same product, written as a multiplication and a sum."""

    def forward(self, x):
        return (self.into(x).relu()[..., None] * self.odd).sum(-2)


class LeftMLP(OddMLP):
    """The same product, the weight on the left."""

    def forward(self, x):
        return (self.odd.T @ self.into(x).relu().transpose(-1, -2)).transpose(-1, -2)


class BrokenMLP(OddMLP):
    """One that cannot be run."""

    def forward(self, x):
        raise ValueError("not today")


def llama(mlp):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=44, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config).eval()
    for layer in model.model.layers:
        layer.mlp = mlp()
    return load(model, tiny_tokenizer())


@pytest.mark.parametrize("mlp", [OddMLP, SummedMLP, LeftMLP, BrokenMLP])
def test_a_matrix_that_is_not_understood_is_refused_with_its_name(mlp):
    loaded = llama(mlp)
    before = [p.clone() for p in loaded.model.parameters()]
    with pytest.raises(InfraError) as error:
        apply(card(**RTN), Context(loaded))
    assert error.value.reason == "recipe-mismatch"
    whole = 4 * 64 * 64 + 2 * 64 * 80 + 2 * 64
    assert f"{(whole - 64 * 80 - 2 * 64) / whole:.1%}" in str(error.value)
    for layer in range(3):
        assert f"model.layers.{layer}.mlp.odd (80, 64)" in str(error.value)
    assert ("not today" in str(error.value)) == (mlp is BrokenMLP)
    assert all(torch.equal(a, b) for a, b in zip(before, loaded.model.parameters(), strict=True))


def test_a_recipe_that_compresses_nothing_is_not_refused():
    loaded = llama(OddMLP)
    for control in ("baseline", "no-op"):
        with apply(card(kind=control), Context(loaded)) as applied:
            assert applied.size.compressed_bits_per_weight == 32


class OddlyNamedMixture(nn.Module):
    """Experts below one another, and a router whose name says nothing."""

    def __init__(self, experts=6):
        super().__init__()
        self.who = nn.Linear(64, experts, bias=False)
        self.a = nn.Parameter(torch.randn(experts * 40, 64) / 8)
        self.b = nn.Parameter(torch.randn(experts * 64, 40) / 8)

    def forward(self, x):
        _, chosen = self.who(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for expert in range(6):
            inner = x @ self.a.view(6, 40, 64)[expert].T
            y = y + (chosen == expert)[..., None] * (inner.relu() @ self.b.view(6, 64, 40)[expert].T)
        return y


def test_oddly_named_experts_and_routers():
    architecture = Architecture(llama(OddlyNamedMixture).model)
    mixtures = {w.name: w for w in architecture.linear_weights if w.experts}
    assert set(architecture.routers) == {f"model.layers.{i}.mlp.who.weight" for i in range(3)}
    a, b = mixtures["model.layers.1.mlp.a"], mixtures["model.layers.1.mlp.b"]
    assert (a.experts, a.shape, a.transposed, a.down) == (6, (40, 64), False, False)
    assert (b.experts, b.shape, b.transposed, b.down) == (6, (64, 40), False, True)
    b.matrix(2)[3, 5] = 77.0
    assert architecture.layers[1].mlp.b.data[2 * 64 + 3, 5] == 77.0
    matrices = 3 * (4 * 64 * 64 + 2 * 6 * 64 * 40)
    assert architecture.coverage.share == matrices / (matrices + 3 * (6 * 64 + 2 * 64))


def run_experts(module, x, expert):
    """Every token to one expert, at weight 1."""
    chosen = torch.full((len(x), 1), expert)
    return module(x, chosen, torch.ones(len(x), 1)).view(x.shape)


ORIENTED = {"dbrx": "ffn.experts", "mixtral": "mlp.experts", "qwen3_moe": "mlp.experts", "gpt_oss": "mlp.experts"}


@pytest.mark.parametrize("kind", ORIENTED)
def test_rows_of_an_expert_are_its_outputs_and_columns_its_inputs(kind):
    model = small(kind)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    architecture = Architecture(model)
    module = architecture.layers[1].get_submodule(ORIENTED[kind])
    here = [weight for weight in architecture.linear_weights if weight.layer == 1 and weight.experts]
    (down,) = [weight for weight in here if weight.down]
    x = torch.randn(3, 64)
    with torch.no_grad():
        before, other = run_experts(module, x, 5), run_experts(module, x, 4)
        down.matrix(5)[9, 7] += 1
        after = run_experts(module, x, 5)
        assert ((after - before).abs().amax(0) > 1e-4).nonzero().flatten().tolist() == [9]
        assert torch.equal(other, run_experts(module, x, 4))
        for weight in here:
            if not weight.down:
                weight.matrix(5)[:, 11] = 0
        blind = x.clone()
        blind[:, 11] = 100
        assert torch.allclose(run_experts(module, x, 5), run_experts(module, blind, 5))


def test_parallel_experts_in_mlp_and_attention():
    architecture = Architecture(small("jetmoe"))
    mixtures = [weight for weight in architecture.linear_weights if weight.experts and weight.layer == 0]
    assert len(mixtures) == 4
    assert [w.name for w in mixtures if w.down] == ["model.layers.0.mlp.output_linear.weight"]
    assert sum(w.attention for w in mixtures) == 2
    for weight in mixtures:
        x = torch.randn(2 * EXPERTS, weight.shape[1])
        nn.init.normal_(weight.parameter)
        with torch.no_grad():
            y = weight.module(x, [2] * EXPERTS)
        for expert in range(EXPERTS):
            assert torch.allclose(y[2 * expert], weight.matrix(expert) @ x[2 * expert], atol=1e-4)


def test_fused_experts_are_rounded_expert_by_expert():
    loaded = load(small("dbrx"), tiny_tokenizer())
    before = {name: p.clone() for name, p in loaded.model.named_parameters()}
    apply(card(**RTN), Context(loaded))
    w2 = loaded.model.get_parameter("transformer.blocks.0.ffn.experts.mlp.w2")  # (experts · inner, hidden), input-major
    column = before["transformer.blocks.0.ffn.experts.mlp.w2"].view(EXPERTS, 96, 64)[3, :, 10].double()
    step = (column.max() - column.min()) / 15
    expected = ((column - column.min()) / step).round() * step + column.min()
    assert torch.allclose(w2.view(EXPERTS, 96, 64)[3, :, 10].double(), expected, atol=1e-6)
    same = {name for name, p in loaded.model.named_parameters() if torch.equal(p, before[name])}
    assert {n for n in same if ".blocks." in n and "norm" not in n} == {
        f"transformer.blocks.{i}.ffn.router.layer.weight" for i in range(4)
    }


@pytest.mark.parametrize("kind", ["dbrx", "jetmoe"])
def test_activations_of_fused_and_parallel_experts_are_rounded(kind):
    loaded = load(small(kind), tiny_tokenizer())
    recipe = card(kind="w8a8", weights="channel", activations="token", super_activations="naive")
    for parameter in loaded.model.parameters():
        nn.init.normal_(parameter, std=0.2)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        before = loaded.model(ids).logits
        applied = apply(recipe, Context(loaded))
        loaded.model(ids)  # refuses if an expert's input is not reached
        assert set(applied.hooks) >= {w.name.rpartition(".")[0] for w in loaded.architecture.linear_weights}
        assert set(applied.rewritten) == {weight.name for weight in loaded.architecture.linear_weights}
        applied.undo()
        assert torch.equal(loaded.model(ids).logits, before)


def test_watching_changes_nothing():
    model = AutoModelForCausalLM.from_config(GPT2Config(vocab_size=96, n_embd=64, n_head=4, n_layer=3)).train()
    before, random = [p.clone() for p in model.parameters()], torch.get_rng_state()
    Architecture(model)
    assert all(module.training for module in model.modules())
    assert all("forward" not in vars(module) and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(random, torch.get_rng_state())
