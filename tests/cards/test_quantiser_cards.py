"""Cards that name somebody else's quantiser: settings by tool, text for those that need it, and who asks for them."""

import json
from typing import get_args

import pytest

from superweight.cards import RecipeCard, load_library, read_card
from superweight.cards.load import builtin_cards
from superweight.cards.methods import Quantiser, method_of
from superweight.cards.methods.tools import TOOLS
from superweight.errors import CardError

CARD = 'id = "r"\ntitle = "R"\nrole = "candidate"\n[method]\nkind = "quantiser"\n'
NF4 = {"tool": "bitsandbytes", "settings": {"format": "nf4"}}
GPTQ = {"tool": "gptqmodel", "settings": {"bits": 4}, "calibration_corpus": "web-embedded"}


@pytest.fixture(scope="module")
def library():
    return load_library()


def quantiser(tool, **given) -> Quantiser:
    text = {key: given.pop(key) for key in list(given) if key.startswith("calibration") or key == "environment"}
    return Quantiser(kind="quantiser", tool=tool, settings=given, **text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["method.tool: Field required"]),
        ("tool = 3", ["method.tool: Input should be a valid string (found: 3)"]),
        ('tool = "melt"', ["method.tool: Input should be 'auto-round', 'bitsandbytes', ", "(found: 'melt')"]),
        ('tool = "torchao"', ["method.settings.format: Field required"]),
        ('tool = "torchao"\nsettings = 1', ["method.settings: Input should be"]),
        ('tool = "torchao"\ncolour = 1', ["method.colour: ", "allowed keys: kind, tool, settings, environment"]),
        (
            'tool = "torchao"\n[method.settings]\nformat = "int8-dynamic"\ncolour = "red"',
            ["method.settings.colour: ", "(found: 'red'); allowed keys: ignore, dtype, format, group_size"],
        ),
        ('tool = "torchao"\n[method.settings]\nformat = "int9"', ["method.settings.format: ", "'int8-weight-only'", "'int9'"]),
        ('tool = "quanto"\n[method.settings]\nweights = "int8"\nignore = ["a b"]', ["method.settings.ignore.0: ", "'a b'"]),
        ('tool = "quanto"\nenvironment = "mars"\n[method.settings]\nweights = "int8"', ["method.environment: ", "'gptq'"]),
        ('tool = "torchao"\n[method.settings]\nformat = "int8-dynamic"\ngroup_size = 64', ["does not take group_size"]),
        ('tool = "bitsandbytes"\n[method.settings]\nformat = "int8"\nnested = true', ["does not take nested"]),
        ('tool = "compressed-tensors"\n[method.settings]\npreset = "W8A8"\ngroup_size = 64', ["takes no group_size"]),
        ('tool = "openvino"\n[method.settings]\nmode = "int8_sym"\nratio = 0.5', ["does not take ratio"]),
        ('tool = "auto-round"\n[method.settings]\nbits = 4', ["format 'auto_round' needs group_size"]),
        ('tool = "auto-round"\n[method.settings]\nformat = "gguf:q4_0"\nbits = 4', ["does not take bits"]),
        ('tool = "auto-round"\n[method.settings]\nformat = "gguf:q4_0"\nsym = false', ["does not take sym"]),
        (
            'tool = "auto-round"\n[method.settings]\nbits = 4\ngroup_size = 64\niters = 20',
            ["tool 'auto-round' with these settings needs calibration_corpus"],
        ),
        ('tool = "gptqmodel"\n[method.settings]\nbits = 4', ["needs calibration_corpus"]),
        ('tool = "gptqmodel"\n[method.settings]\nbits = 5', ["method.settings.bits: Input should be 2, 3, 4 or 8"]),
        (
            'tool = "torchao"\ncalibration_corpus = "wiki-embedded"\n[method.settings]\nformat = "int8-dynamic"',
            ["tool 'torchao' looks at no text and does not take calibration_corpus"],
        ),
        ('tool = "optimum-gptq"\n[method.settings]\nbits = 4\nignore = ["lm_head"]', ["method.settings.ignore: Extra"]),
    ],
)  # fmt: skip
def test_a_bad_card_names_the_key_what_was_found_and_what_is_allowed(tmp_path, text, words):
    path = tmp_path / "r.toml"
    path.write_text(CARD + text)
    with pytest.raises(CardError) as caught:
        read_card(path, RecipeCard)
    assert all(word in str(caught.value) for word in ["r.toml", *words]), caught.value


