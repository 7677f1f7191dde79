"""Cards of the kinds that can be written to files: what fits together, and what `exclude` names."""

import pytest
from pydantic import ValidationError

from superweight.cards import RecipeCard
from superweight.cards.methods import method_of

W4 = {"kind": "integer", "bits": 4, "symmetric": True, "granularity": "group", "group_size": 64}


def method(**given):
    return RecipeCard(id="r", title="R", role="reference", method=given).method


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"group_size": None}, "granularity 'group' needs group_size"),
        ({"granularity": "channel"}, "granularity 'channel' does not take group_size"),
        ({"granularity": "block"}, "Input should be 'tensor', 'channel' or 'group'"),
        ({"bits": 9}, "less than or equal to 8"),
        ({"z": float("nan")}, "z should be a number above 0|greater than 0"),
        ({"symmetric": False, "full_range": True}, "full_range is about symmetric codes"),
        ({"activations": "token"}, "need 8-bit symmetric weights per channel or tensor"),
        ({"exclude": ["re:("]}, "is no regular expression"),
        ({"exclude": [""]}, "an empty name excludes nothing"),
        ({"exclude": ["re:"]}, "an empty name excludes nothing"),
        ({"exclude": "lm_head"}, "tuple"),
        ({"scale_dtype": "float64"}, "Input should be"),
    ],
)
def test_what_does_not_fit_together(changed, told):
    with pytest.raises(ValidationError, match=told):
        method(**{**W4, **changed})


def test_what_exclude_names():
    found = method(**W4, exclude=["re:model[.]layers[.]1[.]", "lm_head", "super-weight-modules"])
    assert found.excludes("model.layers.1.mlp.up_proj", holds_super_weights=False)
    assert not found.excludes("model.layers.11.mlp.up_proj", holds_super_weights=False)
    assert found.excludes("model.layers.11.mlp.down_proj", holds_super_weights=True)
    assert not found.excludes("x.lm_head", holds_super_weights=False)
    assert found.idle(["model.layers.1.mlp.up_proj"]) == ["lm_head"]


def test_parameters_read_back():
    for given in (W4, {"kind": "float8", "granularity": "tensor", "activations": "token", "exclude": ["lm_head"]}):
        found = method(**given)
        assert method_of(found.model_dump(mode="json")) == found


def test_advice_never_names_what_is_set():
    assert not any("symmetric = false" in line for line in method(**{**W4, "symmetric": False}).next_settings())
    assert any("group_size = 32" in line for line in method(**W4).next_settings())
    assert method(**W4).weight_blocks == (4, 64, "round to nearest, symmetric")
    assert "super_weights = 'restored'" in method(**W4).settings_that_keep_super_weights()[0]
    assert "are kept" in method(**W4, super_weights="restored").settings_that_keep_super_weights()[0]
