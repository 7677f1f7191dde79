"""Tiny random models of every architecture, with super weights planted in them that they depend on.

A random model has no language to lose, so one is given to it: its head is fitted in closed form to a Markov chain,
with the planted weights in place. A spike in the residual stream sets the scale of what the final norm lets through;
without the spike the fitted head sees everything a hundred times too large, and perplexity explodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from superweight.cards.base import Coordinate
from superweight.checkpoint.architecture import Architecture
from superweight.checkpoint.files import Checkpoint
from superweight.checkpoint.loading import LoadedModel

DENSE = (
    "llama",
    "mistral",
    "olmo",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "falcon",
    "opt",
)
MIXTURES = ("mixtral", "qwen3_moe")
ARCHITECTURES = (*DENSE, *MIXTURES)

LAYERS, HIDDEN, INNER, WORDS = 6, 64, 96, 40
SPECIAL = 4  # <pad>, <s>, </s>, <unk>
VOCABULARY = WORDS + SPECIAL
FOLLOWS = 0.15  # how often a word is followed by its successor rather than by any word
TAUGHT = 0.9  # the same of what `trained` learns
SPIKE = 600.0  # planted spikes, in medians of the residual stream

_SIZES = {
    "hidden_size": HIDDEN,
    "n_embd": HIDDEN,
    "word_embed_proj_dim": HIDDEN,
    "intermediate_size": INNER,
    "moe_intermediate_size": INNER,
    "n_inner": INNER,
    "ffn_dim": INNER,
    "ffn_hidden_size": INNER,
    "num_hidden_layers": LAYERS,
    "n_layer": LAYERS,
    "num_attention_heads": 4,
    "n_head": 4,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 512,
    "n_positions": 512,
    "vocab_size": VOCABULARY,
    "final_logit_softcapping": None,
}


@dataclass(frozen=True)
class Plant:
    """A weight to be planted.

    Attributes:
        coordinate: where.
        spike: what its term adds to its channel of the residual stream at every token, in medians.
        decoy: make it three times as large as that takes, and its input zero.
    """

    coordinate: Coordinate
    spike: float = SPIKE
    decoy: bool = False


@dataclass(frozen=True)
class Tiny:
    """A tiny model with its language.

    Attributes:
        loaded: the model.
        prompt: a text of the language.
        text: token ids of another.
        values: the planted values.
    """

    loaded: LoadedModel
    prompt: str
    text: torch.Tensor
    values: dict[Coordinate, float]


def tiny_model(kind: str, *, seed: int = 0, layers: int = LAYERS, dtype: torch.dtype = torch.float32):
    """A random model of a `transformers` model type, with large embeddings and an untied head."""
    config = AutoConfig.for_model(kind)
    for name, value in {**_SIZES, "num_hidden_layers": layers, "n_layer": layers}.items():
        if hasattr(config, name):
            setattr(config, name, value)
    if hasattr(config, "head_dim") and kind != "falcon":
        config.head_dim = HIDDEN // 4
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.tie_word_embeddings = False
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    for weight in Architecture(model).linear_weights:
        weight.parameter.data.mul_(0.3)  # what is not planted hardly speaks
    embeddings = model.get_input_embeddings().weight.data
    # What every token shares gives a column something constant to answer to.
    embeddings.copy_(torch.randn(embeddings.shape) + 2 * torch.randn(HIDDEN))
    return model


def tiny_tokenizer(*, bos: str = "added") -> PreTrainedTokenizerFast:
    """A tokenizer of the words w0 … w39. BOS is `added` to every text, merely `known`, or `absent`."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {f"w{i}": i + SPECIAL for i in range(WORDS)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos == "added":
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    if bos != "absent":
        names["bos_token"] = "<s>"
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def tiny_text(length: int, *, seed: int = 0, follows: float = FOLLOWS) -> torch.Tensor:
    """Token ids of a Markov chain: every word has one successor that follows it more often than the others do."""
    generator = torch.Generator().manual_seed(seed)
    successor = tiny_successors()
    words = torch.randint(WORDS, (length,), generator=generator)
    successors = torch.rand(length, generator=generator) < follows
    for index in range(1, length):
        if successors[index]:
            words[index] = successor[words[index - 1]]
    return words + SPECIAL