def test_a_corpus_that_is_not_there(tmp_path):
    (tmp_path / "recipes").mkdir()
    text = 'tool = "gptqmodel"\ncalibration_corpus = "nowhere"\n[method.settings]\nbits = 4'
    (tmp_path / "recipes" / "r.toml").write_text(CARD + text)
    with pytest.raises(CardError, match="recipe card 'r': method: corpus of calibration: 'nowhere' is not a known id"):
        load_library([tmp_path])


def test_what_is_true_of_it():
    """By hand, from what the tools do."""
    nf4, int8 = quantiser("bitsandbytes", format="nf4"), quantiser("bitsandbytes", format="int8")
    assert (nf4.scale_spans_row, int8.scale_spans_row) == (False, True)
    assert quantiser("onnx").scale_spans_row
    assert nf4.calibration is None
    gptq = quantiser("gptqmodel", bits=4, calibration_corpus="wiki", calibration_windows=2)
    assert gptq.calibration == ("wiki", 2, 512)
    assert (nf4.place, gptq.place, quantiser("onnx").place) == ("", "gptq", "onnx")
    assert quantiser("onnx", environment="here").place == ""
    assert quantiser("quanto", weights="int8", environment="gptq").place == "gptq"
    assert (
        "set run_before_saving = false"
        in quantiser("bitsandbytes", format="nf4", run_before_saving=True).next_settings()[0]
    )
    assert "settings.ignore" in nf4.settings_that_keep_super_weights()[0]
    tuned = quantiser("auto-round", bits=4, group_size=64, iters=20, calibration_corpus="wiki")
    assert "iters = 0" in tuned.settings_that_keep_super_weights()[0]
    assert (
        "tool = 'gptqmodel'"
        in quantiser("optimum-gptq", bits=4, calibration_corpus="wiki").settings_that_keep_super_weights()[0]
    )


def test_settings_are_read_back_from_json():
    for given in (NF4, GPTQ, {"tool": "auto-round", "settings": {"format": "gguf:q4_k_m"}}, {"tool": "onnx"}):
        method = Quantiser(kind="quantiser", **given)
        assert method_of(json.loads(json.dumps(method.model_dump(mode="json")))) == method


def test_every_tool_has_a_card_and_every_environment_a_file(library):
    methods = [card.method for card in library.recipes.values() if card.method.kind == "quantiser"]
    assert {method.tool for method in methods} == set(TOOLS)
    named = {tool.environment for tool in TOOLS.values()} - {""}
    assert named == {path.stem for path in (builtin_cards() / "environments").glob("*.txt")}
    field = get_args(get_args(Quantiser.model_fields["environment"].annotation)[0])
    assert set(field) == {"here", *named}


def test_they_are_measured_where_a_tier_names_them(library):
    """Everything else of the gate runs in any installation of it."""
    theirs = {name for name, card in library.recipes.items() if card.method.kind == "quantiser"}
    asked = {
        tier: {name for name, card in library.recipes.items() if library.tiers[tier].measures(card)}
        for tier in library.tiers
    }
    for tier in ("smoke", "nightly", "release"):
        assert not theirs & asked[tier]
    assert asked["nightly"] == set(library.recipes) - theirs
    assert len(theirs & asked["quantisers"]) > 15
    assert {"baseline", "no-op", "prune-super-weights"} <= asked["quantisers"]


def test_a_required_recipe_that_only_a_name_asks_for(tmp_path):
    (tmp_path / "tiers").mkdir()
    text = 'id = "smoke"\ntitle = "T"\nmodels = ["*"]\nrecipes = ["*"]\nrequired = ["quanto-int8"]\ntasks = []\n'
    (tmp_path / "tiers" / "t.toml").write_text(text + '[[perplexity]]\ncorpus = "wiki-embedded"\nwindow = 64\n')
    with pytest.raises(CardError, match="required: 'quanto-int8': 'quanto-int8' is not one of the tier's recipes"):
        load_library([tmp_path])
