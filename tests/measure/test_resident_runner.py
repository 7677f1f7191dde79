"""The model in memory as a runner: whose states the others are compared with."""

import pytest
import torch

from superweight.cards import Cell, load_library, model_from_argument
from superweight.checkpoint import Cache
from superweight.evaluate import prepare_text, score_batch
from superweight.measure.reference import Reference
from superweight.measure.resident_runner import ResidentRunner


@pytest.fixture
def reference(tmp_path):
    from support.tiny import tiny_model, tiny_tokenizer

    tiny_model("llama").save_pretrained(tmp_path / "weights")
    tiny_tokenizer().save_pretrained(tmp_path / "weights")
    made = Reference(
        model_from_argument(str(tmp_path / "weights")), load_library(), Cache(tmp_path), device="cpu", dtype=None
    )
    vars(made)["protected"] = {}  # no need to look for super weights that nobody planted
    return made


def runner(reference, recipe):
    return ResidentRunner(reference, Cell(reference.card, reference.library.recipes[recipe]))


@pytest.fixture
def text(reference):
    tokens = torch.randint(4, 44, (96,), generator=torch.Generator().manual_seed(1))
    return prepare_text(reference.loaded, tokens, window=16)


def states(reference, text):
    kept = reference.memory.model.reference
    return torch.cat([kept.of(text, batch) for batch in text.batches])


def test_a_repeat_by_other_means_is_nobodys_reference(reference, text):
    """Divergence is from the uncompressed model as it was scored, not from its A/A repeat."""
    baseline = runner(reference, "baseline")
    with baseline.another_way() as other:
        assert other
        for batch in text.batches:
            score_batch(baseline, text, batch)
    assert len(reference.memory.model.reference.missing(text)) == len(text.batches)
    for batch in text.batches:
        score_batch(baseline, text, batch)
    before = states(reference, text)
    with baseline.another_way():
        for batch in text.batches:
            score_batch(baseline, text, batch)
    assert torch.equal(states(reference, text), before)


def test_a_candidate_takes_the_reference_before_its_recipe_is_applied(reference, text):
    compressed = runner(reference, "rtn-int4-g64")
    scores = [score for batch in text.batches for score in score_batch(compressed, text, batch, compare=True)]
    assert all(score["kl"] > 0 for score in scores)
    no_op = runner(reference, "no-op")
    scores = [score for batch in text.batches for score in score_batch(no_op, text, batch, compare=True)]
    assert {score["kl"] for score in scores} == {0.0}
