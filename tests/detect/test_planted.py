"""Planted super weights are found, with their coordinates and standing, in every architecture; decoys are not."""

import math

import pytest
import torch

from superweight.cards.base import Coordinate
from superweight.detect import detect
from support.tiny import ARCHITECTURES, FOLLOWS, MIXTURES, WORDS, Plant, tiny

POST_NORM = ("olmo2", "gemma2", "gemma3_text")


def at(kind, layer, row, column):
    return Coordinate(layer=layer, expert=2 if kind in MIXTURES else None, row=row, column=column)


def run(model):
    return detect(model.loaded, prompt=model.prompt, text_ids=model.text)


def statuses(found):
    return {weight.coordinate: weight.status for weight in found.found}


def fingerprint(model):
    """The bits of every parameter."""
    return {name: parameter.detach().clone().view(torch.int32) for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_unplanted_model_has_none(kind):
    model = tiny(kind)
    found = run(model)
    assert found.found == ()
    # The head knows the chain: perplexity is the exponential of its entropy, up to what 1020 sampled tokens allow.
    successor, other = FOLLOWS + (1 - FOLLOWS) / WORDS, (1 - FOLLOWS) / WORDS
    entropy = -successor * math.log(successor) - (WORDS - 1) * other * math.log(other)
    assert math.log(found.perplexity) == pytest.approx(entropy, abs=0.12)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_one_beside_a_decoy(kind):
    """The largest weight of the matrix, whose input is never active, is no super weight."""
    where, decoy = at(kind, 1, 5, 7), at(kind, 1, 9, 11)
    model = tiny(kind, [Plant(where), Plant(decoy, decoy=True)])
    before = fingerprint(model.loaded.model)
    found = run(model)
    assert statuses(found) == {where: "causal"}
    assert abs(model.values[decoy]) > abs(model.values[where])
    (weight,) = found.found
    activation = found.super_activations[weight.activation]
    assert weight.value == model.values[where]
    assert weight.effect > 2
    assert weight.null_effect == pytest.approx(1, abs=0.01)
    assert weight.contribution == pytest.approx(1, abs=0.01)
    assert weight.suppression > 0.8
    assert (activation.layer, activation.channel, activation.first_layer, activation.last_layer) == (1, 5, 1, 5)
    after = fingerprint(model.loaded.model)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_two_in_one_row(kind):
    """Neither explains the output alone. Where a norm follows, either can go alone, and only both together do harm."""
    one, two = at(kind, 1, 5, 7), at(kind, 1, 5, 20)
    found = run(tiny(kind, [Plant(one, spike=400), Plant(two, spike=400)]))
    expected = "spoke" if kind in POST_NORM else "causal"
    assert statuses(found) == {one: expected, two: expected}
    (row,) = [group for group in found.groups if group.kind == "row"]
    assert row.effect > 10 * max(weight.effect for weight in found.found)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_three_spokes_in_one_column(kind):
    spokes = [at(kind, 1, row, 7) for row in (5, 17, 40)]
    found = run(tiny(kind, [Plant(spoke) for spoke in spokes]))
    assert set(statuses(found)) == set(spokes)
    if kind != "olmo2":  # whose later layers read the spikes without a norm, so that each matters
        assert set(statuses(found).values()) == {"spoke"}
        assert {weight.group for weight in found.found} == {"column"}
        assert max(weight.effect for weight in found.found) < 1.05
    assert all(weight.group_effect > 100 for weight in found.found)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_late_spike_that_cancels_is_not_listed(kind):
    cause, canceller = at(kind, 1, 5, 7), at(kind, 4, 5, 30)
    model = tiny(kind, [Plant(cause), Plant(canceller, spike=-600)])
    found = run(model)
    assert statuses(found) == {cause: "causal"}
    assert canceller not in {weight.coordinate for weight in found.super_weights}
    (weight,) = found.found
    assert found.super_activations[weight.activation].last_layer == 3
    # By output alone the canceller looks like the cause: it writes as much.
    written = [abs(peaks.down_output.value) for peaks in found.peaks]
    assert written[4] > 0.5 * written[1]
