"""Recipes that change attention or activations, under the evaluation that packs several answers into one row."""

import pytest

from superweight.cards.recipe import RecipeCard
from superweight.compress import Context, apply
from superweight.forward.scorer import Scorer

CONTEXT = tuple(range(3, 27))
PAIRS = [(CONTEXT, (30, 31, 32)), (CONTEXT, (40, 41)), (CONTEXT, (50, 51, 52, 53)), (CONTEXT[:9], (33, 34))]


def card(**method):
    return RecipeCard(
        id="r", title="R", role="candidate", method={"kind": "w8a8", "super_activations": "naive", **method}
    )


def answers(scorer, **options):
    return [value for value, _ in scorer.continuations(PAIRS, max_length=64, **options)]


@pytest.mark.parametrize(("attention_matmuls", "tolerance"), [(False, 2e-4), (True, 0.1)])
def test_answers_do_not_see_one_another(tiny, attention_matmuls, tolerance):
    """Scales are per token here, so a row of its own must give the figures of a shared row.

    Values of attention have a scale per channel, over all tokens of the row, which moves figures a little; seeing one
    another's tokens moves them by whole nats.
    """
    loaded = tiny()
    scorer = Scorer(loaded)
    assert scorer.sharing.packed_rows  # rows are shared
    recipe = card(weights="channel", activations="token", attention_matmuls=attention_matmuls)
    with apply(recipe, Context(loaded)):
        assert answers(scorer) == pytest.approx(answers(scorer, alone=True), abs=tolerance)


def test_one_scale_for_a_row_means_a_row_for_each_answer(tiny):
    """With a scale per sequence, an answer alone in its row does not change with the company it is asked in."""
    loaded = tiny()
    scorer = Scorer(loaded)
    with apply(card(weights="tensor", activations="tensor"), Context(loaded)):
        together = answers(scorer, alone=True)
        single = [scorer.continuations([pair], max_length=64, alone=True)[0][0] for pair in PAIRS]
    assert together == pytest.approx(single, abs=1e-5)


def test_sizes_count_the_checkpoints_dtype_not_the_one_in_memory(tiny):
    import torch

    loaded = tiny("llama", torch.bfloat16)
    recipe = RecipeCard(id="no-op", title="N", role="control", expects="PASS", method={"kind": "no-op"})
    with apply(recipe, Context(loaded)) as applied:
        narrow = applied.size.model_dump()
    loaded.model.float()
    with apply(recipe, Context(loaded)) as applied:
        assert applied.size.model_dump() == narrow
    assert narrow["compressed_bits_per_weight"] == narrow["model_bits_per_weight"] == 16
