"""Examples that questions share, and what a model lets requests share."""

import random

import pytest
import torch
from test_scorer import KINDS, plain_scores

from superweight.forward.packing import Cost, Request, batches, groups
from superweight.forward.scorer import Scorer

STEMLESS = {"mamba", "gemma2"}  # a recurrent state; attention that reaches back less far than the examples
FREE = Cost(float("inf"))


def few_shot(seed=0, shots=70, questions=6):
    """Questions with two to four choices, behind the same examples, and one without them."""
    rng = random.Random(seed)
    draw = lambda low, high: [rng.randrange(3, 211) for _ in range(rng.randint(low, high))]  # noqa: E731
    examples = draw(shots, shots)
    pairs = []
    for _ in range(questions):
        context = examples + draw(5, 20)
        pairs += [(context, draw(1, 6)) for _ in range(rng.randint(2, 4))]
    return [*pairs, (draw(9, 9), draw(2, 2)), (examples, draw(3, 3))]


@pytest.mark.parametrize("kind", KINDS)
def test_questions_that_share_their_examples_get_the_scores_of_plain_calls(make_loaded, kind):
    loaded = make_loaded(kind)
    pairs = few_shot()
    scorer = Scorer(loaded, batch_tokens=128)
    assert scorer.sharing.cached_prefix == (kind != "mamba")
    scorer._cost = FREE  # so that tiny models share what large ones do
    lengths = _lengths(loaded)
    found = scorer.continuations(pairs, max_length=127)
    fed = sum(lengths)
    assert (fed < sum(len(context) for context, _ in pairs) / 2) == (kind not in STEMLESS)
    for (context, continuation), (value, greedy) in zip(pairs, found, strict=True):
        expected, best = plain_scores(loaded.model, context, continuation)
        assert value == pytest.approx(expected, abs=1e-4)
        assert greedy == best


def _lengths(loaded):
    """Tokens of each pass, as they come."""
    seen = []
    loaded.architecture.layers[0].register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((args[0] if args else kwargs["hidden_states"]).shape[:2].numel()),
        with_kwargs=True,
    )
    return seen


def test_examples_are_computed_once(make_loaded):
    loaded = make_loaded("llama")
    scorer = Scorer(loaded)
    scorer._cost = FREE
    seen = _lengths(loaded)
    examples = [3 + (5 * k) % 200 for k in range(80)]
    questions = [[*examples, *range(10 + 20 * number, 22 + 20 * number)] for number in range(5)]
    scorer.continuations([(question, [choice, 100]) for question in questions for choice in (1, 2, 3)], max_length=127)
    # the stem; then, in rows behind it: twelve tokens of each question and one of each of its three choices
    assert seen[0] == 80
    assert sum(seen[1:]) == 5 * (12 + 3)


def test_a_stem_leaves_the_token_that_predicts_the_first_target():
    tokens = tuple(range(200))
    requests = [Request(0, (*tokens, 300), 200), Request(1, (*tokens, 301, 302), 200)]
    (group,) = groups(requests, limit=0, cost=FREE, longest=1000)
    assert group.stem == tokens[:199]
    assert [(row.stem, row.length) for row in group.rows] == [(199, 1), (199, 2)]


def test_a_stem_must_be_worth_its_pass_and_fit():
    shots = tuple(range(100))
    requests = [Request(k, (*shots, 1000 + k, *range(2000, 2000 + k)), 101) for k in range(1, 20)]
    assert [bool(group.stem) for group in groups(requests, limit=0, cost=FREE, longest=10**6)] == [True]
    assert [bool(group.stem) for group in groups(requests, limit=0, cost=FREE, longest=105)] == [False]
    assert [bool(group.stem) for group in groups(requests, limit=0, cost=FREE, longest=0)] == [False]
    assert [bool(group.stem) for group in groups(requests[:1], limit=0, cost=FREE, longest=10**6)] == [False]
    # one question's choices share their text in a row just as well, in one pass
    choices = [Request(k, (*shots, 1000 + k, 5), 100) for k in range(4)]
    (group,) = groups(choices, limit=500, cost=FREE, longest=10**6)
    assert not group.stem
    assert [len(row.requests) for row in group.rows] == [4]


