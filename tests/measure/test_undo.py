"""A recipe is undone to the last bit, or nothing more is measured on the model."""

import pytest
import torch

from superweight.cards import Cell, load_library
from superweight.cards.library import model_from_argument
from superweight.checkpoint import Cache
from superweight.compress import Applied
from superweight.compress.pruning import PruneLargestOthersRecipe
from superweight.compress.recipe import uncompressed
from superweight.errors import InfraError
from superweight.measure.fingerprint import fingerprints
from superweight.measure.reference import Reference
from superweight.measure.resident_runner import ResidentRunner

HELD = "model.layers.1.mlp.down_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    from support.tiny import tiny_model, tiny_tokenizer

    directory = tmp_path_factory.mktemp("tiny") / "weights"
    tiny_model("llama").save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


@pytest.fixture
def reference(weights, tmp_path):
    made = Reference(model_from_argument(str(weights)), load_library(), Cache(tmp_path), device="cpu", dtype=None)
    vars(made)["protected"] = {}  # no need to look for super weights that nobody planted
    return made


def apply(reference, recipe):
    return ResidentRunner(reference, Cell(reference.card, reference.library.recipes[recipe]))._apply()


def spoil(monkeypatch, *names):
    """Leave one bit of each parameter as no recipe found it, once a recipe was undone."""
    exact = Applied.undo

    def undo(applied):
        exact(applied)
        for name in names:
            applied._context.loaded.model.get_parameter(name).data.view(torch.int32).flatten()[-1:] ^= 1

    monkeypatch.setattr(Applied, "undo", undo)


@pytest.mark.parametrize("recipe", ["rtn-int8-channel", "rtn-int4-g64", "no-op", "w8a8-channel-token-naive"])
def test_every_bit_comes_back(reference, recipe):
    before = fingerprints(reference.loaded.model)
    applied = apply(reference, recipe)
    assert (fingerprints(reference.loaded.model) != before) == bool(applied.changed)
    reference.memory.undo()
    assert fingerprints(reference.loaded.model) == before


def test_one_bit_that_does_not_come_back_ends_measuring_on_this_model(reference, monkeypatch):
    apply(reference, "rtn-int8-channel")
    spoil(monkeypatch, HELD)
    with pytest.raises(InfraError, match="1 parameters are not what they were") as caught:
        apply(reference, "no-op")
    assert caught.value.reason == "crash"
    assert HELD in str(caught.value)
    monkeypatch.undo()
    for again in (reference.memory.undo, lambda: apply(reference, "baseline")):
        with pytest.raises(InfraError, match="could not be restored") as later:
            again()
        assert later.value is caught.value


def test_what_a_recipe_writes_unasked_ends_measuring_on_this_model(reference, monkeypatch):
    """A recipe of single scalars keeps nothing but those that it says it writes."""

    def behind_its_back(recipe, matrix):
        if matrix.name == HELD:
            matrix.values[0, 0] += 1
        return uncompressed(matrix)

    monkeypatch.setattr(PruneLargestOthersRecipe, "prepare", lambda recipe, context: None)
    monkeypatch.setattr(PruneLargestOthersRecipe, "compress", behind_its_back)
    cell = Cell(reference.card, reference.library.recipes["prune-largest-others"])
    assert ResidentRunner(reference, cell).inspect().sanity.undeclared == [HELD]
    with pytest.raises(InfraError, match="could not be restored"):
        apply(reference, "no-op")


def test_only_what_the_recipe_wrote_is_looked_at_again(reference, monkeypatch):
    """What it must not write is found while it is in force, by inspection."""
    read = []
    apply(reference, "rtn-int8-channel")
    monkeypatch.setattr(
        "superweight.measure.model_in_memory.fingerprints",
        lambda model, only: read.extend(only) or fingerprints(model, only),
    )
    reference.memory.undo()
    assert HELD in read
    assert NORM not in read
