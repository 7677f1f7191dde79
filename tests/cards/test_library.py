"""Cards: the built-in ones, a user's own, and every way a card can be wrong."""

import tomllib
from pathlib import Path

import pytest

from superweight.cards import (
    DirectorySource,
    GgufSource,
    HubSource,
    ModelCard,
    RecipeCard,
    builtin_cards,
    load_library,
    model_from_argument,
    read_card,
)
from superweight.cards.cells import Cell, cells
from superweight.errors import CardError


@pytest.fixture(scope="module")
def library():
    return load_library()


MODEL = """
id = "mine"
title = "Mine"
[source]
kind = "directory"
path = "weights"
"""


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_published_super_weights_have_coordinates_status_and_source(library):
    """Spot checks against arXiv:2411.07191, table 2, and the replications that the cards name."""

    def keys(name):
        return [weight.key for weight in library.models[name].super_weights]

    assert keys("llama-7b") == [(2, -1, 3968, 7003)]
    assert keys("mistral-7b-v0.1") == [(1, -1, 2070, 7310)]
    assert (2, -1, 1764, 8041) in keys("olmo-1b-0724")
    assert keys("qwen3-30b-a3b")[0] == (1, 68, 940, 711)
    assert (11, -1, 507, 1229) in keys("smollm2-135m-instruct")
    assert {w.status for w in library.models["phi-3-mini-4k-instruct"].super_weights} == {"spoke"}
    assert len(library.models) >= 15
    assert all(weight.source for card in library.models.values() for weight in card.super_weights)


def test_every_built_in_card_is_named_after_its_file():
    for path in builtin_cards().rglob("*.toml"):
        assert tomllib.loads(path.read_text())["id"] == path.stem, path


def test_recipes_cover_the_paper_and_what_people_deploy(library):
    methods = [card.method for card in library.recipes.values()]
    for kind in ("rtn", "clip-restore"):
        blocks = {m.block_size for m in methods if m.kind == kind and m.bits == 4 and m.granularity == "block"}
        assert {16384, 65536, 262144, 1048576} <= blocks
        assert {64, 128} <= {m.group_size for m in methods if m.kind == kind and m.bits == 4}
        assert any(m.kind == kind and m.granularity == "channel" for m in methods)
    families = {"w8a8", "smoothquant", "prune-super-weights", "prune-largest-others", "scale-super-weights", "no-op"}
    assert families <= {m.kind for m in methods}


def test_a_users_directory_adds_and_replaces(tmp_path):
    write(tmp_path, "models/mine.toml", MODEL)
    write(tmp_path, "models/llama-7b.toml", MODEL.replace('"mine"', '"llama-7b"'))
    library = load_library([tmp_path])
    assert library.models["mine"].source == DirectorySource(kind="directory", path=str(tmp_path / "models" / "weights"))
    assert library.models["llama-7b"].title == "Mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MODEL.replace("[source]", 'colour = "red"\n[source]'), ["mine.toml", "colour", "red", "allowed keys: id, title"]),
        (MODEL.replace('"Mine"', "7"), ["mine.toml", "title", "valid string", "found: 7"]),
        (MODEL.replace('"mine"', '"Mine!"'), ["id", "pattern", "'Mine!'"]),
        (MODEL.replace('path = "weights"', ""), ["source", "path", "required"]),
        (MODEL.replace('"directory"', '"floppy"'), ["source", "'hub', 'directory', 'gguf', 'wheel'"]),
        (MODEL + "[[super_weights]]\nlayer = -1\nrow = 0\ncolumn = 0\nstatus='causal'\nsource='me'\n", ["super_weights.0.layer", "-1"]),
        (MODEL + "[[super_weights]]\nlayer = 1.5\nrow = 0\ncolumn = 0\nstatus='causal'\nsource='me'\n", ["super_weights.0.layer", "1.5"]),
        (MODEL + "[[super_weights]]\nlayer = 1\nrow = 0\ncolumn = 0\nstatus='fatal'\nsource='me'\n", ["status", "'causal', 'spoke'"]),
        (MODEL + 2 * "[[super_weights]]\nlayer = 1\nrow = 0\ncolumn = 0\nstatus='causal'\nsource='me'\n", ["layer 1 [0, 0]", "twice"]),
        ("id = \n", ["mine.toml", "not valid TOML", "line 1"]),
    ],
)  # fmt: skip
def test_a_bad_model_card_names_file_key_path_found_and_allowed(tmp_path, text, words):
    path = write(tmp_path, "mine.toml", text)
    with pytest.raises(CardError) as caught:
        read_card(path, ModelCard)
    for word in words:
        assert word in str(caught.value)


