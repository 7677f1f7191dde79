"""Scoring as the gate does it against scoring as lm-eval's HFLM does it, and INT8 layers inside a model."""

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

import measuring
from gpu_sections import Findings, Setting
from superweight.kernels import int8
from superweight.kernels.activations import ActivationQuantiser
from superweight.kernels.int8 import Int8Weight

Pair = tuple[list[int], list[int]]
Scores = list[tuple[float, bool]]

BATCH = 16  # rows a pass of the plain way
SAME = 1e-4  # nats, float32
LOSS = 0.2  # nats: several times what INT8 per token and channel cost SmolLM2-135M on a few windows (0.03)
MISTRAL = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
}


@dataclass(frozen=True)
class Model:
    """As much of a loaded model as scoring needs."""

    model: Any
    device: torch.device
    recipes: Sequence[str] = ()

    @property
    def compute_dtype(self) -> torch.dtype:
        """That of its weights."""
        return next(self.model.parameters()).dtype

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """What the model runs under."""
        with torch.inference_mode():
            yield


def section(setting: Setting) -> Findings:
    """A randomly initialised model of Mistral-7B's shape: its weights do not matter to time, nor to agreement."""
    model = mistral(setting.device, SMALL if setting.small else MISTRAL, setting.dtype)
    questions, prefix, window = (8, 64, 128) if setting.small else (64, 1000, 2048)
    vocabulary = model.model.config.vocab_size
    few_shot = multiple_choice(questions // 2, vocabulary, shared=prefix)
    windows = torch.randint(vocabulary, (4 if setting.small else 8, window), generator=_generator())
    return compare(model, setting, {"zero-shot": multiple_choice(questions, vocabulary), "few-shot": few_shot}, windows)


def with_model(setting: Setting) -> Findings:
    """A real checkpoint: the same comparison, and its loss with every decoder layer in INT8."""
    if setting.model is None:
        return Findings(tables=["Not run: no model was given (`--model DIR`)."])
    model, text = pretrained(setting.model, setting)
    window = 128 if setting.small else 1024
    windows = text[: len(text) // window * window].view(-1, window)[: 4 if setting.small else 16]
    findings = compare(model, setting, {"text": choices_from(text, 8 if setting.small else 64)}, windows)
    losses = int8_losses(model, windows)
    findings.figures["losses"] = losses
    findings.checks[f"INT8 with handling loses less than {LOSS} nats a token"] = (
        losses["W8A8, handled"] < losses["as it is"] + LOSS
    )
    findings.add_table(
        [{"weights and activations": name, "nats a token": f"{loss:.4f}"} for name, loss in losses.items()]
    )
    return findings


def mistral(device: str, sizes: dict[str, int], dtype: torch.dtype) -> Model:
    """A model with random weights, made where it stays."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(**sizes, sliding_window=None, attn_implementation="sdpa", dtype=dtype)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = MistralForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)
    return Model(model, next(model.parameters()).device)


def pretrained(directory: Path, setting: Setting) -> tuple[Model, torch.Tensor]:
    """A checkpoint, and the tokens of this repository's own prose."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = torch.float32 if setting.device == "cpu" else torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa").eval()
    model.to(setting.device)
    root = Path(__file__).resolve().parent.parent
    prose = "\n\n".join(path.read_text() for path in sorted([*root.glob("*.md"), *root.glob("docs/*.md")]))
    tokens = AutoTokenizer.from_pretrained(directory)(prose, verbose=False)["input_ids"]
    return Model(model, next(model.parameters()).device), torch.tensor(tokens)


def multiple_choice(questions: int, vocabulary: int, *, shared: int = 0) -> list[Pair]:
    """Four continuations of 5 to 30 tokens for each context of 60 to 120, after a beginning that all share."""
    generator = _generator()

    def tokens(least: int, most: int) -> list[int]:
        length = int(torch.randint(least, most + 1, (), generator=generator))
        return torch.randint(vocabulary, (length,), generator=generator).tolist()

    prefix = tokens(shared, shared)
    contexts = [prefix + tokens(60, 120) for _ in range(questions)]
    return [(context, tokens(5, 30)) for context in contexts for _ in range(4)]


def choices_from(text: torch.Tensor, questions: int) -> list[Pair]:
    """Questions made of running text: each context with its own continuation and those of three others."""
    pieces = text[: len(text) // 120 * 120].view(-1, 120)[:questions].tolist()
    ends = [piece[100:] for piece in pieces]
    return [(piece[:100], ends[(n + k) % len(ends)]) for n, piece in enumerate(pieces) for k in range(4)]


def compare(model: Model, setting: Setting, sets: dict[str, list[Pair]], windows: torch.Tensor) -> Findings:
    """Both ways of scoring each set of requests and the windows: time, memory, agreement."""
    from superweight.forward.scorer import Scorer

    scorer = Scorer(model)
    findings = Findings()
    exact = next(model.model.parameters()).dtype == torch.float32
    rows = []
    for name, pairs in sets.items():
        longest = 1 + max(len(context) + len(end) for context, end in pairs)
        ways: dict[str, Callable[[], Scores]] = {
            "plain": lambda pairs=pairs: plain_continuations(model, pairs),
            "ours": lambda pairs=pairs, longest=longest: scorer.continuations(pairs, max_length=longest),
        }
        found, results = _both(ways, setting)
        ours, theirs = results["ours"], results["plain"]
        found["largest difference, nats"] = max(abs(a[0] - b[0]) for a, b in zip(ours, theirs, strict=True))
        found["same greedy"] = sum(a[1] == b[1] for a, b in zip(ours, theirs, strict=True)) / len(ours)
        found["requests a second"] = len(pairs) / found["seconds"]["ours"]
        findings.figures[name] = found
        if exact:
            findings.checks[f"{name}: log-likelihoods within {SAME} nats"] = found["largest difference, nats"] <= SAME
            findings.checks[f"{name}: greedy alike"] = found["same greedy"] == 1
        rows.append(_row(f"{name}, {len(pairs)} requests", found))
    found = _windows(scorer, model, windows, setting)
    findings.figures["perplexity"] = found
    if exact:
        findings.checks[f"windows: nll within {SAME} nats"] = found["largest difference, nats"] <= SAME
    rows.append(_row(f"perplexity, {len(windows)} × {windows.shape[1]} tokens", found))
    findings.add_table(rows)
    return findings


def _windows(scorer: Any, model: Model, windows: torch.Tensor, setting: Setting) -> dict[str, Any]:
    batch = max(1, 4096 // windows.shape[1])

    def ours() -> list[float]:
        return [value for some in torch.split(windows, batch) for value in scorer.window_nll(some)]

    found, results = _both({"plain": lambda: plain_window_nll(model, windows, batch), "ours": ours}, setting)
    pairs = zip(results["ours"], results["plain"], strict=True)
    found["largest difference, nats"] = max(abs(a - b) for a, b in pairs)
    found["tokens a second"] = windows.numel() / found["seconds"]["ours"]
    return found


def _both(ways: dict[str, Callable[[], Any]], setting: Setting) -> tuple[dict[str, Any], dict[str, Any]]:
    """Time and memory of two ways, by turns; and what they gave."""
    results: dict[str, Any] = {}
    peaks = {name: _peak(way, name, results, setting.device) for name, way in ways.items()}  # warms up, too
    took = measuring.in_turn(ways, repeats=2, warmup=0, device=setting.device)
    found = {
        "seconds": {name: statistics.median(each) for name, each in took.items()},
        "times faster": measuring.ratio(took, "plain", "ours"),
        "peak bytes beyond the model": peaks,
    }
    return found, results


def _peak(way: Callable[[], Any], name: str, results: dict[str, Any], device: str) -> int | None:
    """Most bytes held on a GPU while it runs, beyond what was held before."""
    if torch.device(device).type != "cuda":
        results[name] = way()
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    results[name] = way()
    return torch.cuda.max_memory_allocated() - before


def plain_continuations(model: Model, pairs: Sequence[Pair]) -> Scores:
    """A row a request, longest first, padded on the right; log-softmax of all logits, in float32."""
    order = sorted(range(len(pairs)), key=lambda n: -len(pairs[n][0]) - len(pairs[n][1]))
    found: dict[int, tuple[float, bool]] = {}
    for start in range(0, len(order), BATCH):
        some = order[start : start + BATCH]
        rows = [torch.tensor([*pairs[n][0], *pairs[n][1]][:-1]) for n in some]
        inputs = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
        with model.arithmetic():
            logits = model.model(input_ids=inputs, use_cache=False).logits
            every = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
        for n, row, scores in zip(some, rows, every, strict=True):
            end = torch.tensor(pairs[n][1], device=model.device)
            mine = scores[len(row) - len(end) : len(row)]
            best = bool((mine.argmax(-1) == end).all())
            found[n] = (float(mine.gather(-1, end[:, None]).sum()), best)
    return [found[n] for n in range(len(pairs))]


def plain_window_nll(model: Model, windows: torch.Tensor, batch: int) -> list[float]:
    """Mean nll of each window in nats, from the loss of all logits in float32."""
    found: list[float] = []
    for some in torch.split(windows.to(model.device), batch):
        with model.arithmetic():
            logits = model.model(input_ids=some, use_cache=False).logits.float()[:, :-1]
            losses = functional.cross_entropy(logits.flatten(0, 1), some[:, 1:].flatten(), reduction="none")
        found += losses.view(len(some), -1).double().mean(1).tolist()
    return found


def int8_losses(model: Model, windows: torch.Tensor) -> dict[str, float]:
    """Mean nll with the decoder's linear layers as they are, and in INT8 with and without handling."""
    batch = max(1, 4096 // windows.shape[1])

    def loss() -> float:
        return statistics.fmean(plain_window_nll(model, windows, batch))

    losses = {"as it is": loss()}
    for name, quantiser in (
        ("W8A8, naive", ActivationQuantiser("token")),
        ("W8A8, handled", ActivationQuantiser("token", "massive")),
    ):
        with _in_int8(model.model, quantiser):
            losses[name] = loss()
    if not all(map(math.isfinite, losses.values())):
        raise ValueError(f"a loss is not finite: {losses}")
    return losses


@contextmanager
def _in_int8(model: Any, quantiser: ActivationQuantiser) -> Iterator[None]:
    """Run the decoder's linear layers in INT8: weights a scale for each channel, inputs one for each token."""
    layers = [module for module in model.get_decoder().modules() if isinstance(module, nn.Linear)]
    for layer in layers:
        layer.forward = _int8_forward(layer, quantiser)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _int8_forward(layer: nn.Linear, quantiser: ActivationQuantiser) -> Callable[[torch.Tensor], torch.Tensor]:
    matrix = layer.weight.detach()
    scale = int8.weight_scale(matrix, "channel")
    weight = Int8Weight(int8.weight_codes(matrix, scale).to(torch.int8), scale)
    return lambda x: int8.linear(x, weight, quantiser, layer.bias, x.dtype)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _row(name: str, found: dict[str, Any]) -> dict[str, str]:
    peaks = found["peak bytes beyond the model"]
    return {
        "what": name,
        "times faster": f"{found['times faster']:.2f}",
        "largest difference, nats": f"{found['largest difference, nats']:.1e}",
        **{f"peak GB, {way}": "" if peak is None else f"{peak / 1e9:.2f}" for way, peak in peaks.items()},
    }
