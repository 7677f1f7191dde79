"""Scores against plain transformers calls with every logit in float32."""

import math
import random

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from superweight.errors import InfraError
from superweight.forward.language_model import _BLOCK, LanguageModel
from superweight.forward.scorer import Scorer

LLAMAS = ["llama", "mistral", "olmo2", "granite", "cohere", "gemma2", "phi", "qwen3_moe"]
KINDS = [*LLAMAS, "gpt2", "opt", "gpt_neox", "falcon", "bloom", "mamba"]
NOT_PACKED = {"bloom", "mamba"}  # positions by ALiBi, and a recurrent state


def plain_scores(model, context, continuation, max_length=10**6):
    """One request alone, all logits, float64."""
    tokens = (list(context) + list(continuation))[-(max_length + 1) :]
    with torch.inference_mode():
        logits = model(torch.tensor([tokens[:-1]])).logits[0].double()
    wanted = torch.tensor(continuation)
    rows = logits.log_softmax(-1)[-len(continuation) :]
    return float(rows.gather(1, wanted[:, None]).sum()), bool((rows.argmax(-1) == wanted).all())


def requests(vocabulary, seed=0):
    """Six documents of two to four choices that share a context, and single requests."""
    rng = random.Random(seed)
    draw = lambda low, high: [rng.randrange(vocabulary) for _ in range(rng.randint(low, high))]  # noqa: E731
    pairs = []
    for choices in (4, 2, 3, 1, 4, 1):
        context = draw(9, 30)
        pairs += [(context, draw(1, 9)) for _ in range(choices)]
    return [*pairs, ([5], [6]), (context, [7]), (context, [8]), (context, [7, 8, 9])]


@pytest.mark.parametrize("kind", KINDS)
def test_window_nll_is_that_of_a_plain_forward(make_loaded, kind):
    loaded = make_loaded(kind)
    windows = torch.randint(3, 211, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = loaded.model(windows).logits.double()
    expected = -logits[:, :-1].log_softmax(-1).gather(2, windows[:, 1:, None]).mean((1, 2))
    scorer = Scorer(loaded)
    assert scorer.language_model.separable
    scorer.language_model = LanguageModel(loaded.model, chunk_bytes=4 * 7 * 211)  # the last chunk is not full
    assert scorer.window_nll(windows) == pytest.approx(expected.tolist(), rel=1e-5)
    assert len({round(value, 3) for value in expected.tolist()}) == 3  # the model does tell windows apart


@pytest.mark.parametrize("kind", KINDS)
def test_continuations_are_those_of_plain_calls(make_loaded, kind):
    loaded = make_loaded(kind)
    pairs = requests(211)
    scorer = Scorer(loaded, batch_tokens=128)
    assert scorer.sharing.packed_rows == (kind not in NOT_PACKED)
    found = scorer.continuations(pairs, max_length=100)
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        expected, best = plain_scores(loaded.model, context, continuation)
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == best


def test_greedy_is_found(make_loaded):
    loaded = make_loaded("llama")
    context = [3, 4, 5, 6]
    with torch.inference_mode():
        best = int(loaded.model(torch.tensor([context])).logits[0, -1].argmax())
    answers = Scorer(loaded).continuations([(context, [best]), (context, [(best + 1) % 211])], max_length=100)
    assert [greedy for _, greedy in answers] == [True, False]


def test_too_long_input_loses_its_beginning(make_loaded):
    loaded = make_loaded("gpt2")
    context = list(range(3, 60))
    pairs = [(context, [7, 8]), (context, [9, 10, 11])]
    found = Scorer(loaded).continuations(pairs, max_length=20)
    expected = [plain_scores(loaded.model, *pair, max_length=20) for pair in pairs]
    assert [value for value, _ in found] == pytest.approx([value for value, _ in expected], abs=1e-4)
    with pytest.raises(InfraError, match="1 to 20 tokens"):
        Scorer(loaded).continuations([([3], list(range(21)))], max_length=20)


def test_rows_stay_within_a_sliding_window(make_loaded):
    loaded = make_loaded("mistral", sliding_window=48)
    scorer = Scorer(loaded)
    assert scorer.sharing.reach == 48
    context = [3 + k % 90 for k in range(60)]  # longer than the window
    pairs = [(context, [4, 5]), (context, [6])]
    expected = [plain_scores(loaded.model, *pair)[0] for pair in pairs]
    assert [value for value, _ in scorer.continuations(pairs, max_length=127)] == pytest.approx(expected, abs=1e-4)


def test_shared_beginnings_are_computed_once(make_loaded):
    loaded = make_loaded("llama")
    seen = []
    loaded.model.model.layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[:2].numel()))
    scorer = Scorer(loaded)
    seen.clear()
    context = list(range(3, 43))
    scorer.continuations([(context, [k, 50, 51]) for k in (100, 101, 102, 103)], max_length=120)
    assert seen == [40 + 4 * 2]  # the last token of each choice is not fed