RECIPE = 'id = "r"\ntitle = "R"\nrole = "{role}"\n{more}\n[method]\n{method}\n'


@pytest.mark.parametrize(
    ("role", "more", "method", "words"),
    [
        ("candidate", "", 'kind = "rtn"\nbits = 9\ngranularity = "channel"', ["method", "bits", "less than or equal to 8"]),
        ("candidate", "", 'kind = "rtn"\nbits = 4\ngranularity = "group"', ["needs group_size"]),
        ("candidate", "", 'kind = "rtn"\nbits = 4\ngranularity = "channel"\ngroup_size = 64', ["does not take group_size"]),
        ("candidate", "", 'kind = "melt"', ["method", "'clip-restore'", "'melt'"]),
        ("control", "", 'kind = "no-op"', ["declares the verdict it must get"]),
        ("candidate", 'expects = "PASS"', 'kind = "no-op"', ["only a control"]),
        ("candidate", 'beside = "x"', 'kind = "no-op"', ["only a reference"]),
        ("control", 'expects = "REGRESSION"', 'kind = "no-op"\n[stand_in]\nkind = "roll-channels"', ["'stand_in' is for"]),
        ("reference", "", 'kind = "prune-super-weights"\n[stand_in]\nkind = "roll-channels"', ["'stand_in' is for"]),
        ("control", 'expects = "REGRESSION"', 'kind = "prune-super-weights"\n[stand_in]\nkind = "baseline"', ["changes nothing"]),
        ("candidate", "", 'kind = "clip-restore"\nbits = 4\ngranularity = "tensor"\nz = 0', ["z", "greater than 0"]),
    ],
)  # fmt: skip
def test_a_bad_recipe_card_says_what_is_allowed(tmp_path, role, more, method, words):
    path = write(tmp_path, "r.toml", RECIPE.format(role=role, more=more, method=method))
    with pytest.raises(CardError) as caught:
        read_card(path, RecipeCard)
    for word in words:
        assert word in str(caught.value)


def test_cards_that_name_what_is_not_there(tmp_path):
    write(tmp_path, "models/mine.toml", MODEL + '[recipes.nowhere]\nrole = "reference"\nwhy = "because it is"\n')
    with pytest.raises(
        CardError, match=r"model card 'mine': recipes: 'nowhere' is not a known id. Known: .*clip-restore"
    ):
        load_library([tmp_path])


def test_two_cards_of_one_id_in_a_directory(tmp_path):
    first = write(tmp_path, "models/a.toml", MODEL)
    write(tmp_path, "models/b.toml", MODEL)
    with pytest.raises(CardError, match=rf"b\.toml: id: 'mine' is taken by {first}"):
        load_library([tmp_path])


def test_a_directory_of_cards_that_is_not_there(tmp_path):
    with pytest.raises(CardError, match="no such directory of cards"):
        load_library([tmp_path / "nowhere"])


def test_models_without_a_card(tmp_path):
    (tmp_path / "My Model").mkdir()
    card = model_from_argument(str(tmp_path / "My Model"))
    assert (card.id, card.known) == ("my-model", False)
    assert isinstance(card.source, DirectorySource)
    assert isinstance(model_from_argument("x/y.gguf").source, GgufSource)
    hub = model_from_argument("mistralai/Mistral-7B-v0.3@abc123").source
    assert hub == HubSource(kind="hub", repository="mistralai/Mistral-7B-v0.3", revision="abc123")
    with pytest.raises(CardError, match="neither a card id, a directory that exists"):
        model_from_argument("./nowhere/at/all")


def test_roles_come_from_the_model_before_the_recipe(library):
    recipe = next(card for card in library.recipes.values() if card.role == "candidate")
    model = library.models["smollm2-135m-instruct"].model_copy(update={"recipes": {}})
    assert Cell(model, recipe).promises
    override = {recipe.id: {"role": "reference", "why": "too small a model for it"}}
    demoted = Cell(ModelCard.model_validate(model.model_dump() | {"recipes": override}), recipe)
    assert (demoted.role, demoted.why, demoted.promises) == ("reference", "too small a model for it", False)


def test_every_model_gets_its_baseline_first(library):
    matrix = list(
        cells(library, list(library.models.values())[:2], [library.recipes["no-op"], library.recipes["baseline"]])
    )
    assert [cell.recipe.id for cell in matrix] == ["baseline", "no-op"] * 2