def test_requests_keep_their_neighbours_whatever_is_behind_a_stem():
    shots = tuple(range(100))
    plain = [Request(k, (7, 8, 9, k), 1) for k in range(3)]
    stemmed = [Request(10 + k, (*shots, 1000 + k, 1), 101) for k in range(10)]
    mixed = [stemmed[0], plain[0], *stemmed[1:5], plain[1], *stemmed[5:], plain[2]]
    found = groups(mixed, limit=0, cost=FREE, longest=10**6)
    assert sorted(request.index for group in found for row in group.rows for request in row.requests) == [
        0, 1, 2, *range(10, 20),
    ]  # fmt: skip
    assert [[r.index for row in group.rows for r in row.requests] for group in found if not group.stem] == [[0, 1, 2]]


def test_long_rows_are_not_joined_where_attention_costs_more_than_they_save():
    shared = tuple(range(20))
    requests = [Request(k, (*shared, *range(1000 * (k + 1), 1000 * (k + 1) + 400)), 20) for k in range(2)]
    (joined,) = groups(requests, limit=10**4, cost=FREE, longest=0)
    assert [len(row.requests) for row in joined.rows] == [2]
    (apart,) = groups(requests, limit=10**4, cost=Cost(500.0), longest=0)
    assert [len(row.requests) for row in apart.rows] == [1, 1]


def test_batches_are_about_equally_full():
    rows = groups(
        [Request(k, tuple(range(100 * k, 100 * k + 11)), 1) for k in range(12)], limit=0, cost=FREE, longest=0
    )[0].rows
    assert [len(batch) for batch in batches(rows, tokens=100)] == [6, 6]  # not 10 and 2
    assert [len(batch) for batch in batches(rows, tokens=100, most=4)] == [4, 4, 4]


@pytest.mark.parametrize(("kind", "why"), [("mamba", "recurrent state"), ("mistral", "reaches 16 tokens back")])
def test_a_model_that_shares_nothing_says_why(make_loaded, kind, why):
    changes = {"sliding_window": 16} if kind == "mistral" else {}
    scorer = Scorer(make_loaded(kind, **changes))
    assert not (scorer.sharing.packed_rows)
    assert not (scorer.sharing.cached_prefix)
    assert why in scorer.sharing.why_not
    assert str(scorer.sharing).startswith("each answer is computed alone: ")


def test_a_model_whose_answers_would_change_shares_nothing(make_loaded):
    """Its layers look at how many tokens they are given, which a mask does not hide."""
    loaded = make_loaded("llama")
    layer = loaded.model.model.layers[0]
    original = layer.forward
    layer.forward = lambda states, *args, **kwargs: original(states * (1 + 0.1 * states.shape[1]), *args, **kwargs)
    scorer = Scorer(loaded)
    assert scorer.sharing.why_not == "tried on a few tokens, sharing changed the model's answers"
    pairs = [(list(range(3, 20)), [30, 31]), (list(range(3, 20)), [40])]
    expected = [plain_scores(loaded.model, *pair)[0] for pair in pairs]
    found = [value for value, _ in scorer.continuations(pairs, max_length=100, alone=True)]
    assert found == pytest.approx(expected, abs=1e-4)


def test_scoring_needs_neither_cards_nor_tasks():
    import subprocess
    import sys

    script = (
        "import sys\n"
        "for name in ('pydantic', 'lm_eval', 'datasets', 'pandas', 'scipy'): sys.modules[name] = None\n"
        "from superweight.forward.scorer import Scorer\n"
        "assert callable(Scorer.window_nll) and callable(Scorer.continuations)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_examples_are_shared_by_both_attentions(make_loaded, attention):
    loaded = make_loaded("llama")
    loaded.model.set_attn_implementation(attention)
    scorer = Scorer(loaded, batch_tokens=256)
    scorer._cost = FREE
    pairs = few_shot(seed=3)
    found = [value for value, _ in scorer.continuations(pairs, max_length=127)]
    assert found == pytest.approx([plain_scores(loaded.model, *pair)[0] for pair in pairs], abs=1e-4)
    assert torch.isfinite(torch.tensor(found)).all()