def test_a_model_that_cannot_be_taken_apart_is_called_plainly(make_loaded):
    loaded = make_loaded("llama")
    head = loaded.model.lm_head
    loaded.model.lm_head = _Remembers(head, loaded.model)  # an answer that depends on more than the states it is given
    scorer = Scorer(loaded)
    assert not scorer.language_model.separable
    windows = torch.randint(3, 211, (2, 30), generator=torch.Generator().manual_seed(1))
    logits = loaded.model(windows).logits.double()
    expected = -logits[:, :-1].log_softmax(-1).gather(2, windows[:, 1:, None]).mean((1, 2))
    assert scorer.window_nll(windows) == pytest.approx(expected.tolist(), rel=1e-5)


class _Remembers(torch.nn.Module):
    def __init__(self, head, model):
        super().__init__()
        self.head, self.tokens = head, None
        model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module, args, kwargs):
        self.tokens = args[0] if args else kwargs["input_ids"]

    def forward(self, states):
        return self.head(states) * (1 + self.tokens[..., None] % 3)

    @property
    def weight(self):
        return self.head.weight


def test_nan_is_a_finding_not_an_error(make_loaded):
    loaded = make_loaded("llama")
    scorer = Scorer(loaded)
    loaded.model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    assert scorer.window_nll(torch.arange(3, 43)[None]) == [math.inf]
    assert scorer.continuations([([3, 4], [5])], max_length=10) == [(-math.inf, False)]


class _Largest(TorchDispatchMode):
    """The largest tensor any operation makes."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in output if isinstance(output, tuple | list) else (output,):
            if isinstance(tensor, torch.Tensor) and tensor._base is None and "t.default" not in str(function):
                self.numel = max(self.numel, tensor.numel())
        return output


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_logits_of_a_window_are_never_made(make_loaded, kind):
    vocabulary, window = 4001, 120
    loaded = make_loaded(kind, vocabulary=vocabulary, tie_word_embeddings=False)
    scorer = Scorer(loaded)
    scorer.language_model = LanguageModel(loaded.model, chunk_bytes=4 * 10 * vocabulary)
    with _Largest() as largest:
        scorer.window_nll(torch.randint(3, vocabulary, (2, window)))
    assert largest.numel <= max(10 * vocabulary, 2 * 4 * window * window)
    assert largest.numel < window * vocabulary / 4


def test_the_default_bound_is_32_mib_of_float32_on_a_cpu(make_loaded):
    model = Scorer(make_loaded("llama", vocabulary=4001)).language_model
    assert model.chunk * 4001 * 4 <= 32 * 2**20 < (model.chunk + 1) * 4001 * 4


class _Made(TorchFunctionMode):
    """The shapes that linear layers give."""

    def __init__(self):
        super().__init__()
        self.widths = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        if function is torch.nn.functional.linear:
            self.widths.append(output.shape[-1])
        return output


@pytest.mark.parametrize("kind", KINDS)
def test_the_head_is_read_by_blocks_where_it_is_a_linear_layer_and_nothing_else(make_loaded, kind, monkeypatch):
    loaded = make_loaded(kind)
    whole = LanguageModel(loaded.model)
    monkeypatch.setitem(_BLOCK, "cpu", 64)
    model = LanguageModel(loaded.model)
    states = torch.randn(9, loaded.model.get_output_embeddings().in_features)
    targets = torch.arange(60, 69)
    with torch.inference_mode(), _Made() as made:
        found, best = model.log_likelihoods(states, targets)
    after_the_head = {"granite", "cohere", "gemma2"}  # scale or cap logits
    assert made.widths == ([211] if kind in after_the_head else [64, 64, 64, 19])
    with torch.inference_mode():
        expected, expected_best = whole.log_likelihoods(states, targets)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    assert best.tolist() == expected_best.tolist()


def test_a_head_that_a_recipe_changes_is_called(make_loaded):
    loaded = make_loaded("llama")
    model, states, targets = LanguageModel(loaded.model), torch.randn(5, 32), torch.arange(3, 8)
    with torch.inference_mode():
        before, _ = model.log_likelihoods(states, targets)
        hook = loaded.model.lm_head.register_forward_pre_hook(lambda module, args: (args[0] * 2,))
        hooked, _ = model.log_likelihoods(states, targets)
        hook.remove()
        twice, _ = model.log_likelihoods(states * 2, targets)
        after, _ = model.log_likelihoods(states, targets)
        loaded.model.lm_head.weight.data.mul_(2)
        rewritten, _ = model.log_likelihoods(states, targets)
    assert hooked.tolist() == pytest.approx(twice.tolist(), rel=1e-5)
    assert rewritten.tolist() == pytest.approx(twice.tolist(), rel=1e-5)
    assert after.tolist() == before.tolist() != hooked.tolist()
