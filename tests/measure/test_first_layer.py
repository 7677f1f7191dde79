"""Where forward passes may begin under a recipe."""

from types import SimpleNamespace

import pytest

from superweight.measure.model_in_memory import _first_layer

UP, DOWN = "model.layers.{}.mlp.up_proj.weight", "model.layers.{}.mlp.down_proj.weight"


@pytest.mark.parametrize(
    ("rewritten", "hooks", "expected"),
    [
        ([DOWN.format(11)], [], 11),
        ([DOWN.format(11), UP.format(2)], [], 2),
        ([DOWN.format(11)], ["model.layers.4.mlp.down_proj"], 4),
        ([], ["model.layers.4.mlp.down_proj"], 4),
        ([DOWN.format(0)], [], 0),
        ([DOWN.format(11), "model.embed_tokens.weight"], [], 0),
        ([DOWN.format(11)], ["lm_head"], 0),
        ([DOWN.format(11), "model.layers_of_another_stack.3.weight"], [], 0),
        ([], [], 0),  # a control that changes nothing is measured from the beginning
    ],
)
def test_passes_begin_at_the_first_layer_touched(rewritten, hooks, expected):
    applied = SimpleNamespace(rewritten=tuple(rewritten), hooks=tuple(hooks))
    assert _first_layer("model.layers", applied) == expected
