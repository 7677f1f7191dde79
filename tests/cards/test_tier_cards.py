"""Tier cards: when a measurement may stop, and which cells must not be missing."""

import pytest

from superweight.cards import Cell, TierCard, load_library
from superweight.errors import CardError

TIER = """
id = "release"
title = "Mine"
models = {models}
recipes = {recipes}
required = {required}
perplexity = []
[[tasks]]
task = "piqa"
"""


def tier(required=()):
    entry = {"task": "piqa"}
    return TierCard.model_validate(
        {
            "id": "release",
            "title": "R",
            "models": ["*"],
            "recipes": ["*"],
            "perplexity": [],
            "tasks": [entry],
            "required": required,
        }
    )


def test_a_release_measures_whole_sets_and_needs_its_controls_and_candidates():
    library = load_library()
    assert [library.tiers[name].sequential for name in ("smoke", "nightly", "release")] == [True, True, False]
    assert library.tiers["smoke"].required == library.tiers["nightly"].required == ()
    model = library.models["smollm2-135m-instruct"]
    roles = {name: Cell(model, library.recipes[name]).role for name in library.tiers["release"].required}
    assert roles == {
        "baseline": "baseline",
        "no-op": "control",
        "prune-super-weights": "control",
        "clip-restore-int8-channel": "candidate",
        "w8a8-channel-token-handled": "candidate",
    }


@pytest.mark.parametrize(
    ("required", "cells", "missing"),
    [
        ((), ["a/rtn"], []),
        (("baseline",), ["a/baseline", "b/baseline"], []),
        (("baseline",), ["a/baseline", "b/rtn"], ["b/baseline"]),
        (("baseline", "no-op"), ["a/rtn"], ["a/baseline", "a/no-op"]),
        (("b/rtn",), ["a/rtn"], ["b/rtn"]),
        (("rtn", "a/rtn"), ["a/no-op"], ["a/rtn"]),
        (("baseline", "b/rtn"), [], ["baseline", "b/rtn"]),
    ],
)
def test_what_is_missing(required, cells, missing):
    assert tier(required).missing(cells) == missing


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"required": '["w8a8"]'}, ["tier card 'release'", "required", "'w8a8'", "the tier's recipes", "w8a8-channel-token"]),
        ({"required": '["no-op"]', "recipes": '["baseline"]'}, ["'no-op'", "the tier's recipes", "Known: baseline"]),
        ({"required": '["mistral/no-op"]'}, ["'mistral/no-op'", "'mistral' is not one of the tier's models"]),
        ({"required": '["llama-7b/no-op"]', "models": '["llama-13b"]'}, ["'llama-7b'", "Known: llama-13b"]),
        ({"required": '["*/no-op"]'}, ["'*' is not one of the tier's models"]),
        ({"required": '["/no-op"]'}, ["'' is not one of the tier's models"]),
        ({"required": '"no-op"'}, ["required", "tuple"]),
    ],
)  # fmt: skip
def test_a_required_cell_that_the_tier_never_measures_is_refused(tmp_path, keys, words):
    (tmp_path / "tiers").mkdir()
    values = {"models": '["*"]', "recipes": '["*"]'} | keys
    (tmp_path / "tiers" / "release.toml").write_text(TIER.format(**values), encoding="utf-8")
    with pytest.raises(CardError) as caught:
        load_library([tmp_path])
    for word in words:
        assert word in str(caught.value)


def test_a_required_cell_by_model_and_recipe(tmp_path):
    (tmp_path / "tiers").mkdir()
    text = TIER.format(models='["llama-7b"]', recipes='["*"]', required='["llama-7b/rtn-int4-g64", "no-op"]')
    (tmp_path / "tiers" / "release.toml").write_text(text, encoding="utf-8")
    assert load_library([tmp_path]).tiers["release"].required == ("llama-7b/rtn-int4-g64", "no-op")
