import tomllib

import pytest

from superweight.cards import builtin_cards
from superweight.cards.methods import SUPER_WEIGHT_MODULES
from superweight.cards.recipe import RecipeCard

FILES = sorted((builtin_cards() / "recipes").glob("*.toml"))
FAMILIES = (
    "baseline",
    "no-op",
    "rtn-",
    "clip-restore-",
    "w8a8-",
    "smoothquant-",
    "integer-",
    "float8-",
    "prune-super-weights",
    "prune-largest-others",
    "scale-super-weights-",
)


@pytest.fixture(scope="module")
def cards():
    """Every recipe card that ships, by id."""
    found = [RecipeCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))) for path in FILES]
    return {card.id: card for card in found}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_card(path, cards):
    card = cards[path.stem]
    assert card.id.startswith((card.method.tool,) if card.method.kind == "quantiser" else FAMILIES)
    assert card.source
    assert len(card.note) > 40
    assert card.beside is None or cards[card.beside].role == "candidate"


def test_the_papers_settings_are_there(cards):
    for kind in ("rtn", "clip-restore"):
        blocks = {c.method.block_size for c in cards.values() if c.method.kind == kind and c.method.bits == 4}
        assert {16384, 65536, 262144, 1048576} <= blocks
    paper = [c.method for c in cards.values() if c.method.kind == "w8a8" and c.id.startswith("w8a8-tensor-token")]
    assert {method.super_activations for method in paper} == {"naive", "handled"}
    smooth = cards["smoothquant-tensor-token"].method
    assert (smooth.alpha, smooth.weights, smooth.activations) == (0.85, "tensor", "token")


def test_deployed_settings_have_a_candidate_and_a_reference_beside_it(cards):
    for setting in ("int8-channel", "int4-g128", "int4-g64"):
        assert cards[f"clip-restore-{setting}"].role == "candidate"
        assert cards[f"clip-restore-{setting}"].promises_super_weights is None  # so it promises
        assert cards[f"rtn-{setting}"].beside == f"clip-restore-{setting}"
    assert cards["w8a8-channel-token-handled-integer"].method.execution == "integer"
    assert cards["w8a8-channel-token-naive"].beside == "w8a8-channel-token-handled"


def test_every_candidate_can_keep_its_promise(cards):
    for card in cards.values():
        if card.role == "candidate":
            leaves_them = SUPER_WEIGHT_MODULES in getattr(card.method, "exclude", ())
            within_a_step = card.method.reads_steps and card.promise != "exact"
            assert card.method.kind == "clip-restore" or leaves_them or within_a_step or card.method.keep_super_weights


def test_controls(cards):
    assert {card.id: card.expects for card in cards.values() if card.role == "control"} == {
        "no-op": "PASS",
        "prune-super-weights": "REGRESSION",
    }
