"""Detection on a real model: the embedded checkpoint."""

import pytest

from superweight.cards.base import Coordinate, KnownSuperWeight
from superweight.checkpoint import load_model
from superweight.detect import detect

pytestmark = pytest.mark.real


def test_what_is_found_in_the_embedded_model(embedded):
    """In one test, since detection takes a minute and workers share no fixture."""
    late = KnownSuperWeight(layer=28, row=507, column=678, status="inert", source="a test")
    found = detect(load_model(embedded, compute_dtype="bfloat16"), known=[late])
    the_published_super_weight_is_causal(found)
    the_late_cancelling_spike_is_inert(found)
    the_other_causal_ones_stand_on_their_effect(found)


def by_coordinate(found):
    return {(w.coordinate.layer, w.coordinate.row, w.coordinate.column): w for w in found.super_weights}


def the_published_super_weight_is_causal(found):
    weight = by_coordinate(found)[11, 507, 1229]
    assert weight.status == "causal"
    assert weight.origin == "detection"
    assert weight.value == pytest.approx(5.8757, abs=5e-5)
    assert weight.effect > 3  # 19.9 → 138.8 on WikiText-2
    assert weight.suppression == pytest.approx(0.72, abs=0.05)
    activation = found.super_activations[weight.activation]
    assert (activation.channel, activation.token, activation.first_layer, activation.last_layer) == (507, 0, 11, 27)


def the_late_cancelling_spike_is_inert(found):
    weight = by_coordinate(found)[28, 507, 678]
    assert (weight.status, weight.origin) == ("inert", "card")
    assert weight.effect == pytest.approx(1, abs=0.02)


def the_other_causal_ones_stand_on_their_effect(found):
    """The second term of the same output, and the two behind an earlier spike that layers 8 to 10 remove."""
    causal = {where: weight for where, weight in by_coordinate(found).items() if weight.status == "causal"}
    assert set(causal) == {(11, 507, 1229), (11, 507, 1487), (2, 507, 90), (2, 507, 430)}
    for weight in causal.values():
        assert weight.effect >= 1.05
        assert weight.effect > weight.null_effect
        assert weight.interval[0] > 1
    pair = {Coordinate(layer=11, row=507, column=column) for column in (1229, 1487)}
    (both,) = [group for group in found.groups if set(group.members) == pair]
    assert both.effect > 100 * causal[11, 507, 1229].effect
