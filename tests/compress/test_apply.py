import pytest
import torch
from torch import nn

from superweight.cards.base import Coordinate
from superweight.cards.methods import KINDS
from superweight.compress import Context, Recipe, apply, recipe_of
from superweight.errors import InfraError

METHODS = [
    {"kind": "baseline"},
    {"kind": "no-op"},
    {"kind": "rtn", "bits": 4, "granularity": "channel"},
    {"kind": "clip-restore", "bits": 4, "granularity": "block", "block_size": 64, "z": 2.0},
    {"kind": "w8a8", "weights": "tensor", "activations": "tensor", "super_activations": "handled"},
    {"kind": "prune-super-weights"},
    {"kind": "prune-super-weights-keep-activation"},
    {"kind": "prune-largest-others", "count": 20},
    {"kind": "scale-super-weights", "factor": 0.5},
    {"kind": "roll-channels"},
    {"kind": "integer", "bits": 4, "symmetric": False, "granularity": "channel"},
    {"kind": "float8", "granularity": "tensor", "activations": "token"},
]


SMOOTH = {"kind": "smoothquant", "alpha": 0.5, "weights": "channel", "activations": "token", "calibration_corpus": "x"}


def test_every_kind_of_card_has_a_recipe(recipe):
    made = {method["kind"]: recipe_of(recipe(**method).method) for method in [*METHODS, SMOOTH]}
    assert all(isinstance(one, Recipe) for one in made.values())
    assert set(made) == {name for name, kind in KINDS.items() if kind.implementation.startswith("superweight.")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["kind"])
def test_says_what_changed_and_undoes_it(tiny, context, recipe, digest, place, method, kind, dtype):
    loaded = tiny(kind, dtype)
    before = digest(loaded.model)
    applied = apply(recipe(**method), context(loaded, place))
    after = digest(loaded.model)
    assert set(applied.changed) == {name for name in before if before[name] != after[name]}
    assert set(applied.changed) <= set(applied.rewritten)
    applied.undo()
    assert digest(loaded.model) == before
    applied.undo()
    assert digest(loaded.model) == before


def test_no_op_rewrites_everything_and_changes_nothing(tiny, context, recipe):
    loaded = tiny()
    applied = apply(recipe(kind="no-op"), context(loaded))
    assert applied.changed == ()
    assert len(applied.rewritten) == len(loaded.architecture.linear_weights) == 14


def test_odd_bits_survive_rewriting_and_undo(tiny, context, recipe, digest):
    loaded = tiny()
    weight = loaded.architecture.linear_weights[0].parameter
    weight.view(-1)[:3] = torch.tensor([0x7FC12345, -2147483648, 1], dtype=torch.int32).view(torch.float32)
    before = digest(loaded.model)  # a NaN with a payload, −0.0 and a subnormal
    with apply(recipe(kind="no-op"), context(loaded)) as applied:
        assert applied.changed == ()
    with apply(recipe(kind="rtn", bits=4, granularity="channel"), context(loaded)):
        pass
    assert digest(loaded.model) == before


def test_undone_when_the_block_under_it_fails(tiny, context, recipe, digest):
    loaded = tiny()
    before = digest(loaded.model)
    with pytest.raises(ZeroDivisionError), apply(recipe(**METHODS[4]), context(loaded)):
        raise ZeroDivisionError
    assert digest(loaded.model) == before


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_recipe_that_fails_midway_leaves_the_model_as_it_was(
    tiny, context, recipe, digest, logits, monkeypatch, error
):
    loaded = tiny()
    before, expected = digest(loaded.model), logits(loaded)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("superweight.compress.applied.measure", fail)  # after the weights, and after the forwards
    with pytest.raises(error):
        apply(recipe(**METHODS[4]), context(loaded))
    assert digest(loaded.model) == before
    assert torch.equal(logits(loaded), expected)


def test_recipes_follow_each_other_on_one_model(tiny, context, recipe, place, digest):
    loaded = tiny()
    before = digest(loaded.model)
    shared = context(loaded, place)
    for method in METHODS:
        with apply(recipe(**method), shared):
            pass
        assert digest(loaded.model) == before, method["kind"]


def test_a_coordinate_outside_the_model(tiny, context, recipe):
    with pytest.raises(InfraError, match="outside"):
        apply(recipe(kind="prune-super-weights"), context(tiny(), Coordinate(layer=0, row=16, column=0)))


class Empty(nn.Module):
    """A decoder whose layers have no linear weight."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.LayerNorm(4)])
        self.config = type("Config", (), {"hidden_size": 4})()


@pytest.mark.parametrize("method", [method for method in METHODS if method["kind"][0] in "rcwif"])
def test_a_model_without_linear_weights(tiny, recipe, method):
    loaded = tiny()
    loaded.model = Empty()
    with pytest.raises(InfraError, match=r"Empty has none in its 1 layers") as error:
        apply(recipe(**method), Context(loaded))
    assert error.value.reason == "recipe-mismatch"


def test_a_parameter_that_two_modules_share_is_rounded_once(tiny, context, recipe, digest):
    loaded = tiny()
    layers = loaded.model.model.layers
    layers[1].mlp.up_proj.weight = layers[0].mlp.up_proj.weight
    weight = layers[0].mlp.up_proj.weight
    before, total = digest(loaded.model), sum(p.numel() for p in loaded.model.parameters())
    with apply(recipe(kind="rtn", bits=2, granularity="tensor"), context(loaded)) as applied:
        assert len(weight.unique()) <= 4
        assert applied.size.parameters == total
        assert applied.size.weights == sum(w.parameter.numel() for w in loaded.architecture.linear_weights) - 640
    assert digest(loaded.model) == before


def test_baseline_size_is_the_checkpoints(tiny, context, recipe):
    size = apply(recipe(kind="baseline"), context(tiny(dtype=torch.bfloat16))).size
    assert size.compressed_bits_per_weight == size.model_bits_per_weight == 16
    assert size.parts == {"codes": 16 * size.weights}
