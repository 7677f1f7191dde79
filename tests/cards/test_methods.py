"""Kinds of recipes: each says what is true of it, is known once imported, and reads back what it wrote."""

import json
import math
import sys
from typing import Literal

import pytest

from superweight.cards import RecipeCard, foreign_kinds, load_library, read_card
from superweight.cards.foreign_kinds import load_foreign_kinds
from superweight.cards.methods import (
    KINDS,
    Method,
    Rounding,
    RoundToNearest,
    SmoothQuant,
    kind_named,
    method_of,
)
from superweight.cards.methods.experiments import Experiment
from superweight.errors import CardError

W8A8 = {"kind": "w8a8", "weights": "channel", "activations": "token", "super_activations": "handled"}
SMOOTH = {**W8A8, "kind": "smoothquant", "alpha": 0.5, "calibration_corpus": "wiki"}
del SMOOTH["super_activations"]
GROUPS = {"bits": 4, "granularity": "group", "group_size": 64}
CARD = 'id = "r"\ntitle = "R"\nrole = "candidate"\n[method]\n'


@pytest.fixture(autouse=True)
def _only_the_built_in_kinds():
    """Whatever a test declares is forgotten."""
    before = dict(KINDS)
    yield
    KINDS.clear()
    KINDS.update(before)
    load_foreign_kinds.cache_clear()


def method(**given) -> Method:
    return RecipeCard(id="r", title="R", role="reference", method=given).method


def test_a_kind_that_leaves_a_fact_out_is_no_kind():
    with pytest.raises(TypeError, match=r"'hasty' .* does not say changes_nothing, implementation, of_super_weights$"):

        class Hasty(Experiment):
            kind: Literal["hasty"]

    with pytest.raises(TypeError, match="does not say calibration, next_settings, scale_spans_row, settings_that_keep"):

        class Hastier(Method):
            kind: Literal["hastier"]
            implementation = "nowhere:Nothing"
            compresses = True
            changes_nothing = False
            of_super_weights = False

    assert not {"hasty", "hastier"} & set(KINDS)


def test_a_base_of_kinds_may_leave_facts_to_them():
    class Half(Rounding):
        """Says nothing more."""

    class Whole(Half):
        kind: Literal["whole"]
        implementation = "nowhere:Nothing"

        def settings_that_keep_super_weights(self):
            return []

    assert KINDS["whole"] is Whole
    assert method(kind="whole", **GROUPS).next_settings() == method(kind="rtn", **GROUPS).next_settings()


def test_a_name_is_one_kinds():
    with pytest.raises(TypeError, match=r"'rtn' is declared twice: by superweight\..*RoundToNearest and by .*Other"):

        class Other(RoundToNearest):
            kind: Literal["rtn"]

    assert kind_named("rtn") is RoundToNearest


@pytest.mark.parametrize(
    ("given", "spans"),
    [
        (W8A8, False),
        ({**W8A8, "activations": "tensor"}, True),
        ({**W8A8, "attention_matmuls": True}, True),
        ({**SMOOTH, "activations": "tensor"}, True),
        (SMOOTH, False),
        ({"kind": "rtn", **GROUPS}, False),
        ({"kind": "no-op"}, False),
    ],
)
def test_which_scales_span_a_row(given, spans):
    assert method(**given).scale_spans_row is spans


def test_what_built_in_kinds_say():
    """By hand, from what each does."""
    compressing = {"rtn", "clip-restore", "w8a8", "smoothquant", "integer", "float8", "artefact", "quantiser"}
    assert {name for name, kind in KINDS.items() if kind.compresses} == compressing
    assert {name for name, kind in KINDS.items() if kind.changes_nothing} == {"baseline", "no-op"}
    assert {name for name, kind in KINDS.items() if kind.of_super_weights} == {
        "prune-super-weights",
        "prune-super-weights-keep-activation",
        "scale-super-weights",
    }
    assert method(**SMOOTH).calibration == ("wiki", 8, 512)
    assert method(**W8A8).calibration is method(kind="no-op").calibration is None
    assert method(**W8A8).simulated
    assert not method(**W8A8, execution="integer").simulated
    assert method(kind="scale-super-weights", factor=0.5).super_weight_factor == 0.5
    assert method(kind="prune-super-weights").super_weight_factor == 0
    assert method(kind="prune-super-weights-keep-activation").super_weight_factor is None
    assert method(kind="rtn", **GROUPS).weight_blocks[:2] == (4, 64)
    assert method(kind="rtn", bits=4, granularity="channel").weight_blocks is None


