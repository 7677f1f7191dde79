import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.compress import apply
from superweight.compress.pruning import restore_activation
from superweight.errors import InfraError

PRUNE = {"kind": "prune-super-weights"}
KEEP = {"kind": "prune-super-weights-keep-activation"}


def bits_that_differ(loaded, before):
    """(name, flat index) of every scalar that is not what it was."""
    return [
        (name, index)
        for name, parameter in loaded.model.named_parameters()
        for index in (parameter != before[name]).flatten().nonzero().flatten().tolist()
    ]


def copies(loaded):
    return {name: parameter.clone() for name, parameter in loaded.model.named_parameters()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_prune_zeroes_the_super_weight_and_nothing_else(tiny, context, recipe, place, dtype):
    loaded = tiny(dtype=dtype)
    loaded.architecture.scalar(place).fill_(-3.0)
    before = copies(loaded)
    with apply(recipe(**PRUNE), context(loaded, place)) as applied:
        assert bits_that_differ(loaded, before) == [("model.layers.1.mlp.down_proj.weight", 5 * 40 + 33)]
        assert applied.changed == ("model.layers.1.mlp.down_proj.weight",)
        assert applied.stored(place).item() == 0.0
        assert not torch.signbit(applied.stored(place))
    assert not bits_that_differ(loaded, before)


def test_conv1d_and_experts_are_indexed_as_stored(tiny, context, recipe, place, expert_place):
    gpt2 = tiny("gpt2")  # (40 in, 16 out)
    before = copies(gpt2)
    apply(recipe(**PRUNE), context(gpt2, place))
    assert bits_that_differ(gpt2, before) == [("transformer.h.1.mlp.c_proj.weight", 33 * 16 + 5)]
    mixtral = tiny("mixtral")  # (3, 16, 40)
    before = copies(mixtral)
    apply(recipe(**PRUNE), context(mixtral, expert_place))
    assert bits_that_differ(mixtral, before) == [("model.layers.1.mlp.experts.down_proj", 2 * 640 + 5 * 40 + 33)]
    oss = tiny("gpt_oss")  # (3, 40, 16)
    before = copies(oss)
    apply(recipe(**PRUNE), context(oss, expert_place))
    assert bits_that_differ(oss, before) == [("model.layers.1.mlp.experts.down_proj", 2 * 640 + 33 * 16 + 5)]


@pytest.mark.parametrize("factor", [0.5, 1.5, -2.0])
def test_scale(tiny, context, recipe, place, factor):
    loaded = tiny(dtype=torch.bfloat16)
    value = loaded.architecture.scalar(place).fill_(1.7).clone()
    with apply(recipe(kind="scale-super-weights", factor=factor), context(loaded, place)) as applied:
        assert torch.equal(applied.stored(place), (value.float() * factor).bfloat16())


def test_scale_by_one_changes_no_bit(tiny, context, recipe, place):
    applied = apply(recipe(kind="scale-super-weights", factor=1.0), context(tiny(), place))
    assert applied.changed == ()
    assert applied.rewritten == ("model.layers.1.mlp.down_proj.weight",)


def test_restored_activation_by_hand():
    # sequence 0: X[:, 1] = 1, −8, 3: token 1 is the largest; −8 · 0.5 = −4 goes to channel 2 of token 1
    # sequence 1: X[:, 1] = 2, 0, 0: token 0; 2 · 0.5 = 1
    x = torch.tensor([[[9.0, 1.0], [9.0, -8.0], [9.0, 3.0]], [[0.0, 2.0], [50.0, 0.0], [0.0, 0.0]]])
    y = torch.full((2, 3, 4), 0.25)
    restored = restore_activation(y, x, Coordinate(layer=0, row=2, column=1), torch.tensor(0.5))
    assert (restored - y).nonzero().tolist() == [[0, 1, 2], [1, 0, 2]]
    assert restored[0, 1, 2].item() == -3.75
    assert restored[1, 0, 2].item() == 1.25


def output(loaded, x):
    return loaded.model.model.layers[1].mlp.down_proj(x)


def test_keep_activation_puts_back_one_entry_a_sequence(tiny, context, recipe, place):
    loaded = tiny()
    loaded.architecture.scalar(place).fill_(4.0)
    x = torch.randn(2, 6, 40, generator=torch.Generator().manual_seed(8))
    x[0, 3, 33], x[1, 0, 33] = 70.0, -90.0
    original = output(loaded, x)
    with apply(recipe(**PRUNE), context(loaded, place)):
        pruned = output(loaded, x)
    with apply(recipe(**KEEP), context(loaded, place)) as applied:
        kept = output(loaded, x)
        assert applied.hooks == ("model.layers.1.mlp.down_proj",)
        assert applied.stored(place).item() == 0.0
    assert (kept != pruned).nonzero().tolist() == [[0, 3, 5], [1, 0, 5]]
    torch.testing.assert_close(kept[0, 3], original[0, 3])
    torch.testing.assert_close(kept[1, 0], original[1, 0])
    assert not torch.allclose(kept, original)  # the other tokens' share stays lost
    assert torch.equal(output(loaded, x), original)


def test_keep_activation_with_two_super_weights_in_one_row(tiny, context, recipe):
    loaded = tiny()
    places = [Coordinate(layer=1, row=5, column=3), Coordinate(layer=1, row=5, column=33)]
    x = torch.zeros(1, 4, 40)
    x[0, 1, 3], x[0, 2, 33] = 10.0, -20.0
    original = output(loaded, x)
    with apply(recipe(**KEEP), context(loaded, *places)):
        torch.testing.assert_close(output(loaded, x), original)  # every contribution was a largest one


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_keep_activation_inside_an_expert(tiny, context, recipe, logits, expert_place, kind):
    loaded = tiny(kind)
    loaded.architecture.scalar(expert_place).fill_(20.0)
    original = logits(loaded)
    with apply(recipe(**PRUNE), context(loaded, expert_place)):
        pruned = (logits(loaded) - original).square().sum()
    with apply(recipe(**KEEP), context(loaded, expert_place)) as applied:
        kept = (logits(loaded) - original).square().sum()
        assert applied.hooks == ("model.layers.1.mlp.experts",)
    assert 0 < kept < pruned
    assert torch.equal(logits(loaded), original)


def brute_force(loaded, count, spared):
    """(name, flat index) of the largest magnitudes, first come first of equal ones."""
    entries = []
    for order, weight in enumerate(loaded.architecture.linear_weights):
        for index, value in enumerate(weight.parameter.flatten().tolist()):
            if (weight.name, index) != spared:
                entries.append((-abs(value), order, index, weight.name))
    return sorted((name, index) for _, _, index, name in sorted(entries)[:count])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # bfloat16 is full of equal magnitudes
@pytest.mark.parametrize("count", [1, 50, 333])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_largest_others(tiny, context, recipe, place, kind, dtype, count, monkeypatch):
    monkeypatch.setattr("superweight.compress.pruning.piece_elements", lambda device: 100)
    loaded = tiny(kind, dtype)
    loaded.architecture.scalar(place).fill_(100.0)
    before = copies(loaded)
    down = loaded.architecture.down_projections[1]
    spared = (down.name, {"llama": 5 * 40 + 33, "gpt2": 33 * 16 + 5}[kind])
    expected = brute_force(loaded, count, spared)
    card = recipe(kind="prune-largest-others", count=count)
    with apply(card, context(loaded, place)) as applied:
        assert sorted(bits_that_differ(loaded, before)) == expected
        assert applied.figures["pruned"] == count
        assert applied.stored(place).item() == 100.0
        assert set(applied.changed) == {name for name, _ in expected}
    assert not bits_that_differ(loaded, before)


def test_more_than_there_are(tiny, context, recipe):
    with pytest.raises(InfraError, match="Lower count") as error:
        apply(recipe(kind="prune-largest-others", count=10**6), context(tiny()))
    assert error.value.reason == "recipe-mismatch"


@pytest.mark.parametrize("method", [PRUNE, KEEP, {"kind": "scale-super-weights", "factor": 2.0}])
def test_controls_without_super_weights_prove_nothing(tiny, context, recipe, method):
    with pytest.raises(InfraError, match=r"tiny llama.*neither its card nor detection") as error:
        apply(recipe(**method), context(tiny()))
    assert error.value.reason == "not-applicable"