def load(model, tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    """A loaded model without files."""
    dtype = next(model.parameters()).dtype
    checkpoint = Checkpoint(Path("tiny"), "tiny", "0" * 64)
    return LoadedModel(model, tokenizer, checkpoint, dtype, dtype, torch.device("cpu"))


def tiny(kind: str, plants: Sequence[Plant] = (), *, bos: str = "added", seed: int = 0) -> Tiny:
    """A tiny model that depends on the planted weights, in the order given: causes before what cancels them."""
    loaded = load(tiny_model(kind, seed=seed), tiny_tokenizer(bos=bos))
    values: dict[Coordinate, float] = {}
    for plant in plants:
        values[plant.coordinate] = _plant(loaded, plant)
    _fit_head(loaded, {plant.coordinate.row for plant in plants})
    prompt = " ".join(f"w{token - SPECIAL}" for token in tiny_text(48, seed=7).tolist())
    return Tiny(loaded, prompt, tiny_text(1024, seed=8), values)


def trained(*, steps: int = 100) -> LoadedModel:
    """A tiny Llama that has learned its chain in all its layers, so that no single weight matters.

    Its text is `tiny_text(…, follows=TAUGHT)`, at a perplexity of about 2.1; the embeddings, kept small and as random
    as they were, leave the work to the layers.
    """
    model = tiny_model("llama", layers=2)
    learned = [weight.parameter for weight in Architecture(model).linear_weights] + [model.lm_head.weight]
    model.get_input_embeddings().weight.data.copy_(0.05 * torch.randn(VOCABULARY, HIDDEN))
    model.lm_head.weight.data.mul_(0.1)
    for parameter in learned:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(learned, 1e-2)
    windows = tiny_text(512 * 64, seed=11, follows=TAUGHT).view(-1, 64)
    for step in range(steps):
        batch = windows[16 * step % 512 :][:16]
        optimiser.zero_grad()
        model(input_ids=batch, labels=batch).loss.backward()
        optimiser.step()
    return load(model.requires_grad_(False), tiny_tokenizer())


def _plant(loaded: LoadedModel, plant: Plant) -> float:
    where, architecture = plant.coordinate, loaded.architecture
    here = [w for w in architecture.linear_weights if w.layer == where.layer and not w.attention]
    into = [w for w in here if not w.down and w.shape[0] >= INNER]
    mean = _inputs(loaded, into[0].module).mean(0)
    for weight in into:
        for row in range(where.column, weight.shape[0], INNER):  # gate and up, if they are one weight
            weight.matrix(where.expert)[row] = 0 if plant.decoy else 10 * mean / mean.square().sum()
    if where.expert is not None:
        _route(loaded, where, mean)
    scalar, median = architecture.scalar(where), _median(loaded, where.layer)
    if plant.decoy:
        scalar.fill_(3 * float(architecture.down_projection(where).matrix(where.expert).abs().max()))
        return float(scalar)
    norm = getattr(architecture.layers[where.layer], "post_feedforward_layernorm", None)
    if norm is not None:
        _plant_before_norm(norm, scalar, plant, median)
        return float(scalar)
    scalar.fill_(1.0)
    before = _after(loaded, where.layer)[:, where.row]
    scalar.fill_(0.0)
    term = before - _after(loaded, where.layer)[:, where.row]
    scalar.fill_(plant.spike * median / float(term.abs().mean()))
    return float(scalar)


def _plant_before_norm(norm, scalar: torch.Tensor, plant: Plant, median: float) -> None:
    """Where a norm follows the down projection, let the norm make the spike: nothing larger than its bound comes out.

    The bound is √hidden times the norm's weight, whatever the planted weight, and what is left of the output when one
    of several is zeroed is scaled up to it again: there, several are harmless alone.
    """
    scalar.fill_(10.0 if plant.spike > 0 else -10.0)
    gemma = "Gemma" in type(norm).__name__  # which multiplies by 1 + weight
    norm.weight.data[plant.coordinate.row] = abs(plant.spike) * median / HIDDEN**0.5 - (1 if gemma else 0)


def _route(loaded: LoadedModel, where: Coordinate, mean: torch.Tensor) -> None:
    """Send every token to the expert."""
    layer = loaded.architecture.layers[where.layer]
    routers = [m for _, m in layer.named_modules() if "Router" in type(m).__name__]
    routers[0].weight.data[where.expert] = 3 * mean / mean.square().sum()


def _inputs(loaded: LoadedModel, module) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(0, -2)))
    _run(loaded)
    hook.remove()
    return torch.cat(seen)


def _after(loaded: LoadedModel, layer: int) -> torch.Tensor:
    seen: list[torch.Tensor] = []

    def keep(_module, _args, output):
        seen.append(output if isinstance(output, torch.Tensor) else output[0])

    hook = loaded.architecture.layers[layer].register_forward_hook(keep)
    _run(loaded)
    hook.remove()
    return seen[0].flatten(0, 1)


def _median(loaded: LoadedModel, layer: int) -> float:
    return float(_after(loaded, layer).abs().median())


def _run(loaded: LoadedModel) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model.base_model(_training_windows(), use_cache=False).last_hidden_state


def _training_windows() -> torch.Tensor:
    windows = tiny_text(8 * 128, seed=9).view(8, 128).clone()
    windows[::2, 0] = 1  # half of them begin with BOS
    return windows


def _fit_head(loaded: LoadedModel, without: set[int]) -> None:
    """Ridge regression of the chain's own log-probabilities on what the final norm gives.

    The head is blind to the planted channels, and to a shift of all others by one number, which is what a spike does
    to them through a LayerNorm: what it does depend on is their scale.
    """
    kept = torch.ones(HIDDEN, dtype=torch.float64)
    kept[sorted(without)] = 0
    seen = torch.diag(kept) - torch.outer(kept, kept) / kept.sum()  # a projection
    features = _run(loaded).flatten(0, 1).double() @ seen
    features_scale = features.square().mean().sqrt()
    targets = _log_probabilities()[_training_windows().flatten()]
    ridge = 1e-6 * len(features) * torch.eye(HIDDEN, dtype=torch.float64)
    gram = features.T @ features / features_scale**2 + ridge
    head = torch.linalg.solve(gram, features.T @ targets / features_scale**2).T @ seen
    loaded.model.get_output_embeddings().weight.data.copy_(head)


def _log_probabilities() -> torch.Tensor:
    """Of every next token after every token `(vocabulary, vocabulary)`; special tokens hardly ever follow."""
    probability = torch.full((VOCABULARY, VOCABULARY), 1e-4, dtype=torch.float64)
    probability[:, SPECIAL:] = 1 / WORDS
    words = torch.arange(WORDS)
    probability[SPECIAL:, SPECIAL:] *= 1 - FOLLOWS
    probability[words + SPECIAL, tiny_successors() + SPECIAL] += FOLLOWS
    return probability.log()


def tiny_successors() -> torch.Tensor:
    """The word that follows each word more often than the others do, `(words,)`."""
    return torch.randperm(WORDS, generator=torch.Generator().manual_seed(1234))