def test_every_shipped_method_is_read_back_from_json():
    for card in load_library().recipes.values():
        written = json.dumps(card.method.model_dump(mode="json")).replace("Infinity", '"inf"')
        assert method_of(json.loads(written)) == card.method
    assert method_of({"kind": "clip-restore", **GROUPS, "z": "inf"}).z == math.inf


@pytest.mark.parametrize("given", [{}, {"kind": "melt"}, {"kind": ["rtn"]}, {"kind": "rtn"}, {"kind": "no-op", "x": 1}])
def test_parameters_of_another_time_are_of_no_method(given):
    assert method_of(given) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('kind = "melt"', ["method.kind: Input should be", "'rtn'", "'smoothquant'", "(found: 'melt')"]),
        ("bits = 4", ["method.kind: Field required"]),
        ('kind = "no-op"\nbits = 4', ["method.bits", "(found: 4); allowed keys: kind"]),
        ('kind = "rtn"\nbits = 9\ngranularity = "channel"', ["method.bits: Input should be less", "(found: 9)"]),
        ('kind = "rtn"\nbits = "4"\ngranularity = "channel"', ["method.bits: Input should be a valid integer"]),
    ],
)
def test_a_bad_method_names_file_key_found_and_allowed(tmp_path, text, words):
    path = tmp_path / "r.toml"
    path.write_text(CARD + text)
    with pytest.raises(CardError) as caught:
        read_card(path, RecipeCard)
    assert all(word in str(caught.value) for word in ["r.toml", *words]), caught.value


def test_a_method_that_is_no_table(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(CARD.replace("[method]\n", 'method = "rtn"\n'))
    with pytest.raises(CardError, match=r"method: Input should be a table with a 'kind'.*found: 'rtn'"):
        read_card(path, RecipeCard)


def test_a_corpus_of_calibration_that_is_not_there(tmp_path):
    given = "".join(f"{name} = {json.dumps(value)}\n" for name, value in {**SMOOTH, "calibration_corpus": "no"}.items())
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "r.toml").write_text(CARD + given)
    with pytest.raises(CardError, match="recipe card 'r': method: corpus of calibration: 'no' is not a known id"):
        load_library([tmp_path])
    assert KINDS["smoothquant"] is SmoothQuant


KIND = """
from typing import Literal
from superweight.cards import foreign_kinds
from superweight.cards.foreign_kinds import load_foreign_kinds
from superweight.cards.methods.experiments import Experiment

class Sleep(Experiment):
    kind: Literal["sleep"]
    implementation = "asleep:SleepRecipe"
    changes_nothing = True
    of_super_weights = False
"""


def install(place, monkeypatch, module):
    """A package `asleep` with an entry point, as an installer leaves it."""
    (place / "asleep.py").write_text(module)
    about = place / "asleep-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: asleep\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text(f"[{foreign_kinds.GROUP}]\nsleep = asleep\n")
    monkeypatch.syspath_prepend(str(place))
    sys.modules.pop("asleep", None)
    load_foreign_kinds.cache_clear()


def test_kinds_of_an_installed_package_are_known(tmp_path, monkeypatch):
    assert method_of({"kind": "sleep"}) is None
    install(tmp_path, monkeypatch, KIND)
    assert method_of({"kind": "sleep"}).changes_nothing
    assert method(kind="sleep").kind == "sleep"


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("import not_there", "ModuleNotFoundError: No module named 'not_there'"),
        (KIND.replace("changes_nothing = True", ""), "TypeError: recipe kind 'sleep' .* does not say changes_nothing"),
        (KIND.replace('"sleep"', '"rtn"'), "TypeError: recipe kind 'rtn' is declared twice"),
    ],
)
def test_a_package_whose_kinds_cannot_be_imported_is_named(tmp_path, monkeypatch, module, words):
    install(tmp_path, monkeypatch, module)
    with pytest.raises(CardError, match=rf"(?s)entry point 'sleep = asleep' .* of asleep 1\.2: .*{words}"):
        load_library()
    assert method_of({"kind": "sleep"}) is None
